//! How every stored value looks, whatever the backend: a kind byte, a format byte, the rest.
//!
//! Commands and personal data are MessagePack with names, so that fields can be added and read
//! both ways; facts and the house's own records are postcard, which is half as long and only
//! grows by new variants or a new format byte. `golden_v1.txt` holds one of each and is never
//! rewritten: a change that breaks one of its lines breaks every store in the field.
//!
//! It must never read a table or know a key.

mod endpoints;
mod facts;
mod feed;
#[cfg(test)]
mod golden;
mod homes;
mod receipts;
mod records;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::command::{Command, Kind, ShipTo};
use crate::domain::ids::{ClientNo, CorrelationId, Reference, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::store::{Digest, Tombstone};

pub use endpoints::{
    Progress, decode_attempt, decode_dead_delivery, decode_endpoint, decode_notice, decode_pending,
    decode_progress, decode_replay, encode_attempt, encode_dead_delivery, encode_endpoint, encode_notice,
    encode_pending, encode_progress, encode_replay,
};
pub use facts::{decode_fact, decode_numbered_fact, encode_fact, encode_numbered_fact};
pub use feed::{
    decode_estimates, decode_feed, decode_stock_change, encode_estimates, encode_feed, encode_stock_change,
    is_stock_change,
};
pub use homes::{decode_homes, encode_homes};
pub use receipts::{decode_receipt, decode_receipts_head, encode_receipt, encode_receipts_head};
pub use records::{
    Counter, PartitionRow, StoredItem, decode_carton, decode_claim, decode_counter, decode_dead,
    decode_held_claim, decode_lane, decode_logged_claim, decode_number, decode_partition, decode_position,
    decode_secret, decode_settled, decode_store, decode_wave, encode_carton, encode_claim, encode_counter,
    encode_dead, encode_held_claim, encode_lane_instruction, encode_lane_report, encode_lane_transaction,
    encode_logged_claim, encode_mark, encode_number, encode_partition, encode_position, encode_secret,
    encode_settled, encode_store, encode_untold_position, encode_wave, is_untold_position,
};

/// The only format so far, of every kind.
const FORMAT: u8 = 1;

/// What a value is; the number is its first byte and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Record {
    Command = 1,
    ShipTo = 2,
    Fact = 3,
    Tombstone = 4,
    Claim = 5,
    Mark = 6,
    Feed = 7,
    LaneTransaction = 8,
    LaneReport = 9,
    Position = 10,
    Wave = 11,
    Carton = 12,
    Dead = 13,
    Partition = 14,
    Counter = 15,
    Number = 16,
    Store = 17,
    LoggedClaim = 18,
    Secret = 19,
    PartitionNow = 20,
    DeadEntry = 21,
    LaneInstruction = 22,
    NumberedFact = 23,
    UntoldPosition = 24,
    FeedStock = 25,
    Estimates = 26,
    Endpoint = 40,
    Progress = 41,
    Pending = 42,
    Attempt = 43,
    DeadDelivery = 44,
    Replay = 45,
    Notice = 46,
    ProgressBesides = 47,
    HeldClaim = 60,
    Receipt = 61,
    ReceiptsHead = 62,
    Homes = 63,
}

/// Why bytes are not the value they should be.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the value has.
    #[error("the value is cut short")]
    Short,
    /// More bytes than the value has: a newer release's, or not this value.
    #[error("the value is longer than it says")]
    Long,
    /// Another kind of value stands here.
    #[error("a value of kind {found} stands where kind {expected} should")]
    Kind {
        /// The kind byte that belongs here.
        expected: u8,
        /// The one that stands here.
        found: u8,
    },
    /// Written by a newer release.
    #[error("format {0} is not known to this release")]
    Format(u8),
    /// A number without a meaning.
    #[error("the number {0} has no meaning here")]
    Number(u8),
    /// Not the MessagePack of the type.
    #[error("not the MessagePack that was written")]
    MessagePack(#[from] rmp_serde::decode::Error),
    /// Not the postcard of the type.
    #[error("not the postcard that was written")]
    Postcard(#[from] postcard::Error),
}

type Decoded<T> = Result<T, FormatError>;

/// SHA-256 over the named MessagePack of a command and its personal data; fields at their default
/// are not part of it.
#[must_use]
pub fn digest(command: &Command, ship_to: Option<&ShipTo>) -> Digest {
    let mut bytes = Vec::with_capacity(NAMED_BYTES);
    write_named(&mut bytes, &(command, ship_to));
    Sha256::digest(bytes).into()
}

/// Bytes that a small order's command takes with its address: a vector that grows to them step by
/// step would be copied four times.
const NAMED_BYTES: usize = 512;

/// Bytes that most records of the house take.
const RECORD_BYTES: usize = 96;

fn write_named<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    rmp_serde::encode::write_named(bytes, value).expect("domain types hold only what MessagePack can say");
}

fn head(record: Record) -> Vec<u8> {
    head_of(record, RECORD_BYTES)
}

fn head_of(record: Record, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend_from_slice(&[record as u8, FORMAT]);
    bytes
}

fn with(record: Record, body: &[u8]) -> Vec<u8> {
    let mut bytes = head(record);
    bytes.extend_from_slice(body);
    bytes
}

fn packed<T: Serialize>(record: Record, value: &T) -> Vec<u8> {
    postcard::to_extend(value, head(record)).expect("stored types hold only what postcard can say")
}

fn body(record: Record, bytes: &[u8]) -> Decoded<&[u8]> {
    match bytes {
        [kind, ..] if *kind != record as u8 => {
            Err(FormatError::Kind { expected: record as u8, found: *kind })
        }
        [_, FORMAT, body @ ..] => Ok(body),
        [_, format, ..] => Err(FormatError::Format(*format)),
        [] | [_] => Err(FormatError::Short),
    }
}

fn unpacked<T: DeserializeOwned>(record: Record, bytes: &[u8]) -> Decoded<T> {
    let (value, rest) = postcard::take_from_bytes(body(record, bytes)?)?;
    if rest.is_empty() { Ok(value) } else { Err(FormatError::Long) }
}

fn array<const N: usize>(bytes: &[u8]) -> Decoded<[u8; N]> {
    bytes.try_into().map_err(|_| FormatError::Short)
}

fn id_of(bytes: &[u8]) -> Decoded<TransactionId> {
    Ok(TransactionId(Uuid::from_bytes(array(bytes)?)))
}

/// What stands before a command's MessagePack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandHead {
    /// Whose it is.
    pub client: ClientNo,
    /// Of what was asked for.
    pub digest: Digest,
}

/// Client, digest, kind.
const HEAD_BYTES: usize = 4 + 32 + 1;

/// A command behind its client number, digest and kind.
#[must_use]
pub fn encode_command(head: &CommandHead, command: &Command) -> Vec<u8> {
    let mut bytes = head_of(Record::Command, NAMED_BYTES);
    bytes.extend_from_slice(&head.client.0.to_be_bytes());
    bytes.extend_from_slice(&head.digest);
    bytes.push(command.kind().number());
    write_named(&mut bytes, command);
    bytes
}

/// Reads a command.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_command(bytes: &[u8]) -> Decoded<(CommandHead, Command)> {
    let body = body(Record::Command, bytes)?;
    let (head, rest) = body.split_at_checked(HEAD_BYTES).ok_or(FormatError::Short)?;
    Ok((command_head(head)?, rmp_serde::from_slice(rest)?))
}

fn command_head(head: &[u8]) -> Decoded<CommandHead> {
    let (client, rest) = head.split_at_checked(4).ok_or(FormatError::Short)?;
    let digest = rest.get(..32).ok_or(FormatError::Short)?;
    Ok(CommandHead { client: ClientNo(u32::from_be_bytes(array(client)?)), digest: array(digest)? })
}

/// The digest of what stands at a transaction's command record: the command or its tombstone.
/// The first chunk is enough.
///
/// # Errors
/// When the bytes are neither.
pub fn decode_digest(bytes: &[u8]) -> Decoded<Digest> {
    if is_tombstone(bytes) {
        return Ok(decode_tombstone(TransactionId(Uuid::nil()), bytes)?.0.digest);
    }
    Ok(command_head(body(Record::Command, bytes)?)?.digest)
}

/// Personal data.
#[must_use]
pub fn encode_ship_to(ship_to: &ShipTo) -> Vec<u8> {
    let mut bytes = head_of(Record::ShipTo, NAMED_BYTES);
    write_named(&mut bytes, ship_to);
    bytes
}

/// Reads personal data.
///
/// # Errors
/// When the bytes are not that.
pub fn decode_ship_to(bytes: &[u8]) -> Decoded<ShipTo> {
    Ok(rmp_serde::from_slice(body(Record::ShipTo, bytes)?)?)
}

#[derive(Serialize, Deserialize)]
struct TombstoneV1 {
    client: ClientNo,
    digest: Digest,
    kind: u8,
    reference: Reference,
    accepted_at: Timestamp,
    correlation: CorrelationId,
    ended_at: Timestamp,
}

/// A tombstone, and when its transaction ended.
#[must_use]
pub fn encode_tombstone(of: &Tombstone, ended_at: Timestamp) -> Vec<u8> {
    let stored = TombstoneV1 {
        client: of.client,
        digest: of.digest,
        kind: of.kind.number(),
        reference: of.reference.clone(),
        accepted_at: of.accepted_at,
        correlation: of.correlation.clone(),
        ended_at,
    };
    packed(Record::Tombstone, &stored)
}

/// True when a transaction's command record is its tombstone.
#[must_use]
pub fn is_tombstone(bytes: &[u8]) -> bool {
    bytes.first() == Some(&(Record::Tombstone as u8))
}

/// Reads a tombstone, and when its transaction ended.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_tombstone(id: TransactionId, bytes: &[u8]) -> Decoded<(Tombstone, Timestamp)> {
    let stored: TombstoneV1 = unpacked(Record::Tombstone, bytes)?;
    let tombstone = Tombstone {
        id,
        client: stored.client,
        digest: stored.digest,
        kind: kind_of(stored.kind)?,
        reference: stored.reference,
        accepted_at: stored.accepted_at,
        correlation: stored.correlation,
    };
    Ok((tombstone, stored.ended_at))
}

fn kind_of(number: u8) -> Decoded<Kind> {
    [Kind::Order, Kind::Move, Kind::Cancellation, Kind::Manifest]
        .into_iter()
        .find(|k| k.number() == number)
        .ok_or(FormatError::Number(number))
}
