//! The store in Redis (7.0 or later) or a Redis Cluster: the operations of [`super::rows`], the values
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
//! | `wg:{meta}:used:<name>` | string with an end | that a name that may be used once was (a ticket) | any node |
//! | `wg:{meta}:settled` | hash | node → the runs of Redis that it has put its receipts back into | each node |
//! | `wg:{meta}:partitions` | set | partitions that were ever written | before the first write of each |
//! | `wg:{meta}:hooks` | hash | endpoint id → its client | before an endpoint is created, after it is purged |
//! | `wg:{meta}:noted`, `wg:{f<f>}:store` | string | in a cluster: the store's id, in each shard, and that all of them have it | start |
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
//! | `wg:{f<f>}:next` | hash | c → the last sequence | with each entry; a run that lost its end raises it |
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
//! asks every new connection for these settings. Writes go down one connection to each primary, reads down
//! another. A call without an answer in 750 ms is of unknown outcome.
//!
//! Where replicas are to have each write as well, `WAIT` or `WAITAOF` stands behind all that goes down the
//! connection for writes, also behind what is read there to answer a replay or to fill a feed
//! (`replicas`). Fewer than needed: what was written may be there, and nobody is told; and the
//! connection is given up, so that nothing more is written until they keep up. The other connection
//! reads what is there, acknowledged or not: what an owner reads it acts on only behind a commit.
//!
//! A Redis that took over, or came back, may have lost the end of what another acknowledged. So a run of
//! Redis that was not met before is used only when what was accepted lately has been put back into it
//! (`recover`) out of this node's own log (`receipts`), and every owner reads its partition anew. Feeds and
//! serials go on above all that may have been given out (`rollback`).
//!
//! # A cluster
//!
//! Nothing is written in two slots at once, so a cluster needs no other steps; `link` has how a call finds
//! its primary. What one primary lost another may have the other half of: a claim, its transaction. The
//! receipts are compared with both (`recover`). A primary that came back without its data has not its
//! shards' notes of the store's id (`identity`); one that has no shard is not told from a new one, which
//! takes more than sixteen of them.
//!
//! While a primary does not answer, what lies on the others is read and written; a command is accepted if
//! its claims and its partition are among that, and if no other command of its round needs the one that
//! does not answer; feeds wait for all. While a slot moves, its keys are read wherever they are, and scripts
//! that make new keys there are refused. No script touches a key that it has emptied: in a slot that is on
//! its way it could not go on. The clocks of primaries may differ by minutes, not by an hour: by them
//! appends are too old.
//!
//! # Several nodes
//!
//! Leases and the assignment lie in `{meta}`, one script for each look (`members`); words pass by
//! `PUBLISH` on the channel `wg:words`, one connection a node, and may be lost. None of it decides what
//! may be written: the epoch and the nonce in `own` do.
//!
//! # Not supported yet
//!
//! Claims whose transaction never came are freed when somebody asks for them, not by a sweep; a Redis that
//! is emptied while no process serves is begun anew.

mod accept;
mod bare;
mod claims;
mod endpoint_store;
mod fetch;
mod identity;
mod link;
mod members;
mod node;
mod options;
mod overlay;
mod place;
mod program;
mod reads;
mod receipts;
mod recover;
mod relay;
mod replicas;
mod replies;
mod rollback;
mod rooms;
mod seen;
mod server;
mod shared;
mod slots;
mod store;
mod sweep;
mod transact;
mod uses;
mod watch;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

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
use link::{Link, LinkError};
use members::Members;
pub use members::{MemberOptions, roster};
pub use options::{OpenError, RedisOptions, TlsOptions};
use overlay::Fetch;
use place::Slot;
use receipts::Receipts;
pub use receipts::{KEEP_MAX, ReceiptOptions};
use relay::Relay;
pub use replicas::Replication;
use replies::{list, number};
use rollback::Seen;
pub use server::Doubt;
use shared::Shared;
use transact::Plan;

/// Batches of commands that may wait for the acceptor. One more is `Unavailable`.
const QUEUE_MAX: usize = 4_096;

/// How long a start waits for replicas that lag, and how often it looks.
const REPLICAS_WITHIN: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A store in one Redis, or in a cluster.
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
    seen: Seen,
    rooms: rooms::Rooms,
    decoded: seen::SeenTransactions,
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
        let shared = Arc::new(options.shared()?);
        let kept = options.receipts.clone();
        let member = options.member.clone();
        let address = shared.seeds().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
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
                        tokio::spawn(watch::watch(Arc::clone(inner)));
                        tokio::spawn(recover::keep_settled(Arc::clone(inner)));
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
        let writes = Link::writes(Arc::clone(&shared));
        look(&writes).await.map_err(|e| refused(address, e))?;
        let names = Plan::open(Slot::Meta, vec![Fetch::All(Table::Meta, keys::Key::new())]);
        let fresh = || Uuid::from_u64_pair(SystemEntropy.next(), SystemEntropy.next());
        let (id, secret) = (fresh(), fresh().into_bytes());
        let none = ClaimHasher([0; 16]);
        let begun = transact::write(&writes, &names, none, |w| {
            Ok((rows::begin(w.rows, id, LAYOUT)?, rows::claim_hasher(w.rows, secret)?))
        });
        let ((id, found), hasher) = begun.await.map_err(apart)?;
        if found != LAYOUT {
            return Err(OpenError::WrongFormat { found, supported: LAYOUT });
        }
        if shared.wanted.is_cluster {
            identity::note(&writes, id).await.map_err(|e| apart(e.into()))?;
        }
        *shared.store.lock() = Some(id);
        // Each has been asked what it is, and not yet what it holds.
        look(&writes).await.map_err(|e| refused(address, e))?;
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
        let reads = Link::reads(shared);
        let inner = Inner {
            writes,
            reads,
            hasher,
            id,
            relay: Relay::default(),
            vitals: StoreVitals::new(QUEUE_MAX),
            noted: parking_lot::Mutex::default(),
            receipts: Arc::new(receipts),
            seen: Seen::default(),
            rooms: rooms::Rooms::default(),
            decoded: seen::SeenTransactions::default(),
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

    /// Takes note of all of these.
    async fn note_all(&self, partitions: &BTreeSet<PartitionId>) -> Result<(), LinkError> {
        let mut add = redis::pipe();
        for partition in partitions {
            add.cmd("SADD").arg(Slot::Meta.key("partitions")).arg(partition.0);
        }
        self.writes.write(&add).await?;
        self.noted.lock().extend(partitions);
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

/// Looks at Redis before anything is asked of it. Replicas that lag at this moment are waited for.
async fn look(writes: &Link) -> Result<(), LinkError> {
    let until = tokio::time::Instant::now() + REPLICAS_WITHIN;
    loop {
        match writes.look().await {
            Err(LinkError::Unfit(doubt))
                if matches!(*doubt, Doubt::Alone { .. }) && tokio::time::Instant::now() < until =>
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            looked => return looked,
        }
    }
}

fn refused(address: &str, e: LinkError) -> OpenError {
    let address = address.to_owned();
    match e {
        LinkError::Unfit(source) => OpenError::Unfit { address, source },
        other => OpenError::Apart { address, source: Box::new(other) },
    }
}

#[cfg(test)]
pub(in crate::store) mod cluster_tests;
#[cfg(test)]
mod members_tests;
#[cfg(test)]
mod replicas_tests;
#[cfg(test)]
mod rollback_tests;
#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
pub(in crate::store) mod tests;
#[cfg(test)]
mod tls_tests;
