//! What only a store on disk can be asked for.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;

use super::*;
use crate::domain::fact::{Fact, OrderFact, Recorded};
use crate::domain::time::Timestamp;
use crate::ports::store::{GatherLimits, Lane, NewFacts, SharedStore, Store, TurnCommit, Verdict};
use crate::store::contract::{CLIENT, Subject, accept, commit, id, order, receipt, take};

const SIZE: u64 = 64 << 20;

/// Counts instead of ending the test run.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Fate for Counted {
    fn end(&self, _reason: &str) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn open(dir: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(dir, SIZE, Arc::new(Counted::default()))
}

pub(in crate::store) fn subject() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let store: SharedStore = Arc::new(open(dir.path()).unwrap());
    Subject { store, _keep: Box::new(dir) }
}

#[tokio::test]
async fn a_reopened_store_has_everything_and_counts_on() {
    let dir = tempfile::tempdir().unwrap();
    let store: SharedStore = Arc::new(open(dir.path()).unwrap());
    accept(&store, vec![order(1, "r1", 1), receipt(2, "m1", 5)]).await;
    let fence = take(&store, 1).await;
    let taken = vec![(Lane::Work, 1)];
    commit(&store, fence, TurnCommit { taken, ..TurnCommit::default() }).await.unwrap();
    let before = store.scan(None, 10).await.unwrap();
    let serial = store.lease_serials(10).await.unwrap().wait().await.unwrap();
    drop(store);

    let store: SharedStore = Arc::new(open(dir.path()).unwrap());
    assert_eq!(store.scan(None, 10).await.unwrap(), before);
    let again = vec![order(3, "r1", 1), order(4, "r4", 1)];
    assert_eq!(accept(&store, again).await, [Verdict::Replay(id(1)), Verdict::New]);
    let feed: Vec<_> = store.feed(CLIENT, 0, 10).await.unwrap().iter().map(|e| e.sequence).collect();
    assert_eq!(feed, [1, 2, 3]);
    assert_eq!(take(&store, 2).await.epoch, 2);
    assert_eq!(store.lease_serials(1).await.unwrap().wait().await.unwrap(), serial + 10);
}

#[tokio::test]
async fn a_held_directory_is_not_served_twice_and_is_free_after_a_drop() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Held { .. })));
    let identity = first.id();
    drop(first);
    assert_eq!(open(dir.path()).unwrap().id(), identity);
}

#[tokio::test]
async fn a_backup_is_a_data_directory() {
    let (dir, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(open(dir.path()).unwrap());
    let shared: SharedStore = store.clone();
    accept(&shared, vec![order(1, "r1", 1)]).await;
    store.backup(&dest.path().join("live")).unwrap();
    assert!(matches!(store.backup(&dest.path().join("live")), Err(BackupError::Occupied(_))));
    let all = shared.scan(None, 10).await.unwrap();
    drop((store, shared));
    EmbeddedStore::backup_from(dir.path(), &dest.path().join("cold")).unwrap();
    let nowhere = EmbeddedStore::backup_from(&dest.path().join("none"), &dest.path().join("x"));
    assert!(matches!(nowhere, Err(BackupError::NoStore(_))));
    for copy in ["live", "cold"] {
        let copy = open(&dest.path().join(copy)).unwrap();
        assert_eq!(copy.scan(None, 10).await.unwrap(), all);
    }
}

#[tokio::test]
async fn a_broken_invariant_ends_the_process_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fate = Arc::new(Counted::default());
    let store: SharedStore = Arc::new(EmbeddedStore::open(dir.path(), SIZE, fate.clone()).unwrap());
    let fence = take(&store, 1).await;
    let turn = TurnCommit { taken: vec![(Lane::Work, 9)], opened: vec![id(1)], ..TurnCommit::default() };
    assert!(matches!(commit(&store, fence, turn).await, Err(CommitError::Unknown(_))));
    assert!(!store.is_writable());
    let late = accept(&store, vec![order(1, "r1", 1)]).await;
    assert!(matches!(late[0], Verdict::Unavailable | Verdict::Unknown));
    drop(store);
    assert_eq!(fate.0.load(Ordering::SeqCst), 1);
    assert_eq!(open(dir.path()).unwrap().scan(None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_full_map_refuses_orders_and_keeps_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let small = EmbeddedStore::open(dir.path(), 512 << 10, Arc::new(Counted::default())).unwrap();
    let store: SharedStore = Arc::new(small);
    let mut kept = 0;
    let refused = loop {
        let n = kept + 1;
        match accept(&store, vec![order(n, &format!("r{n}"), 1)]).await[0] {
            Verdict::New => kept += 1,
            other => break other,
        }
        assert!(kept < 100_000, "the map never filled");
    };
    assert_eq!(refused, Verdict::StoreFull);
    assert_eq!(accept(&store, vec![order(kept + 9, "r1", 1)]).await, [Verdict::Replay(id(1))]);
    let found = store.scan(None, usize::MAX).await.unwrap().len();
    assert_eq!(u64::try_from(found).unwrap(), kept);
}

#[tokio::test]
async fn many_writers_share_commits_and_each_gets_its_own_answer() {
    let subject = subject();
    let store = &subject.store;
    let writes: Vec<_> =
        (1..=200).map(|n| store.accept(vec![order(n, &format!("r{}", n % 150), 1)])).collect();
    let mut new = 0;
    for write in writes {
        match write.await.wait().await.unwrap()[0] {
            Verdict::New => new += 1,
            Verdict::Replay(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(new, 150);
}

/// Facts of some transactions, whose versions begin at `first`.
fn facts(ids: impl IntoIterator<Item = u64>, first: u32, count: usize) -> TurnCommit {
    let backordered = Recorded { at: Timestamp(5_000), fact: Fact::Order(OrderFact::Backordered) };
    let facts = vec![backordered; count];
    let of = |n| NewFacts { id: id(n), client: CLIENT, first_version: first, facts: facts.clone() };
    TurnCommit { facts: ids.into_iter().map(of).collect(), ..TurnCommit::default() }
}

/// The keys of all rows of `tx` that begin with `prefix`.
fn rows_of(store: &EmbeddedStore, prefix: &[u8]) -> Vec<Vec<u8>> {
    store.read(|rows| rows::keys_under(rows, Table::Tx, prefix)).unwrap()
}

#[tokio::test]
async fn facts_that_lie_apart_are_walked_in_the_order_of_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = Arc::new(open(dir.path()).unwrap());
    let store: SharedStore = embedded.clone();
    accept(&store, (1..=3).map(|n| order(n, &format!("r{n}"), 1)).collect()).await;
    let fence = take(&store, 1).await;
    commit(&store, fence, facts([1, 3], 2, 2)).await.unwrap();

    let all = rows_of(&embedded, &[]);
    assert!(all.is_sorted(), "{all:02x?}");
    let expected = [(1, 1 + 1 + 3), (2, 1 + 1 + 1), (3, 1 + 1 + 3)];
    for (n, rows) in expected {
        let whole = rows_of(&embedded, &keys::tx(id(n)));
        assert_eq!(whole.len(), rows, "of {n}");
        assert!(whole.iter().all(|key| all.contains(key)));
        assert_eq!(rows_of(&embedded, &keys::facts(id(n))).len(), rows - 2);
    }
    assert_eq!(all.len(), expected.iter().map(|(_, rows)| rows).sum::<usize>());
    let third = rows_of(&embedded, &keys::fact(id(3), 3));
    assert_eq!(third, [keys::chunk(&keys::fact(id(3), 3), 0)]);
    assert_eq!(rows_of(&embedded, &keys::fact(id(3), 1)).len(), 1);
    let (mut seen, stop) = (0, 3);
    let counted = embedded.read(|rows| {
        rows.walk(Table::Tx, &keys::facts(id(1)), None, &mut |_, _| {
            seen += 1;
            Ok(if seen == stop { rows::Walk::Stop } else { rows::Walk::On })
        })
    });
    counted.unwrap();
    assert_eq!(seen, stop);
}

/// Says that the directory has this layout, after `change`.
fn set_layout(store: &EmbeddedStore, layout: u32, change: impl FnOnce(&mut Writing<'_>)) {
    let mut writing = Writing { tables: &store.views.tables, txn: store.env.write_txn().unwrap() };
    change(&mut writing);
    writing.put(Table::Meta, keys::STORE, &format::encode_store(store.id, layout)).unwrap();
    writing.txn.commit().unwrap();
}

/// Makes of the directory what the release before would have: all facts in `tx`, and its layout.
fn as_the_layout_before(store: &EmbeddedStore) {
    set_layout(store, place::LAYOUT_BEFORE, |writing| {
        assert!(writing.tables.put_together(&mut writing.txn).unwrap() > 0);
    });
}

#[tokio::test]
async fn a_directory_of_the_layout_before_goes_on_with_facts_in_both_places() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = Arc::new(open(dir.path()).unwrap());
    let store: SharedStore = embedded.clone();
    accept(&store, vec![order(1, "r1", 1), order(2, "r2", 1)]).await;
    let fence = take(&store, 1).await;
    commit(&store, fence, facts([1], 2, 2)).await.unwrap();
    let before = store.scan(None, 10).await.unwrap();
    as_the_layout_before(&embedded);
    let long = keys::fact(id(2), 9);
    let chunks = [vec![1; keys::CHUNK_BYTES], vec![2; 7]];
    set_layout(&embedded, place::LAYOUT_BEFORE, |writing| {
        for (n, chunk) in (0u16..).zip(&chunks) {
            writing.tables.put_before(&mut writing.txn, &keys::chunk(&long, n), chunk).unwrap();
        }
    });
    let read = embedded.read(|rows| rows::read_chunked(rows, Table::Tx, &long)).unwrap();
    assert_eq!(read, Some(chunks.concat()), "a value of several rows");
    set_layout(&embedded, place::LAYOUT_BEFORE, |writing| {
        for key in [0, 1].map(|n| keys::chunk(&long, n)) {
            assert!(writing.delete(Table::Tx, &key).unwrap());
        }
    });
    drop((store, embedded));

    let embedded = Arc::new(open(dir.path()).unwrap());
    let store: SharedStore = embedded.clone();
    assert_eq!(store.scan(None, 10).await.unwrap(), before);
    let fence = take(&store, 2).await;
    commit(&store, fence, facts([1], 4, 1)).await.unwrap();
    commit(&store, fence, facts([2], 2, 1)).await.unwrap();
    let counts: Vec<_> = store.scan(None, 10).await.unwrap().iter().map(|t| t.facts.len()).collect();
    assert_eq!(counts, [4, 2]);
    assert!(rows_of(&embedded, &[]).is_sorted());
    assert_eq!(store.sequences(id(1)).await.unwrap(), [1, 3, 4, 5].map(Some));
    drop((store, embedded));

    let embedded = Arc::new(open(dir.path()).unwrap());
    let store: SharedStore = embedded.clone();
    let fence = take(&store, 3).await;
    let ended = vec![(id(1), Timestamp(6_000)), (id(2), Timestamp(6_000))];
    commit(&store, fence, TurnCommit { ended, ..TurnCommit::default() }).await.unwrap();
    let hour = std::time::Duration::from_secs(3_600);
    assert_eq!(store.sweep(Timestamp(6_001).after(hour), hour, 10).await.unwrap(), 2);
    let left = [1, 2].map(|n| keys::chunk(&keys::command(id(n)), 0));
    assert_eq!(rows_of(&embedded, &[]), left, "of what is swept only tombstones stay, wherever it lay");
}

#[test]
fn a_directory_of_another_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    set_layout(&store, place::LAYOUT + 1, |_| ());
    drop(store);
    let newer = place::LAYOUT + 1;
    assert!(matches!(open(dir.path()), Err(OpenError::WrongFormat { found, .. }) if found == newer));
}

/// Set in the process that [`serves_until_killed`] runs in.
const CHILD: &str = "WAVEGATE_STORE_TEST_DIR";

#[test]
#[ignore = "runs as the child of what_was_acknowledged_survives_a_kill"]
fn serves_until_killed() {
    use std::io::Write as _;
    let Ok(dir) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store: SharedStore = Arc::new(open(Path::new(&dir)).unwrap());
        accept(&store, vec![receipt(1, "m1", 5)]).await;
        for n in 2.. {
            assert_eq!(accept(&store, vec![order(n, &format!("r{n}"), 1)]).await, [Verdict::New]);
            // A line is an acknowledgement.
            writeln!(std::io::stdout(), "\nacknowledged {n}").unwrap();
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    let (dir, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::embedded::tests::serves_until_killed", "--ignored", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged =
        lines.filter_map(|line| line.unwrap().strip_prefix("acknowledged ")?.parse::<u64>().ok());
    assert!(acknowledged.find(|n| *n > 50).is_some(), "the child never served");

    // Beside a server in another process: no second one, but a backup.
    assert!(matches!(open(dir.path()), Err(OpenError::Held { .. })));
    EmbeddedStore::backup_from(dir.path(), dest.path()).unwrap();

    let until = acknowledged.find(|n| *n > 150).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let last = acknowledged.last().unwrap_or(until);

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for (path, least) in [(dir.path(), last), (dest.path(), 50)] {
            let store = open(path).unwrap();
            let found = store.scan(None, usize::MAX).await.unwrap();
            assert!(u64::try_from(found.len()).unwrap() >= least, "{} of {least}", found.len());
            assert_eq!(crate::store::check(&store).await, []);
        }
    });
}

#[tokio::test]
async fn a_flood_of_callers_reads_neither_holds_up_nor_refuses_an_owner() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = Arc::new(open(dir.path()).unwrap());
    let store: SharedStore = embedded.clone();
    accept(&store, vec![order(1, "r1", 1)]).await;
    let fence = take(&store, 1).await;
    let (free, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(parking_lot::Mutex::new(held));
    let flood = || {
        let held = Arc::clone(&held);
        embedded.reads.read(move |_, _| {
            let _freed = held.lock().recv();
            Ok(())
        })
    };
    // The callers' threads are held, and behind them the queue fills until one is refused.
    while flood().now_or_never().is_none() {}
    assert!(matches!(store.transaction(id(1)).await, Err(ReadError::Unavailable(_))));

    let limits = GatherLimits { control: 9, stock: 9, work: 9 };
    assert_eq!(store.gather(fence, limits).await.unwrap().entries.len(), 1);
    assert!(store.load(fence).await.unwrap().open.is_empty());
    assert!(matches!(store.subject(fence, id(1)).await, Ok(Some(Lookup::Live(_)))));
    drop(free);
}
