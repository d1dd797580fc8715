//! A bad disk: bytes that rot, and pages that take their time, for tests of what that does to the rest.
//! Nothing else has it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::EmbeddedStore;
use crate::domain::ids::{PartitionId, TransactionId};
use crate::ports::store::{CommitError, Lane};
use crate::store::backend::Backend;
use crate::store::keys::{self, Key, Table};
use crate::store::rows::Walk;

/// The variable of the environment that names a file: while it is there, no transaction comes from disk.
pub const SLOW_DISK: &str = "WAVEGATE_TEST_SLOW_DISK";

/// How often a held read looks whether it may go on.
const LOOK: Duration = Duration::from_millis(5);

/// Holds the thread that is to read a transaction from disk, as a page that is not in memory does. The
/// first that is held says so by a file of the extension `1`, the second of `2`.
pub(super) fn slow_disk() {
    static HELD: AtomicUsize = AtomicUsize::new(0);
    let Some(file) = std::env::var_os(SLOW_DISK).map(PathBuf::from).filter(|file| file.exists()) else {
        return;
    };
    let held = HELD.fetch_add(1, Ordering::Relaxed) + 1;
    drop(std::fs::write(file.with_extension(held.to_string()), []));
    while file.exists() {
        std::thread::sleep(LOOK);
    }
}

/// Rows that rot.
#[derive(Clone, Copy, Debug)]
pub enum Rot {
    /// A transaction's command.
    Command(TransactionId),
    /// A fact of a transaction, by its version.
    Fact(TransactionId, u32),
    /// Where an order goes.
    ShipTo(TransactionId),
    /// The first entry that stands in a lane.
    FirstIn(PartitionId, Lane),
    /// All positions of a partition's stock.
    Stock(PartitionId),
    /// All waves of a partition that are not answered.
    Waves(PartitionId),
    /// All cartons of all manifests.
    Cartons,
    /// A dead letter, by its number.
    Letter(PartitionId, u64),
}

impl Rot {
    /// The table, what the keys of its rows begin with, and how many of them rot at most.
    fn rows(self) -> (Table, Key, usize) {
        match self {
            Rot::Command(id) => (Table::Tx, keys::command(id), 1),
            Rot::Fact(id, version) => (Table::Tx, keys::fact(id, version), 1),
            Rot::ShipTo(id) => (Table::Tx, keys::ship_to(id), 1),
            Rot::FirstIn(partition, lane) => (Table::Lanes, keys::lane(partition, lane), 1),
            Rot::Stock(partition) => (Table::Stock, keys::partition(partition), usize::MAX),
            Rot::Waves(partition) => (Table::Waves, keys::partition(partition), usize::MAX),
            Rot::Cartons => (Table::Cartons, Key::new(), usize::MAX),
            Rot::Letter(partition, n) => (Table::Dead, keys::dead(partition, n), 1),
        }
    }
}

impl EmbeddedStore {
    /// Overwrites rows with what no release has written; answers how many there were.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub async fn damage(&self, what: Rot) -> Result<usize, CommitError> {
        self.write(1, move |w| {
            let (table, prefix, max) = what.rows();
            let mut keys = Vec::new();
            w.rows.walk(table, &prefix, None, &mut |key, _| {
                keys.push(key.to_vec());
                Ok(if keys.len() < max { Walk::On } else { Walk::Stop })
            })?;
            keys.iter().try_for_each(|key| w.rows.put(table, key, &[1, 99, 0]))?;
            Ok(keys.len())
        })
        .await
    }
}
