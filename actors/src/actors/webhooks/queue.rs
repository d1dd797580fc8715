//! What is to be delivered to one endpoint, in memory: which attempt may begin now, what an outcome
//! means, and how far the cursor may be put. Pure: no clock, no IO; its Endpoint carries it out.
//!
//! Bounded by [`Queue::ITEMS_MAX`]: when it is full, or enough fresh events wait, the feed is not
//! read on. Nothing is lost by that, for the feed keeps what the cursor has not passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::pauses::Pauses;
use crate::domain::endpoint::{DeliveryMode, Schedule};
use crate::domain::ids::TransactionId;
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{PendingDelivery, Rest};
use crate::ports::store::FeedEntry;

/// One event on its way.
#[derive(Clone, Copy, Debug)]
struct Item {
    entry: FeedEntry,
    attempts: u16,
    next_at: Timestamp,
    /// It has a row in the store.
    stored: bool,
    stage: Stage,
}

/// How far an event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For its time, or for what stands before it.
    Waits,
    /// An attempt is under way.
    Flies,
    /// It is to be kept aside, and the record that says so is not durable yet. Until then nothing of its
    /// transaction is begun: after a death in between it would be tried again, behind what came after it.
    Ends,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The consumer has it.
    Delivered,
    /// It does not.
    Failed {
        /// How long the consumer wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It can never be sent.
    Unsendable,
    /// Nothing was tried; it is to be tried again at this time, and counts for nothing.
    Postponed(Timestamp),
}

/// What an outcome changes in the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settlement {
    /// Rows as they are now.
    pub(crate) pending: Vec<PendingDelivery>,
    /// Events that are finished.
    pub(crate) finished: Vec<u64>,
    /// Attempts that failed in all, of an event that is to be kept aside.
    pub(crate) dead: Option<(FeedEntry, u16)>,
    /// The attempt that failed, for the endpoint's fortune.
    pub(crate) failed: Option<u16>,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    mode: DeliveryMode,
    items: BTreeMap<u64, Item>,
    /// Of each transaction the events that wait or fly, in order.
    lines: BTreeMap<TransactionId, BTreeSet<u64>>,
    /// The events that may be attempted, by when.
    ready: BTreeSet<(Timestamp, u64)>,
    /// Events beyond the stored cursor that have no row yet.
    unstored: BTreeSet<u64>,
    /// Everything up to here was taken up.
    taken_to: u64,
    flying: usize,
    pauses: Pauses,
}

impl Queue {
    /// Events that it holds at a time; about a megabyte.
    pub(crate) const ITEMS_MAX: usize = 10_000;
    /// Events without a row that it holds: as much is read again after a death.
    const UNSTORED_MAX: usize = 512;
    /// Attempts under way at a time.
    pub(crate) const FLYING_MAX: usize = 10;

    /// What the store says: everything up to `cursor` is finished or among `pending`, and the endpoint
    /// rests.
    pub(crate) fn new(mode: DeliveryMode, cursor: u64, pending: Vec<PendingDelivery>, rest: Rest) -> Queue {
        let mut queue = Queue {
            mode,
            items: BTreeMap::new(),
            lines: BTreeMap::new(),
            ready: BTreeSet::new(),
            unstored: BTreeSet::new(),
            taken_to: cursor,
            flying: 0,
            pauses: Pauses::new(rest),
        };
        for PendingDelivery { entry, attempts, next_at } in pending {
            queue.insert(Item { entry, attempts, next_at, stored: true, stage: Stage::Waits });
        }
        queue
    }

    /// From here on events of a transaction replace each other, or do not. Answers what is replaced by
    /// that, as well of what was found after a death: an event may have had a row while the one before it
    /// was under way.
    #[must_use]
    pub(crate) fn mode_is(&mut self, mode: DeliveryMode) -> Vec<u64> {
        self.mode = mode;
        match mode {
            DeliveryMode::Every => Vec::new(),
            DeliveryMode::Latest => {
                let waits = |item: &&Item| item.stage == Stage::Waits && self.has_newer(item.entry);
                let replaced: Vec<u64> =
                    self.items.values().filter(waits).map(|item| item.entry.sequence).collect();
                for sequence in &replaced {
                    self.remove(*sequence);
                }
                replaced
            }
        }
    }

    /// The last event that was taken up.
    pub(crate) fn taken_to(&self) -> u64 {
        self.taken_to
    }

    /// Everything up to here is finished or has a row.
    pub(crate) fn cursor(&self) -> u64 {
        self.unstored.first().map_or(self.taken_to, |first| first - 1)
    }

    /// Whether more of the feed is to be read.
    pub(crate) fn has_room(&self) -> bool {
        self.unstored.len() < Self::UNSTORED_MAX && self.items.len() < Self::ITEMS_MAX
    }

    /// Events that it holds.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Attempts under way.
    pub(crate) fn flying(&self) -> usize {
        self.flying
    }

    /// True while the breaker lets through one try at a time.
    pub(crate) fn is_open(&self) -> bool {
        self.pauses.is_open()
    }

    /// How the endpoint rests, for the record.
    pub(crate) fn rest(&self) -> Rest {
        self.pauses.rest()
    }

    /// Deliveries go to another address: whoever lives there has neither failed nor asked for anything.
    pub(crate) fn has_moved(&mut self) {
        self.pauses = Pauses::new(Rest::default());
    }

    /// Notes that the feed was read up to here: what was not wanted is passed over.
    pub(crate) fn passed(&mut self, sequence: u64) {
        self.taken_to = self.taken_to.max(sequence);
    }

    /// Takes up the next event of the feed.
    ///
    /// One that waits behind an event with a row gets a row at once: otherwise the cursor would stand
    /// before it for as long as that one fails, and a death would repeat all that was delivered since.
    pub(crate) fn take_up(&mut self, entry: FeedEntry, now: Timestamp) -> Settlement {
        self.passed(entry.sequence);
        // Beyond the cursor some events have rows already: they are what was read again after a death.
        if self.items.contains_key(&entry.sequence) {
            return Settlement::default();
        }
        // With `latest` such a row has replaced what is read again before it.
        if self.mode == DeliveryMode::Latest && self.has_newer(entry) {
            return Settlement { finished: vec![entry.sequence], ..Settlement::default() };
        }
        self.unstored.insert(entry.sequence);
        let finished =
            self.join(Item { entry, attempts: 0, next_at: now, stored: false, stage: Stage::Waits });
        let pending = self.keep_followers(entry.subject());
        Settlement { pending, finished, ..Settlement::default() }
    }

    /// Takes up an event that lies behind the cursor; it has a row from here on. `None` when it waits
    /// already, or a newer one that replaces it does.
    pub(crate) fn take_up_again(&mut self, entry: FeedEntry, now: Timestamp) -> Option<Settlement> {
        // It may be asked for again before its own end is heard of.
        self.ended(entry.sequence);
        if self.items.contains_key(&entry.sequence) {
            return None;
        }
        if self.mode == DeliveryMode::Latest && self.has_newer(entry) {
            return None;
        }
        let finished =
            self.join(Item { entry, attempts: 0, next_at: now, stored: true, stage: Stage::Waits });
        let pending = vec![PendingDelivery { entry, attempts: 0, next_at: now }];
        Some(Settlement { pending, finished, ..Settlement::default() })
    }

    /// Whether a newer event of the same transaction waits or flies that replaces this one.
    fn has_newer(&self, entry: FeedEntry) -> bool {
        let line = self.lines.get(&entry.subject()).into_iter().flat_map(|line| line.iter().rev());
        let mut newer = line.take_while(|n| **n > entry.sequence).filter_map(|n| self.items.get(n));
        newer.any(|item| item.entry.replaces(&entry))
    }

    fn join(&mut self, item: Item) -> Vec<u64> {
        let replaced = match self.mode {
            DeliveryMode::Latest => self.replaced_by(item.entry),
            DeliveryMode::Every => Vec::new(),
        };
        self.insert(item);
        replaced
    }

    /// Drops what waits of an entry's transaction and is older; answers it.
    #[must_use]
    pub(crate) fn replaced_by(&mut self, entry: FeedEntry) -> Vec<u64> {
        let line = self.lines.get(&entry.subject()).into_iter().flatten();
        let waits = line.filter_map(|n| self.items.get(n)).filter(|item| item.stage == Stage::Waits);
        let older = waits.filter(|item| item.entry.sequence < entry.sequence && entry.replaces(&item.entry));
        let replaced: Vec<u64> = older.map(|item| item.entry.sequence).collect();
        for sequence in &replaced {
            self.remove(*sequence);
        }
        replaced
    }

    fn waits(&self, sequence: u64) -> bool {
        self.items.get(&sequence).is_some_and(|item| item.stage == Stage::Waits)
    }

    /// Whose events wait or fly.
    pub(crate) fn subjects(&self) -> BTreeSet<TransactionId> {
        self.lines.keys().copied().collect()
    }

    /// Gives rows to what waits behind an event that has one; answers them.
    fn keep_followers(&mut self, subject: TransactionId) -> Vec<PendingDelivery> {
        let Some(line) = self.lines.get(&subject) else { return Vec::new() };
        let is_stored = |n: &u64| self.items.get(n).is_some_and(|item| item.stored);
        if !line.first().is_some_and(is_stored) {
            return Vec::new();
        }
        let followers: Vec<u64> = line.iter().copied().filter(|n| !is_stored(n)).collect();
        let mut rows = Vec::with_capacity(followers.len());
        for sequence in followers {
            self.unstored.remove(&sequence);
            if let Some(item) = self.items.get_mut(&sequence) {
                item.stored = true;
                rows.push(PendingDelivery {
                    entry: item.entry,
                    attempts: item.attempts,
                    next_at: item.next_at,
                });
            }
        }
        rows
    }

    fn insert(&mut self, item: Item) {
        let sequence = item.entry.sequence;
        self.items.insert(sequence, item);
        self.lines.entry(item.entry.subject()).or_default().insert(sequence);
        self.line_up(item.entry.subject());
    }

    /// Of a line only the first may be attempted, and nothing while one is, or while one ends.
    fn line_up(&mut self, subject: TransactionId) {
        let Some(line) = self.lines.get(&subject) else { return };
        let is_taken = line.iter().any(|n| !self.waits(*n));
        for (i, sequence) in line.iter().enumerate() {
            let Some(item) = self.items.get(sequence) else { continue };
            let key = (item.next_at, *sequence);
            if i == 0 && !is_taken {
                self.ready.insert(key);
            } else {
                self.ready.remove(&key);
            }
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Item> {
        let item = self.items.remove(&sequence)?;
        self.unstored.remove(&sequence);
        self.ready.remove(&(item.next_at, sequence));
        if let Some(line) = self.lines.get_mut(&item.entry.subject()) {
            line.remove(&sequence);
            if line.is_empty() {
                self.lines.remove(&item.entry.subject());
            }
        }
        self.line_up(item.entry.subject());
        Some(item)
    }

    /// The next attempt that may begin now, and how many it has behind it.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<(FeedEntry, u16)> {
        if self.flying >= Self::FLYING_MAX {
            return None;
        }
        if self.pauses.may_begin_at(now).is_none_or(|at| at > now) {
            return None;
        }
        let (at, sequence) = self.due(now)?;
        self.ready.remove(&(at, sequence));
        let item = self.items.get_mut(&sequence)?;
        item.stage = Stage::Flies;
        self.flying += 1;
        self.pauses.began(sequence);
        Some((item.entry, item.attempts))
    }

    /// The attempt that is due first. While one try at a time is let through it is that of the event with
    /// the most attempts behind it: fresh ones would keep any from coming to its end.
    fn due(&self, now: Timestamp) -> Option<(Timestamp, u64)> {
        let first = *self.ready.first().filter(|(at, _)| *at <= now)?;
        if !self.pauses.is_open() {
            return Some(first);
        }
        let attempts = |sequence: &u64| self.items.get(sequence).map_or(0, |item| item.attempts);
        let due = self.ready.iter().take_while(|(at, _)| *at <= now).copied();
        due.max_by_key(|(at, sequence)| (attempts(sequence), std::cmp::Reverse((*at, *sequence))))
    }

    /// When the next attempt may begin; `None` while that depends on an outcome or an event.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        if self.flying >= Self::FLYING_MAX {
            return None;
        }
        let (at, _) = *self.ready.first()?;
        self.pauses.may_begin_at(at)
    }

    /// What an outcome means. `jitter` is as in [`Schedule::next`].
    pub(crate) fn settle(
        &mut self,
        sequence: u64,
        outcome: Outcome,
        schedule: &Schedule,
        now: Timestamp,
        jitter: u64,
    ) -> Settlement {
        let Some(item) = self.items.get_mut(&sequence).filter(|item| item.stage == Stage::Flies) else {
            return Settlement::default();
        };
        item.stage = Stage::Waits;
        self.flying -= 1;
        match outcome {
            Outcome::Delivered => {
                self.pauses.succeeded();
                self.remove(sequence);
                Settlement { finished: vec![sequence], ..Settlement::default() }
            }
            Outcome::Unsendable => {
                self.pauses.withdrawn(sequence);
                let (entry, attempts) = (item.entry, item.attempts);
                self.ends(entry, attempts)
            }
            Outcome::Postponed(until) => {
                self.pauses.withdrawn(sequence);
                item.next_at = until;
                let subject = item.entry.subject();
                self.line_up(subject);
                Settlement::default()
            }
            Outcome::Failed { retry_after } => {
                item.attempts = item.attempts.saturating_add(1);
                let (failed, entry) = (item.attempts, item.entry);
                self.pauses.failed(sequence, retry_after, schedule, now);
                let due = schedule.next(failed, now, retry_after, jitter);
                Settlement { failed: Some(failed), ..self.failed(entry, failed, due) }
            }
        }
    }

    fn ends(&mut self, entry: FeedEntry, attempts: u16) -> Settlement {
        let sequence = entry.sequence;
        self.unstored.remove(&sequence);
        if let Some(item) = self.items.get_mut(&sequence) {
            item.stage = Stage::Ends;
        }
        let dead = Some((entry, attempts));
        Settlement { finished: vec![sequence], dead, ..Settlement::default() }
    }

    /// That an event is kept aside is durable: what stands behind it may go.
    pub(crate) fn ended(&mut self, sequence: u64) {
        if self.items.get(&sequence).is_some_and(|item| item.stage == Stage::Ends) {
            self.remove(sequence);
        }
    }

    fn failed(&mut self, entry: FeedEntry, attempts: u16, due: Option<Timestamp>) -> Settlement {
        let sequence = entry.sequence;
        if self.mode == DeliveryMode::Latest && self.has_newer(entry) {
            self.remove(sequence);
            return Settlement { finished: vec![sequence], ..Settlement::default() };
        }
        let Some(next_at) = due else {
            return self.ends(entry, attempts);
        };
        if let Some(item) = self.items.get_mut(&sequence) {
            item.next_at = next_at;
            item.stored = true;
        }
        self.unstored.remove(&sequence);
        self.line_up(entry.subject());
        let own = PendingDelivery { entry, attempts, next_at };
        let pending = std::iter::once(own).chain(self.keep_followers(entry.subject())).collect();
        Settlement { pending, ..Settlement::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PartitionId;
    use crate::ports::announcement::StockChange;
    use crate::ports::store::Points;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn entry(sequence: u64, order: u64) -> FeedEntry {
        let id = TransactionId::new(Timestamp(1), PartitionId(1), order);
        FeedEntry { sequence, id, version: 1 }
    }

    fn queue(mode: DeliveryMode) -> Queue {
        Queue::new(mode, 0, Vec::new(), Rest::default())
    }

    fn schedule() -> Schedule {
        Schedule::new(vec![Duration::from_secs(5), Duration::from_secs(30)])
    }

    #[test]
    fn a_row_beyond_the_cursor_has_replaced_what_is_read_again_before_it() {
        let row = PendingDelivery { entry: entry(2, 1), attempts: 1, next_at: NOW };
        let taken = |mode| {
            let mut queue = Queue::new(mode, 0, vec![row], Rest::default());
            let settlement = queue.take_up(entry(1, 1), NOW);
            assert_eq!(queue.take_up(entry(2, 1), NOW), Settlement::default());
            (settlement.finished, queue.len(), queue.cursor(), begin(&mut queue, NOW))
        };
        assert_eq!(taken(DeliveryMode::Latest), (vec![1], 1, 2, vec![2]));
        assert_eq!(taken(DeliveryMode::Every), (vec![], 2, 0, vec![1]));
    }

    /// The sequences of all attempts that may begin now.
    fn begin(queue: &mut Queue, now: Timestamp) -> Vec<u64> {
        std::iter::from_fn(|| queue.next(now)).map(|(entry, _)| entry.sequence).collect()
    }

    fn settle(queue: &mut Queue, sequence: u64, outcome: Outcome, now: Timestamp) -> Settlement {
        queue.settle(sequence, outcome, &schedule(), now, Schedule::JITTER / 2)
    }

    const NONE: [u64; 0] = [];
    const FAILED: Outcome = Outcome::Failed { retry_after: None };

    #[test]
    fn of_a_skus_waiting_events_the_latest_replaces_the_others_and_no_other_skus() {
        let told = |sequence, at, sku: &str| {
            let id = StockChange::entry_id(Timestamp(at), PartitionId(1), &sku.parse().unwrap());
            FeedEntry { sequence, id, version: 0 }
        };
        let mut queue = Queue::new(DeliveryMode::Latest, 0, Vec::new(), Rest::default());
        for first in [told(1, 1_000, "A"), told(2, 1_000, "B")] {
            assert_eq!(queue.take_up(first, NOW).finished, Vec::<u64>::new());
        }
        assert_eq!(queue.take_up(told(3, 2_000, "A"), NOW).finished, [1]);
    }

    #[test]
    fn an_estimate_replaces_an_older_one_and_never_what_has_happened() {
        let estimate = |sequence| FeedEntry { version: Points::Estimate(1).number(), ..entry(sequence, 1) };
        let mut queue = queue(DeliveryMode::Latest);
        queue.take_up(entry(1, 1), NOW);
        assert_eq!(queue.take_up(estimate(2), NOW).finished, NONE);
        assert_eq!(queue.take_up(estimate(3), NOW).finished, [2]);
        assert_eq!(begin(&mut queue, NOW), [1], "it comes behind what has happened");
        let rows = settle(&mut queue, 1, FAILED, NOW).pending;
        assert_eq!(rows.iter().map(|row| row.entry.sequence).collect::<Vec<_>>(), [1, 3]);
        // What has happened since leaves none of them.
        assert_eq!(queue.take_up(entry(4, 1), NOW).finished, [1, 3]);
        assert_eq!(begin(&mut queue, NOW), [4]);
        assert_eq!(queue.take_up_again(estimate(3), NOW), None);
        assert!(queue.take_up_again(entry(1, 1), NOW).is_none());

        let row = |entry| PendingDelivery { entry, attempts: 1, next_at: NOW };
        let rows = vec![row(estimate(1)), row(entry(3, 1)), row(estimate(5)), row(estimate(7))];
        let mut queue = Queue::new(DeliveryMode::Latest, 9, rows.clone(), Rest::default());
        assert_eq!(queue.mode_is(DeliveryMode::Latest), [1, 5]);
        let mut every = Queue::new(DeliveryMode::Every, 9, rows, Rest::default());
        assert_eq!(every.mode_is(DeliveryMode::Every), NONE);
    }

    #[test]
    fn the_cursor_stands_before_the_first_event_that_has_neither_an_end_nor_a_row() {
        let mut queue = queue(DeliveryMode::Every);
        for n in 1..=4 {
            queue.take_up(entry(n, n), NOW);
        }
        queue.passed(9);
        assert_eq!(queue.cursor(), 0);
        assert_eq!(begin(&mut queue, NOW), [1, 2, 3, 4]);
        settle(&mut queue, 2, Outcome::Delivered, NOW);
        assert_eq!(queue.cursor(), 0);
        let row = settle(&mut queue, 1, FAILED, NOW).pending[0];
        assert_eq!((row.attempts, row.next_at), (1, NOW.after(Duration::from_secs(5))));
        assert_eq!(queue.cursor(), 2);
        settle(&mut queue, 3, Outcome::Delivered, NOW);
        settle(&mut queue, 4, Outcome::Delivered, NOW);
        assert_eq!((queue.cursor(), queue.taken_to()), (9, 9));
    }

    #[test]
    fn what_is_read_again_after_a_death_keeps_its_attempts() {
        let row = PendingDelivery { entry: entry(3, 3), attempts: 2, next_at: NOW };
        let mut queue = Queue::new(DeliveryMode::Every, 1, vec![row], Rest::default());
        queue.take_up(entry(2, 2), NOW);
        queue.take_up(entry(3, 3), NOW);
        assert_eq!((queue.len(), queue.cursor()), (2, 1));
        assert_eq!(queue.next(NOW), Some((entry(2, 2), 0)));
        assert_eq!(queue.next(NOW), Some((entry(3, 3), 2)));
        settle(&mut queue, 2, Outcome::Delivered, NOW);
        assert_eq!(queue.cursor(), 3);
    }

    #[test]
    fn every_keeps_the_order_of_a_transaction_and_holds_up_no_other() {
        let mut queue = queue(DeliveryMode::Every);
        for (n, order) in [(1, 1), (2, 1), (3, 2), (4, 1)] {
            assert_eq!(queue.take_up(entry(n, order), NOW), Settlement::default());
        }
        assert_eq!(begin(&mut queue, NOW), [1, 3]);
        settle(&mut queue, 1, FAILED, NOW);
        assert_eq!(begin(&mut queue, NOW), NONE);
        let later = NOW.after(Duration::from_secs(5));
        assert_eq!(queue.next_at(), Some(later));
        assert_eq!(begin(&mut queue, later), [1]);
        settle(&mut queue, 1, Outcome::Delivered, later);
        assert_eq!(begin(&mut queue, later), [2]);
        settle(&mut queue, 2, Outcome::Delivered, later);
        assert_eq!(begin(&mut queue, later), [4]);
    }

    #[test]
    fn what_waits_behind_a_failing_event_does_not_hold_the_cursor() {
        let mut queue = queue(DeliveryMode::Every);
        for n in 1..=3 {
            queue.take_up(entry(n, 1), NOW);
        }
        begin(&mut queue, NOW);
        let rows =
            |settled: Settlement| settled.pending.iter().map(|row| row.entry.sequence).collect::<Vec<_>>();
        assert_eq!(rows(settle(&mut queue, 1, FAILED, NOW)), [1, 2, 3]);
        assert_eq!(rows(queue.take_up(entry(4, 1), NOW)), [4]);
        assert_eq!(rows(queue.take_up(entry(5, 2), NOW)), NONE);
        assert_eq!(queue.cursor(), 4);
        begin(&mut queue, NOW);
        settle(&mut queue, 5, Outcome::Delivered, NOW);
        assert_eq!((queue.cursor(), queue.len()), (5, 4));
    }

    #[test]
    fn latest_replaces_what_waits_and_what_fails() {
        let mut queue = queue(DeliveryMode::Latest);
        queue.take_up(entry(1, 1), NOW);
        assert_eq!(begin(&mut queue, NOW), [1]);
        let taken = queue.take_up(entry(2, 1), NOW);
        assert_eq!(taken, Settlement::default(), "what is under way is not replaced");
        assert_eq!(queue.take_up(entry(3, 1), NOW).finished, [2]);
        assert_eq!(begin(&mut queue, NOW), NONE, "two of one transaction are never under way");
        let settled = settle(&mut queue, 1, FAILED, NOW);
        assert_eq!((settled.finished, settled.pending), (vec![1], vec![]));
        assert_eq!(begin(&mut queue, NOW), [3]);
        settle(&mut queue, 3, FAILED, NOW);
        assert_eq!(queue.take_up(entry(4, 1), NOW).finished, [3], "its row goes");
        assert_eq!(begin(&mut queue, NOW), [4], "a newer version is tried at once");
        assert_eq!(queue.cursor(), 3);
    }

    #[test]
    fn an_older_event_that_is_replayed_waits_for_the_newer_one_under_way() {
        let mut queue = queue(DeliveryMode::Every);
        queue.take_up(entry(2, 1), NOW);
        assert_eq!(begin(&mut queue, NOW), [2]);
        assert!(queue.take_up_again(entry(1, 1), NOW).is_some());
        assert_eq!(begin(&mut queue, NOW), NONE);
        settle(&mut queue, 2, Outcome::Delivered, NOW);
        assert_eq!(begin(&mut queue, NOW), [1]);
    }

    #[test]
    fn of_two_rows_of_a_transaction_latest_keeps_the_newer() {
        let row = |n| PendingDelivery { entry: entry(n, 1), attempts: 1, next_at: NOW };
        let mut queue = Queue::new(DeliveryMode::Latest, 9, vec![row(3), row(7)], Rest::default());
        assert_eq!(queue.mode_is(DeliveryMode::Latest), [3]);
        assert_eq!((begin(&mut queue, NOW), queue.len()), (vec![7], 1));
        let mut queue = Queue::new(DeliveryMode::Every, 9, vec![row(3), row(7)], Rest::default());
        assert_eq!(queue.mode_is(DeliveryMode::Every), NONE);
        assert_eq!((begin(&mut queue, NOW), queue.len()), (vec![3], 2));
    }

    #[test]
    fn past_the_schedule_an_event_is_kept_aside() {
        let mut queue = queue(DeliveryMode::Every);
        queue.take_up(entry(1, 1), NOW);
        let mut now = NOW;
        for attempt in 1..=3 {
            assert_eq!(begin(&mut queue, now), [1]);
            let settled = settle(&mut queue, 1, FAILED, now);
            assert_eq!(settled.failed, Some(attempt));
            assert_eq!(settled.dead.is_some(), attempt == 3);
            now = queue.next_at().unwrap_or(now);
        }
        queue.ended(1);
        assert_eq!((queue.len(), queue.cursor()), (0, 1));
    }

    #[test]
    fn what_stands_behind_a_dead_letter_waits_until_it_is_durable() {
        let once = Schedule::new(Vec::new());
        for mode in [DeliveryMode::Every, DeliveryMode::Latest] {
            let mut queue = queue(mode);
            queue.take_up(entry(1, 1), NOW);
            assert_eq!(begin(&mut queue, NOW), [1]);
            let settled = queue.settle(1, FAILED, &once, NOW, 0);
            assert_eq!((settled.dead, queue.cursor()), (Some((entry(1, 1), 1)), 1));
            assert_eq!(queue.take_up(entry(2, 1), NOW), Settlement::default(), "what ends is not replaced");
            assert_eq!((begin(&mut queue, NOW), queue.next_at()), (vec![], None));
            queue.ended(1);
            assert_eq!(begin(&mut queue, NOW), [2]);
            queue.ended(2);
            assert_eq!(queue.len(), 1, "only what ends has ended");
        }
        // Asked for again at once, it is tried again.
        let mut queue = queue(DeliveryMode::Every);
        queue.take_up(entry(1, 1), NOW);
        begin(&mut queue, NOW);
        queue.settle(1, FAILED, &once, NOW, 0);
        assert!(queue.take_up_again(entry(1, 1), NOW).is_some());
        queue.ended(1);
        assert_eq!(begin(&mut queue, NOW), [1]);
    }

    #[test]
    fn ten_are_under_way_at_most() {
        let mut queue = queue(DeliveryMode::Every);
        for n in 1..=30 {
            queue.take_up(entry(n, n), NOW);
        }
        assert_eq!(begin(&mut queue, NOW).len(), 10);
        assert_eq!(queue.next_at(), None);
        settle(&mut queue, 4, Outcome::Delivered, NOW);
        assert_eq!(begin(&mut queue, NOW), [11]);
    }

    #[test]
    fn the_breaker_opens_after_ten_events_and_lets_one_try_through_at_a_time() {
        let mut queue = queue(DeliveryMode::Every);
        for n in 1..=30 {
            queue.take_up(entry(n, n), NOW);
        }
        for n in begin(&mut queue, NOW) {
            assert!(!queue.is_open());
            settle(&mut queue, n, FAILED, NOW);
        }
        assert!(queue.is_open());
        let mut now = NOW.after(Duration::from_secs(5));
        assert_eq!(queue.next_at(), Some(now));
        for pause in [10, 20] {
            assert_eq!(begin(&mut queue, now).len(), 1);
            assert_eq!(queue.next_at(), None);
            let tried = *queue.items.iter().find(|(_, item)| item.stage == Stage::Flies).unwrap().0;
            settle(&mut queue, tried, FAILED, now);
            let next = now.after(Duration::from_secs(pause));
            assert_eq!(queue.next_at(), Some(next));
            assert_eq!(begin(&mut queue, Timestamp(next.0 - 1)), NONE);
            now = next;
        }
        let fresh = queue.items.values().filter(|item| item.attempts == 0).count();
        assert_eq!(fresh, 20, "what was postponed has used up nothing, and what was tried comes first");
        let tried = begin(&mut queue, now);
        settle(&mut queue, tried[0], Outcome::Delivered, now);
        assert!(!queue.is_open());
        assert_eq!(begin(&mut queue, now).len(), 10);
    }

    #[test]
    fn a_consumer_that_asks_to_be_left_alone_gets_nothing_at_all_until_then() {
        let mut queue = queue(DeliveryMode::Every);
        for n in 1..=20 {
            queue.take_up(entry(n, n), NOW);
        }
        assert_eq!(begin(&mut queue, NOW).len(), 10);
        let asks = |seconds| Outcome::Failed { retry_after: Some(Duration::from_secs(seconds)) };
        settle(&mut queue, 3, asks(60), NOW);
        settle(&mut queue, 4, asks(40), NOW);
        settle(&mut queue, 5, Outcome::Delivered, NOW);
        settle(&mut queue, 6, FAILED, NOW);
        let until = NOW.after(Duration::from_secs(60));
        assert_eq!(queue.next_at(), Some(until), "neither a success nor a shorter wish ends it");
        assert_eq!(begin(&mut queue, Timestamp(until.0 - 1)), NONE);
        let begun = begin(&mut queue, until);
        assert_eq!(begun, [11, 12, 13, 14], "as many as there is room for, fresh ones first");
        assert_eq!(queue.items[&11].attempts, 0, "what was held back has used up nothing");
        settle(&mut queue, 11, asks(1_000_000_000), until);
        let day = until.after(Duration::from_secs(24 * 3_600));
        assert_eq!(queue.next_at(), Some(day), "a day at most");
        queue.has_moved();
        assert_eq!(begin(&mut queue, until).len(), 1, "another consumer has asked for nothing");
    }

    #[test]
    fn what_it_rests_for_outlives_the_queue() {
        let mut queue = queue(DeliveryMode::Every);
        queue.take_up(entry(1, 1), NOW);
        begin(&mut queue, NOW);
        settle(&mut queue, 1, Outcome::Failed { retry_after: Some(Duration::from_secs(60)) }, NOW);
        let row = PendingDelivery { entry: entry(2, 2), attempts: 0, next_at: NOW };
        let mut next = Queue::new(DeliveryMode::Every, 2, vec![row], queue.rest());
        assert_eq!(
            (begin(&mut next, NOW), next.next_at()),
            (vec![], Some(NOW.after(Duration::from_secs(60))))
        );
    }

    #[test]
    fn an_open_breaker_outlives_the_queue_and_goes_on_doubling() {
        let mut queue = queue(DeliveryMode::Every);
        for n in 1..=10 {
            queue.take_up(entry(n, n), NOW);
        }
        for n in begin(&mut queue, NOW) {
            settle(&mut queue, n, FAILED, NOW);
        }
        let rows = (1..=10).map(|n| PendingDelivery { entry: entry(n, n), attempts: 1, next_at: NOW });
        let mut next = Queue::new(DeliveryMode::Every, 10, rows.collect(), queue.rest());
        assert!(next.is_open() && begin(&mut next, NOW).is_empty());
        let now = NOW.after(Duration::from_secs(5));
        assert_eq!(begin(&mut next, now), [1], "one try at a time");
        settle(&mut next, 1, FAILED, now);
        assert_eq!(next.next_at(), Some(now.after(Duration::from_secs(10))));
    }

    #[test]
    fn one_event_that_fails_for_ever_opens_no_breaker() {
        let mut queue = queue(DeliveryMode::Every);
        let long = Schedule::new(vec![Duration::from_secs(1); 30]);
        queue.take_up(entry(1, 1), NOW);
        let mut now = NOW;
        for _ in 0..30 {
            assert_eq!(begin(&mut queue, now), [1]);
            queue.settle(1, FAILED, &long, now, 0);
            now = queue.next_at().unwrap();
        }
        assert!(!queue.is_open());
    }

    #[test]
    fn enough_fresh_events_are_enough() {
        let mut queue = queue(DeliveryMode::Every);
        let mut n = 0;
        while queue.has_room() {
            n += 1;
            queue.take_up(entry(n, n), NOW);
        }
        assert_eq!(n, 512);
        let rows = (1..=10_000).map(|n| PendingDelivery { entry: entry(n, n), attempts: 1, next_at: NOW });
        assert!(!Queue::new(DeliveryMode::Every, 10_000, rows.collect(), Rest::default()).has_room());
    }

    #[test]
    fn a_replayed_event_waits_its_turn_and_never_overtakes_a_newer_latest() {
        let mut every = queue(DeliveryMode::Every);
        every.passed(9);
        every.take_up(entry(10, 1), NOW);
        let again = every.take_up_again(entry(4, 1), NOW).unwrap();
        assert_eq!(again.pending[0].entry.sequence, 4);
        assert_eq!(every.take_up_again(entry(4, 1), NOW), None);
        assert_eq!(begin(&mut every, NOW), [4]);
        let mut latest = queue(DeliveryMode::Latest);
        latest.passed(9);
        latest.take_up(entry(10, 1), NOW);
        assert_eq!(latest.take_up_again(entry(4, 1), NOW), None);
        assert_eq!(latest.cursor(), 9);
    }

    #[test]
    fn an_event_that_cannot_be_sent_is_kept_aside_and_one_that_was_not_tried_has_used_up_nothing() {
        let mut queue = queue(DeliveryMode::Every);
        queue.take_up(entry(1, 1), NOW);
        queue.take_up(entry(2, 2), NOW);
        begin(&mut queue, NOW);
        let settled = settle(&mut queue, 1, Outcome::Unsendable, NOW);
        assert_eq!((settled.dead, settled.failed), (Some((entry(1, 1), 0)), None));
        let later = NOW.after(Duration::from_secs(1));
        assert_eq!(settle(&mut queue, 2, Outcome::Postponed(later), NOW), Settlement::default());
        assert_eq!(queue.next_at(), Some(later));
        assert_eq!(queue.next(later), Some((entry(2, 2), 0)));
    }
}
