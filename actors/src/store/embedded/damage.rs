//! Bytes that rot, for tests of what a damaged record does to the rest. Nothing else has it.

use super::EmbeddedStore;
use crate::domain::ids::{PartitionId, TransactionId};
use crate::ports::store::CommitError;
use crate::store::backend::Backend;
use crate::store::keys::{self, Table};
use crate::store::rows::Walk;

impl EmbeddedStore {
    /// Overwrites a transaction's command with what no release has written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn damage(&self, id: TransactionId) -> Result<(), CommitError> {
        let key = keys::chunk(&keys::command(id), 0);
        self.write(1, move |w| w.rows.put(Table::Tx, &key, &[1, 99, 0])).await
    }

    /// The same with all positions of a partition's stock.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub async fn damage_stock(&self, partition: PartitionId) -> Result<(), CommitError> {
        self.write(1, move |w| {
            let mut keys = Vec::new();
            w.rows.walk(Table::Stock, &keys::partition(partition), None, &mut |key, _| {
                keys.push(key.to_vec());
                Ok(Walk::On)
            })?;
            keys.iter().try_for_each(|key| w.rows.put(Table::Stock, key, &[1, 99, 0]))
        })
        .await
    }
}
