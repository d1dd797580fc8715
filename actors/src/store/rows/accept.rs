//! Accepting commands and reports. It must never look at stock or wait for an owner.

use super::{ClaimHash, ReadRows, RowError, Write, decoded};
use crate::domain::command::Kind;
use crate::domain::confirmation::Confirmation;
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::ports::store::{CommitError, Digest, IdempotencyKey, Lane, NewCommand, Verdict};
use crate::store::format::{self, CommandHead};
use crate::store::keys::{self, Key, Table};

/// `Idempotency-Key`s that are remembered for one transaction. A client that repeats a command
/// under ever new keys is still held by its reference; further keys are not stored.
const KEYS_PER_TRANSACTION_MAX: usize = 16;

/// Accepts a batch; see [`crate::ports::store::Store::accept`].
///
/// # Errors
/// When rows cannot be read or written: the whole batch is then not accepted.
pub fn accept(write: &mut Write<'_>, batch: &[NewCommand]) -> Result<Vec<Verdict>, RowError> {
    batch.iter().map(|new| accept_one(write, new)).collect()
}

fn accept_one(write: &mut Write<'_>, new: &NewCommand) -> Result<Verdict, RowError> {
    match judge(write, new) {
        Ok(Some(verdict)) => Ok(verdict),
        Ok(None) => {
            store_command(write, new)?;
            Ok(Verdict::New)
        }
        // Judging wrote nothing yet; one record that cannot be read must not refuse the others.
        Err(e @ RowError::Corrupt { .. }) => {
            tracing::error!(error = %e, "a command cannot be judged");
            Ok(Verdict::Unavailable)
        }
        Err(e @ (RowError::Full | RowError::Backend(_) | RowError::Broken(_))) => Err(e),
    }
}

/// The verdict, unless it is new. Nothing is written before the last thing that can fail to
/// decode.
fn judge(write: &mut Write<'_>, new: &NewCommand) -> Result<Option<Verdict>, RowError> {
    // Claims come first, so that a replay is never refused for want of room.
    if new.client != ClientNo::HOUSE
        && let Some(verdict) = judge_claims(write, new)?
    {
        return Ok(Some(verdict));
    }
    let lane = new.lane();
    if !write.room.admits(lane) {
        return Ok(Some(Verdict::StoreFull));
    }
    let waiting = write.counter(&keys::lane_counter(new.id.home(), lane))?.count;
    if lane == Lane::Work && waiting >= new.backlog_max {
        return Ok(Some(Verdict::BacklogFull));
    }
    // The feed's counter is read here, where it can still be refused.
    write.counter(&keys::feed_counter(new.client))?;
    if digest_of(&*write.rows, new.id)?.is_some() {
        // Two ids of the same millisecond and partition met; the next try draws another one.
        return Ok(Some(Verdict::Unavailable));
    }
    Ok(None)
}

fn store_command(write: &mut Write<'_>, new: &NewCommand) -> Result<(), RowError> {
    let head = CommandHead { client: new.client, digest: new.digest };
    write.put_chunked(Table::Tx, &keys::command(new.id), &format::encode_command(&head, &new.command))?;
    if let Some(ship_to) = &new.ship_to {
        write.rows.put(Table::Tx, &keys::ship_to(new.id), &format::encode_ship_to(ship_to))?;
    }
    write.put_fact(new.client, new.id, 1, &new.accepted)?;
    if new.client != ClientNo::HOUSE {
        let claim = reference_claim(write, new);
        write.claims.claim(write.rows, claim, new.id)?;
        if let Some(key) = &new.key {
            claim_key(write, new.client, key, new.id)?;
        }
        if new.command.kind() == Kind::Order {
            let key = keys::by_client(new.client, new.id);
            write.rows.put(Table::ByClient, &key, &format::encode_mark())?;
        }
    }
    write.enqueue(new.id.home(), new.lane(), &format::encode_lane_transaction(new.id))
}

/// The verdict when the key or the reference is taken; the key is judged first.
fn judge_claims(write: &mut Write<'_>, new: &NewCommand) -> Result<Option<Verdict>, RowError> {
    if let Some(key) = &new.key
        && let Some((id, digest)) = holder(write, write.claims.hasher().key(new.client, key))?
    {
        let same = digest == new.digest;
        return Ok(Some(if same { Verdict::Replay(id) } else { Verdict::KeyReused }));
    }
    let Some((id, digest)) = holder(write, reference_claim(write, new))? else { return Ok(None) };
    if digest != new.digest {
        return Ok(Some(Verdict::ReferenceConflict(id)));
    }
    if let Some(key) = &new.key
        && write.room.admits(Lane::Control)
        && super::keys_under(&*write.rows, Table::Tx, &keys::keys_of(id))?.len() < KEYS_PER_TRANSACTION_MAX
    {
        claim_key(write, new.client, key, id)?;
    }
    Ok(Some(Verdict::Replay(id)))
}

fn claim_key(
    write: &mut Write<'_>,
    client: ClientNo,
    key: &IdempotencyKey,
    id: TransactionId,
) -> Result<(), RowError> {
    let claim = write.claims.hasher().key(client, key);
    write.claims.claim(write.rows, claim, id)?;
    let back: Key = [keys::keys_of(id).as_slice(), &claim.0].concat();
    write.rows.put(Table::Tx, &back, &format::encode_mark())
}

fn reference_claim(write: &Write<'_>, new: &NewCommand) -> ClaimHash {
    write.claims.hasher().reference(new.client, new.command.kind(), new.command.reference())
}

/// The transaction that holds a claim, and its digest. A claim whose transaction is gone is free.
fn holder(write: &Write<'_>, claim: ClaimHash) -> Result<Option<(TransactionId, Digest)>, RowError> {
    let Some(id) = write.claims.find(&*write.rows, claim)? else { return Ok(None) };
    Ok(digest_of(&*write.rows, id)?.map(|digest| (id, digest)))
}

fn digest_of(rows: &dyn ReadRows, id: TransactionId) -> Result<Option<Digest>, RowError> {
    // The first chunk is enough: a command's head and a whole tombstone fit in it.
    let Some(first) = rows.get(Table::Tx, &keys::chunk(&keys::command(id), 0))? else { return Ok(None) };
    decoded(|| format!("the command of {id}"), format::decode_digest(first)).map(Some)
}

/// Queues reports; see [`crate::ports::store::Store::append_reports`].
///
/// # Errors
/// When rows cannot be read or written.
pub fn append_reports(
    write: &mut Write<'_>,
    partition: PartitionId,
    reports: &[Confirmation],
) -> Result<Result<(), CommitError>, RowError> {
    if !write.room.admits(Lane::Control) {
        return Ok(Err(CommitError::Full));
    }
    for report in reports {
        write.enqueue(partition, Lane::Control, &format::encode_lane_report(report))?;
    }
    Ok(Ok(()))
}
