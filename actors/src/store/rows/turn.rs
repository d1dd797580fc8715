//! Owning a partition and writing its turns. It must never write for an owner whose fence is void.

use super::{RowError, Write, dead};
use crate::domain::ids::{ClientNo, PartitionId, Sku};
use crate::domain::promise::ToldEstimate;
use crate::domain::time::Timestamp;
use crate::ports::announcement::StockChange;
use crate::ports::store::{CommitError, Fence, Lane, NewEstimate, NewFacts, Points, TurnCommit};
use crate::store::format::{self, CommandHead, PartitionRow};
use crate::store::keys::{self, Table};

/// Raises the epoch, to `epoch_min` at least; see [`crate::ports::store::Store::take`].
///
/// # Errors
/// When rows cannot be read or written.
pub fn take(
    write: &mut Write<'_>,
    partition: PartitionId,
    nonce: u64,
    epoch_min: u64,
) -> Result<Result<Fence, CommitError>, RowError> {
    if write.room == super::Room::Nothing {
        return Ok(Err(CommitError::Full));
    }
    let mut row = write.partition(partition)?;
    row.trouble.start();
    let epoch = (row.epoch + 1).max(epoch_min);
    write.set_partition(partition, &PartitionRow { epoch, nonce, ..row })?;
    Ok(Ok(Fence { partition, epoch, nonce }))
}

/// Makes every fence void that was handed out so far.
///
/// # Errors
/// When rows cannot be read or written.
pub fn depose(write: &mut Write<'_>, partition: PartitionId, nonce: u64) -> Result<(), RowError> {
    let row = write.partition(partition)?;
    if row.epoch == 0 {
        return Ok(());
    }
    write.set_partition(partition, &PartitionRow { nonce, ..row })
}

/// Writes a turn; see [`crate::ports::store::Store::commit`].
///
/// # Errors
/// [`RowError::Broken`] when it takes an entry that is not there or rewrites a version;
/// otherwise when rows cannot be read or written.
pub fn commit(
    write: &mut Write<'_>,
    fence: Fence,
    turn: &TurnCommit,
) -> Result<Result<(), CommitError>, RowError> {
    let row = write.partition(fence.partition)?;
    if (row.epoch, row.nonce) != (fence.epoch, fence.nonce) {
        return Ok(Err(CommitError::Conflict));
    }
    if !write.room.admits(Lane::Control) {
        return Ok(Err(CommitError::Full));
    }
    let home = fence.partition;
    let kept = dead::entries(&*write.rows, home, &turn.dead)?;
    for &(lane, n) in &turn.taken {
        write.dequeue(home, lane, n)?;
    }
    for (id, command) in &turn.created {
        let head = CommandHead { client: ClientNo::HOUSE, digest: format::digest(command, None) };
        write.put_chunked(Table::Tx, &keys::command(*id), &format::encode_command(&head, command))?;
    }
    for new in &turn.facts {
        write_facts(write, new)?;
    }
    write_ledger(write, home, turn)?;
    write_standing(write, home, turn)?;
    dead::settle(write, home, turn)?;
    dead::keep(write, home, &turn.dead, &kept)?;
    let trouble = turn.trouble.clone().unwrap_or_else(|| row.trouble.clone());
    if row.wake_at != turn.wake_at || row.trouble != trouble {
        write.set_partition(home, &PartitionRow { wake_at: turn.wake_at, trouble, ..row })?;
    }
    Ok(Ok(()))
}

fn write_facts(write: &mut Write<'_>, new: &NewFacts) -> Result<(), RowError> {
    // The fact before the first must be there, or the fold would end early and hide these.
    let before = match new.first_version {
        0 => return Err(RowError::Broken(format!("{}: versions begin at 1", new.id))),
        1 => keys::command(new.id),
        version => keys::fact(new.id, version - 1),
    };
    if write.rows.get(Table::Tx, &keys::chunk(&before, 0))?.is_none() {
        return Err(RowError::Broken(format!("{}: nothing before version {}", new.id, new.first_version)));
    }
    write.changed.push(new.id);
    for (version, fact) in (new.first_version..).zip(&new.facts) {
        write.put_fact(new.client, new.id, version, fact)?;
    }
    Ok(())
}

fn write_ledger(write: &mut Write<'_>, home: PartitionId, turn: &TurnCommit) -> Result<(), RowError> {
    for ((client, sku), position) in &turn.positions {
        let key = keys::position(home, *client, sku);
        // Where it is not known its client cannot see it.
        let encode = if position.known { format::encode_untold_position } else { format::encode_position };
        write.rows.put(Table::Stock, &key, &encode(position))?;
    }
    for ((client, sku), at) in &turn.told {
        tell(write, home, *client, sku, *at)?;
    }
    for new in &turn.estimates {
        tell_estimate(write, new)?;
    }
    for wave in &turn.waves {
        write.put_chunked(Table::Waves, &keys::wave(home, wave.id), &format::encode_wave(&wave.releases))?;
    }
    for wave in &turn.answered {
        write.delete_chunked(Table::Waves, &keys::wave(home, *wave))?;
    }
    for (manifest, cartons) in &turn.cartons {
        for (n, carton) in (0u32..).zip(cartons) {
            let key = keys::carton(*manifest, n);
            write.rows.put(Table::Cartons, &key, &format::encode_carton(carton))?;
        }
    }
    Ok(())
}

/// Says in its client's feed how a position is now.
fn tell(
    write: &mut Write<'_>,
    home: PartitionId,
    client: ClientNo,
    sku: &Sku,
    at: Timestamp,
) -> Result<(), RowError> {
    let key = keys::position(home, client, sku);
    let Some(position) = super::position(&*write.rows, home, client, sku)? else {
        return Err(RowError::Broken(format!("there is no position of {sku} to tell of")));
    };
    let change = StockChange { id: StockChange::entry_id(at, home, sku), sku: sku.clone(), position };
    let entry = format::encode_stock_change(&change);
    if let Some(queues) = write.rows.queues() {
        queues.tell(client, &entry, at);
    } else {
        let sequence = write.next(keys::feed_counter(client))?;
        write.rows.put(Table::Feed, &keys::feed(client, sequence), &entry)?;
    }
    write.rows.put(Table::Stock, &key, &format::encode_position(&position))
}

/// Says in its client's feed what is estimated of an order.
fn tell_estimate(write: &mut Write<'_>, new: &NewEstimate) -> Result<(), RowError> {
    let NewEstimate { id, client, version, at, estimate } = *new;
    let mut told = super::feed::readable_estimates(&*write.rows, id)?;
    let pointer = format::encode_feed(id, Points::Estimate(version).number());
    let sequence = if let Some(queues) = write.rows.queues() {
        queues.tell(client, &pointer, at);
        // Its number is given later, and stands elsewhere.
        0
    } else {
        let sequence = write.next(keys::feed_counter(client))?;
        write.rows.put(Table::Feed, &keys::feed(client, sequence), &pointer)?;
        sequence
    };
    told.push(ToldEstimate { sequence, version, at, estimate });
    write.rows.put(Table::Tx, &keys::estimates(id), &format::encode_estimates(&told))
}

/// What stands open, what has ended.
fn write_standing(write: &mut Write<'_>, home: PartitionId, turn: &TurnCommit) -> Result<(), RowError> {
    for id in &turn.opened {
        write.rows.put(Table::Open, &keys::in_partition(home, *id), &format::encode_mark())?;
    }
    // After `opened`: what is pulled and ends in the same turn is not open.
    for id in &turn.closed {
        write.rows.delete(Table::Open, &keys::in_partition(home, *id))?;
    }
    for (id, at) in &turn.ended {
        write.rows.put(Table::Ended, &keys::ended(*at, *id), &format::encode_mark())?;
    }
    Ok(())
}
