//! The store in one Redis (7.0 or later, not a cluster): the operations of [`super::rows`], the values
//! of [`super::format`], each partition in a hash slot of its own. It must never write in one script
//! what lies in two slots, and never answer before Redis has the write on disk.
//!
//! # Keys
//!
//! `p` partition, `c` client number, `f` = c mod 16 (a shard), `id` a transaction's or endpoint's id as
//! text. Fields and members are the bytes of the row's key ([`super::keys`]) behind what its Redis key
//! says already; values over 1.9 KB go on in further fields, as in the other backends. Every hash that
//! is changed by reading first has a version in its field `v`. `place` has this table as code.
//!
//! | key | type | what | written by |
//! |---|---|---|---|
//! | `wg:{meta}:names` | hash | table `meta`: store id, serials, warehouses, clients, secret | start, lease of serials |
//! | `wg:{meta}:nodes` | hash | node → until when its lease lasts (ms of this Redis), its process, its name | each node; whoever finds a lease over deletes it |
//! | `wg:{meta}:homes` | string | a version and which node is in charge of what | any node |
//! | `wg:{meta}:partitions` | set | partitions that were ever written | before the first write of each |
//! | `wg:{meta}:hooks` | hash | endpoint id → its client | before an endpoint is created, after it is purged |
//! | `wg:{i<hash>}` | string | a claim of a reference or a key: id, digest | accept; sweep deletes |
//! | `wg:{p}:own` | hash | table `partition`, and in words `e` (epoch), `n` (nonce) | take, turn, pause |
//! | `wg:{p}:t:<id>` | hash | table `tx`: command, address, facts, keys; or only `void`: nothing may be appended under this id, which goes after two hours | append, un-claim, turn, sweep |
//! | `wg:{p}:ids` | sorted set | ids of all transactions and tombstones | append, turn, sweep |
//! | `wg:{p}:c:<c>` | sorted set | a client's orders | append, sweep |
//! | `wg:{p}:control`, `:stock_lane`, `:work` | stream, ids `0-n` | the lanes; Redis counts n | append, reports, instruct, turn |
//! | `wg:{p}:log` | stream, ids `epoch-n` | what feeds are to be told: client, entry, time | append, turn; the relay trims |
//! | `wg:{p}:open` | sorted set | table `open` | turn |
//! | `wg:{p}:stock`, `:skus` | hash, sorted set | table `stock`, and its keys in order | turn |
//! | `wg:{p}:waves`, `:dead`, `:settled`, `:dead_of`, `:counts` | hash | tables `waves`, `dead`, `settled`, `dead_of`, the counter of dead letters | turn |
//! | `wg:{p}:m:<id>` | hash | a manifest's cartons | turn, sweep |
//! | `wg:{p}:ended`, `:tombstones` | sorted set | tables `ended`, `tombstones` | turn, sweep |
//! | `wg:{f<f>}:feed:<c>` | stream, ids `0-sequence` | a client's feed | relay, record (`disabled`); the sweep of feeds trims |
//! | `wg:{f<f>}:next` | hash | c → the last sequence | with each entry |
//! | `wg:{f<f>}:marks` | hash | p → `epoch-n` of the last entry of its log that is in the feeds | relay |
//! | `wg:{f<f>}:of:<id>` | hash | version, or `e` and when an estimate was told → sequence | relay; sweep deletes |
//! | `wg:{f<f>}:hooks` | hash | table `endpoints` | create, change, record, purge |
//! | `wg:{f<f>}:d:<id>:<part>`, `:x:<id>`, `:n:<c>` | hash | tables `deliveries`, `dead_deliveries`, `notices` | record, change, purge; sweep of feeds |
//!
//! # Writes
//!
//! A turn is one script on its partition's slot (`lua/apply.lua`): it checks the epoch and the nonce in
//! `own`, that what the turn was built on has not changed, that its lane entries are there, and then
//! writes rows, lane entries and log entries. Taking, pausing, reports, instructions, sweeping and all
//! that concerns endpoints are the same script on one slot, run again when a version moved.
//!
//! Accepting goes over two slots (`accept`): claim, then append. Killed between any two steps:
//!
//! | killed after | stored | what happens |
//! |---|---|---|
//! | the claim of the reference | an id without a transaction | the retry finds it, and appends with its own body under that id, for an hour; later it voids the id and claims anew |
//! | the claim of a key | the same twice | the same; another command under this key voids the id and takes the key |
//! | the append | all | the retry is a replay |
//! | a refused append, before the claim is freed | an id without a transaction | as in the first row |
//! | the void, before the claim is freed | an id that nobody can append under | the retry meets the void, frees the claim and claims anew |
//! | the key's note in a replayed transaction, before its claim | a note | erasing frees a claim only from who holds it |
//!
//! An endpoint that is created is first noted in `wg:{meta}:hooks`, so every endpoint is found by its
//! id; a note without an endpoint is none. An erased transaction loses its claims before its tombstone:
//! killed between, the next sweep erases it.
//!
//! The relay (`relay`) numbers what stands in a partition's log in the feeds of each shard, one script
//! a shard, which passes over what is not behind the partition's mark; then the log is trimmed. Killed
//! between, it is done again and changes nothing. Readers of a feed relay first what this process has
//! written, so they see it.
//!
//! # Durability
//!
//! With `appendonly yes` and `appendfsync always` Redis answers a write once it is on disk; `server`
//! asks every new connection for these settings. Writes go down one connection to one Redis, reads down
//! another. A call without an answer in 750 ms is of unknown outcome.
//!
//! A Redis that took over, or came back, may have lost the end of what another acknowledged. So a run of
//! Redis that was not met before is used only when what was accepted lately has been put back into it
//! (`recover`) out of this node's own log (`receipts`), and every owner reads its partition anew.
//!
//! # Several nodes
//!
//! Leases and the assignment lie in `{meta}`, one script for each look (`members`); words pass by
//! `PUBLISH` on the channel `wg:words`, one connection a node, and may be lost. None of it decides what
//! may be written: the epoch and the nonce in `own` do.
//!
//! # Not supported yet
//!
//! Redis Cluster; replicas and their acknowledgement (`WAIT`, `WAITAOF`); TLS; claims
//! whose transaction never came are freed when somebody asks for them, not by a sweep; a Redis that is
//! emptied while no process serves is begun anew.

mod accept;
mod bare;
mod claims;
mod endpoint_store;
mod fetch;
mod link;
mod members;
mod overlay;
mod place;
mod program;
mod reads;
mod receipts;
mod recover;
mod relay;
mod replies;
mod rooms;
mod seen;
mod server;
mod store;
mod sweep;
mod transact;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, IntoConnectionInfo as _, RedisError};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::keys::{self, Table};
use super::rows::{self, ClaimHasher, LAYOUT, RowError};
use crate::domain::ids::PartitionId;
use crate::ports::BoxFuture;
use crate::ports::entropy::{Entropy as _, SystemEntropy};
use crate::ports::membership::Word;
use crate::ports::store::{CommitError, ReadError};
use crate::ports::store_report::StoreVitals;
pub use bare::Bare;
use link::{Link, LinkError, Shared, Standing};
pub use members::MemberOptions;
use members::Members;
use overlay::Fetch;
use place::Slot;
use receipts::Receipts;
pub use receipts::{KEEP_MAX, ReceiptOptions};
use relay::Relay;
use replies::{list, number};
pub use server::Doubt;
use transact::Plan;

/// How Redis is used.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/database]`. It may hold a password: it is never shown.
    pub url: String,
    /// Use a Redis whose settings cannot be read, or do not give the durability, and answer for it.
    pub assume_durability: bool,
    /// The log of what was accepted lately; `None` for who accepts nothing.
    pub receipts: Option<ReceiptOptions>,
    /// As which node; `None` for who works nothing. A node has receipts: its id stands beside them.
    pub member: Option<MemberOptions>,
}

/// Why a Redis could not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an address of a Redis.
    #[error("the address of redis cannot be used")]
    Address(#[source] RedisError),
    /// It does not answer.
    #[error("redis at {address} does not answer")]
    Apart {
        /// Where it was sought.
        address: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It cannot keep what a 202 promises.
    #[error("redis at {address} cannot be used")]
    Unfit {
        /// Where it is.
        address: String,
        /// Why not.
        #[source]
        source: Arc<Doubt>,
    },
    /// The log of receipts cannot be kept.
    #[error(
        "the receipts in {} cannot be kept; choose a directory of this process alone with \
         --set store.redis.receipts_dir=DIR",
        .dir.display()
    )]
    Receipts {
        /// Its directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It was written by another release.
    #[error("the store in redis has layout {found}, this release reads {supported}")]
    WrongFormat {
        /// Its layout.
        found: u32,
        /// The layout that this release writes.
        supported: u32,
    },
}

/// Batches of commands that may wait for the acceptor. One more is `Unavailable`.
const QUEUE_MAX: usize = 4_096;

/// How often Redis is looked at, and what nobody reads is relayed.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How often old receipts are looked for: as often as a file of them ends.
const DROP_EVERY: Duration = Duration::from_secs(60);

/// A store in one Redis.
pub struct RedisStore {
    inner: Arc<Inner>,
    runtime: Handle,
    queue: mpsc::Sender<accept::Batch>,
    /// Ends the thread that talks to Redis when it is dropped.
    _end: oneshot::Sender<()>,
}

struct Inner {
    writes: Link,
    reads: Link,
    hasher: ClaimHasher,
    id: Uuid,
    relay: Relay,
    vitals: StoreVitals,
    /// Partitions that are known to be noted.
    noted: parking_lot::Mutex<BTreeSet<PartitionId>>,
    receipts: Arc<Receipts>,
    rooms: rooms::Rooms,
    seen: seen::SeenTransactions,
    /// This node among others.
    members: Option<Members>,
}

/// The thread that talks to Redis ended before it answered.
#[derive(Debug, thiserror::Error)]
#[error("the store was closed before it answered")]
struct Closed;

impl RedisStore {
    /// Connects, and begins a store where there is none. It blocks until that is done.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: &RedisOptions) -> Result<RedisStore, OpenError> {
        let info = options.url.as_str().into_connection_info().map_err(OpenError::Address)?;
        let client = Client::open(info).map_err(OpenError::Address)?;
        let shared = Arc::new(Shared {
            client,
            assume_durability: options.assume_durability,
            store: parking_lot::Mutex::new(None),
            standing: parking_lot::Mutex::new(Standing::Well),
            run: parking_lot::Mutex::new(None),
            behind: tokio::sync::Notify::new(),
            is_quiet: false,
        });
        let kept = options.receipts.clone();
        let member = options.member.clone();
        let address = shared.client.get_connection_info().addr().to_string();
        let system = |source| OpenError::Apart { address: address.clone(), source: Box::new(source) };
        let (opened, opening) = std::sync::mpsc::sync_channel(1);
        let (end, ended) = oneshot::channel::<()>();
        let of_thread = address.clone();
        let thread = std::thread::Builder::new().name("store-redis".to_owned());
        thread
            .spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(e) => {
                        let e = OpenError::Apart { address: of_thread, source: Box::new(e) };
                        let _nobody_waits = opened.send(Err(e));
                        return;
                    }
                };
                let handle = runtime.handle().clone();
                runtime.block_on(async {
                    let begun = Inner::begin(shared, &of_thread, kept, member).await;
                    let begun = begun.map(|(inner, telling)| (Arc::new(inner), telling));
                    let begun = begun.map(|(inner, telling)| {
                        if let Some(telling) = telling {
                            tokio::spawn(members::tell(Arc::clone(&inner), telling));
                            tokio::spawn(members::hear(Arc::clone(&inner)));
                        }
                        inner
                    });
                    if let Ok(inner) = &begun {
                        tokio::spawn(watch(Arc::clone(inner)));
                        tokio::spawn(keep_settled(Arc::clone(inner)));
                    }
                    let _nobody_waits = opened.send(begun.map(|inner| (inner, handle)));
                    // An error says that the store was dropped; that is what is waited for.
                    let _dropped = ended.await;
                });
            })
            .map_err(system)?;
        let closed = || OpenError::Apart { address: address.clone(), source: Box::new(Closed) };
        let (inner, runtime) = opening.recv().map_err(|_| closed())??;
        let (queue, batches) = mpsc::channel(QUEUE_MAX);
        runtime.spawn(accept::run(Arc::clone(&inner), batches));
        Ok(RedisStore { inner, runtime, queue, _end: end })
    }

    /// Runs a read where the connections are.
    fn reading<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> BoxFuture<Result<T, ReadError>> {
        let task = self.runtime.spawn(read);
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(ReadError::Unavailable(Arc::new(Closed)))) })
    }

    /// Runs a write there, to its end even if nobody waits for it.
    fn writing<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T, CommitError>> + Send + 'static,
    ) -> BoxFuture<Result<T, CommitError>> {
        let task = self.runtime.spawn(write);
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(CommitError::Unknown(Arc::new(Closed)))) })
    }
}

impl Inner {
    async fn begin(
        shared: Arc<Shared>,
        address: &str,
        kept: Option<ReceiptOptions>,
        member: Option<MemberOptions>,
    ) -> Result<(Inner, Option<mpsc::Receiver<Word>>), OpenError> {
        let apart = |e: CommitError| OpenError::Apart { address: address.to_owned(), source: Box::new(e) };
        let writes = Link::new(Arc::clone(&shared));
        writes.look().await.map_err(|e| match e {
            LinkError::Unfit(source) => OpenError::Unfit { address: address.to_owned(), source },
            other => OpenError::Apart { address: address.to_owned(), source: Box::new(other) },
        })?;
        let names = Plan::open(Slot::Meta, vec![Fetch::All(Table::Meta, keys::Key::new())]);
        let fresh = || Uuid::from_u64_pair(SystemEntropy.next(), SystemEntropy.next());
        let (id, secret) = (fresh(), fresh().into_bytes());
        let none = ClaimHasher([0; 16]);
        let begun = transact::write(&writes, &names, none, |w| {
            Ok((rows::begin(w.rows, id)?, rows::claim_hasher(w.rows, secret)?))
        });
        let ((id, found), hasher) = begun.await.map_err(apart)?;
        if found != LAYOUT {
            return Err(OpenError::WrongFormat { found, supported: LAYOUT });
        }
        *shared.store.lock() = Some(id);
        let dir = kept.as_ref().map(|kept| kept.dir.clone()).unwrap_or_default();
        let unkept = |source| OpenError::Receipts { dir: dir.clone(), source };
        let receipts = Receipts::open(kept.as_ref(), id).map_err(unkept)?;
        let (members, telling) = match member {
            Some(member) => {
                let (members, telling) = Members::open(&member, &dir).map_err(unkept)?;
                (Some(members), Some(telling))
            }
            None => (None, None),
        };
        let reads = Link::new(shared);
        let inner = Inner {
            writes,
            reads,
            hasher,
            id,
            relay: Relay::default(),
            vitals: StoreVitals::new(QUEUE_MAX),
            noted: parking_lot::Mutex::default(),
            receipts: Arc::new(receipts),
            rooms: rooms::Rooms::default(),
            seen: seen::SeenTransactions::default(),
            members,
        };
        recover::settle(&inner)
            .await
            .map_err(|source| OpenError::Apart { address: address.to_owned(), source: Box::new(source) })?;
        // What the process before has logged and nobody relayed.
        let noted = inner.partitions().await.map_err(|e| apart(CommitError::Unavailable(Arc::new(e))))?;
        noted.iter().for_each(|partition| inner.relay.wrote(*partition));
        inner.noted.lock().extend(noted);
        Ok((inner, telling))
    }

    /// All partitions that were ever written.
    async fn partitions(&self) -> Result<Vec<PartitionId>, LinkError> {
        let mut ask = redis::pipe();
        ask.cmd("SMEMBERS").arg(Slot::Meta.key("partitions"));
        let all = self.reads.ask(&ask).await?.into_iter().next().map(list).unwrap_or_default();
        let number = |value| PartitionId(u16::try_from(number(value)?).ok()?).into();
        let all: BTreeSet<PartitionId> = all.into_iter().filter_map(number).collect();
        Ok(all.into_iter().collect())
    }

    /// Takes note of a partition, before anything is written there.
    async fn note(&self, partition: PartitionId) -> Result<(), LinkError> {
        if self.noted.lock().contains(&partition) {
            return Ok(());
        }
        let mut add = redis::pipe();
        add.cmd("SADD").arg(Slot::Meta.key("partitions")).arg(partition.0);
        self.writes.write(&add).await?;
        self.noted.lock().insert(partition);
        Ok(())
    }

    /// Writes in a partition's slot.
    async fn write_in<T>(
        &self,
        partition: PartitionId,
        plan: Plan,
        items: usize,
        operation: impl FnMut(&mut rows::Write<'_>) -> Result<T, RowError>,
    ) -> Result<T, CommitError> {
        self.note(partition).await?;
        let begun = tokio::time::Instant::now();
        let written = transact::write(&self.writes, &plan, self.hasher, operation).await;
        // Also when nobody knows whether it was: then it may have logged something.
        self.relay.wrote(partition);
        if written.is_ok() {
            self.vitals.commits(items, begun.elapsed());
        }
        written
    }
}

/// Makes each run of Redis fit for use and drops old receipts, until the store is dropped.
async fn keep_settled(inner: Arc<Inner>) {
    loop {
        let behind = inner.writes.shared.behind.notified();
        if tokio::time::timeout(DROP_EVERY, behind).await.is_err() {
            inner.receipts.drop_old().await;
            continue;
        }
        while let Err(e) = recover::settle(&inner).await {
            tracing::warn!(
                error = link::with_causes(&e),
                "what was accepted is not put back yet; it is tried again"
            );
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

/// Looks at Redis and relays what nobody has asked for, until the store is dropped.
async fn watch(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        for link in [&inner.writes, &inner.reads] {
            // What it found stands in `standing`, and in the log.
            let _found = link.look().await;
        }
        if *inner.writes.shared.standing.lock() == Standing::Well
            && let Err(e) = inner.relay.settle(&inner.reads, &inner.writes).await
        {
            tracing::warn!(error = link::with_causes(&e), "feeds cannot be written; it is tried again");
        }
    }
}

#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
pub(in crate::store) mod tests;
