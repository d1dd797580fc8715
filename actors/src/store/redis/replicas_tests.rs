//! Against a real Redis with a replica that stops and goes on.

use std::time::Duration;

use std::process::Command;

use super::cluster_tests::{tell, wait_for};
use super::tests::{DURABLE, Redis, recent, until};
use super::*;
use crate::ports::store::{Durability, Lookup, SharedStore, TurnCommit, Verdict};
use crate::store::contract::{CLIENT, accept, commit, take};

/// Two durable Redis, one the replica of the other.
struct Pair {
    primary: Redis,
    replica: Redis,
}

impl Pair {
    fn start() -> Pair {
        let primary = Redis::start(&DURABLE);
        let port = primary.port.to_string();
        let of = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let pair = Pair { replica: Redis::start(&[&DURABLE[..], &of].concat()), primary };
        pair.wait_for_replica();
        pair
    }

    fn wait_for_replica(&self) {
        wait_for("the replica keeps up", || tell::<u64>(&self.primary, "WAIT 1 100").unwrap_or(0) == 1);
    }

    fn options(&self) -> RedisOptions {
        let replication = Replication { replicas: 1, within: Duration::from_millis(200) };
        RedisOptions { replication: Some(replication), ..self.primary.options() }
    }

    fn open(&self) -> (Arc<RedisStore>, SharedStore) {
        let store = Arc::new(RedisStore::open(&self.options()).unwrap());
        (store.clone(), store)
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.replica.server.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

#[tokio::test]
async fn nothing_counts_before_the_replica_has_it_and_all_goes_on_when_it_is_back() {
    let pair = Pair::start();
    let (_own, store) = pair.open();
    assert_eq!(store.durability(), Durability::Replicated);
    let first = recent(1, "r1", 1);
    assert_eq!(accept(&store, vec![first.clone()]).await, [Verdict::New]);
    let fence = take(&store, 1).await;
    let key = String::from_utf8(Slot::Partition(first.id.home()).key(&format!("t:{}", first.id))).unwrap();
    pair.signal("STOP");
    // Claimed, perhaps appended, and nobody is told that it is accepted.
    assert_eq!(accept(&store, vec![recent(2, "r2", 1)]).await, [Verdict::Unknown]);
    for n in 3..6 {
        let begun = std::time::Instant::now();
        let verdict = accept(&store, vec![recent(n, "r2", 1)]).await.remove(0);
        assert_eq!(verdict, Verdict::Unavailable, "nothing more is written of unknown outcome");
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    }
    assert!(commit(&store, fence, TurnCommit::default()).await.is_err());
    assert!(!store.is_writable());
    // A repeat of what was accepted is not acknowledged either, for it may be here alone by now.
    let again = accept(&store, vec![recent(9, "r1", 1)]).await.remove(0);
    assert!(matches!(again, Verdict::Unknown | Verdict::Unavailable), "{again:?}");
    // What is there is read.
    assert!(matches!(store.transaction(first.id).await.unwrap(), Some(Lookup::Live(_))));
    assert!(!store.is_writable(), "a read is no acknowledgement");

    pair.signal("CONT");
    let id = until("it is accepted", async || {
        let new = recent(10, "r2", 1);
        match accept(&store, vec![new.clone()]).await.remove(0) {
            Verdict::New => Some(new.id),
            Verdict::Replay(id) => Some(id),
            _ => None,
        }
    });
    let id = id.await;
    assert_eq!(store.scan(None, 9).await.unwrap().len(), 2, "{id}");
    commit(&store, fence, TurnCommit::default()).await.unwrap();
    until("it is well", async || store.is_writable().then_some(())).await;
    assert_eq!(store.feed(CLIENT, 0, 9).await.unwrap().len(), 2);
    // What counts is there; a replica tells it when it is asked.
    tell::<()>(&pair.replica, "REPLICAOF NO ONE").unwrap();
    assert!(tell::<u64>(&pair.replica, &format!("EXISTS {key}")).unwrap() == 1);
}

#[tokio::test]
async fn what_another_connection_wrote_is_waited_for_as_well() {
    let pair = Pair::start();
    let (own, _store) = pair.open();
    let mut read = redis::pipe();
    read.cmd("GET").arg("theirs");
    assert!(own.inner.writes.ask(&read).await.is_ok());
    pair.signal("STOP");
    tell::<()>(&pair.primary, "SET theirs 1").unwrap();
    assert!(matches!(own.inner.writes.ask(&read).await, Err(LinkError::Alone(_))));
    // Nobody acts on what this one reads before something is written.
    assert!(own.inner.reads.ask(&read).await.is_ok());
    pair.signal("CONT");
    until("the replica has it", async || own.inner.writes.ask(&read).await.ok()).await;
}

#[tokio::test]
async fn a_redis_without_its_replicas_is_refused_unless_somebody_answers_for_it() {
    let pair = Pair::start();
    let two = Replication { replicas: 2, within: Duration::from_millis(100) };
    let options = RedisOptions { replication: Some(two), ..pair.options() };
    let Err(OpenError::Unfit { source, .. }) = RedisStore::open(&options) else { panic!("it was taken") };
    assert!(matches!(*source, Doubt::Alone { found: 1, needed: 2, .. }), "{source}");
    assert!(source.to_string().contains("store.redis.replicas"), "{source}");
    // The replica itself can be written by nobody.
    let replica = RedisOptions { replication: None, ..pair.replica.options() };
    let Err(OpenError::Unfit { source, .. }) = RedisStore::open(&replica) else { panic!("it was taken") };
    assert!(matches!(*source, Doubt::Replica), "{source}");
}
