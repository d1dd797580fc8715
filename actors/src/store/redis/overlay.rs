//! Rows of one slot as far as they were read, with what an operation writes on top of them. An
//! operation of [`crate::store::rows`] runs over it; what it needs and nobody read yet is noted, read,
//! and the operation is run again. It must never talk to Redis.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::place::{self, DELIVERY_PARTS, Slot};
use crate::domain::ids::{ClientNo, PartitionId};
use crate::domain::time::Timestamp;
use crate::ports::store::Lane;
use crate::store::keys::{self, Key, Table};
use crate::store::rows::{Queues, ReadRows, RowError, Visit, Walk, WriteRows};

/// Something to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fetch {
    /// One row.
    Row(Table, Key),
    /// All rows whose key begins so.
    All(Table, Key),
}

/// An entry whose number Redis gives, in the order of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// For a lane.
    Enqueue(PartitionId, Lane, Vec<u8>),
    /// Out of a lane, where it must be.
    Dequeue(PartitionId, Lane, u64),
    /// For a client's feed.
    Tell(ClientNo, Vec<u8>, Timestamp),
}

/// An operation asked for what nobody has read yet.
#[derive(Debug, thiserror::Error)]
#[error("rows that were not read yet")]
struct NotRead;

/// Bytes of the key of an endpoint's rows, and of a lane's entry without its chunk number.
const ENDPOINT: usize = 16;
const ENTRY: usize = 2 + 1 + 8;

/// What is known of a slot's rows, and what is to be written.
pub(super) struct Overlay {
    pub(super) slot: Slot,
    /// Rows as they were read; `None`: there is none.
    known: BTreeMap<Table, BTreeMap<Key, Option<Vec<u8>>>>,
    /// Prefixes under which every row is known.
    complete: BTreeMap<Table, BTreeSet<Key>>,
    /// The values of fields that must not have changed, by Redis key and field.
    seen: BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>,
    missing: RefCell<BTreeSet<Fetch>>,
    pub(super) staged: BTreeMap<(Table, Key), Option<Vec<u8>>>,
    /// Staged rows that must be new, of which nobody has read whether they are.
    pub(super) fresh: BTreeSet<(Table, Key)>,
    pub(super) queued: Vec<Queued>,
}

impl Overlay {
    /// Nothing is known.
    pub(super) fn new(slot: Slot) -> Overlay {
        Overlay {
            slot,
            known: BTreeMap::new(),
            complete: BTreeMap::new(),
            seen: BTreeMap::new(),
            missing: RefCell::default(),
            staged: BTreeMap::new(),
            fresh: BTreeSet::new(),
            queued: Vec::new(),
        }
    }

    /// Takes note of a row as it is.
    pub(super) fn learn(&mut self, table: Table, key: Key, value: Option<Vec<u8>>) {
        self.known.entry(table).or_default().insert(key, value);
    }

    /// Takes note that all rows under a prefix were learnt.
    pub(super) fn learn_all(&mut self, table: Table, prefix: Key) {
        self.complete.entry(table).or_default().insert(prefix);
    }

    /// The rows of a table that are known, staged ones aside.
    pub(super) fn learnt(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        let rows = self.known.get(&table).into_iter().flatten();
        rows.filter_map(|(key, value)| Some((key.as_slice(), value.as_deref()?)))
    }

    /// Takes note of a field on which a write is built. False when it was seen otherwise before: what
    /// is known is then of no one time.
    pub(super) fn see(&mut self, key: &[u8], field: &[u8], value: Vec<u8>) -> bool {
        let seen = self.seen.entry((key.to_vec(), field.to_vec())).or_insert_with(|| value.clone());
        *seen == value
    }

    /// The fields on which a write is built.
    pub(super) fn seen(&self) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
        self.seen.iter().map(|((key, field), value)| (key.as_slice(), field.as_slice(), value.as_slice()))
    }

    /// Forgets what an operation wrote, for its next run.
    pub(super) fn rewind(&mut self) {
        self.staged.clear();
        self.fresh.clear();
        self.queued.clear();
    }

    /// What the operation needs and nobody has read.
    pub(super) fn take_missing(&mut self) -> Vec<Fetch> {
        std::mem::take(self.missing.get_mut()).into_iter().collect()
    }

    /// True when the operation has written something.
    pub(super) fn is_dirty(&self) -> bool {
        !self.staged.is_empty() || !self.queued.is_empty()
    }

    fn miss<T>(&self, fetch: Fetch) -> Result<T, RowError> {
        self.missing.borrow_mut().insert(fetch);
        Err(RowError::Backend(Arc::new(NotRead)))
    }

    fn is_complete(&self, table: Table, prefix: &[u8]) -> bool {
        let whole = self.complete.get(&table);
        let under = |n: usize| whole.is_some_and(|all| all.contains(&prefix[..n]));
        if (0..=prefix.len()).any(under) {
            return true;
        }
        if table == Table::Deliveries && prefix.len() == ENDPOINT {
            let part = |part: &u8| whole.is_some_and(|all| all.contains(&[prefix, &[*part]].concat()));
            return DELIVERY_PARTS.iter().all(part);
        }
        // A lane's entry is one value here, whatever its length.
        table == Table::Lanes
            && prefix.len() == ENTRY
            && self.known.get(&table).is_some_and(|rows| rows.contains_key(&keys::chunk(prefix, 0)))
    }

    /// A row: known, known not to be there, or not known.
    fn find(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        if let Some(staged) = self.staged.get(&(table, key.to_vec())) {
            return Some(staged.as_deref());
        }
        match self.known.get(&table).and_then(|rows| rows.get(key)) {
            Some(known) => Some(known.as_deref()),
            None => self.is_complete(table, key).then_some(None),
        }
    }
}

impl ReadRows for Overlay {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError> {
        // Claims lie in slots of their own: whoever needs one has looked it up before.
        if matches!(table, Table::Claims | Table::ClaimsLog) {
            return Ok(None);
        }
        match self.find(table, key) {
            Some(row) => Ok(row),
            None => self.miss(Fetch::Row(table, key.to_vec())),
        }
    }

    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        if !self.is_complete(table, prefix) {
            return self.miss(Fetch::All(table, prefix.to_vec()));
        }
        let mut rows: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        let from = prefix.to_vec();
        if let Some(known) = self.known.get(&table) {
            let under = known.range(from.clone()..).take_while(|(key, _)| key.starts_with(prefix));
            rows.extend(under.filter_map(|(key, value)| Some((key.as_slice(), value.as_deref()?))));
        }
        let staged = self.staged.range((table, from)..);
        for ((_, key), value) in staged.take_while(|((t, key), _)| *t == table && key.starts_with(prefix)) {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(key.as_slice()),
            };
        }
        for (key, value) in rows {
            if after.is_some_and(|after| key <= after) {
                continue;
            }
            if visit(key, value)? == Walk::Stop {
                break;
            }
        }
        Ok(())
    }
}

impl WriteRows for Overlay {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        place::unit(self.slot, table, key)?;
        self.staged.insert((table, key.to_vec()), Some(value.to_vec()));
        Ok(())
    }

    /// Answers true for a row that nobody has read; whether it is new is then checked by the write.
    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<bool, RowError> {
        match self.find(table, key) {
            Some(Some(_)) => return Ok(false),
            Some(None) => {}
            None => {
                self.fresh.insert((table, key.to_vec()));
            }
        }
        self.put(table, key, value)?;
        Ok(true)
    }

    /// Answers true for a row that nobody has read: who must know reads it first.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, RowError> {
        if matches!(table, Table::Claims | Table::ClaimsLog) || self.find(table, key) == Some(None) {
            return Ok(false);
        }
        place::unit(self.slot, table, key)?;
        self.staged.insert((table, key.to_vec()), None);
        Ok(true)
    }

    fn queues(&mut self) -> Option<&mut dyn Queues> {
        match self.slot {
            Slot::Partition(_) => Some(self),
            // A feed lies in its shard, and is numbered there.
            Slot::Shard(_) | Slot::Meta => None,
        }
    }
}

impl Queues for Overlay {
    fn enqueue(&mut self, partition: PartitionId, lane: Lane, value: &[u8]) {
        self.queued.push(Queued::Enqueue(partition, lane, value.to_vec()));
    }

    fn dequeue(&mut self, partition: PartitionId, lane: Lane, n: u64) {
        self.queued.push(Queued::Dequeue(partition, lane, n));
    }

    fn tell(&mut self, client: ClientNo, entry: &[u8], at: Timestamp) {
        self.queued.push(Queued::Tell(client, entry.to_vec(), at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: PartitionId = PartitionId(7);

    fn overlay() -> Overlay {
        Overlay::new(Slot::Partition(HOME))
    }

    #[test]
    fn what_is_not_read_is_asked_for_and_never_taken_for_absent() {
        let mut overlay = overlay();
        let key = keys::dead(HOME, 1);
        assert!(overlay.get(Table::Dead, &key).is_err());
        assert!(overlay.walk(Table::Dead, &keys::partition(HOME), None, &mut |_, _| Ok(Walk::On)).is_err());
        let missing = overlay.take_missing();
        assert_eq!(
            missing,
            [Fetch::Row(Table::Dead, key.clone()), Fetch::All(Table::Dead, keys::partition(HOME))]
        );
        overlay.learn_all(Table::Dead, keys::partition(HOME));
        assert_eq!(overlay.get(Table::Dead, &key).unwrap(), None);
        assert!(overlay.take_missing().is_empty());
    }

    #[test]
    fn an_operation_sees_what_it_wrote_and_a_rewind_forgets_it() {
        let mut overlay = overlay();
        overlay.learn_all(Table::Dead, keys::partition(HOME));
        overlay.learn(Table::Dead, keys::dead(HOME, 1), Some(vec![1]));
        overlay.put(Table::Dead, &keys::dead(HOME, 2), &[2]).unwrap();
        assert!(overlay.delete(Table::Dead, &keys::dead(HOME, 1)).unwrap());
        assert!(!overlay.put_new(Table::Dead, &keys::dead(HOME, 2), &[3]).unwrap());
        let seen = |overlay: &Overlay| {
            let mut seen = Vec::new();
            let walk = overlay.walk(Table::Dead, &keys::partition(HOME), None, &mut |_, value| {
                seen.extend_from_slice(value);
                Ok(Walk::On)
            });
            walk.unwrap();
            seen
        };
        assert_eq!(seen(&overlay), [2]);
        overlay.rewind();
        assert_eq!(seen(&overlay), [1]);
    }

    #[test]
    fn a_version_that_changed_between_two_reads_is_noticed() {
        let mut overlay = overlay();
        assert!(overlay.see(b"k", b"v", b"1".to_vec()) && overlay.see(b"k", b"v", b"1".to_vec()));
        assert!(!overlay.see(b"k", b"v", b"2".to_vec()));
    }
}
