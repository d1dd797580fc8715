//! A store in memory, for tests and the seeded world: the same operations, keys and formats as
//! the embedded one, and every answer is ready at once. It must never be used for orders that
//! somebody wants to find again: it survives its engine, not its process.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::ready;
use std::ops::Bound;
use std::sync::Arc;
use uuid::Uuid;

use super::backend::{Backend, Reader};
use super::keys::{Key, Table};
use super::rows::{
    self, ClaimHasher, Claims, Counters, ReadRows, RecentClaims, Room, RowError, Visit, Walk, Write,
    WriteRows,
};
#[cfg(any(test, feature = "testing"))]
use crate::domain::ids::PartitionId;
use crate::ports::BoxFuture;
use crate::ports::store::{CommitError, Durability, ReadError};

/// A store in memory. Clones share it, so an engine that crashed is replaced by one on a clone.
#[derive(Clone)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

struct Inner {
    tables: Tables,
    counters: Counters,
    claims: Claims,
    room: Room,
}

/// Small, so that tests come past every step of a merge.
const GENERATION: usize = 8;

type Tables = [BTreeMap<Key, Vec<u8>>; Table::ALL.len()];

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> MemoryStore {
        let (tables, counters, room) = (Tables::default(), Counters::default(), Room::All);
        let claims =
            Claims::load(&tables, ClaimHasher([0; 16]), GENERATION).expect("an empty log can be read");
        let store = MemoryStore(Arc::new(Mutex::new(Inner { tables, counters, claims, room })));
        store
            .run(|write| rows::begin(write.rows, Uuid::nil(), rows::LAYOUT))
            .expect("an empty store takes its own record");
        store
    }

    /// Pretends that there is room only for these lanes.
    pub fn set_room(&self, room: Room) {
        self.0.lock().room = room;
    }

    /// Spoils a row, as a bad disk would.
    #[cfg(test)]
    fn damage(&self, table: Table, key: Key) {
        self.tamper(table, key, vec![1, 99]);
    }

    /// Writes a row past every rule, for bugs that the seeded world plants.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn tamper(&self, table: Table, key: Key, value: Vec<u8>) {
        let mut inner = self.0.lock();
        inner.tables[table.index()].insert(key, value);
        inner.counters.forget();
    }

    /// A row as it is.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn row(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.0.lock().tables[table.index()].get(key).cloned()
    }

    /// Makes every fence of a partition void.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn depose(&self, partition: PartitionId, nonce: u64) -> Result<(), CommitError> {
        self.run(|write| rows::depose(write, partition, nonce)).map_err(CommitError::from)
    }

    /// All or nothing: what fails, or panics, leaves no trace.
    fn run<T>(
        &self,
        mut operation: impl FnMut(&mut Write<'_>) -> Result<T, RowError>,
    ) -> Result<T, RowError> {
        let mut inner = self.0.lock();
        let Inner { tables, counters, claims, room } = &mut *inner;
        let mut staged = Staged { tables, before: Vec::new(), kept: false };
        // Taken out, so that a panic loses the cache and not its truth.
        let mut cache = std::mem::take(counters);
        let mut claiming = claims.clone();
        let mut write = Write {
            rows: &mut staged,
            counters: &mut cache,
            claims: &mut claiming,
            changed: &mut Vec::new(),
            room: *room,
        };
        let value = operation(&mut write)?;
        cache.flush(&mut staged)?;
        claiming.tidy(&mut staged)?;
        staged.kept = true;
        drop(staged);
        *counters = cache;
        claiming.committed();
        *claims = claiming;
        Ok(value)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl Backend for MemoryStore {
    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn is_writable(&self) -> bool {
        self.0.lock().room > Room::Nothing
    }

    fn id(&self) -> Uuid {
        Uuid::nil()
    }

    fn recent_claims(&self) -> RecentClaims {
        self.0.lock().claims.recent().clone()
    }

    fn read<T>(&self, read: impl FnOnce(&dyn ReadRows) -> Result<T, RowError>) -> Result<T, ReadError> {
        read(&self.0.lock().tables).map_err(ReadError::from)
    }

    fn read_apart<T: Send + 'static>(
        &self,
        _: Reader,
        read: impl FnOnce(&dyn ReadRows) -> Result<T, RowError> + Send + 'static,
    ) -> BoxFuture<Result<T, ReadError>> {
        Box::pin(ready(self.read(read)))
    }

    fn write<T: Send + 'static>(
        &self,
        _items: usize,
        operation: impl FnMut(&mut Write<'_>) -> Result<T, RowError> + Send + 'static,
    ) -> BoxFuture<Result<T, CommitError>> {
        let result = self.run(operation);
        if let Err(RowError::Broken(why)) = &result {
            panic!("a broken invariant: {why}");
        }
        Box::pin(ready(result.map_err(CommitError::from)))
    }
}

impl ReadRows for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError> {
        Ok(self[table.index()].get(key).map(Vec::as_slice))
    }

    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let rows = self[table.index()].range::<[u8], _>((from, Bound::Unbounded));
        for (key, value) in rows.take_while(|(key, _)| key.starts_with(prefix)) {
            match visit(key, value)? {
                Walk::On => {}
                Walk::Stop => break,
            }
        }
        Ok(())
    }
}

/// Writes that are undone when dropped, unless they were kept.
struct Staged<'a> {
    tables: &'a mut Tables,
    before: Vec<(Table, Key, Option<Vec<u8>>)>,
    kept: bool,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for (table, key, value) in self.before.drain(..).rev() {
            match value {
                Some(value) => self.tables[table.index()].insert(key, value),
                None => self.tables[table.index()].remove(&key),
            };
        }
    }
}

impl ReadRows for Staged<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError> {
        self.tables.get(table, key)
    }

    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        self.tables.walk(table, prefix, after, visit)
    }
}

impl WriteRows for Staged<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let before = self.tables[table.index()].insert(key.to_vec(), value.to_vec());
        self.before.push((table, key.to_vec(), before));
        Ok(())
    }

    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<bool, RowError> {
        if self.tables[table.index()].contains_key(key) {
            return Ok(false);
        }
        self.put(table, key, value)?;
        Ok(true)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, RowError> {
        let Some(before) = self.tables[table.index()].remove(key) else { return Ok(false) };
        self.before.push((table, key.to_vec(), Some(before)));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::domain::time::Timestamp;
    use crate::ports::store::{
        GatherLimits, Lane, LaneItem, Lookup, SharedStore, Store, TurnCommit, Verdict,
    };
    use crate::store::contract::{HERE, accept, commit, id, order, receipt, take};
    use crate::store::keys;

    #[tokio::test]
    async fn lanes_close_one_after_another_and_replays_pass() {
        let memory = MemoryStore::new();
        let store: SharedStore = Arc::new(memory.clone());
        accept(&store, vec![order(1, "r1", 1)]).await;
        memory.set_room(Room::Stock);
        let verdicts = accept(&store, vec![order(2, "r2", 1), receipt(3, "m3", 1), order(4, "r1", 1)]).await;
        assert_eq!(verdicts, [Verdict::StoreFull, Verdict::New, Verdict::Replay(id(1))]);
        memory.set_room(Room::Control);
        assert_eq!(accept(&store, vec![receipt(5, "m5", 1)]).await, [Verdict::StoreFull]);
        let fence = take(&store, 1).await;
        commit(&store, fence, TurnCommit::default()).await.unwrap();
        memory.set_room(Room::Nothing);
        assert!(matches!(commit(&store, fence, TurnCommit::default()).await, Err(CommitError::Full)));
        assert!(matches!(store.append_reports(HERE, vec![]).await, Err(CommitError::Full)));
        assert!(!Store::is_writable(&memory));
    }

    #[tokio::test]
    async fn what_cannot_be_read_holds_up_nothing_else() {
        let memory = MemoryStore::new();
        let store: SharedStore = Arc::new(memory.clone());
        accept(&store, vec![order(1, "r1", 1), order(2, "r2", 1)]).await;
        let fence = take(&store, 1).await;
        let ended = vec![(id(1), Timestamp(1)), (id(2), Timestamp(2))];
        commit(&store, fence, TurnCommit { ended, ..TurnCommit::default() }).await.unwrap();
        memory.damage(Table::Tx, keys::chunk(&keys::command(id(1)), 0));

        let verdicts = accept(&store, vec![order(3, "r1", 1), order(4, "r4", 1)]).await;
        assert_eq!(verdicts, [Verdict::Unavailable, Verdict::New]);
        let limits = GatherLimits { control: 0, stock: 0, work: 9 };
        let gathered = store.gather(fence, limits).await.unwrap();
        assert!(
            matches!(&gathered.entries[0].item, LaneItem::Undecodable(Some(_), why) if why.contains("format 99"))
        );
        assert!(matches!(&gathered.entries[1].item, LaneItem::Transaction(_)));
        assert_eq!(store.sweep(Timestamp(9_000), Duration::from_secs(5), 9).await.unwrap(), 2);
        assert!(matches!(store.transaction(id(2)).await.unwrap(), Some(Lookup::Expired(_))));
        assert!(store.transaction(id(1)).await.is_err());
    }

    proptest::proptest! {
        /// Against a plain map: taken, freed, merged, trimmed, aborted, and read again after a start.
        #[test]
        fn a_claim_is_never_lost_and_never_comes_back(
            steps in proptest::collection::vec((0..8u8, 0..40u128, 0..1_000u64), 1..400),
        ) {
            let memory = MemoryStore::new();
            let mut model: BTreeMap<u128, crate::domain::ids::TransactionId> = BTreeMap::new();
            let hash = |n: u128| rows::ClaimHash((n * 0x9E37_79B9).to_be_bytes());
            for (what, n, holder) in steps {
                match what {
                    // A batch of one claim, or one release, or none; some abort.
                    0..=3 => {
                        memory.run(|w| w.claims.claim(w.rows, hash(n), id(holder))).unwrap();
                        model.insert(n, id(holder));
                    }
                    4 | 5 => {
                        let held = model.remove(&n).unwrap_or(id(9_999));
                        memory.run(|w| w.claims.release(w.rows, hash(n), held)).unwrap();
                    }
                    6 => {
                        let aborted = memory.run(|w| {
                            w.claims.claim(w.rows, hash(n), id(holder))?;
                            Err::<(), _>(RowError::Full)
                        });
                        proptest::prop_assert!(aborted.is_err());
                    }
                    _ => {
                        let mut inner = memory.0.lock();
                        let hasher = inner.claims.hasher();
                        inner.claims = Claims::load(&inner.tables, hasher, GENERATION).unwrap();
                    }
                }
                for n in 0..40 {
                    let recent = memory.recent_claims().get(hash(n));
                    let found = recent.or(memory.read(|r| rows::claimed(r, hash(n))).unwrap());
                    proptest::prop_assert_eq!(found, model.get(&n).copied());
                }
            }
            let log = memory.0.lock().tables[Table::ClaimsLog.index()].len();
            proptest::prop_assert!(log <= 4 * GENERATION, "{} rows in the log", log);
        }
    }

    #[tokio::test]
    async fn a_broken_invariant_panics_and_leaves_no_trace() {
        let store: SharedStore = Arc::new(MemoryStore::new());
        accept(&store, vec![order(1, "r1", 1)]).await;
        let fence = take(&store, 1).await;
        let taken = vec![(Lane::Work, 1), (Lane::Work, 2)];
        let turn = TurnCommit { taken, opened: vec![id(1)], ..TurnCommit::default() };
        let shared = Arc::clone(&store);
        let died = tokio::spawn(async move { commit(&shared, fence, turn).await }).await;
        assert!(died.is_err_and(|e| e.is_panic()));
        assert!(store.load(fence).await.unwrap().open.is_empty());
        // The first entry, taken before the panic, is there and counted again.
        let limits = GatherLimits { control: 9, stock: 9, work: 9 };
        let gathered = store.gather(fence, limits).await.unwrap();
        assert_eq!((gathered.entries.len(), gathered.backlog), (1, 1));
        let taken = vec![(Lane::Work, 1)];
        commit(&store, fence, TurnCommit { taken, ..TurnCommit::default() }).await.unwrap();
    }
}
