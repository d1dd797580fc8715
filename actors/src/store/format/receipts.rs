//! What stands in a node's log of receipts. The parts of a command stand there as they stand in the
//! store, so that there is one encoding of each.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    CommandHead, Decoded, Record, array, body, decode_command, decode_fact, decode_ship_to, encode_command,
    encode_fact, encode_ship_to, kind_of, packed, unpacked, with,
};
use crate::domain::ids::TransactionId;
use crate::domain::time::Timestamp;
use crate::ports::store::{IdempotencyKey, NewCommand};

#[derive(Serialize, Deserialize)]
struct ReceiptV1 {
    at: Timestamp,
    id: TransactionId,
    command: Vec<u8>,
    accepted: Vec<u8>,
    ship_to: Option<Vec<u8>>,
    key: Option<(u8, String)>,
}

/// A command that was accepted under `id`, and when that was known.
#[must_use]
pub fn encode_receipt(at: Timestamp, id: TransactionId, new: &NewCommand) -> Vec<u8> {
    let head = CommandHead { client: new.client, digest: new.digest };
    let receipt = ReceiptV1 {
        at,
        id,
        command: encode_command(&head, &new.command),
        accepted: encode_fact(&new.accepted),
        ship_to: new.ship_to.as_ref().map(encode_ship_to),
        key: new.key.as_ref().map(|key| (key.call.number(), key.key.clone())),
    };
    packed(Record::Receipt, &receipt)
}

/// Reads a receipt: when, and the command under the id it was accepted under. It was accepted, so no
/// backlog is too long for it.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_receipt(bytes: &[u8]) -> Decoded<(Timestamp, NewCommand)> {
    let receipt: ReceiptV1 = unpacked(Record::Receipt, bytes)?;
    let (CommandHead { client, digest }, command) = decode_command(&receipt.command)?;
    let key = receipt.key.map(|(call, key)| kind_of(call).map(|call| IdempotencyKey { call, key }));
    let new = NewCommand {
        id: receipt.id,
        client,
        key: key.transpose()?,
        command,
        digest,
        ship_to: receipt.ship_to.as_deref().map(decode_ship_to).transpose()?,
        accepted: decode_fact(&receipt.accepted)?,
        backlog_max: u64::MAX,
    };
    Ok((receipt.at, new))
}

/// The head of a file of receipts: the store that they are of.
#[must_use]
pub fn encode_receipts_head(store: Uuid) -> Vec<u8> {
    with(Record::ReceiptsHead, store.as_bytes())
}

/// Reads the head of a file of receipts.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_receipts_head(bytes: &[u8]) -> Decoded<Uuid> {
    Ok(Uuid::from_bytes(array(body(Record::ReceiptsHead, bytes)?)?))
}
