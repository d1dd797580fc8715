//! What entries of a feed say that are about no single fact. What they say stands in the store, so
//! that such an event is the same whenever it is read.

use sha2::{Digest as _, Sha256};

use super::endpoints::Notice;
use crate::domain::ids::{PartitionId, Sku, TransactionId};
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A webhook endpoint was disabled.
    Endpoint(Notice),
    /// Stock changed.
    Stock(StockChange),
}

/// A position as it was when it was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockChange {
    /// The entry's own id; its home is the position's partition, its time that of the telling.
    pub id: TransactionId,
    /// The SKU.
    pub sku: Sku,
    /// The position.
    pub position: Position,
}

impl StockChange {
    /// The id of the entry that tells of a position at a time. Of one position all are the same but
    /// for their time, so that a later one can replace an earlier one.
    #[must_use]
    pub fn entry_id(at: Timestamp, home: PartitionId, sku: &Sku) -> TransactionId {
        let digest: [u8; 32] = Sha256::digest(sku.as_str()).into();
        let (head, _) = digest.split_at(8);
        let name = head.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        TransactionId::new(at, home, name)
    }
}
