//! Against real Redis servers, each test with its own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::domain::command::Kind;
use crate::domain::ids::TransactionId;
use crate::domain::time::Timestamp;
use crate::ports::clock::{Clock as _, SystemClock};
use crate::ports::store::{IdempotencyKey, Lookup, NewCommand, NewFacts, SharedStore, TurnCommit, Verdict};
use crate::store::contract::{CLIENT, HERE, Subject, accept, accepted, commit, id, order, receipt, take};
use crate::store::format;
use crate::store::rows::ClaimHash;

/// What the store needs of a Redis.
pub(super) const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A redis-server of a test, killed by its id when the test is over.
pub(in crate::store) struct Redis {
    pub(super) server: Child,
    pub(super) port: u16,
    pub(super) dir: TempDir,
}

impl Redis {
    pub(super) fn start(settings: &[&str]) -> Redis {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            // Somebody may take the port in between; then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(server) = serve(dir.path(), port, settings) {
                return Redis { server, port, dir };
            }
        }
        panic!("redis-server does not start");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn options(&self) -> RedisOptions {
        RedisOptions::at(self.url())
    }

    pub(super) fn open(&self) -> Result<RedisStore, OpenError> {
        RedisStore::open(&self.options())
    }

    /// Ends it as a power cut would, and starts it again on what is in `dir`.
    pub(super) fn restart(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.server = serve(self.dir.path(), self.port, &DURABLE).expect("its port is free again");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.server.kill();
        let _reaped = self.server.wait();
    }
}

/// Starts a server, if the port is free.
pub(super) fn serve(dir: &Path, port: u16, settings: &[&str]) -> Option<Child> {
    let mut server = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .arg("--dir")
        .arg(dir)
        .args(settings)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if server.try_wait().unwrap().is_some() {
            return None;
        }
        if answers(port) {
            return Some(server);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _gone = server.kill();
    let _reaped = server.wait();
    None
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    // Whatever it says, be it that it wants a password or still reads its data, it is there: it is asked
    // on until it has read them.
    let mut answer = [0; 4];
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer != b"-LOA"
}

pub(in crate::store) fn subject() -> Subject {
    let redis = Redis::start(&DURABLE);
    let store: SharedStore = Arc::new(redis.open().unwrap());
    Subject { store, _keep: Box::new(redis) }
}

/// A claim as the first step of accepting leaves it, without the second.
async fn only_claimed(store: &RedisStore, new: &NewCommand) {
    let claim = store.inner.hasher.reference(new.client, new.command.kind(), new.command.reference());
    set_claim(store, claim, new).await;
}

async fn set_claim(store: &RedisStore, claim: ClaimHash, new: &NewCommand) {
    let mut set = redis::pipe();
    set.cmd("SET").arg(place::claim(claim)).arg(format::encode_held_claim(new.id, &new.digest));
    store.inner.writes.write(&set).await.unwrap();
}

pub(super) fn recent(n: u64, reference: &str, quantity: u32) -> NewCommand {
    let id = TransactionId::new(SystemClock.now(), HERE, n);
    NewCommand { id, ..order(n, reference, quantity) }
}

pub(super) fn opened(redis: &Redis) -> (Arc<RedisStore>, SharedStore) {
    let store = Arc::new(redis.open().unwrap());
    let shared: SharedStore = store.clone();
    (store, shared)
}

async fn found(store: &SharedStore, reference: &str) -> Option<TransactionId> {
    store.claimed(CLIENT, Kind::Order, reference.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn killed_between_claim_and_append_the_retry_appends_under_the_claimed_id() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let (died, retry) = (recent(1, "r1", 3), recent(2, "r1", 3));
    only_claimed(&own, &died).await;
    assert_eq!(found(&store, "r1").await, None, "it is not there yet");
    assert_eq!(accept(&store, vec![retry.clone()]).await, [Verdict::Replay(died.id)]);
    assert_eq!(found(&store, "r1").await, Some(died.id));
    let Some(Lookup::Live(stored)) = store.transaction(died.id).await.unwrap() else {
        panic!("it is not live")
    };
    assert_eq!(stored.command, retry.command);
    assert_eq!(store.transaction(retry.id).await.unwrap(), None);
    assert_eq!(store.feed(CLIENT, 0, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_claim_without_its_transaction_conflicts_with_nothing_and_can_never_be_appended() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let (died, other) = (recent(1, "r1", 3), recent(2, "r1", 4));
    only_claimed(&own, &died).await;
    assert_eq!(accept(&store, vec![other.clone()]).await, [Verdict::New]);
    assert_eq!(found(&store, "r1").await, Some(other.id));
    // The dead one's append comes late, past its claim: it is not accepted a second time.
    let late = accept(&store, vec![died.clone()]).await;
    assert_eq!(late, [Verdict::ReferenceConflict(other.id)]);
    assert_eq!(store.transaction(died.id).await.unwrap(), None);
    assert_eq!(store.scan(None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_claim_of_more_than_an_hour_ago_is_not_appended_under() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let old = TransactionId::new(Timestamp(SystemClock.now().0 - 3_700_000), HERE, 1);
    let (died, retry) = (NewCommand { id: old, ..recent(1, "r1", 3) }, recent(2, "r1", 3));
    only_claimed(&own, &died).await;
    assert_eq!(accept(&store, vec![retry.clone()]).await, [Verdict::New]);
    assert_eq!(found(&store, "r1").await, Some(retry.id));
    assert_eq!(store.transaction(old).await.unwrap(), None);
}

#[tokio::test]
async fn killed_between_void_and_unclaim_the_retry_claims_anew() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let (died, retry) = (recent(1, "r1", 3), recent(2, "r1", 3));
    only_claimed(&own, &died).await;
    let key = Slot::Partition(HERE).key(&format!("t:{}", died.id));
    let void = link::Call { lua: link::Lua::Void, keys: vec![key], args: vec![b"7200".to_vec()] };
    own.inner.writes.run(&[void]).await.unwrap().remove(0).unwrap();
    assert_eq!(accept(&store, vec![retry.clone()]).await, [Verdict::New]);
    assert_eq!(found(&store, "r1").await, Some(retry.id));
}

#[tokio::test]
async fn a_key_that_was_claimed_for_nothing_is_taken_by_the_next_command() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let keyed = |mut new: NewCommand| {
        new.key = Some(IdempotencyKey { call: Kind::Order, key: "k".to_owned() });
        new
    };
    let (died, same, other) =
        (keyed(recent(1, "r1", 3)), keyed(recent(2, "r1", 3)), keyed(recent(3, "r2", 9)));
    let claim = own.inner.hasher.key(CLIENT, died.key.as_ref().unwrap());
    set_claim(&own, claim, &died).await;
    only_claimed(&own, &died).await;
    assert_eq!(accept(&store, vec![same]).await, [Verdict::Replay(died.id)]);
    assert_eq!(accept(&store, vec![other.clone()]).await, [Verdict::KeyReused]);

    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let claim = own.inner.hasher.key(CLIENT, died.key.as_ref().unwrap());
    set_claim(&own, claim, &died).await;
    only_claimed(&own, &died).await;
    assert_eq!(accept(&store, vec![other]).await, [Verdict::New]);
    assert_eq!(store.transaction(died.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_relay_that_is_done_twice_numbers_nothing_twice() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    accept(&store, vec![order(1, "r1", 1), order(2, "r2", 1)]).await;
    let log = Slot::Partition(HERE).key("log");
    let mut ask = redis::pipe();
    ask.cmd("XRANGE").arg(&log).arg("-").arg("+");
    let logged = own.inner.reads.ask(&ask).await.unwrap().remove(0);
    let logged = replies::entries(logged);
    assert_eq!(logged.len(), 2);
    // As if it had died before the log was trimmed.
    for _ in 0..2 {
        for answer in own.inner.writes.run(&relay::calls(HERE, &logged)).await.unwrap() {
            answer.unwrap();
        }
    }
    let fence = take(&store, 1).await;
    let turn = TurnCommit {
        facts: vec![NewFacts { id: id(1), client: CLIENT, first_version: 2, facts: vec![accepted(5)] }],
        ..TurnCommit::default()
    };
    commit(&store, fence, turn).await.unwrap();
    let feed = store.feed(CLIENT, 0, 9).await.unwrap();
    let seen: Vec<_> = feed.iter().map(|e| (e.sequence, e.id, e.version)).collect();
    assert_eq!(seen, [(1, id(1), 1), (2, id(2), 1), (3, id(1), 2)]);
    assert_eq!(store.sequences(id(1)).await.unwrap(), [Some(1), Some(3)]);
}

#[tokio::test]
async fn a_reopened_store_has_everything_and_counts_on() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    accept(&store, vec![order(1, "r1", 1), receipt(2, "m1", 5)]).await;
    let first = take(&store, 1).await;
    let serial = store.lease_serials(10).await.unwrap().wait().await.unwrap();
    let secret = store.secret("tickets");
    drop((own, store));

    let (_own, store) = opened(&redis);
    let again = vec![order(3, "r1", 1), order(4, "r4", 1)];
    assert_eq!(accept(&store, again).await, [Verdict::Replay(id(1)), Verdict::New]);
    // What the one before logged and did not relay is there.
    let feed: Vec<_> = store.feed(CLIENT, 0, 10).await.unwrap().iter().map(|e| e.sequence).collect();
    assert_eq!(feed, [1, 2, 3]);
    assert!(take(&store, 2).await.epoch > first.epoch);
    assert!(matches!(commit(&store, first, TurnCommit::default()).await, Err(CommitError::Conflict)));
    assert_eq!(store.lease_serials(1).await.unwrap().wait().await.unwrap(), serial + 10);
    assert_eq!(store.secret("tickets"), secret);
}

/// Asks again until it is so.
pub(super) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let bound = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < bound, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_redis_that_died_and_came_back_with_its_data_is_gone_on_with() {
    let mut redis = Redis::start(&DURABLE);
    let (_own, store) = opened(&redis);
    let fence = take(&store, 1).await;
    accept(&store, vec![order(1, "r1", 1)]).await;
    redis.restart();
    let verdicts = until("it goes on", async || {
        let verdicts = accept(&store, vec![order(2, "r2", 1)]).await;
        (!matches!(verdicts[..], [Verdict::Unavailable | Verdict::Unknown])).then_some(verdicts)
    });
    assert!(matches!(verdicts.await[..], [Verdict::New | Verdict::Replay(_)]));
    assert_eq!(store.scan(None, 9).await.unwrap().len(), 2, "nothing acknowledged is lost");
    // It may have lost turns that its owner knows of.
    let turn = TurnCommit { wake_at: Timestamp(7), ..TurnCommit::default() };
    assert!(matches!(commit(&store, fence, turn.clone()).await, Err(CommitError::Conflict)));
    let fence = take(&store, 2).await;
    commit(&store, fence, turn).await.unwrap();
    assert!(store.is_writable());
}

#[tokio::test]
async fn a_redis_that_came_back_empty_is_not_written() {
    let mut redis = Redis::start(&DURABLE);
    let (_own, store) = opened(&redis);
    accept(&store, vec![order(1, "r1", 1)]).await;
    redis.server.kill().unwrap();
    redis.server.wait().unwrap();
    let kept = redis.dir.path().join("appendonlydir");
    let aside = redis.dir.path().join("aside");
    std::fs::rename(&kept, &aside).unwrap();
    redis.server = serve(redis.dir.path(), redis.port, &DURABLE).unwrap();
    for n in 2..6 {
        assert_eq!(accept(&store, vec![order(n, "r2", 1)]).await, [Verdict::Unavailable]);
        assert!(store.take(HERE, n).await.is_err());
    }
    let Err(ReadError::Unavailable(why)) = store.transaction(id(1)).await else {
        panic!("it reads another store")
    };
    assert!(why.to_string().contains("bring its data back"), "{why}");
    assert!(!store.is_writable());

    redis.server.kill().unwrap();
    redis.server.wait().unwrap();
    std::fs::remove_dir_all(&kept).unwrap();
    std::fs::rename(&aside, &kept).unwrap();
    redis.server = serve(redis.dir.path(), redis.port, &DURABLE).unwrap();
    until("it goes on by itself", async || {
        (accept(&store, vec![order(9, "r9", 1)]).await == [Verdict::New]).then_some(())
    })
    .await;
    assert_eq!(store.scan(None, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_redis_that_is_emptied_under_our_hands_is_noticed() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let mut flush = redis::pipe();
    flush.cmd("FLUSHALL");
    own.inner.writes.write(&flush).await.unwrap();
    until("it is noticed", async || (!store.is_writable()).then_some(())).await;
    assert_eq!(accept(&store, vec![order(1, "r1", 1)]).await, [Verdict::Unavailable]);
}

#[tokio::test]
async fn a_redis_that_would_lose_what_it_acknowledged_is_refused() {
    let weak = Redis::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let Err(OpenError::Unfit { source, .. }) = weak.open() else { panic!("it was taken") };
    let needed = matches!(*source, Doubt::Weak { setting: "appendfsync", needed: "always", .. });
    assert!(needed && source.to_string().contains("assume_durability"), "{source}");
    let assumed = RedisOptions { assume_durability: true, ..weak.options() };
    assert!(RedisStore::open(&assumed).is_ok());
    let evicting = [&DURABLE[..], &["--maxmemory-policy", "allkeys-lru"]].concat();
    assert!(matches!(Redis::start(&evicting).open(), Err(OpenError::Unfit { .. })));
}

#[test]
fn a_password_is_in_no_message() {
    let url = "redis://wavegate:geheim-geheim@127.0.0.1:1".to_owned();
    let Err(e) = RedisStore::open(&RedisOptions::at(url)) else { panic!("who is there?") };
    let said = format!("{} {e:?}", link::with_causes(&e));
    assert!(said.contains("127.0.0.1:1") && !said.contains("geheim"), "{said}");
}

#[tokio::test]
async fn scripts_that_somebody_flushed_are_loaded_again() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    accept(&store, vec![order(1, "r1", 1)]).await;
    let mut flush = redis::pipe();
    flush.cmd("SCRIPT").arg("FLUSH");
    own.inner.writes.write(&flush).await.unwrap();
    assert_eq!(accept(&store, vec![order(2, "r2", 1)]).await, [Verdict::New]);
}

/// With receipts; once whoever had them before has let them go.
async fn kept(redis: &Redis, dir: &Path) -> Arc<RedisStore> {
    let receipts = ReceiptOptions { dir: dir.to_owned(), keep: KEEP_MAX };
    let options = RedisOptions { receipts: Some(receipts), ..redis.options() };
    Arc::new(until("it is opened", async || RedisStore::open(&options).ok()).await)
}

async fn forget_all_but_names(store: &RedisStore) {
    let mut ask = redis::pipe();
    ask.cmd("KEYS").arg("wg:*");
    let keys = store.inner.reads.ask(&ask).await.unwrap().remove(0);
    let mut lose = redis::pipe();
    for key in replies::list(keys).into_iter().filter_map(replies::bytes) {
        if !key.ends_with(b":names") {
            lose.cmd("DEL").arg(key);
        }
    }
    store.inner.writes.write(&lose).await.unwrap();
}

#[tokio::test]
async fn what_was_lost_is_appended_again_under_its_id_and_only_once() {
    let (mut redis, dir) = (Redis::start(&DURABLE), tempfile::tempdir().unwrap());
    let own = kept(&redis, dir.path()).await;
    let store: SharedStore = own.clone();
    let fresh = |n| TransactionId::new(SystemClock.now(), HERE, n);
    let (plain, moved) = (recent(1, "r1", 3), NewCommand { id: fresh(2), ..receipt(2, "m1", 5) });
    let key = IdempotencyKey { call: Kind::Order, key: "k".to_owned() };
    let keyed = NewCommand { key: Some(key), ..recent(3, "r3", 4) };
    let full = NewCommand { backlog_max: 0, ..recent(4, "r4", 4) };
    let all = vec![plain.clone(), moved.clone(), keyed.clone(), full.clone()];
    let verdicts = accept(&store, all.clone()).await;
    assert_eq!(verdicts, [Verdict::New, Verdict::New, Verdict::New, Verdict::BacklogFull]);
    // A retry of a node's that died with what the one before it had answered.
    assert_eq!(accept(&store, vec![recent(5, "r1", 3)]).await, [Verdict::Replay(plain.id)]);
    let fence = take(&store, 1).await;
    forget_all_but_names(&own).await;
    redis.restart();
    until("they are put back", async || {
        let held = store.claimed(CLIENT, Kind::Order, "r3".parse().unwrap()).await;
        held.ok().flatten()
    })
    .await;
    for new in [&plain, &moved, &keyed] {
        let Some(Lookup::Live(stored)) = store.transaction(new.id).await.unwrap() else {
            panic!("{} is not there", new.id)
        };
        assert_eq!((&stored.command, stored.facts.len()), (&new.command, 1));
    }
    assert_eq!(store.transaction(full.id).await.unwrap(), None, "it was refused");
    assert_eq!(store.scan(None, 9).await.unwrap().len(), 3);
    let again = accept(&store, vec![recent(6, "r1", 3), NewCommand { id: fresh(7), ..keyed.clone() }]).await;
    assert_eq!(again, [Verdict::Replay(plain.id), Verdict::Replay(keyed.id)]);
    assert_eq!(store.feed(CLIENT, 0, 9).await.unwrap().len(), 3);
    assert!(matches!(commit(&store, fence, TurnCommit::default()).await, Err(CommitError::Conflict)));

    // And by the next process, which finds them in the log of the one before.
    forget_all_but_names(&own).await;
    drop((own, store));
    let store: SharedStore = kept(&redis, dir.path()).await;
    assert_eq!(store.scan(None, 9).await.unwrap().len(), 3);
    let image = store.load(take(&store, 2).await).await.unwrap();
    assert!(image.open.is_empty(), "they wait in their lanes");
}
