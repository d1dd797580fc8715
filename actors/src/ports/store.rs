//! Where everything that must survive is kept.
//!
//! One trait for every backend. Three rules shape it:
//!
//! 1. **A reply is not durability.** A write answers with [`Written`]: the reply, and apart from
//!    it the acknowledgement that it survives what the backend's durability class names. Nothing
//!    may leave the house before the acknowledgement.
//! 2. **Every write of a partition is fenced.** An owner holds a [`Fence`]; when another owner
//!    has raised the epoch since, its commits are refused with [`CommitError::Conflict`].
//! 3. **An unknown outcome is not a failure.** [`CommitError::Unknown`] means "may have been
//!    applied": read before retrying.

use serde::{Deserialize, Serialize};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::BoxFuture;
use super::announcement::Announcement;
use super::endpoints::EndpointStore;
use super::membership::Membership;
use super::store_report::StoreReport;
use super::trouble::Trouble;
use crate::domain::command::{Command, Kind, ShipTo};
use crate::domain::confirmation::Confirmation;
use crate::domain::estimate::Estimate;
use crate::domain::fact::Recorded;
use crate::domain::ids::{
    ClientNo, CorrelationId, PartitionId, Reference, ReleaseId, Sku, TransactionId, WaveId,
};
use crate::domain::promise::{Promise, ToldEstimate};
use crate::domain::sscc::Sscc;
use crate::domain::stock::{Position, StockKey};
use crate::domain::time::Timestamp;

/// The store, shared by every actor and every reader.
pub type SharedStore = Arc<dyn Store>;

/// Durable state. All futures are `Send`, hold no lock and may be dropped at any await; a write
/// whose future is dropped may still happen.
pub trait Store: EndpointStore + Send + Sync + 'static {
    /// What an acknowledged write survives.
    fn durability(&self) -> Durability;

    /// The epoch of the feeds' numbering: a number that another store does not have. A place in a feed
    /// means nothing in another epoch.
    fn feed_epoch(&self) -> u64;

    /// Makes warehouses and clients known, once at every start, before anything else.
    ///
    /// # Errors
    /// [`RegisterError::PartitionChanged`] when a warehouse's partition is not the stored one.
    fn register(&self, names: Registration) -> BoxFuture<Result<Registered, RegisterError>>;

    /// Accepts commands: claims their references, stores them, queues them in their lanes and
    /// writes the first feed entry, all or nothing for each. Verdicts stand in the batch's order;
    /// a duplicate within a batch sees the one before it.
    fn accept(&self, batch: Vec<NewCommand>) -> BoxFuture<Written<Vec<Verdict>>>;

    /// Queues a WMS's reports in a partition's control lane, all or nothing.
    fn append_reports(
        &self,
        partition: PartitionId,
        reports: Vec<Confirmation>,
    ) -> BoxFuture<Result<Written<()>, CommitError>>;

    /// Queues what an operator wants done with a dead letter in its partition's control lane: only
    /// the owner decides.
    fn instruct(
        &self,
        partition: PartitionId,
        asked: Instruction,
    ) -> BoxFuture<Result<Written<()>, CommitError>>;

    /// Pauses a partition or ends its pause. It needs no owner, whose next [`Store::gather`] sees it,
    /// and survives restarts.
    fn set_paused(&self, partition: PartitionId, paused: bool)
    -> BoxFuture<Result<Written<()>, CommitError>>;

    /// Partitions that are paused.
    fn paused(&self) -> BoxFuture<Result<Vec<PartitionId>, ReadError>>;

    /// Makes the caller the partition's only owner: raises its epoch, stores `nonce` and counts the
    /// start ([`Trouble::start`]). Every earlier fence is void from here on.
    fn take(&self, partition: PartitionId, nonce: u64) -> BoxFuture<Result<Written<Fence>, CommitError>>;

    /// Reads all that an owner keeps in memory. Call it after [`Store::take`] is durable; it sees
    /// every write before that.
    fn load(&self, fence: Fence) -> BoxFuture<Result<PartitionImage, ReadError>>;

    /// Reads the first entries of each lane, up to the limits; they stay until a commit takes them.
    fn gather(&self, fence: Fence, limits: GatherLimits) -> BoxFuture<Result<Gathered, ReadError>>;

    /// Reads one transaction for its owner, who must not wait behind what callers read.
    fn subject(&self, fence: Fence, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>>;

    /// Writes one turn: all or nothing, refused when the fence is void.
    fn commit(&self, fence: Fence, turn: TurnCommit) -> BoxFuture<Result<Written<()>, CommitError>>;

    /// Takes the next `count` carton serials for good; those not used are a gap.
    fn lease_serials(&self, count: u64) -> BoxFuture<Result<Written<u64>, CommitError>>;

    /// Partitions with something to do, and when: time zero for one with a filled lane.
    fn wake_ups(&self) -> BoxFuture<Result<Vec<(PartitionId, Timestamp)>, ReadError>>;

    /// Reads one transaction.
    fn transaction(&self, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>>;

    /// Reads where an order goes; `None` for other kinds and once erased.
    fn ship_to(&self, id: TransactionId) -> BoxFuture<Result<Option<ShipTo>, ReadError>>;

    /// The transaction that holds a reference.
    fn claimed(
        &self,
        client: ClientNo,
        kind: Kind,
        reference: Reference,
    ) -> BoxFuture<Result<Option<TransactionId>, ReadError>>;

    /// A client's orders by id, after `after`, at most `limit`.
    fn orders_of(
        &self,
        client: ClientNo,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<TransactionId>, ReadError>>;

    /// Reads one position.
    fn position(
        &self,
        partition: PartitionId,
        client: ClientNo,
        sku: Sku,
    ) -> BoxFuture<Result<Option<Position>, ReadError>>;

    /// A client's positions in a warehouse by SKU, after `after`, at most `limit`.
    fn positions(
        &self,
        partition: PartitionId,
        client: ClientNo,
        after: Option<Sku>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<(Sku, Position)>, ReadError>>;

    /// The cartons of a closed manifest, in the order they were put on it.
    fn cartons(&self, manifest: TransactionId) -> BoxFuture<Result<Vec<ManifestCarton>, ReadError>>;

    /// What a client's feed keeps now. A sequence below the first was evicted, one from the next on was
    /// never given.
    fn feed_bounds(&self, client: ClientNo) -> BoxFuture<Result<FeedBounds, ReadError>>;

    /// The numbers in its client's feed of a transaction's facts, by version; `None` for one that has
    /// none. Empty when the transaction is not live.
    fn sequences(&self, id: TransactionId) -> BoxFuture<Result<Vec<Option<u64>>, ReadError>>;

    /// What an order's client was told of its estimate, the first first. Empty when that is nothing, or
    /// the order is not live.
    fn estimates(&self, id: TransactionId) -> BoxFuture<Result<Vec<ToldEstimate>, ReadError>>;

    /// Evicts the first entries of feeds whose fact was decided more than `retention` before `now`, at
    /// most `limit` in all. Answers how many. A number that is gone is never given again.
    fn sweep_feeds(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>>;

    /// A secret that only this store has, another one for each purpose, the same after every start.
    fn secret(&self, purpose: &str) -> [u8; 32];

    /// A client's feed after sequence `after`, at most `limit` entries, without holes but for what was
    /// evicted at its beginning.
    fn feed(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<FeedEntry>, ReadError>>;

    /// What an entry of a feed says that points at no version: one with version 0. `None` when there
    /// is no such entry.
    fn announcement(
        &self,
        client: ClientNo,
        sequence: u64,
    ) -> BoxFuture<Result<Option<Announcement>, ReadError>>;

    /// A partition's open dead letters by number, after `after` (0: from the first), at most `limit`. One
    /// that cannot be read has its place among them.
    fn dead_letters(
        &self,
        partition: PartitionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<Result<Vec<Listed>, ReadError>>;

    /// What became of a dead letter; `None` when there never was one of this number.
    fn dead_letter(&self, partition: PartitionId, n: u64) -> BoxFuture<Result<Option<Kept>, ReadError>>;

    /// How many dead letters a partition ever kept.
    fn dead_letters_total(&self, partition: PartitionId) -> BoxFuture<Result<u64, ReadError>>;

    /// All live transactions by id, after `after`, at most `limit`: for checks and repairs.
    fn scan(
        &self,
        after: Option<TransactionId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<StoredTransaction>, ReadError>>;

    /// Turns transactions that ended more than `retention` before `now` into tombstones, and
    /// drops tombstones as old again; at most `limit` of each. Answers how many it touched.
    fn sweep(
        &self,
        now: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>>;

    /// The other nodes of this store; `None` where there can be none.
    fn membership(&self) -> Option<Arc<dyn Membership>> {
        None
    }

    /// True while the store takes writes.
    fn is_writable(&self) -> bool;

    /// What it has done since it was opened, for operators. Zeros from a store that does not count.
    fn report(&self) -> StoreReport {
        StoreReport::default()
    }
}

/// A reply, and apart from it the acknowledgement of its durability.
pub struct Written<T> {
    /// What the write answered.
    pub reply: T,
    /// Resolves when the write is durable at the store's class.
    pub durable: BoxFuture<Result<(), CommitError>>,
}

impl<T> Written<T> {
    /// A reply that came after the write was durable.
    pub fn durably(reply: T) -> Written<T> {
        Written { reply, durable: Box::pin(std::future::ready(Ok(()))) }
    }

    /// Waits for durability, then gives the reply.
    ///
    /// # Errors
    /// When durability could not be had; the write may still have been applied.
    pub async fn wait(self) -> Result<T, CommitError> {
        self.durable.await?;
        Ok(self.reply)
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process and of the machine: it was fsynced.
    Fsync,
    /// Nothing: for tests.
    Memory,
    /// What `Fsync` survives, and that machine's loss: other machines have it too.
    Replicated,
}

impl Durability {
    /// The class's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::Memory => "memory",
            Durability::Replicated => "replicated",
        }
    }
}

/// Names that a start brings.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Warehouse codes and their partitions.
    pub warehouses: Vec<(String, PartitionId)>,
    /// Client names.
    pub clients: Vec<String>,
}

/// The numbers of all clients the store has ever met, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Name and number.
    pub clients: Vec<(String, ClientNo)>,
}

/// SHA-256 of a command as parsed, without fields at their default.
pub type Digest = [u8; 32];

/// A command to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCommand {
    /// The id it gets if it is new; its home is the partition it is queued in.
    pub id: TransactionId,
    /// Whose it is.
    pub client: ClientNo,
    /// The `Idempotency-Key` header, judged before the reference.
    pub key: Option<IdempotencyKey>,
    /// What is asked for.
    pub command: Command,
    /// Of the command and the personal data.
    pub digest: Digest,
    /// Personal data, stored apart.
    pub ship_to: Option<ShipTo>,
    /// Version 1.
    pub accepted: Recorded,
    /// The work lane refuses commands beyond this many; the other lanes are not counted.
    pub backlog_max: u64,
}

impl NewCommand {
    /// The lane it is queued in.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self.command {
            Command::Order(_) => Lane::Work,
            Command::Move(_) | Command::Manifest(_) => Lane::Stock,
            Command::Cancellation(_) => Lane::Control,
        }
    }
}

/// An `Idempotency-Key` and the call it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Which call; keys of different calls do not meet.
    pub call: Kind,
    /// 1 to 255 visible ASCII characters.
    pub key: String,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted under the id it proposed.
    New,
    /// The same command was accepted before, under this id.
    Replay(TransactionId),
    /// The reference belongs to a transaction with other content.
    ReferenceConflict(TransactionId),
    /// The `Idempotency-Key` was used with other content.
    KeyReused,
    /// The warehouse's work lane is full.
    BacklogFull,
    /// The store has no room for this lane.
    StoreFull,
    /// Not accepted; trying again is safe.
    Unavailable,
    /// It may have been accepted; trying again finds out.
    Unknown,
}

/// The three queues of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Reports of the WMS and cancellations: drained first, needs no credit.
    Control,
    /// Moves and manifests.
    Stock,
    /// Orders; pulled only while credits are free.
    Work,
}

impl Lane {
    /// All lanes in the order they are drained.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Stock, Lane::Work];
}

/// Proof of ownership of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The partition.
    pub partition: PartitionId,
    /// Raised by every owner.
    pub epoch: u64,
    /// The owner's own number: a store that forgot an epoch cannot hand out the same pair twice.
    pub nonce: u64,
}

/// All that an owner rebuilds its memory from.
#[derive(Clone, Debug, Default)]
pub struct PartitionImage {
    /// The stock ledger.
    pub positions: Vec<(StockKey, Position)>,
    /// Those of them that have changed since their client's feed told of them.
    pub untold: Vec<StockKey>,
    /// Waves that the WMS has not answered.
    pub waves: Vec<StoredWave>,
    /// Orders and manifests that were pulled and are not done.
    pub open: Vec<StoredTransaction>,
    /// What the clients of those were last told of their estimates.
    pub promises: Vec<(TransactionId, Promise)>,
    /// Those whose bytes cannot be read, and why.
    pub unreadable: Vec<(TransactionId, String)>,
    /// Waves whose bytes cannot be read, and why.
    pub unreadable_waves: Vec<(WaveId, String)>,
    /// Positions whose bytes cannot be read, and why.
    pub unreadable_positions: Vec<(StockKey, String)>,
    /// What is remembered of its trees' deaths; `in_hand` is as the tree before left it.
    pub trouble: Trouble,
}

/// A wave that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWave {
    /// Its id.
    pub id: WaveId,
    /// Its releases, in order.
    pub releases: Vec<ReleaseId>,
}

/// A transaction as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTransaction {
    /// Its id.
    pub id: TransactionId,
    /// Whose it is.
    pub client: ClientNo,
    /// Of what was asked for.
    pub digest: Digest,
    /// What was asked for.
    pub command: Command,
    /// What happened; fact `i` is version `i + 1`, the first is `Accepted`.
    pub facts: Vec<Recorded>,
}

impl StoredTransaction {
    /// The newest version.
    #[must_use]
    pub fn version(&self) -> u32 {
        u32::try_from(self.facts.len()).unwrap_or(u32::MAX)
    }
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The transaction.
    Live(Arc<StoredTransaction>),
    /// It ended longer ago than the retention.
    Expired(Arc<Tombstone>),
}

/// What stays of a transaction past its retention: enough to answer a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its id.
    pub id: TransactionId,
    /// Whose it was.
    pub client: ClientNo,
    /// Of what was asked for.
    pub digest: Digest,
    /// Its kind.
    pub kind: Kind,
    /// The client's name for it.
    pub reference: Reference,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Of the call that brought it.
    pub correlation: CorrelationId,
}

/// How much of each lane to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherLimits {
    /// Entries of the control lane.
    pub control: usize,
    /// Entries of the stock lane.
    pub stock: usize,
    /// Entries of the work lane.
    pub work: usize,
}

/// What the lanes hold.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Entries, control first, then stock, then work, each in order of arrival.
    pub entries: Vec<LaneEntry>,
    /// Orders in the work lane, those in `entries` included.
    pub backlog: u64,
    /// When the oldest of those that are not in `entries` was accepted.
    pub next: Option<Timestamp>,
    /// True while nothing is to be pulled or released: then `entries` has no work.
    pub paused: bool,
}

/// One entry of a lane.
#[derive(Clone, Debug)]
pub struct LaneEntry {
    /// The lane.
    pub lane: Lane,
    /// Its number there.
    pub n: u64,
    /// What it holds.
    pub item: LaneItem,
}

/// What an entry holds.
#[derive(Clone, Debug)]
pub enum LaneItem {
    /// A transaction to work.
    Transaction(Box<StoredTransaction>),
    /// A report of the WMS.
    Report(Box<Confirmation>),
    /// What an operator wants done with a dead letter, and the letter while it is open.
    Instruction(Instruction, Option<Box<DeadLetter>>),
    /// Bytes that cannot be read, of this transaction if that much is known; they become a dead
    /// letter.
    Undecodable(Option<TransactionId>, String),
}

/// What an operator wants done with the dead letter of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instruction {
    /// It is to be worked again.
    Redrive(u64),
    /// It is to be ended.
    GiveUp(u64),
}

impl Instruction {
    /// The dead letter's number.
    #[must_use]
    pub fn letter(self) -> u64 {
        match self {
            Instruction::Redrive(n) | Instruction::GiveUp(n) => n,
        }
    }
}

/// One turn's writes. Empty fields write nothing.
#[derive(Clone, Debug, Default)]
pub struct TurnCommit {
    /// Lane entries that this turn has dealt with.
    pub taken: Vec<(Lane, u64)>,
    /// Transactions that the house itself begins (manifests); their facts are in `facts`.
    pub created: Vec<(TransactionId, Command)>,
    /// New facts, and with each a feed entry of its client ([`ClientNo::HOUSE`] has no feed).
    pub facts: Vec<NewFacts>,
    /// Positions as they are now. From here on those of a known SKU are untold.
    pub positions: Vec<(StockKey, Position)>,
    /// Positions that their client's feed is told of as this turn leaves them, and when.
    pub told: Vec<(StockKey, Timestamp)>,
    /// Estimates that orders' clients are told of, behind this turn's facts in their feeds.
    pub estimates: Vec<NewEstimate>,
    /// Waves that go out.
    pub waves: Vec<StoredWave>,
    /// Waves that are answered.
    pub answered: Vec<WaveId>,
    /// Transactions that the owner holds in memory from here on.
    pub opened: Vec<TransactionId>,
    /// Those it holds no longer.
    pub closed: Vec<TransactionId>,
    /// Transactions that ended, for the retention.
    pub ended: Vec<(TransactionId, Timestamp)>,
    /// Cartons of manifests that are closed by this turn.
    pub cartons: Vec<(TransactionId, Vec<ManifestCarton>)>,
    /// What is kept aside. The bytes of the lane entry that a letter names go into it: such an entry
    /// must stand in `taken` as well. An order has one open letter: a new one replaces it.
    pub dead: Vec<DeadLetter>,
    /// Dead letters that are dealt with; redriven ones go back into the lane that they came from, with
    /// an order also what was kept aside of what was said about it.
    pub settled: Vec<(u64, Settled)>,
    /// Orders that are dead letters no more: their open letter, if any, passes.
    pub relieved: Vec<TransactionId>,
    /// What is remembered of deaths from here on; `None` leaves it as it is.
    pub trouble: Option<Trouble>,
    /// When the partition must be awake next; time zero while something is owed.
    pub wake_at: Timestamp,
}

impl TurnCommit {
    /// True when it would write nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let TurnCommit {
            taken,
            created,
            facts,
            positions,
            told,
            estimates,
            waves,
            answered,
            opened,
            closed,
            ended,
            cartons,
            dead,
            settled,
            relieved,
            trouble,
            wake_at: _,
        } = self;
        taken.is_empty()
            && created.is_empty()
            && facts.is_empty()
            && positions.is_empty()
            && told.is_empty()
            && estimates.is_empty()
            && waves.is_empty()
            && answered.is_empty()
            && opened.is_empty()
            && closed.is_empty()
            && ended.is_empty()
            && cartons.is_empty()
            && dead.is_empty()
            && settled.is_empty()
            && relieved.is_empty()
            && trouble.is_none()
    }
}

/// New facts of one transaction.
#[derive(Clone, Debug)]
pub struct NewFacts {
    /// The transaction.
    pub id: TransactionId,
    /// Whose feed hears of them.
    pub client: ClientNo,
    /// The version of the first.
    pub first_version: u32,
    /// The facts.
    pub facts: Vec<Recorded>,
}

/// An estimate that an order's client is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEstimate {
    /// The order.
    pub id: TransactionId,
    /// Whose feed hears of it.
    pub client: ClientNo,
    /// The order's version, this turn's facts included.
    pub version: u32,
    /// When it is told.
    pub at: Timestamp,
    /// What is estimated.
    pub estimate: Estimate,
}

/// A carton on a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestCarton {
    /// Its code.
    pub sscc: Sscc,
    /// The WMS's own name for it.
    pub carton_id: Option<String>,
    /// The release that packed it.
    pub release: ReleaseId,
}

/// Something that could not be worked and blocks nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What it was.
    pub kind: DeadKind,
    /// The transaction it was about.
    pub id: Option<TransactionId>,
    /// Why, in words for an operator.
    pub reason: String,
    /// The thing itself, readable.
    pub detail: String,
    /// When it was kept aside.
    pub at: Timestamp,
    /// The lane entry that it was, whose bytes are kept with it; `None`: no entry was taken for it.
    pub entry: Option<(Lane, u64)>,
}

/// An open dead letter and its number; or why its bytes cannot be read.
pub type Listed = (u64, Result<DeadLetter, String>);

/// A dead letter that there is, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It waits for an operator.
    Open(DeadLetter),
    /// It is dealt with.
    Settled(Settled),
}

/// How a dead letter was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// An operator had it worked again.
    Redriven,
    /// An operator ended it.
    GivenUp,
    /// What it was about went on by itself, or a later letter says it anew.
    Passed,
}

/// The kinds of dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadKind {
    /// An order that the WMS refuses, that kills its tree, or whose bytes cannot be read.
    Order,
    /// A report that cannot be booked, another entry of a lane that cannot be worked, or bytes that
    /// cannot be read.
    Confirmation,
    /// A wave that cannot be read or sent.
    Wave,
    /// A position of the stock whose bytes cannot be read.
    Stock,
}

/// What a feed keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedBounds {
    /// The first sequence that is kept; `next` when none is.
    pub first: u64,
    /// The sequence that the next entry gets; 1 at first.
    pub next: u64,
}

/// A pointer to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its number in the client's feed: from 1, contiguous but for the first of a turn
    /// ([`turn_of`](super::turns::turn_of)).
    pub sequence: u64,
    /// The transaction; an id of its own where it is about none.
    pub id: TransactionId,
    /// What it points at, as [`Points::number`].
    pub version: u32,
}

/// What an entry of a feed points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// What [`Store::announcement`] says: it is about no transaction.
    Announcement,
    /// This version of its transaction.
    Version(u32),
    /// One of [`Store::estimates`], told when its order was at this version.
    Estimate(u32),
}

impl Points {
    /// Set in the number of an estimate: no transaction has as many versions.
    const ESTIMATE: u32 = 1 << 31;

    /// The same as a number: 0, the version, or for an estimate the version with its highest bit set.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Points::Announcement => 0,
            Points::Version(version) => version,
            Points::Estimate(version) => version | Points::ESTIMATE,
        }
    }

    /// The version of its transaction; 0 where it is about none.
    #[must_use]
    pub fn version(self) -> u32 {
        match self {
            Points::Announcement => 0,
            Points::Version(version) | Points::Estimate(version) => version,
        }
    }
}

impl FeedEntry {
    /// What it points at.
    #[must_use]
    pub fn points(&self) -> Points {
        match self.version {
            0 => Points::Announcement,
            number if number & Points::ESTIMATE != 0 => Points::Estimate(number & !Points::ESTIMATE),
            version => Points::Version(version),
        }
    }

    /// What the event is about: the transaction, and for others the same for each of their events
    /// that replace each other.
    #[must_use]
    pub fn subject(&self) -> TransactionId {
        match self.points() {
            Points::Version(_) | Points::Estimate(_) => self.id,
            Points::Announcement => {
                let (_, own) = self.id.0.as_u64_pair();
                TransactionId::new(Timestamp(0), self.id.home(), own)
            }
        }
    }

    /// Whether who wants only the latest has no use for `older` once it has this one, of the same
    /// subject: a newer version, or what is said newer of the same. An estimate says nothing of what has
    /// happened.
    #[must_use]
    pub fn replaces(&self, older: &FeedEntry) -> bool {
        match (self.points(), older.points()) {
            (Points::Estimate(_), Points::Version(_) | Points::Announcement) => false,
            (Points::Estimate(_), Points::Estimate(_)) | (Points::Version(_) | Points::Announcement, _) => {
                true
            }
        }
    }
}

/// A write that did not go through, or may not have.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Another owner has taken the partition; nothing was written.
    #[error("another owner has taken the partition")]
    Conflict,
    /// No room; nothing was written.
    #[error("the store has no room for this lane")]
    Full,
    /// Nothing was written; trying again is safe.
    #[error("the store cannot be written")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// It may have been written: read before trying again.
    #[error("the outcome of a write is unknown")]
    Unknown(#[source] Arc<dyn Error + Send + Sync>),
}

/// A read that did not go through.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Trying again may help.
    #[error("the store cannot be read")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// Bytes are not what was written.
    #[error("{what} cannot be decoded")]
    Corrupt {
        /// What was read.
        what: String,
        /// Why not.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

/// A start that the store refuses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegisterError {
    /// A warehouse keeps its partition for ever: its orders and stock live there.
    #[error("warehouse {code} has partition {stored} in the store and {configured} in the configuration")]
    PartitionChanged {
        /// The warehouse.
        code: String,
        /// Its partition in the store.
        stored: u16,
        /// Its partition in the configuration.
        configured: u16,
    },
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
