//! The way to Redis: what is sent goes to the primary of its slot, on one connection a primary for
//! writes and one for reads. It must never send a write twice that is not the same done twice.
//!
//! # A cluster
//!
//! The slots are ours to know ([`super::slots`]) and not the client library's, whose cluster connection
//! sends again, at its own judgement, what met a broken connection: with one connection a primary it is
//! seen here what may have been executed, what waits for replicas is on the connection that wrote, and
//! each primary is asked what it is before it is used. What is sent again is only what a Redis said that
//! it did not execute:
//!
//! | answer | what is done |
//! |---|---|
//! | `MOVED` | the map learns the slot's place, and it is sent there |
//! | `ASK` | it is sent there behind `ASKING`; the map stays |
//! | `TRYAGAIN` (a script whose keys are partly moved, or partly new, in a slot on its way) | again, for a second; then it is refused: whoever writes there waits until the slot has arrived, which reads do not |
//! | `NOSCRIPT` | again, on a new connection, which loads the scripts |
//! | `CLUSTERDOWN`, `READONLY`, `LOADING` and all others | refused: a failover takes longer than a client waits. The map is asked for anew each second |
//!
//! What meets a broken connection or no answer in time is of unknown outcome, and is never sent again by
//! [`Link::write`] and [`Link::run`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Pipeline, RedisError, Value, cmd};
use tokio::time::Instant;

use super::node::{self, Node, Sending};
use super::replies::list;
use super::server::Doubt;
use super::shared::Shared;
use super::slots::{Address, Elsewhere, SlotMap, slot_of};
use crate::ports::store::{CommitError, ReadError};
use crate::store::rows::RowError;

/// For how long something is sent on that was not executed where it was sent: less than a client waits.
const ELSEWHERE_MAX: Duration = Duration::from_secs(1);

/// How often it is sent on without a pause.
const ROUNDS_AT_ONCE: usize = 3;

/// How long a slot on its way is given before a script asks for it again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(25);

/// The scripts. Their place here is their number.
pub(super) const SOURCES: [&str; 11] = [
    include_str!("lua/apply.lua"),
    include_str!("lua/append.lua"),
    include_str!("lua/void.lua"),
    include_str!("lua/unclaim.lua"),
    include_str!("lua/relay.lua"),
    include_str!("lua/add_key.lua"),
    include_str!("lua/evict.lua"),
    include_str!("lua/renew.lua"),
    include_str!("lua/assign.lua"),
    include_str!("lua/leave.lua"),
    include_str!("lua/turn_over.lua"),
];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lua {
    Apply,
    Append,
    Void,
    Unclaim,
    Relay,
    AddKey,
    Evict,
    Renew,
    Assign,
    Leave,
    TurnOver,
}

/// A script with its keys, all of one slot, and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) lua: Lua,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
}

/// A call that did not go through.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It was not sent: there is no connection.
    #[error("there is no connection to redis")]
    Apart(#[source] Arc<RedisError>),
    /// It was not sent: Redis is not what the store needs.
    #[error(transparent)]
    Unfit(Arc<Doubt>),
    /// Redis refused it and did nothing.
    #[error("redis refused it")]
    Refused(#[source] Arc<RedisError>),
    /// Redis has no memory left, and did nothing.
    #[error("redis has no memory left")]
    Full,
    /// It was not sent: no primary of the cluster is known to have the slot.
    #[error("no primary of the redis cluster has what was asked for")]
    Uncovered,
    /// It was done, and too few replicas have acknowledged it.
    #[error("what redis has written may be there alone")]
    Alone(#[source] Arc<Doubt>),
    /// It was sent, and there was no answer.
    #[error("redis did not answer")]
    Unknown(#[source] Arc<RedisError>),
}

impl LinkError {
    /// Of an error that Redis answered with: scripts check before they write, so nothing was done.
    pub(super) fn refused(e: RedisError) -> LinkError {
        if e.code() == Some("OOM") { LinkError::Full } else { LinkError::Refused(Arc::new(e)) }
    }
}

impl From<LinkError> for CommitError {
    fn from(e: LinkError) -> Self {
        match e {
            LinkError::Full => CommitError::Full,
            LinkError::Alone(_) | LinkError::Unknown(_) => CommitError::Unknown(Arc::new(e)),
            LinkError::Apart(_) | LinkError::Unfit(_) | LinkError::Uncovered | LinkError::Refused(_) => {
                CommitError::Unavailable(Arc::new(e))
            }
        }
    }
}

impl From<LinkError> for ReadError {
    fn from(e: LinkError) -> Self {
        ReadError::Unavailable(Arc::new(e))
    }
}

impl From<LinkError> for RowError {
    fn from(e: LinkError) -> Self {
        RowError::Backend(Arc::new(e))
    }
}

/// A connection to each primary; there is one for writes and one for reads.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    writes: bool,
    nodes: parking_lot::Mutex<BTreeMap<Address, Arc<Node>>>,
}

impl Link {
    /// For reads that nobody is told of before something is written; not connected yet.
    pub(super) fn reads(shared: Arc<Shared>) -> Link {
        Link { shared, writes: false, nodes: parking_lot::Mutex::default() }
    }

    /// For writes, and for what is read before one: where replicas acknowledge what is written, they have
    /// acknowledged what this answers, be it only read. Not connected yet.
    pub(super) fn writes(shared: Arc<Shared>) -> Link {
        Link { shared, writes: true, nodes: parking_lot::Mutex::default() }
    }

    /// Reads, and writes that may be done twice (a claim that is there finds itself): commands in one
    /// round trip, and again when the connection turns out to be broken.
    pub(super) async fn ask(&self, commands: &Pipeline) -> Result<Vec<Value>, LinkError> {
        match self.write(commands).await {
            Err(LinkError::Unknown(e)) if e.is_connection_dropped() => self.write(commands).await,
            answer => answer,
        }
    }

    /// Commands that write, each of one slot, in one round trip to each primary. An error says of none
    /// of them that it was not done, unless there is only one.
    pub(super) async fn write(&self, commands: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let sending: Vec<Sending<'_>> = commands.cmd_iter().map(Sending::Command).collect();
        let mut answers = Vec::with_capacity(sending.len());
        let mut failed = None;
        for answer in self.send(&sending).await? {
            match answer {
                Ok(answer) => answers.push(answer),
                // What may have been done outweighs what was not.
                Err(e @ (LinkError::Unknown(_) | LinkError::Alone(_))) => failed = Some(e),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or(Ok(answers), Err)
    }

    /// Runs scripts in one round trip to each primary, those of one slot in order. Each has an answer of
    /// its own; an error of the whole is that of each.
    pub(super) async fn run(&self, calls: &[Call]) -> Result<Vec<Result<Value, LinkError>>, LinkError> {
        let sending: Vec<Sending<'_>> = calls.iter().map(Sending::Script).collect();
        self.send(&sending).await
    }

    /// Sends each to the primary of its slot. What a Redis says that it did not execute is sent again,
    /// where it says; nothing else ever is.
    async fn send(&self, sending: &[Sending<'_>]) -> Result<Vec<Result<Value, LinkError>>, LinkError> {
        let mut answers: Vec<Option<Result<Value, LinkError>>> = vec![None; sending.len()];
        let mut due: Vec<(usize, Option<Address>)> = (0..sending.len()).map(|i| (i, None)).collect();
        let until = Instant::now() + ELSEWHERE_MAX;
        let mut rounds = 0;
        while !due.is_empty() {
            rounds += 1;
            let map = self.map().await?;
            let mut groups: BTreeMap<(Address, bool), Vec<usize>> = BTreeMap::new();
            for (i, asked) in due.drain(..) {
                match (asked, map.owner(|| sending[i].slot())) {
                    (Some(there), _) => groups.entry((there, true)).or_default().push(i),
                    (None, Some(owner)) => groups.entry((owner.clone(), false)).or_default().push(i),
                    (None, None) => answers[i] = Some(Err(LinkError::Uncovered)),
                }
            }
            let sent = groups.into_iter().map(async |((address, is_asking), of)| {
                let node = self.node(&address);
                let group: Vec<Sending<'_>> = of.iter().map(|i| sending[*i]).collect();
                let answers = node.send(&group, is_asking).await;
                (node, address, of, answers)
            });
            // Two that point at each other are not asked in a hot loop.
            let mut must_wait = rounds > ROUNDS_AT_ONCE;
            for (node, address, of, result) in join_all(sent).await {
                let result = match result {
                    Ok(result) => result,
                    Err(e) => {
                        of.into_iter().for_each(|i| answers[i] = Some(Err(e.clone())));
                        continue;
                    }
                };
                for (i, answer) in of.into_iter().zip(result) {
                    let again = match &answer {
                        Ok(_) => None,
                        Err(e) => Elsewhere::of(e, &address).filter(|_| Instant::now() < until),
                    };
                    match again {
                        None => answers[i] = Some(answer.map_err(LinkError::refused)),
                        Some(Elsewhere::Moved(slot, to)) => {
                            self.shared.moved(slot, to);
                            due.push((i, None));
                        }
                        Some(Elsewhere::Ask(there)) => due.push((i, Some(there))),
                        Some(Elsewhere::TryAgain) => {
                            must_wait = true;
                            due.push((i, None));
                        }
                        Some(Elsewhere::NoScript) => {
                            // A new connection loads them.
                            node.forget(None).await;
                            due.push((i, None));
                        }
                    }
                }
            }
            if must_wait && !due.is_empty() {
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or(Err(LinkError::Uncovered))).collect())
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        let node = nodes.entry(address.clone());
        let new = || Arc::new(Node::new(Arc::clone(&self.shared), address.clone(), self.writes));
        Arc::clone(node.or_insert_with(new))
    }

    async fn map(&self) -> Result<Arc<SlotMap>, LinkError> {
        match self.shared.map() {
            Some(map) => Ok(map),
            None => self.refresh().await,
        }
    }

    /// Asks the cluster who has which slot: whoever answers first of those that have some, then of those
    /// that the settings name.
    async fn refresh(&self) -> Result<Arc<SlotMap>, LinkError> {
        let mut known = self.shared.map().map(|map| map.primaries()).unwrap_or_default();
        known.extend(self.shared.seeds());
        let mut failed = LinkError::Uncovered;
        for address in known {
            match self.node(&address).slots().await {
                Ok(map) => {
                    let map = self.shared.mapped(map);
                    let primaries = map.primaries();
                    self.nodes.lock().retain(|address, _| primaries.contains(address));
                    return Ok(map);
                }
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// A connection that hears what is published, to whoever answers first: in a cluster all hear all.
    pub(super) async fn pubsub(&self) -> Result<PubSub, LinkError> {
        let mut known = self.map().await?.primaries();
        known.extend(self.shared.seeds());
        let mut failed = LinkError::Uncovered;
        for address in known {
            match node::pubsub(&self.shared, &address).await {
                Ok(channel) => return Ok(channel),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// Gives up all connections.
    pub(super) async fn forget(&self) {
        let nodes: Vec<Arc<Node>> = self.nodes.lock().values().cloned().collect();
        for node in nodes {
            node.forget(None).await;
        }
    }

    /// All primaries, as they are now.
    async fn primaries(&self) -> Result<Vec<Arc<Node>>, LinkError> {
        let map = if self.shared.wanted.is_cluster { self.refresh().await? } else { self.map().await? };
        if !map.is_whole() {
            return Err(LinkError::Uncovered);
        }
        Ok(map.primaries().iter().map(|address| self.node(address)).collect())
    }

    /// The runs of Redis that the connections lead to, one a primary.
    pub(super) async fn run_ids(&self) -> Result<BTreeSet<String>, LinkError> {
        let primaries = self.primaries().await?;
        let runs = join_all(primaries.iter().map(async |node| node.run_id().await)).await;
        runs.into_iter().map(|run| Ok(run?.to_string())).collect()
    }

    /// The run of Redis that has a key.
    pub(super) async fn run_at(&self, key: &[u8]) -> Result<Arc<str>, LinkError> {
        let map = self.map().await?;
        let owner = map.owner(|| slot_of(key)).ok_or(LinkError::Uncovered)?;
        self.node(owner).run_id().await
    }

    /// Asks on the connections as they are whether every primary answers, and still holds this store.
    pub(super) async fn look(&self) -> Result<(), LinkError> {
        let primaries = self.primaries().await?;
        let looks = join_all(primaries.iter().map(async |node| node.look().await)).await;
        looks.into_iter().collect()
    }
}

/// An error with what it came from, on one line.
pub(super) fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Asks for one thing.
pub(super) async fn one(
    connection: &mut MultiplexedConnection,
    name: &str,
    args: &[&str],
) -> Result<Vec<Value>, RedisError> {
    let mut command = cmd(name);
    args.iter().for_each(|arg| {
        command.arg(*arg);
    });
    command.query_async::<Value>(connection).await.map(list)
}
