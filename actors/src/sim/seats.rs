//! Several nodes on the store of the world: leases that end when nobody expects it, assignments that are
//! refused, words that are late or lost.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;
use uuid::Uuid;

use super::World;
use super::life::Life;
use super::store::FaultyStore;
use crate::domain::ids::PartitionId;
use crate::domain::spread::{Homes, NodeId};
use crate::ports::BoxFuture;
use crate::ports::entropy::Entropy as _;
use crate::ports::membership::{Member, Membership, RenewError, Roster, Word};
use crate::ports::store::CommitError;

/// How long a node is taken for alive.
const LEASE: Duration = Duration::from_secs(4);
/// The time a word takes, at most, in milliseconds.
const WORD_MS: u64 = 20;
/// Words that wait to be heard.
const WORDS_MAX: usize = 256;

/// What the world's store knows of its nodes.
#[derive(Default)]
pub(crate) struct Cluster {
    known: Mutex<Known>,
    ears: Mutex<Vec<(u64, broadcast::Sender<Word>)>>,
}

#[derive(Default)]
struct Known {
    nodes: BTreeMap<NodeId, Lease>,
    version: u64,
    homes: Homes,
    used: BTreeSet<[u8; 32]>,
}

struct Lease {
    till: Instant,
    process: u64,
    member: Member,
}

/// A node's place among the others, for one of its lives.
pub(crate) struct Seat {
    world: Arc<World>,
    store: FaultyStore,
    me: NodeId,
    process: u64,
    has_joined: Arc<AtomicBool>,
    ears: broadcast::Sender<Word>,
}

/// The number of a node as its id.
pub(crate) fn node(n: u64) -> NodeId {
    NodeId(Uuid::from_u128(u128::from(n)))
}

impl Seat {
    pub(crate) fn new(world: &Arc<World>, life: &Arc<Life>, me: NodeId) -> Arc<Seat> {
        let process = world.chance.next();
        let ears = broadcast::channel(WORDS_MAX).0;
        world.cluster.ears.lock().push((process, ears.clone()));
        Arc::new(Seat {
            store: FaultyStore::new(world.clone(), life.clone(), None),
            world: world.clone(),
            me,
            process,
            has_joined: Arc::default(),
            ears,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.world.cluster.ears.lock().retain(|(process, _)| *process != self.process);
    }
}

impl World {
    /// One step of the store: renews a lease, and answers who is there.
    fn renew(&self, mine: Lease, joins: bool, judge: bool) -> Option<Roster> {
        let me = mine.member.id;
        let mut known = self.cluster.known.lock();
        if !joins && known.nodes.get(&me).is_some_and(|lease| lease.process != mine.process) {
            return None;
        }
        known.nodes.insert(me, mine);
        let now = Instant::now();
        if self.strikes(self.profile.leases) && known.nodes.len() > 1 {
            self.observer.saw("leases lost");
            self.note(format_args!("all leases but that of {me} are over"));
            known.nodes.iter_mut().filter(|(id, _)| **id != me).for_each(|(_, lease)| lease.till = now);
        }
        if judge {
            let before = known.nodes.len();
            known.nodes.retain(|_, lease| lease.till > now);
            if known.nodes.len() < before {
                self.observer.saw("nodes judged");
                self.note(format_args!("{me} takes {} for dead", before - known.nodes.len()));
            }
        }
        let members = known.nodes.values().map(|lease| lease.member.clone()).collect();
        Some(Roster { members, version: known.version, homes: known.homes.clone() })
    }

    /// Makes every fence of a partition void.
    fn depose(&self, partition: PartitionId) -> Result<(), CommitError> {
        let nonce = self.chance.next();
        self.disk.depose(partition, nonce)?;
        self.note(format_args!("partition {} has no owner any more", partition.0));
        self.observer.deposed(partition, nonce);
        Ok(())
    }

    fn assign(&self, after: u64, homes: Homes) -> bool {
        let mut known = self.cluster.known.lock();
        if known.version != after {
            return false;
        }
        self.observer.saw("assignments");
        self.note(format_args!("assignment {}: {homes:?}", after + 1));
        (known.version, known.homes) = (after + 1, homes);
        true
    }
}

impl Membership for Seat {
    fn me(&self) -> NodeId {
        self.me
    }

    fn name(&self) -> String {
        self.me.to_string()
    }

    fn renew(&self, leaving: bool, judge: bool) -> BoxFuture<Result<Roster, RenewError>> {
        let member = Member { id: self.me, name: self.name(), leaving };
        let process = self.process;
        let has_joined = self.has_joined.clone();
        let renewed = self.store.write(move |world| {
            let mine = Lease { till: Instant::now() + LEASE, process, member };
            let roster = world.renew(mine, !has_joined.load(SeqCst), judge);
            has_joined.store(true, SeqCst);
            Ok(roster)
        });
        Box::pin(async move { renewed.await?.wait().await?.ok_or(RenewError::Replaced) })
    }

    fn assign(&self, after: u64, homes: Homes) -> BoxFuture<Result<bool, CommitError>> {
        let assigned = self.store.write(move |world| Ok(world.assign(after, homes)));
        Box::pin(async move { assigned.await?.wait().await })
    }

    fn leave(&self) -> BoxFuture<Result<(), CommitError>> {
        let (me, process) = (self.me, self.process);
        let left = self.store.write(move |world| {
            let mut known = world.cluster.known.lock();
            if known.nodes.get(&me).is_some_and(|lease| lease.process == process) {
                known.nodes.remove(&me);
            }
            Ok(())
        });
        Box::pin(async move { left.await?.wait().await })
    }

    fn depose(&self, partitions: Vec<PartitionId>) -> BoxFuture<Result<(), CommitError>> {
        let deposed = self
            .store
            .write(move |world| partitions.iter().try_for_each(|partition| world.depose(*partition)));
        Box::pin(async move { deposed.await?.wait().await })
    }

    fn first_use(&self, name: [u8; 32], _: Duration) -> BoxFuture<Result<bool, CommitError>> {
        let used = self.store.write(move |world| Ok(world.cluster.known.lock().used.insert(name)));
        Box::pin(async move { used.await?.wait().await })
    }

    fn forget_use(&self, name: [u8; 32]) -> BoxFuture<()> {
        self.world.cluster.known.lock().used.remove(&name);
        Box::pin(std::future::ready(()))
    }

    fn tell(&self, word: Word) {
        if self.world.strikes(self.world.profile.words_lost) {
            self.world.observer.saw("words lost");
            return;
        }
        let (world, process, life) = (self.world.clone(), self.process, self.store.life());
        let pause = world.pause(WORD_MS);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            life.go_on().await;
            for (_, ear) in world.cluster.ears.lock().iter().filter(|(other, _)| *other != process) {
                // A node that is not up yet hears nothing.
                let _nobody = ear.send(word.clone());
            }
        });
    }

    fn listen(&self) -> broadcast::Receiver<Word> {
        self.ears.subscribe()
    }
}
