//! Against a Redis Cluster of three primaries on loopback.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue};

use super::slots::slot_of;
use super::tests::{Redis, recent, serve, until};
use super::*;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::ports::clock::{Clock as _, SystemClock};
use crate::ports::store::{Lookup, NewCommand, SharedStore, TurnCommit, Verdict};
use crate::ports::turns::first_of_turn;
use crate::store::contract::{CLIENT, HERE, Subject, accept, commit};

/// Primaries of a test's cluster.
const PRIMARIES: usize = 3;

/// Three primaries, and perhaps a replica behind them.
pub(in crate::store) struct Cluster {
    nodes: Vec<Redis>,
    settings: Vec<Vec<String>>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks a node for one thing, as an operator would.
pub(super) fn tell<T: FromRedisValue>(node: &Redis, words: &str) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", node.port)).unwrap();
    let mut connection: Connection = client.get_connection()?;
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query(&mut connection)
}

pub(super) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let bound = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < bound, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Cluster {
    /// Starts primaries that share the slots evenly, and `replicas` of the first of them.
    fn start(replicas: usize) -> Cluster {
        let mut cluster = Cluster { nodes: Vec::new(), settings: Vec::new() };
        for _ in 0..PRIMARIES + replicas {
            let bus = free_port().to_string();
            let settings = [
                "--appendonly yes --appendfsync always --cluster-enabled yes --cluster-node-timeout 1500",
                "--cluster-require-full-coverage no --cluster-replica-validity-factor 0 --cluster-port",
            ];
            let settings = settings.iter().flat_map(|words| words.split(' ')).chain([bus.as_str()]);
            let settings: Vec<String> = settings.map(str::to_owned).collect();
            let words: Vec<&str> = settings.iter().map(String::as_str).collect();
            cluster.nodes.push(Redis::start(&words));
            cluster.settings.push(settings);
        }
        for (i, node) in cluster.nodes.iter().enumerate() {
            if i < PRIMARIES {
                let (first, end) = (i * 16_384 / PRIMARIES, (i + 1) * 16_384 / PRIMARIES);
                tell::<()>(node, &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1)).unwrap();
            }
            tell::<()>(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1)).unwrap();
            let bus = cluster.settings[0].last().unwrap();
            if i > 0 {
                tell::<()>(node, &format!("CLUSTER MEET 127.0.0.1 {} {bus}", cluster.nodes[0].port)).unwrap();
            }
        }
        let all = format!("cluster_known_nodes:{}", PRIMARIES + replicas);
        wait_for("the cluster is formed", || cluster.info().iter().all(|info| info.contains(&all)));
        let first: String = tell(&cluster.nodes[0], "CLUSTER MYID").unwrap();
        for replica in &cluster.nodes[PRIMARIES..] {
            tell::<()>(replica, &format!("CLUSTER REPLICATE {first}")).unwrap();
        }
        // Without full coverage a node is well before it knows who has which slot.
        let is_well =
            |info: &String| info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384");
        wait_for("every node knows all slots", || cluster.info().iter().all(is_well));
        cluster
    }

    fn info(&self) -> Vec<String> {
        self.nodes.iter().map(|node| tell(node, "CLUSTER INFO").unwrap_or_default()).collect()
    }

    /// One seed is enough.
    fn options(&self) -> RedisOptions {
        let url = format!("redis://127.0.0.1:{}", self.nodes[1].port);
        RedisOptions { is_cluster: true, ..RedisOptions::at(url) }
    }

    fn open(&self) -> (Arc<RedisStore>, SharedStore) {
        let store = Arc::new(RedisStore::open(&self.options()).unwrap());
        (store.clone(), store)
    }

    /// Which node has a key.
    fn of_key(&self, key: &[u8]) -> usize {
        usize::from(slot_of(key)) * PRIMARIES / 16_384
    }

    /// Sends a signal: STOP or CONT.
    fn signal(&self, node: usize, name: &str) {
        let pid = self.nodes[node].server.id().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].server.kill().unwrap();
        self.nodes[node].server.wait().unwrap();
    }

    fn start_again(&mut self, node: usize) {
        let settings: Vec<&str> = self.settings[node].iter().map(String::as_str).collect();
        let of = &mut self.nodes[node];
        of.server = serve(of.dir.path(), of.port, &settings).expect("its port is free again");
    }
}

/// Stores of a cluster that is emptied between two of them.
pub(in crate::store) fn subjects() -> impl FnMut() -> Subject {
    let cluster = Cluster::start(0);
    move || {
        for node in &cluster.nodes {
            tell::<()>(node, "FLUSHALL").unwrap();
        }
        Subject { store: cluster.open().1, _keep: Box::new(()) }
    }
}

/// Partitions, one on each primary.
fn one_on_each(cluster: &Cluster) -> Vec<PartitionId> {
    let on = |i| (1..).map(PartitionId).find(|p| cluster.of_key(&Slot::Partition(*p).key("own")) == i);
    (0..PRIMARIES).map(|i| on(i).unwrap()).collect()
}

fn order_at(home: PartitionId, n: u64) -> NewCommand {
    let id = TransactionId::new(SystemClock.now(), home, n);
    NewCommand { id, ..recent(n, &format!("r{n}"), 1) }
}

fn accepted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::New | Verdict::Replay(_))
}

/// What becomes of a command that is sent until something does.
async fn judged(store: &SharedStore, new: &NewCommand) -> Verdict {
    until("it is judged", async || {
        let verdict = accept(store, vec![new.clone()]).await.remove(0);
        (!matches!(verdict, Verdict::Unavailable | Verdict::Unknown)).then_some(verdict)
    })
    .await
}

/// Everything that was accepted is there, and nothing else.
async fn holds(store: &SharedStore, ids: &BTreeSet<TransactionId>) {
    // A run that changes once more is settled first: until then nobody reads.
    let all = until("it can be read", async || store.scan(None, 10_000).await.ok()).await;
    let found: BTreeSet<_> = all.iter().map(|stored| stored.id).collect();
    assert_eq!((found.len(), &found), (all.len(), ids));
}

#[tokio::test]
async fn while_one_primary_stands_still_its_own_is_refused_in_time_and_nothing_is_lost() {
    let cluster = Cluster::start(0);
    let (_own, store) = cluster.open();
    let homes = one_on_each(&cluster);
    let stopped = cluster.of_key(&Slot::Partition(homes[2]).key("own"));
    let (here, there) = (take_at(&store, homes[0]).await, take_at(&store, homes[2]).await);
    let mut ids = BTreeSet::new();
    for (n, home) in homes.iter().enumerate() {
        let new = order_at(*home, n as u64);
        assert_eq!(accept(&store, vec![new.clone()]).await, [Verdict::New]);
        ids.insert(new.id);
    }
    cluster.signal(stopped, "STOP");
    for n in 10..14 {
        let begun = Instant::now();
        let verdict = accept(&store, vec![order_at(homes[2], n)]).await.remove(0);
        assert!(matches!(verdict, Verdict::Unknown | Verdict::Unavailable), "{verdict:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
        // What lies on the others goes on meanwhile.
        commit(&store, here, TurnCommit::default()).await.unwrap();
    }
    assert!(!store.is_writable());
    cluster.signal(stopped, "CONT");
    for n in 10..14 {
        let new = order_at(homes[2], n);
        until("it is accepted", async || {
            // Word for word again: whatever became of the first, there is one.
            let verdict = accept(&store, vec![new.clone()]).await.remove(0);
            match verdict {
                Verdict::New => ids.insert(new.id),
                Verdict::Replay(id) => ids.insert(id),
                _ => return None,
            };
            Some(())
        })
        .await;
    }
    holds(&store, &ids).await;
    commit(&store, there, TurnCommit::default()).await.unwrap();
    until("it is well", async || store.is_writable().then_some(())).await;
    assert_eq!(store.feed(CLIENT, 0, 100).await.unwrap().len(), ids.len());
}

async fn take_at(store: &SharedStore, home: PartitionId) -> crate::ports::store::Fence {
    store.take(home, 1).await.unwrap().wait().await.unwrap()
}

#[tokio::test]
async fn a_primary_that_came_back_without_its_data_is_not_written() {
    let mut cluster = Cluster::start(0);
    let (own, store) = cluster.open();
    assert_eq!(accept(&store, vec![order_at(HERE, 1)]).await, [Verdict::New]);
    // One that the store's own record does not lie on.
    let names = cluster.of_key(&Slot::Meta.key("names"));
    let emptied = (0..PRIMARIES).find(|node| *node != names).unwrap();
    cluster.kill(emptied);
    std::fs::remove_dir_all(cluster.nodes[emptied].dir.path().join("appendonlydir")).unwrap();
    cluster.start_again(emptied);
    let why = until("it is noticed", async || {
        own.inner.writes.look().await.err().map(|e| e.to_string()).filter(|e| e.contains("bring its data"))
    });
    let why = why.await;
    assert!(why.contains("holds none"), "{why}");
    assert!(!store.is_writable());
    let Err(OpenError::Unfit { source, .. }) = RedisStore::open(&cluster.options()) else {
        panic!("it was taken")
    };
    assert!(matches!(*source, Doubt::Another { found: None, .. }), "{source}");
}

/// Moves a slot as `redis-cli --cluster reshard` does, calling `between` before each bunch of its keys.
async fn migrate(cluster: &Cluster, slot: u16, from: usize, to: usize, mut between: impl AsyncFnMut()) {
    let id = |node: usize| tell::<String>(&cluster.nodes[node], "CLUSTER MYID").unwrap();
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    tell::<()>(target, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from))).unwrap();
    tell::<()>(source, &format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to))).unwrap();
    loop {
        between().await;
        let keys: Vec<String> = tell(source, &format!("CLUSTER GETKEYSINSLOT {slot} 8")).unwrap();
        if keys.is_empty() {
            break;
        }
        let port = target.port;
        let keys = keys.join(" ");
        tell::<()>(source, &format!("MIGRATE 127.0.0.1 {port}  0 5000 KEYS {keys}")).unwrap();
    }
    for node in [target, source] {
        tell::<()>(node, &format!("CLUSTER SETSLOT {slot} NODE {}", id(to))).unwrap();
    }
}

#[tokio::test]
async fn a_slot_that_moves_under_load_loses_nothing_and_doubles_nothing() {
    let cluster = Cluster::start(0);
    let (_own, store) = cluster.open();
    let home = one_on_each(&cluster)[0];
    let mut ids = BTreeSet::new();
    for n in 0..20 {
        let new = order_at(home, n);
        assert_eq!(accept(&store, vec![new.clone()]).await, [Verdict::New]);
        ids.insert(new.id);
    }
    let fence = take_at(&store, home).await;
    let (mut n, mut refused) = (100, Vec::new());
    let slot = slot_of(&Slot::Partition(home).key("own"));
    migrate(&cluster, slot, 0, 1, async || {
        n += 1;
        let new = order_at(home, n);
        match accept(&store, vec![new.clone()]).await.remove(0) {
            Verdict::New => {
                ids.insert(new.id);
            }
            Verdict::Unavailable => refused.push(new),
            other => panic!("{other:?}"),
        }
        // Whatever was accepted is read all the while.
        for id in &ids {
            assert!(matches!(store.transaction(*id).await.unwrap(), Some(Lookup::Live(_))), "{id}");
        }
    })
    .await;
    for new in refused {
        let verdict = accept(&store, vec![new.clone()]).await.remove(0);
        assert!(accepted(&verdict), "{verdict:?}");
        ids.insert(new.id);
    }
    holds(&store, &ids).await;
    commit(&store, fence, TurnCommit::default()).await.unwrap();
    assert_eq!(store.feed(CLIENT, 0, 1_000).await.unwrap().len(), ids.len());
}

#[tokio::test]
async fn what_a_replica_that_took_over_had_not_got_is_put_back() {
    let mut cluster = Cluster::start(1);
    let dir = tempfile::tempdir().unwrap();
    let receipts = ReceiptOptions { dir: dir.path().to_owned(), keep: KEEP_MAX };
    let options = RedisOptions { receipts: Some(receipts), ..cluster.options() };
    let store: SharedStore = Arc::new(RedisStore::open(&options).unwrap());
    let home = one_on_each(&cluster)[0];
    let fence = take_at(&store, home).await;
    // Its feed is on the primary that dies.
    let on_it = |client: &ClientNo| cluster.of_key(&Slot::of_client(*client).key("next")) == 0;
    let client = (1..16).map(ClientNo).find(on_it).unwrap();
    let mut ids = BTreeSet::new();
    let mut orders = Vec::new();
    for n in 0..30 {
        if n == 10 {
            let caught_up = || tell::<u64>(&cluster.nodes[0], "WAIT 1 100").unwrap_or(0) == 1;
            wait_for("the replica has all", caught_up);
            cluster.signal(PRIMARIES, "STOP");
        }
        // Some lose their claim, some their transaction, some both.
        let homes = one_on_each(&cluster);
        let new = NewCommand { client, ..order_at(homes[n as usize % PRIMARIES], n) };
        assert_eq!(accept(&store, vec![new.clone()]).await, [Verdict::New]);
        ids.insert(new.id);
        orders.push(new);
    }
    assert_eq!(store.feed(client, 0, 99).await.unwrap().len(), 30);
    cluster.kill(0);
    cluster.signal(PRIMARIES, "CONT");
    wait_for("it takes over", || {
        tell::<Vec<redis::Value>>(&cluster.nodes[PRIMARIES], "ROLE")
            .is_ok_and(|role| role[0] == redis::Value::BulkString(b"master".to_vec()))
    });
    until("it is put back", async || {
        let turn = commit(&store, fence, TurnCommit::default()).await;
        matches!(turn, Err(CommitError::Conflict)).then_some(())
    })
    .await;
    holds(&store, &ids).await;
    let fresh = |new: &NewCommand| NewCommand { id: order_at(home, 999).id, ..new.clone() };
    for new in &orders {
        // Its claim is there again too.
        assert_eq!(judged(&store, &fresh(new)).await, Verdict::Replay(new.id));
    }
    holds(&store, &ids).await;
    // What is told from here on has numbers that nobody was given.
    let next = NewCommand { client, ..order_at(home, 77) };
    assert!(accepted(&judged(&store, &next).await));
    let feed = until("its feed can be read", async || store.feed(client, 30, 99).await.ok()).await;
    assert!(feed.iter().all(|entry| entry.sequence >= first_of_turn(1)), "{feed:?}");
    assert_eq!(feed.last().map(|entry| entry.id), Some(next.id));
}
