//! Nodes that share one store: who is there, who is in charge of what, and what they tell each other.
//!
//! Safety never rests on anything here. What a node may write of a partition is decided by the
//! [`Fence`](super::store::Fence) alone, so a node that is wrong about its lease, about time or about
//! the others commits nothing that it may not; leases and the assignment only make nodes agree about
//! who works what, so that they rarely meet.
//!
//! - A node holds one **lease**, which it renews; one that is past its lease is dead to the others.
//!   Time is the store's: no clock of a node is compared with another's.
//! - The **assignment** names a node for each [`Charge`](crate::domain::spread::Charge). Any node writes
//!   the next one when it no longer fits who is there; the version decides which of two counts.
//! - **Words** pass between live nodes and may be lost. For each there is a slower way to the same end, but for
//!   `Ping`, which its caller asks for again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::BoxFuture;
use super::store::CommitError;
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::{ClientNo, PartitionId, TransactionId};
use crate::domain::spread::{Homes, NodeId};

/// The nodes of a store, as one of them sees them.
pub trait Membership: Send + Sync + 'static {
    /// This node.
    fn me(&self) -> NodeId;

    /// This node's name, for people.
    fn name(&self) -> String;

    /// Renews this node's lease and answers who is there now. With `judge` those whose lease is over
    /// are taken off the list for good; without, they stand in it still: who has not renewed its own
    /// lease for a while judges nobody, because the store may have been away from all of them.
    ///
    /// # Errors
    /// [`RenewError::Replaced`] when another process lives under this node's id.
    fn renew(&self, leaving: bool, judge: bool) -> BoxFuture<Result<Roster, RenewError>>;

    /// Writes the assignment that follows version `after`; false when another one did already.
    fn assign(&self, after: u64, homes: Homes) -> BoxFuture<Result<bool, CommitError>>;

    /// Ends this node's lease: others need not wait for it.
    fn leave(&self) -> BoxFuture<Result<(), CommitError>>;

    /// Makes every fence of these partitions void, and sees to it that what their owners before have
    /// written reaches the feeds. Done in part when it fails; doing it again is safe.
    fn depose(&self, partitions: Vec<PartitionId>) -> BoxFuture<Result<(), CommitError>>;

    /// True for whoever of all nodes is the first to use a name, which is remembered for `within` at
    /// least.
    ///
    /// # Errors
    /// When that is not known; the name may be used.
    fn first_use(&self, name: [u8; 32], within: Duration) -> BoxFuture<Result<bool, CommitError>>;

    /// Forgets that a name was used. It may be remembered all the same.
    fn forget_use(&self, name: [u8; 32]) -> BoxFuture<()>;

    /// Tells the other nodes. It may be lost.
    fn tell(&self, word: Word);

    /// Hears what the others tell from here on. A receiver that lags has missed words.
    fn listen(&self) -> broadcast::Receiver<Word>;
}

/// Why a lease is not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// A younger process has this node's id, and so its directory.
    #[error("another process has taken this node's place")]
    Replaced,
    /// It is not known to be renewed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A node that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// It is about to end and is to be in charge of nothing.
    pub leaving: bool,
}

/// Who is there, and who is in charge of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Those with a lease, by id; this node among them.
    pub members: Vec<Member>,
    /// Counts assignments; 0 before the first.
    pub version: u64,
    /// The assignment.
    pub homes: Homes,
}

impl Roster {
    /// A member.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

/// What a node tells the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Word {
    /// Words were lost: look at everything.
    Missed,
    /// The assignment or the members have changed.
    Roster,
    /// A write of a partition is durable.
    Wrote {
        /// Where.
        partition: PartitionId,
        /// There is something new in its lanes.
        queued: bool,
        /// These have new versions.
        transactions: Vec<TransactionId>,
        /// The feeds of these have grown.
        clients: Vec<ClientNo>,
    },
    /// A client's feed has grown by what lies in no partition.
    Fed(ClientNo),
    /// Webhook endpoints have changed.
    Endpoints,
    /// A partition's owner has ended in order: who is in charge now may take it.
    Released(PartitionId),
    /// What a partition's owner last published.
    Published {
        /// The partition.
        partition: PartitionId,
        /// The snapshot, in JSON.
        snapshot: String,
    },
    /// Whoever has this endpoint's actor is to post a test event.
    Ping {
        /// The endpoint.
        endpoint: EndpointId,
        /// Names the wish.
        wish: u64,
        /// Of the call.
        correlation: String,
        /// Of the call, as a `traceparent`.
        traceparent: String,
    },
    /// A wish of another node is granted, or cannot be now.
    Answer {
        /// The wish.
        wish: u64,
        /// Whether it is granted.
        granted: bool,
    },
}
