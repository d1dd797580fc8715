//! The actors' report: the one picture of a running node that `/metrics`, the operators' pages and
//! the tests read. It is put together from what the actors left behind, and asks none of them.

use std::fmt;
use std::time::Duration;

pub use super::observed::Observed;
use crate::domain::command::Kind;
use crate::domain::spread::NodeId;
use crate::domain::state::State;
use crate::domain::time::Timestamp;
use crate::ports::measure::Distribution;
use crate::ports::store::{CommitError, Verdict};
use crate::ports::store_report::StoreReport;

/// The types of actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActorType {
    /// The root supervisor.
    House,
    /// Takes commands in.
    Ingestion,
    /// Hands events to all who follow a feed.
    FeedHub,
    /// Supervises one warehouse's tree.
    Warehouse,
    /// Works one warehouse turn by turn.
    Pipeline,
    /// Reserves stock.
    Inventory,
    /// Speaks with a WMS.
    WmsLink,
    /// Gathers cartons into manifests.
    Manifester,
    /// Supervises webhook endpoints.
    Notifier,
    /// Delivers to one webhook endpoint.
    Endpoint,
}

impl ActorType {
    /// All types.
    pub const ALL: [ActorType; 10] = [
        ActorType::House,
        ActorType::Ingestion,
        ActorType::FeedHub,
        ActorType::Warehouse,
        ActorType::Pipeline,
        ActorType::Inventory,
        ActorType::WmsLink,
        ActorType::Manifester,
        ActorType::Notifier,
        ActorType::Endpoint,
    ];

    /// The type's name in reports and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ActorType::House => "house",
            ActorType::Ingestion => "ingestion",
            ActorType::FeedHub => "feed_hub",
            ActorType::Warehouse => "warehouse",
            ActorType::Pipeline => "pipeline",
            ActorType::Inventory => "inventory",
            ActorType::WmsLink => "wms_link",
            ActorType::Manifester => "manifester",
            ActorType::Notifier => "notifier",
            ActorType::Endpoint => "endpoint",
        }
    }
}

/// Why an actor had to be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It panicked over a message.
    Panic,
    /// Another owner has taken its partition.
    CommitConflict,
    /// A commit may or may not have been applied.
    CommitUnknown,
    /// A commit was not applied.
    CommitRefused,
    /// The store had no room for a commit.
    StoreFull,
    /// The store could not be read, or not in time.
    Unreadable,
    /// Another actor of the tree did not answer.
    NoAnswer,
    /// It ended without a word.
    Stopped,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 8] = [
        Cause::Panic,
        Cause::CommitConflict,
        Cause::CommitUnknown,
        Cause::CommitRefused,
        Cause::StoreFull,
        Cause::Unreadable,
        Cause::NoAnswer,
        Cause::Stopped,
    ];

    /// The cause's name in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Panic => "panic",
            Cause::CommitConflict => "commit_conflict",
            Cause::CommitUnknown => "commit_unknown",
            Cause::CommitRefused => "commit_refused",
            Cause::StoreFull => "store_full",
            Cause::Unreadable => "unreadable",
            Cause::NoAnswer => "no_answer",
            Cause::Stopped => "stopped",
        }
    }
}

impl From<&CommitError> for Cause {
    fn from(why: &CommitError) -> Cause {
        match why {
            CommitError::Conflict => Cause::CommitConflict,
            CommitError::Full => Cause::StoreFull,
            CommitError::Unavailable(_) => Cause::CommitRefused,
            CommitError::Unknown(_) => Cause::CommitUnknown,
        }
    }
}

/// One restart. As text it reads `panic`, or `commit unknown in pipeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Why.
    pub cause: Cause,
    /// The child that the supervisor ended for.
    pub of: Option<ActorType>,
    /// When.
    pub at: Timestamp,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause.as_str().replace('_', " "))?;
        match self.of {
            Some(child) => write!(f, " in {}", child.as_str()),
            None => Ok(()),
        }
    }
}

/// An actor's own deaths. A sibling that is rebuilt with it counts nothing; its supervisor does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// How many of each cause.
    pub by_cause: [(Cause, u64); Cause::ALL.len()],
    /// The last.
    pub last: Option<Restart>,
}

impl Restarts {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_cause.iter().map(|(_, n)| n).sum()
    }
}

/// An actor's gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateReport {
    /// Messages inside.
    pub depth: usize,
    /// Messages that it lets in at a time; `None` for an actor that takes signals of supervision
    /// only, which nothing holds back.
    pub capacity: Option<usize>,
    /// Messages that it did not let in.
    pub refused: u64,
}

/// Where an actor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its warehouse has nothing to do; it starts when a lane fills or something is due.
    Asleep,
    /// Started, and not yet ready to work.
    Starting,
    /// At work.
    Running,
    /// Dead; its next start waits.
    Down,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 4] = [Phase::Asleep, Phase::Starting, Phase::Running, Phase::Down];

    /// The phase's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Asleep => "asleep",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Down => "down",
        }
    }
}

/// One actor.
#[derive(Clone, Debug)]
pub struct ActorReport {
    /// Its type.
    pub actor: ActorType,
    /// Its name, unique in the node.
    pub name: String,
    /// The code of its warehouse.
    pub warehouse: Option<String>,
    /// Its gate.
    pub gate: GateReport,
    /// How long it held each message: the turn of a Pipeline, the slice on the thread of all others.
    /// In seconds.
    pub handling: Distribution,
    /// How long the message in hand has been there: one that hangs is seen here.
    pub in_hand: Option<Duration>,
    /// Its own deaths.
    pub restarts: Restarts,
    /// Where it stands.
    pub phase: Phase,
    /// What it last showed.
    pub observed: Option<Observed>,
    /// The actors that it supervises.
    pub children: Vec<ActorReport>,
}

impl ActorReport {
    /// Visits this one and all below it.
    pub fn each<'a>(&'a self, visit: &mut impl FnMut(&'a ActorReport)) {
        visit(self);
        for child in &self.children {
            child.each(visit);
        }
    }
}

/// What became of a command at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// New, and durable.
    Accepted,
    /// It was accepted before.
    Replayed,
    /// The reference is another's.
    ReferenceConflict,
    /// The `Idempotency-Key` was used with other content.
    KeyReused,
    /// The warehouse's work lane is full.
    BacklogFull,
    /// The store has no room.
    StoreFull,
    /// Not accepted.
    Unavailable,
    /// It may have been accepted.
    Unknown,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 8] = [
        Outcome::Accepted,
        Outcome::Replayed,
        Outcome::ReferenceConflict,
        Outcome::KeyReused,
        Outcome::BacklogFull,
        Outcome::StoreFull,
        Outcome::Unavailable,
        Outcome::Unknown,
    ];

    /// Its name in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Replayed => "replayed",
            Outcome::ReferenceConflict => "reference_conflict",
            Outcome::KeyReused => "key_reused",
            Outcome::BacklogFull => "backlog_full",
            Outcome::StoreFull => "store_full",
            Outcome::Unavailable => "unavailable",
            Outcome::Unknown => "unknown",
        }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::New => Outcome::Accepted,
            Verdict::Replay(_) => Outcome::Replayed,
            Verdict::ReferenceConflict(_) => Outcome::ReferenceConflict,
            Verdict::KeyReused => Outcome::KeyReused,
            Verdict::BacklogFull => Outcome::BacklogFull,
            Verdict::StoreFull => Outcome::StoreFull,
            Verdict::Unavailable => Outcome::Unavailable,
            Verdict::Unknown => Outcome::Unknown,
        }
    }
}

/// What a node counted of commands and orders since it started.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Commands by kind and what became of them at the door.
    pub commands: Vec<(Kind, Outcome, u64)>,
    /// From handing a batch of commands in to its durable answer, in seconds.
    pub accept: Distribution,
    /// Orders by the final state that they came to.
    pub ended: Vec<(State, u64)>,
    /// From acceptance to departure, in seconds.
    pub door_to_door: Distribution,
    /// What was kept aside, by kind.
    pub dead_letters: Vec<(&'static str, u64)>,
    /// Events that were rendered from their transaction.
    pub events_rendered: u64,
    /// Events that could not be, and were left aside.
    pub events_aside: u64,
    /// Invariants that did not hold, by id.
    pub violations: Vec<(&'static str, u64)>,
}

/// One warehouse that has or had work since the node started.
#[derive(Clone, Debug)]
pub struct WarehouseReport {
    /// Its code.
    pub code: String,
    /// Orders in the work lane.
    pub backlog: u64,
    /// At so many, further orders are refused.
    pub backlog_max: u64,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
    /// Releases that the WMS has not settled.
    pub credits_used: u32,
    /// Releases that may be unsettled.
    pub credits: u32,
    /// True while it pulls and releases nothing.
    pub paused: bool,
    /// Calls to its WMS in a row that failed.
    pub wms_failures: u32,
}

/// The whole picture.
#[derive(Clone, Debug)]
pub struct Report {
    /// The supervision trees.
    pub actors: Vec<ActorReport>,
    /// Warehouses that have or had work.
    pub warehouses: Vec<WarehouseReport>,
    /// Trees by phase, of all warehouses.
    pub trees: Vec<(Phase, usize)>,
    /// Orders that are not done, by state; those of a warehouse whose tree has not run since the
    /// node started are not among them.
    pub orders: Vec<(State, u64)>,
    /// What was counted.
    pub tally: Tally,
    /// Webhooks.
    pub webhooks: WebhookReport,
    /// The store.
    pub store: StoreReport,
    /// Callers that wait for a change, and how many may.
    pub waiters: (usize, usize),
    /// The nodes of the store, by id; none where there can be only this one.
    pub nodes: Vec<NodeReport>,
}

/// A node of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The one that reports.
    pub is_this: bool,
    /// It is about to end.
    pub leaving: bool,
    /// Codes of the warehouses it is in charge of, in configured order.
    pub warehouses: Vec<String>,
}

/// What a node counted of webhooks since it started.
#[derive(Clone, Debug)]
pub struct WebhookReport {
    /// Attempts by outcome, in seconds.
    pub attempts: Vec<(&'static str, Distribution)>,
    /// Events that are taken up and not delivered.
    pub waiting: usize,
    /// Deliveries that were kept aside.
    pub dead: u64,
}
