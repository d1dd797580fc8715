//! Bytes that rot, for tests of what a damaged record does to the rest. Nothing else has it.

use super::EmbeddedStore;
use crate::domain::ids::TransactionId;
use crate::ports::store::CommitError;
use crate::store::backend::Backend;
use crate::store::keys::{self, Table};

impl EmbeddedStore {
    /// Overwrites a transaction's command with what no release has written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn damage(&self, id: TransactionId) -> Result<(), CommitError> {
        let key = keys::chunk(&keys::command(id), 0);
        self.write(1, move |w| w.rows.put(Table::Tx, &key, &[1, 99, 0])).await
    }
}
