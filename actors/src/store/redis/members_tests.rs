//! Nodes that share a Redis: leases, the one assignment, and the words between them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster_tests::tell;
use super::tests::{DURABLE, Redis, until};
use super::{KEEP_MAX, MemberOptions, ReceiptOptions, RedisOptions, RedisStore};
use crate::domain::spread::{Charge, Homes};
use crate::ports::membership::{Membership, RenewError, Roster, Word};
use crate::ports::store::{CommitError, SharedStore, TurnCommit};
use crate::store::contract::{HERE, commit, take};

/// Short, and long enough for a busy machine to renew it.
const LEASE: Duration = Duration::from_millis(1_500);

/// A node of a Redis; another process of it is opened on the same directory.
struct Node {
    own: Arc<RedisStore>,
    store: SharedStore,
    nodes: Arc<dyn Membership>,
}

fn open(redis: &Redis, dir: &tempfile::TempDir, name: &str) -> Node {
    let receipts = ReceiptOptions { dir: dir.path().join(name), keep: KEEP_MAX };
    let member = MemberOptions { name: name.to_owned(), lease: LEASE };
    let options = RedisOptions { receipts: Some(receipts), member: Some(member), ..redis.options() };
    let own = Arc::new(RedisStore::open(&options).unwrap());
    let store: SharedStore = own.clone();
    let nodes = store.membership().unwrap();
    Node { own, store, nodes }
}

impl Node {
    async fn renew(&self, judge: bool) -> Roster {
        self.nodes.renew(false, judge).await.unwrap()
    }
}

fn names(roster: &Roster) -> BTreeSet<&str> {
    roster.members.iter().map(|member| member.name.as_str()).collect()
}

#[tokio::test]
async fn a_node_past_its_lease_is_taken_off_by_who_judges_and_commits_nothing_ever_again() {
    let (redis, dir) = (Redis::start(&DURABLE), tempfile::tempdir().unwrap());
    let (sleeper, other) = (open(&redis, &dir, "a"), open(&redis, &dir, "b"));
    sleeper.renew(false).await;
    let fence = take(&sleeper.store, 1).await;
    commit(&sleeper.store, fence, TurnCommit::default()).await.unwrap();
    assert_eq!(names(&other.renew(true).await), ["a", "b"].into());
    // From here on it says nothing.
    let slept = Instant::now();
    while slept.elapsed() < LEASE {
        assert_eq!(names(&other.renew(false).await).len(), 2, "who does not judge takes nobody off");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("it is taken off", async || (names(&other.renew(true).await).len() == 1).then_some(())).await;
    let wrote = commit(&sleeper.store, fence, TurnCommit::default()).await;
    assert!(matches!(wrote, Err(CommitError::Conflict)), "before it has a lease again: {wrote:?}");
    assert!(matches!(sleeper.store.take(HERE, 2).await, Err(CommitError::Conflict)));
    // Nobody has taken the warehouse, and nobody needs to: its fences are void.
    other.nodes.depose(vec![HERE]).await.unwrap();
    assert_eq!(names(&sleeper.renew(true).await), ["a", "b"].into());
    let wrote = commit(&sleeper.store, fence, TurnCommit::default()).await;
    assert!(matches!(wrote, Err(CommitError::Conflict)), "with a lease again: {wrote:?}");
}

#[tokio::test]
async fn of_two_assignments_that_follow_the_same_one_counts_and_every_node_reads_it() {
    let (redis, dir) = (Redis::start(&DURABLE), tempfile::tempdir().unwrap());
    let (one, two) = (open(&redis, &dir, "a"), open(&redis, &dir, "b"));
    assert_eq!(one.renew(false).await.version, 0);
    let to = |node: &Node| Homes::from([(Charge::Warehouse(HERE), node.nodes.me())]);
    assert!(one.nodes.assign(0, to(&one)).await.unwrap());
    assert!(!two.nodes.assign(0, to(&two)).await.unwrap());
    for node in [&one, &two, &one] {
        let Roster { version, homes, .. } = node.renew(false).await;
        assert_eq!((version, homes), (1, to(&one)));
    }
    assert!(two.nodes.assign(1, to(&two)).await.unwrap());
    assert_eq!(one.renew(false).await.homes, to(&two));
    two.nodes.leave().await.unwrap();
    assert_eq!(names(&one.renew(false).await), ["a"].into(), "who leaves is not waited for");
}

#[tokio::test]
async fn a_process_whose_place_another_took_works_nothing_any_more() {
    let (redis, dir) = (Redis::start(&DURABLE), tempfile::tempdir().unwrap());
    let first = open(&redis, &dir, "a");
    first.renew(false).await;
    let fence = take(&first.store, 1).await;
    // A directory that was copied: its lock does not help.
    std::fs::create_dir(dir.path().join("copy")).unwrap();
    std::fs::copy(dir.path().join("a/node"), dir.path().join("copy/node")).unwrap();
    let second = open(&redis, &dir, "copy");
    assert_eq!(second.nodes.me(), first.nodes.me());
    second.renew(false).await;
    assert!(matches!(first.nodes.renew(false, false).await, Err(RenewError::Replaced)));
    let wrote = commit(&first.store, fence, TurnCommit::default()).await;
    assert!(matches!(wrote, Err(CommitError::Conflict)), "{wrote:?}");
    assert_eq!(second.renew(false).await.members.len(), 1);
    // It takes nothing with it that is not its own any more.
    first.nodes.leave().await.unwrap();
    assert_eq!(second.renew(false).await.members.len(), 1);
}

#[tokio::test]
async fn words_reach_the_others_and_who_missed_some_is_told() {
    let (redis, dir) = (Redis::start(&DURABLE), tempfile::tempdir().unwrap());
    let (one, two) = (open(&redis, &dir, "a"), open(&redis, &dir, "b"));
    let (mut here, mut there) = (one.nodes.listen(), two.nodes.listen());
    let word = Word::Released(HERE);
    // It may be lost until both are on the channel.
    until("it is heard", async || {
        one.nodes.tell(word.clone());
        let heard = tokio::time::timeout(Duration::from_millis(100), there.recv()).await;
        (heard.ok()?.ok()? == word).then_some(())
    })
    .await;
    two.nodes.tell(Word::Roster);
    let mut heard = async || {
        loop {
            match here.recv().await.unwrap() {
                // From when it joined the channel.
                Word::Missed => {}
                heard => return heard,
            }
        }
    };
    assert_eq!(heard().await, Word::Roster, "and never its own");
    // The connection breaks by which it tells; by theirs the others hear on, and nothing.
    let killed: i64 = tell(&redis, "CLIENT KILL TYPE normal").unwrap();
    assert!(killed > 0);
    until("it is told that it missed some", async || {
        one.nodes.tell(word.clone());
        while let Ok(heard) = there.try_recv() {
            if heard == Word::Missed {
                return Some(());
            }
        }
        None
    })
    .await;
}

#[tokio::test]
async fn a_run_is_used_when_every_node_that_is_there_has_settled_it_or_its_lease_is_over() {
    let (redis, dir) = (Redis::start(&DURABLE), tempfile::tempdir().unwrap());
    let (one, two) = (open(&redis, &dir, "a"), open(&redis, &dir, "b"));
    one.renew(false).await;
    two.renew(false).await;
    let runs = BTreeSet::from(["a run that nobody has met".to_owned()]);
    let settled = async |node: &Node| {
        let (inner, runs) = (node.own.inner.clone(), runs.clone());
        let settling = node.own.runtime.spawn(async move {
            let members = inner.members.as_ref().unwrap();
            inner.others_settle(members, &runs).await
        });
        let begun = Instant::now();
        settling.await.unwrap().unwrap();
        begun.elapsed()
    };
    assert!(settled(&one).await >= LEASE, "the other one has not");
    assert!(settled(&two).await < LEASE, "the other one has");
    assert!(settled(&one).await < LEASE);
}

#[tokio::test]
async fn of_all_nodes_one_is_the_first_to_use_a_name_until_it_is_forgotten() {
    let (redis, dir) = (Redis::start(&DURABLE), tempfile::tempdir().unwrap());
    let (one, two) = (open(&redis, &dir, "a"), open(&redis, &dir, "b"));
    let (name, within) = ([7; 32], Duration::from_secs(60));
    let (first, second) = tokio::join!(one.nodes.first_use(name, within), two.nodes.first_use(name, within));
    assert_ne!(first.unwrap(), second.unwrap());
    assert!(two.nodes.first_use([8; 32], within).await.unwrap(), "another name");
    assert!(!one.nodes.first_use([8; 32], within).await.unwrap());
    one.nodes.forget_use(name).await;
    assert!(two.nodes.first_use(name, Duration::from_millis(20)).await.unwrap());
    until("its time is over", async || one.nodes.first_use(name, within).await.unwrap().then_some(())).await;
}
