//! The house's own records: claims, queues, feeds, stock, ownership, counters. It must never hold
//! what a client sent; that is a command's or a fact's.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Decoded, FormatError, Record, array, body, head, id_of, packed, unpacked, with};
use crate::domain::confirmation::Confirmation;
use crate::domain::ids::{ReleaseId, TransactionId};
use crate::domain::sscc::Sscc;
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::store::{DeadKind, DeadLetter, Digest, Instruction, Lane, ManifestCarton, Settled};
use crate::ports::trouble::Trouble;

/// A claim: the id of the transaction that holds it.
#[must_use]
pub fn encode_claim(id: TransactionId) -> Vec<u8> {
    with(Record::Claim, id.0.as_bytes())
}

/// Reads a claim.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_claim(bytes: &[u8]) -> Decoded<TransactionId> {
    id_of(body(Record::Claim, bytes)?)
}

/// A claim of the log: its hash, and the id of the transaction that holds it.
#[must_use]
pub fn encode_logged_claim(claim: [u8; 16], id: TransactionId) -> Vec<u8> {
    let mut bytes = with(Record::LoggedClaim, &claim);
    bytes.extend_from_slice(id.0.as_bytes());
    bytes
}

/// Reads a claim of the log.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_logged_claim(bytes: &[u8]) -> Decoded<([u8; 16], TransactionId)> {
    let body = body(Record::LoggedClaim, bytes)?;
    let (claim, id) = body.split_at_checked(16).ok_or(FormatError::Short)?;
    Ok((array(claim)?, id_of(id)?))
}

/// A claim where it lies apart from its transaction: the id that holds it or is to hold it, and the
/// digest of what was asked for.
#[must_use]
pub fn encode_held_claim(id: TransactionId, digest: &Digest) -> Vec<u8> {
    let mut bytes = with(Record::HeldClaim, id.0.as_bytes());
    bytes.extend_from_slice(digest);
    bytes
}

/// Reads such a claim.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_held_claim(bytes: &[u8]) -> Decoded<(TransactionId, Digest)> {
    let body = body(Record::HeldClaim, bytes)?;
    let (id, digest) = body.split_at_checked(16).ok_or(FormatError::Short)?;
    Ok((id_of(id)?, array(digest)?))
}

/// The value of rows whose key says everything.
#[must_use]
pub fn encode_mark() -> Vec<u8> {
    head(Record::Mark)
}

/// What a lane entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredItem {
    /// A transaction, by its id.
    Transaction(TransactionId),
    /// A report of the WMS, whole.
    Report(Confirmation),
    /// What an operator wants done with a dead letter.
    Instruction(Instruction),
}

/// A lane entry that leads to a transaction.
#[must_use]
pub fn encode_lane_transaction(id: TransactionId) -> Vec<u8> {
    with(Record::LaneTransaction, id.0.as_bytes())
}

/// A lane entry that is a report.
#[must_use]
pub fn encode_lane_report(report: &Confirmation) -> Vec<u8> {
    packed(Record::LaneReport, report)
}

/// A lane entry that is an operator's instruction.
#[must_use]
pub fn encode_lane_instruction(instruction: Instruction) -> Vec<u8> {
    packed(Record::LaneInstruction, &instruction)
}

/// Reads a lane entry.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_lane(bytes: &[u8]) -> Decoded<StoredItem> {
    if bytes.first() == Some(&(Record::LaneReport as u8)) {
        return unpacked(Record::LaneReport, bytes).map(StoredItem::Report);
    }
    if bytes.first() == Some(&(Record::LaneInstruction as u8)) {
        return unpacked(Record::LaneInstruction, bytes).map(StoredItem::Instruction);
    }
    id_of(body(Record::LaneTransaction, bytes)?).map(StoredItem::Transaction)
}

/// A position that its client's feed tells as it is.
#[must_use]
pub fn encode_position(position: &Position) -> Vec<u8> {
    packed(Record::Position, position)
}

/// A position that has changed since its client's feed told of it.
#[must_use]
pub fn encode_untold_position(position: &Position) -> Vec<u8> {
    packed(Record::UntoldPosition, position)
}

/// True when a position has changed since its client's feed told of it.
#[must_use]
pub fn is_untold_position(bytes: &[u8]) -> bool {
    bytes.first() == Some(&(Record::UntoldPosition as u8))
}

/// Reads a position, told or not.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_position(bytes: &[u8]) -> Decoded<Position> {
    let untold = is_untold_position(bytes);
    unpacked(if untold { Record::UntoldPosition } else { Record::Position }, bytes)
}

/// A wave's releases.
#[must_use]
pub fn encode_wave(releases: &[ReleaseId]) -> Vec<u8> {
    packed(Record::Wave, &releases)
}

/// Reads a wave's releases.
///
/// # Errors
/// When the bytes are not that.
pub fn decode_wave(bytes: &[u8]) -> Decoded<Vec<ReleaseId>> {
    unpacked(Record::Wave, bytes)
}

/// A carton of a manifest.
#[must_use]
pub fn encode_carton(carton: &ManifestCarton) -> Vec<u8> {
    packed(Record::Carton, &(carton.sscc, &carton.carton_id, carton.release))
}

/// Reads a carton of a manifest.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_carton(bytes: &[u8]) -> Decoded<ManifestCarton> {
    let (sscc, carton_id, release): (Sscc, Option<String>, ReleaseId) = unpacked(Record::Carton, bytes)?;
    Ok(ManifestCarton { sscc, carton_id, release })
}

#[derive(Serialize, Deserialize)]
struct DeadV1 {
    kind: u8,
    id: Option<TransactionId>,
    reason: String,
    detail: String,
    at: Timestamp,
}

/// What else a dead letter keeps that was a lane entry.
#[derive(Serialize, Deserialize)]
struct EntryV1 {
    lane: u8,
    n: u64,
    bytes: Vec<u8>,
}

/// A dead letter, with the bytes of the lane entry that it was.
#[must_use]
pub fn encode_dead(letter: &DeadLetter, bytes: &[u8]) -> Vec<u8> {
    let kind = match letter.kind {
        DeadKind::Order => 1,
        DeadKind::Confirmation => 2,
        DeadKind::Wave => 3,
        DeadKind::Stock => 4,
    };
    let (reason, detail) = (letter.reason.clone(), letter.detail.clone());
    let dead = DeadV1 { kind, id: letter.id, reason, detail, at: letter.at };
    match letter.entry {
        None => packed(Record::Dead, &dead),
        Some((lane, n)) => {
            let entry = EntryV1 { lane: lane_number(lane), n, bytes: bytes.to_vec() };
            packed(Record::DeadEntry, &(dead, entry))
        }
    }
}

/// Reads a dead letter, and the bytes of the lane entry that it was.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_dead(bytes: &[u8]) -> Decoded<(DeadLetter, Vec<u8>)> {
    let (dead, entry): (DeadV1, Option<EntryV1>) = match bytes.first() {
        Some(first) if *first == Record::DeadEntry as u8 => {
            let (dead, entry) = unpacked(Record::DeadEntry, bytes)?;
            (dead, Some(entry))
        }
        Some(_) | None => (unpacked(Record::Dead, bytes)?, None),
    };
    let DeadV1 { kind, id, reason, detail, at } = dead;
    let kind = match kind {
        1 => DeadKind::Order,
        2 => DeadKind::Confirmation,
        3 => DeadKind::Wave,
        4 => DeadKind::Stock,
        other => return Err(FormatError::Number(other)),
    };
    let (entry, bytes) = match entry {
        Some(EntryV1 { lane, n, bytes }) => (Some((lane_of(lane)?, n)), bytes),
        None => (None, Vec::new()),
    };
    Ok((DeadLetter { kind, id, reason, detail, at, entry }, bytes))
}

/// The lane's number in values; never reused.
fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 1,
        Lane::Stock => 2,
        Lane::Work => 3,
    }
}

fn lane_of(number: u8) -> Decoded<Lane> {
    Lane::ALL.into_iter().find(|l| lane_number(*l) == number).ok_or(FormatError::Number(number))
}

/// How a dead letter was dealt with.
#[must_use]
pub fn encode_settled(settled: Settled) -> Vec<u8> {
    encode_number(match settled {
        Settled::Redriven => 1,
        Settled::GivenUp => 2,
        Settled::Passed => 3,
    })
}

/// Reads how a dead letter was dealt with.
///
/// # Errors
/// When the bytes do not say it.
pub fn decode_settled(bytes: &[u8]) -> Decoded<Settled> {
    match decode_number(bytes)? {
        1 => Ok(Settled::Redriven),
        2 => Ok(Settled::GivenUp),
        3 => Ok(Settled::Passed),
        other => Err(FormatError::Number(u8::try_from(other).unwrap_or(u8::MAX))),
    }
}

/// Who owns a partition, when it must be awake, and what stands in its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRow {
    /// Raised by every owner; 0 before the first.
    pub epoch: u64,
    /// The owner's own number.
    pub nonce: u64,
    /// When it must be awake next.
    pub wake_at: Timestamp,
    /// Nothing is pulled or released.
    pub paused: bool,
    /// The deaths of its trees.
    pub trouble: Trouble,
}

impl Default for PartitionRow {
    fn default() -> Self {
        let (wake_at, trouble) = (Timestamp::NEVER, Trouble::default());
        PartitionRow { epoch: 0, nonce: 0, wake_at, paused: false, trouble }
    }
}

/// A partition's record. With nothing in its way it is as the first release wrote it.
#[must_use]
pub fn encode_partition(row: &PartitionRow) -> Vec<u8> {
    match row.paused || !row.trouble.is_clear() {
        true => packed(Record::PartitionNow, row),
        false => packed(Record::Partition, &(row.epoch, row.nonce, row.wake_at)),
    }
}

/// Reads a partition's record.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_partition(bytes: &[u8]) -> Decoded<PartitionRow> {
    if bytes.first() == Some(&(Record::PartitionNow as u8)) {
        return unpacked(Record::PartitionNow, bytes);
    }
    let (epoch, nonce, wake_at) = unpacked(Record::Partition, bytes)?;
    Ok(PartitionRow { epoch, nonce, wake_at, ..PartitionRow::default() })
}

/// The next number of a log, and how many entries it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The number that the next entry gets; the first is 1.
    pub next: u64,
    /// Entries that are there.
    pub count: u64,
}

impl Default for Counter {
    fn default() -> Self {
        Counter { next: 1, count: 0 }
    }
}

/// A counter.
#[must_use]
pub fn encode_counter(counter: Counter) -> Vec<u8> {
    packed(Record::Counter, &counter)
}

/// Reads a counter.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_counter(bytes: &[u8]) -> Decoded<Counter> {
    unpacked(Record::Counter, bytes)
}

/// A number of `meta`: a client, a partition, the next serial.
#[must_use]
pub fn encode_number(number: u64) -> Vec<u8> {
    with(Record::Number, &number.to_be_bytes())
}

/// Reads a number of `meta`.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_number(bytes: &[u8]) -> Decoded<u64> {
    Ok(u64::from_be_bytes(array(body(Record::Number, bytes)?)?))
}

/// The store's own record: its id and the number of its layout.
#[must_use]
pub fn encode_store(id: Uuid, layout: u32) -> Vec<u8> {
    let mut bytes = with(Record::Store, id.as_bytes());
    bytes.extend_from_slice(&layout.to_be_bytes());
    bytes
}

/// Reads the store's own record.
///
/// # Errors
/// When the bytes are not it.
pub fn decode_store(bytes: &[u8]) -> Decoded<(Uuid, u32)> {
    let (id, layout) = body(Record::Store, bytes)?.split_at_checked(16).ok_or(FormatError::Short)?;
    Ok((Uuid::from_bytes(array(id)?), u32::from_be_bytes(array(layout)?)))
}

/// A secret of the store.
#[must_use]
pub fn encode_secret(secret: [u8; 16]) -> Vec<u8> {
    with(Record::Secret, &secret)
}

/// Reads a secret of the store.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_secret(bytes: &[u8]) -> Decoded<[u8; 16]> {
    array(body(Record::Secret, bytes)?)
}
