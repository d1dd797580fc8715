//! Dead letters: keeping them, dealing with them, and what operators ask for. A dead letter that was
//! a lane entry keeps its bytes, so that it can go back as it came.

use super::read::walk_chunked;
use super::{ReadRows, RowError, Walk, Write, decoded, misshapen, read_chunked, read_counter};
use crate::domain::ids::{PartitionId, TransactionId};
use crate::ports::store::{CommitError, DeadKind, DeadLetter, Instruction, Kept, Lane, Settled, TurnCommit};
use crate::store::format::{self, Counter, PartitionRow};
use crate::store::keys::{self, Table};

/// Bytes of a letter's key without its chunk number: partition and number.
const LETTER_KEY: usize = 2 + 8;

/// The bytes of the lane entries that letters name, in the letters' order; empty for the others.
/// Call it before the entries are taken.
pub(super) fn entries(
    rows: &dyn ReadRows,
    home: PartitionId,
    letters: &[DeadLetter],
) -> Result<Vec<Vec<u8>>, RowError> {
    let bytes = |letter: &DeadLetter| match letter.entry {
        Some((lane, n)) => read_chunked(rows, Table::Lanes, &keys::lane_entry(home, lane, n))?
            .ok_or_else(|| RowError::Broken(format!("no entry {n} in {lane:?} of {home:?} to keep aside"))),
        None => Ok(Vec::new()),
    };
    letters.iter().map(bytes).collect()
}

/// Keeps letters aside.
pub(super) fn keep(
    write: &mut Write<'_>,
    home: PartitionId,
    letters: &[DeadLetter],
    entries: &[Vec<u8>],
) -> Result<(), RowError> {
    for (letter, bytes) in letters.iter().zip(entries) {
        let n = write.next(keys::dead_counter(home))?;
        if let (DeadKind::Order, Some(order)) = (letter.kind, letter.id) {
            if let Some(before) = number_of(&*write.rows, order)? {
                remove(write, home, before, Some(order), Settled::Passed)?;
            }
            write.rows.put(Table::DeadOf, &keys::tx(order), &format::encode_number(n))?;
        }
        write.put_chunked(Table::Dead, &keys::dead(home, n), &format::encode_dead(letter, bytes))?;
    }
    Ok(())
}

/// Deals with letters as the turn says.
pub(super) fn settle(write: &mut Write<'_>, home: PartitionId, turn: &TurnCommit) -> Result<(), RowError> {
    for &(n, how) in &turn.settled {
        let Some((letter, bytes)) = readable(&*write.rows, home, n)? else { continue };
        let also = match (how, letter.kind, letter.id) {
            (Settled::Redriven, DeadKind::Order, Some(order)) => said_about(&*write.rows, home, order)?,
            _ => Vec::new(),
        };
        for (n, letter, bytes) in [(n, letter, bytes)].into_iter().chain(also) {
            if let (Settled::Redriven, Some((lane, _))) = (how, letter.entry) {
                write.enqueue(home, lane, &bytes)?;
            }
            remove(write, home, n, letter.id, how)?;
        }
    }
    for order in &turn.relieved {
        if let Some(n) = number_of(&*write.rows, *order)? {
            remove(write, home, n, Some(*order), Settled::Passed)?;
        }
    }
    Ok(())
}

/// An open letter, unless its bytes cannot be read: then nobody can deal with it.
fn readable(
    rows: &dyn ReadRows,
    home: PartitionId,
    n: u64,
) -> Result<Option<(DeadLetter, Vec<u8>)>, RowError> {
    match letter(rows, home, n) {
        Err(RowError::Corrupt { .. }) => Ok(None),
        read => read,
    }
}

/// What was kept aside of what was said about an order: it goes on with the order.
fn said_about(
    rows: &dyn ReadRows,
    home: PartitionId,
    order: TransactionId,
) -> Result<Vec<(u64, DeadLetter, Vec<u8>)>, RowError> {
    let mut found = Vec::new();
    let prefix = keys::partition(home);
    walk_chunked(rows, Table::Dead, &prefix, None, LETTER_KEY, &mut |key, value| {
        let n = keys::u64_at(key, 2).ok_or_else(|| misshapen(Table::Dead))?;
        // One that cannot be read is left where it is: it must not keep the order from going on.
        let Ok((letter, bytes)) = format::decode_dead(value) else { return Ok(Walk::On) };
        let about = letter.kind == DeadKind::Confirmation && letter.id == Some(order);
        if about && letter.entry.is_some() {
            found.push((n, letter, bytes));
        }
        Ok(Walk::On)
    })?;
    Ok(found)
}

/// Takes a letter from the list. What it says is not looked at: its bytes may be what cannot be read.
fn remove(
    write: &mut Write<'_>,
    home: PartitionId,
    n: u64,
    of: Option<TransactionId>,
    how: Settled,
) -> Result<(), RowError> {
    if read_chunked(&*write.rows, Table::Dead, &keys::dead(home, n))?.is_none() {
        return Ok(());
    }
    write.delete_chunked(Table::Dead, &keys::dead(home, n))?;
    write.rows.put(Table::Settled, &keys::dead(home, n), &format::encode_settled(how))?;
    if let Some(order) = of
        && number_of(&*write.rows, order)? == Some(n)
    {
        write.rows.delete(Table::DeadOf, &keys::tx(order))?;
    }
    let key = keys::dead_counter(home);
    let Counter { next, count } = write.counter(&key)?;
    write.set_counter(key, Counter { next, count: count.saturating_sub(1) });
    Ok(())
}

fn number_of(rows: &dyn ReadRows, order: TransactionId) -> Result<Option<u64>, RowError> {
    let Some(bytes) = rows.get(Table::DeadOf, &keys::tx(order))? else { return Ok(None) };
    decoded(|| format!("the dead letter of {order}"), format::decode_number(bytes)).map(Some)
}

/// An open letter and the bytes of the entry that it was.
pub(super) fn letter(
    rows: &dyn ReadRows,
    home: PartitionId,
    n: u64,
) -> Result<Option<(DeadLetter, Vec<u8>)>, RowError> {
    let Some(bytes) = read_chunked(rows, Table::Dead, &keys::dead(home, n))? else { return Ok(None) };
    decoded(|| format!("dead letter {n}"), format::decode_dead(&bytes)).map(Some)
}

/// What became of a letter; see [`crate::ports::store::Store::dead_letter`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn dead_letter(rows: &dyn ReadRows, home: PartitionId, n: u64) -> Result<Option<Kept>, RowError> {
    if let Some((letter, _)) = letter(rows, home, n)? {
        return Ok(Some(Kept::Open(letter)));
    }
    let Some(bytes) = rows.get(Table::Settled, &keys::dead(home, n))? else { return Ok(None) };
    let settled = decoded(|| format!("the end of dead letter {n}"), format::decode_settled(bytes))?;
    Ok(Some(Kept::Settled(settled)))
}

/// Counts a partition's dead letters; see [`crate::ports::store::Store::dead_letters_total`].
///
/// # Errors
/// When the counter cannot be read or decoded.
pub fn dead_letters_total(rows: &dyn ReadRows, partition: PartitionId) -> Result<u64, RowError> {
    Ok(read_counter(rows, &keys::dead_counter(partition))?.next - 1)
}

/// Queues an instruction; see [`crate::ports::store::Store::instruct`].
///
/// # Errors
/// When rows cannot be read or written.
pub fn instruct(
    write: &mut Write<'_>,
    partition: PartitionId,
    asked: Instruction,
) -> Result<Result<(), CommitError>, RowError> {
    if !write.room.admits(Lane::Control) {
        return Ok(Err(CommitError::Full));
    }
    write.enqueue(partition, Lane::Control, &format::encode_lane_instruction(asked))?;
    Ok(Ok(()))
}

/// Pauses a partition or ends its pause; see [`crate::ports::store::Store::set_paused`].
///
/// # Errors
/// When rows cannot be read or written.
pub fn set_paused(
    write: &mut Write<'_>,
    partition: PartitionId,
    paused: bool,
) -> Result<Result<(), CommitError>, RowError> {
    let row = write.partition(partition)?;
    if row.paused == paused {
        return Ok(Ok(()));
    }
    if !write.room.admits(Lane::Control) {
        return Ok(Err(CommitError::Full));
    }
    write.set_partition(partition, &PartitionRow { paused, ..row })?;
    Ok(Ok(()))
}

/// Partitions that are paused; see [`crate::ports::store::Store::paused`].
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn paused(rows: &dyn ReadRows) -> Result<Vec<PartitionId>, RowError> {
    let mut paused = Vec::new();
    rows.walk(Table::Partition, &[], None, &mut |key, value| {
        let partition = PartitionId(keys::u16_at(key, 0).ok_or_else(|| misshapen(Table::Partition))?);
        if decoded(|| format!("{partition:?}"), format::decode_partition(value))?.paused {
            paused.push(partition);
        }
        Ok(Walk::On)
    })?;
    Ok(paused)
}
