//! The nodes of one Redis: leases, the assignment and the words between them. It must never be asked
//! whether a write may happen: that is what fences are for. One thing comes near it: a process that has
//! slept past its own lease commits nothing before it has renewed it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::Value;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use super::link::{Call, Link, LinkError, Lua};
use super::place::Slot;
use super::replies::{bytes, list, number, pairs};
use super::{Inner, OpenError, RedisOptions, RedisStore};
use crate::domain::ids::PartitionId;
use crate::domain::spread::{Homes, NodeId};
use crate::ports::BoxFuture;
use crate::ports::entropy::{Entropy as _, SystemEntropy};
use crate::ports::membership::{Member, Membership, RenewError, Roster, Word};
use crate::ports::store::CommitError;
use crate::store::format;

/// One node among others.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// Its name, for people; empty: the beginning of its id.
    pub name: String,
    /// How long it is taken for alive after it was last heard of.
    pub lease: Duration,
}

/// Where words pass.
const CHANNEL: &str = "wg:words";
/// Words that may wait to be told, and to be heard. More are lost, and all is looked at.
const WORDS_MAX: usize = 4_096;
/// Words in one message.
const TOLD_TOGETHER_MAX: usize = 256;
/// The pause before the channel is joined again.
const JOIN_AGAIN: Duration = Duration::from_millis(200);
/// Partitions that are deposed at a time.
const DEPOSED_TOGETHER: usize = 64;
/// How often a node looks whether the others have settled a run.
const SETTLED_LOOK: Duration = Duration::from_millis(50);
/// The file in a node's directory that holds its id.
const NODE_FILE: &str = "node";

/// This node among the others.
pub(super) struct Members {
    me: NodeId,
    name: String,
    /// Tells this process from the one before it, in hexadecimal.
    process: String,
    lease: Duration,
    /// It has renewed its lease at least once.
    has_joined: AtomicBool,
    /// Until when the lease surely lasts; `None` before the first.
    till: parking_lot::Mutex<Option<Instant>>,
    /// The assignment as last read.
    known: parking_lot::Mutex<(u64, Homes)>,
    heard: broadcast::Sender<Word>,
    told: mpsc::Sender<Word>,
    lost: AtomicU64,
}

impl Members {
    /// Knows who this node is: its id stands in its directory.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub(super) fn open(options: &MemberOptions, dir: &Path) -> io::Result<(Members, mpsc::Receiver<Word>)> {
        let me = node_id(&dir.join(NODE_FILE))?;
        let (told, telling) = mpsc::channel(WORDS_MAX);
        let name = match options.name.as_str() {
            "" => me.to_string().chars().take(8).collect(),
            name => name.to_owned(),
        };
        let members = Members {
            me,
            name,
            process: format!("{:016x}", SystemEntropy.next()),
            lease: options.lease,
            has_joined: AtomicBool::new(false),
            till: parking_lot::Mutex::default(),
            known: parking_lot::Mutex::default(),
            heard: broadcast::channel(WORDS_MAX).0,
            told,
            lost: AtomicU64::new(0),
        };
        Ok((members, telling))
    }

    /// False for a node that has slept past its lease: others may have taken what it thinks it owns.
    pub(super) fn may_write(&self) -> bool {
        self.till.lock().is_none_or(|till| Instant::now() < till)
    }
}

/// The id in a file, which is written when there is none.
fn node_id(path: &Path) -> io::Result<NodeId> {
    match std::fs::read_to_string(path) {
        Ok(text) => Uuid::try_parse(text.trim()).map(NodeId).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no node id", path.display()))
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let id = NodeId(Uuid::from_u64_pair(SystemEntropy.next(), SystemEntropy.next()));
            // Whole or not at all: a node that dies over it gets another id, which harms nobody.
            let draft = path.with_extension("new");
            std::fs::write(&draft, format!("{id}\n"))?;
            std::fs::File::open(&draft)?.sync_all()?;
            std::fs::rename(&draft, path)?;
            Ok(id)
        }
        Err(e) => Err(e),
    }
}

impl Inner {
    fn nodes_key() -> Vec<u8> {
        Slot::Meta.key("nodes")
    }

    fn homes_key() -> Vec<u8> {
        Slot::Meta.key("homes")
    }

    fn settled_key() -> Vec<u8> {
        Slot::Meta.key("settled")
    }

    async fn renew(&self, members: &Members, leaving: bool, judge: bool) -> Result<Roster, RenewError> {
        let member = Member { id: members.me, name: members.name.clone(), leaving };
        let known = members.known.lock().clone();
        let flag = |yes: bool| if yes { b"1".to_vec() } else { b"0".to_vec() };
        let args = vec![
            members.me.to_string().into_bytes(),
            members.process.clone().into_bytes(),
            serde_json::to_vec(&member).unwrap_or_default(),
            members.lease.as_millis().to_string().into_bytes(),
            flag(!members.has_joined.load(SeqCst)),
            flag(judge),
            known.0.to_string().into_bytes(),
        ];
        let call = Call { lua: Lua::Renew, keys: vec![Inner::nodes_key(), Inner::homes_key()], args };
        let asked = Instant::now();
        let answer = self.writes.run(&[call]).await.map_err(CommitError::from)?;
        let answer = answer.into_iter().next().transpose().map_err(CommitError::from)?;
        let mut parts = answer.map(list).unwrap_or_default().into_iter().map(bytes);
        let Some(Some(version)) = parts.next() else {
            // Nothing that it owned may be written any more.
            *members.till.lock() = Some(asked);
            return Err(RenewError::Replaced);
        };
        let version = number(Value::BulkString(version)).unwrap_or(0);
        let assignment = parts.next().flatten().unwrap_or_default();
        let homes = if assignment.is_empty() && version == known.0 {
            known.1
        } else {
            // What cannot be read is written anew.
            format::decode_homes(&assignment).unwrap_or_default()
        };
        let read = parts.filter_map(|known| serde_json::from_slice::<Member>(&known?).ok());
        let mut all: Vec<Member> = read.collect();
        all.sort_by_key(|member| member.id);
        *members.known.lock() = (version, homes.clone());
        *members.till.lock() = Some(asked + members.lease);
        members.has_joined.store(true, SeqCst);
        Ok(Roster { members: all, version, homes })
    }

    async fn assign(&self, after: u64, homes: Homes) -> Result<bool, CommitError> {
        let args = vec![
            after.to_string().into_bytes(),
            (after + 1).to_string().into_bytes(),
            format::encode_homes(&homes),
        ];
        let call = Call { lua: Lua::Assign, keys: vec![Inner::homes_key()], args };
        let answer = self.writes.run(&[call]).await?.into_iter().next().transpose()?;
        Ok(answer.and_then(number) == Some(1))
    }

    async fn leave(&self, members: &Members) -> Result<(), CommitError> {
        let args = vec![members.me.to_string().into_bytes(), members.process.clone().into_bytes()];
        let call = Call { lua: Lua::Leave, keys: vec![Inner::nodes_key()], args };
        self.writes.run(&[call]).await?.into_iter().next().transpose()?;
        Ok(())
    }

    async fn depose_all(&self, partitions: Vec<PartitionId>) -> Result<(), CommitError> {
        let deposing = futures_util::stream::iter(partitions).map(|partition| self.depose(partition));
        let mut deposing = deposing.buffer_unordered(DEPOSED_TOGETHER);
        while let Some(deposed) = deposing.next().await {
            deposed?;
        }
        Ok(())
    }

    /// Says that this node has settled these runs of Redis.
    pub(super) async fn say_settled(
        &self,
        members: &Members,
        runs: &BTreeSet<String>,
    ) -> Result<(), LinkError> {
        let mut say = redis::pipe();
        say.cmd("HSET").arg(Inner::settled_key()).arg(members.me.to_string()).arg(named(runs));
        self.writes.write(&say).await?;
        Ok(())
    }

    /// Says that this node has settled them, and waits for those that are there to say so too, no longer
    /// than a lease.
    pub(super) async fn others_settle(
        &self,
        members: &Members,
        runs: &BTreeSet<String>,
    ) -> Result<(), LinkError> {
        self.say_settled(members, runs).await?;
        let run = named(runs);
        let until = Instant::now() + members.lease;
        let mut ask = redis::pipe();
        ask.cmd("HKEYS").arg(Inner::nodes_key()).cmd("HGETALL").arg(Inner::settled_key());
        loop {
            let mut answers = self.writes.ask(&ask).await?.into_iter();
            let there = answers.next().map(list).unwrap_or_default().into_iter().filter_map(bytes);
            let settled: BTreeMap<Vec<u8>, Vec<u8>> =
                answers.next().map(pairs).unwrap_or_default().into_iter().collect();
            let me = members.me.to_string().into_bytes();
            let is_behind =
                |node: &Vec<u8>| *node != me && settled.get(node).is_none_or(|of| of != run.as_bytes());
            if !there.into_iter().any(|node| is_behind(&node)) {
                return Ok(());
            }
            if Instant::now() >= until {
                tracing::warn!("not every node has put back what it accepted; its lease is over");
                return Ok(());
            }
            tokio::time::sleep(SETTLED_LOOK).await;
        }
    }

    /// Every log may hold what nobody here has relayed.
    async fn relay_all(&self) {
        // What is not found now is relayed with the next word about it, or by who wrote it.
        let known = self.partitions().await.unwrap_or_default();
        known.into_iter().for_each(|partition| self.relay.wrote(partition));
    }
}

/// Runs as one text.
fn named(runs: &BTreeSet<String>) -> String {
    runs.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Who is there and in charge of what, for somebody who is no node.
///
/// # Errors
/// When Redis cannot be asked.
pub async fn roster(options: &RedisOptions) -> Result<Roster, OpenError> {
    let shared = Arc::new(options.shared()?);
    let address = shared.seeds().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let reads = Link::reads(shared);
    let mut ask = redis::pipe();
    ask.cmd("HVALS").arg(Inner::nodes_key()).cmd("GET").arg(Inner::homes_key());
    let mut answers = reads.ask(&ask).await.map_err(|e| super::refused(&address, e))?.into_iter();
    // Until when its lease lasts, its process, and what is known of it.
    let known = |value| bytes(value)?.splitn(3, |byte| *byte == b' ').nth(2).map(<[u8]>::to_vec);
    let nodes = answers.next().map(list).unwrap_or_default().into_iter().filter_map(known);
    let mut members: Vec<Member> = nodes.filter_map(|known| serde_json::from_slice(&known).ok()).collect();
    members.sort_by_key(|member| member.id);
    let homes = answers.next().and_then(bytes).unwrap_or_default();
    let homes = homes.splitn(2, |byte| *byte == b' ').nth(1);
    let homes = homes.and_then(|homes| format::decode_homes(homes).ok()).unwrap_or_default();
    Ok(Roster { members, version: 0, homes })
}

/// Tells the others what is to be told, several words together, until the store is dropped.
pub(super) async fn tell(inner: Arc<Inner>, mut telling: mpsc::Receiver<Word>) {
    let Some(members) = &inner.members else { return };
    while let Some(first) = telling.recv().await {
        let mut words = vec![first];
        while words.len() < TOLD_TOGETHER_MAX
            && let Ok(word) = telling.try_recv()
        {
            words.push(word);
        }
        if members.lost.swap(0, SeqCst) > 0 {
            words.push(Word::Missed);
        }
        let Ok(message) = postcard::to_stdvec(&(members.me, words)) else { continue };
        let mut publish = redis::pipe();
        publish.cmd("PUBLISH").arg(CHANNEL).arg(message);
        if inner.reads.write(&publish).await.is_err() {
            // They may not have arrived: the next message says so. Until one does, the others look anyway.
            members.lost.fetch_add(1, SeqCst);
        }
    }
}

/// Hears what the others tell, until the store is dropped.
pub(super) async fn hear(inner: Arc<Inner>) {
    let Some(members) = &inner.members else { return };
    loop {
        if let Ok(mut channel) = inner.reads.pubsub().await
            && channel.subscribe(CHANNEL).await.is_ok()
        {
            inner.relay_all().await;
            // Nobody listens before the engine is there.
            let _nobody = members.heard.send(Word::Missed);
            let mut messages = channel.on_message();
            while let Some(message) = messages.next().await {
                let Ok((from, words)) =
                    postcard::from_bytes::<(NodeId, Vec<Word>)>(message.get_payload_bytes())
                else {
                    // A node of another release speaks otherwise.
                    let _nobody = members.heard.send(Word::Missed);
                    continue;
                };
                if from == members.me {
                    continue;
                }
                for word in words {
                    match &word {
                        Word::Missed => inner.relay_all().await,
                        Word::Wrote { partition, .. } => inner.relay.wrote(*partition),
                        Word::Roster
                        | Word::Fed(_)
                        | Word::Endpoints
                        | Word::Released(_)
                        | Word::Published { .. }
                        | Word::Ping { .. }
                        | Word::Answer { .. } => {}
                    }
                    let _nobody = members.heard.send(word);
                }
            }
        }
        tokio::time::sleep(JOIN_AGAIN).await;
    }
}

/// The [`Membership`] that actors see.
pub(super) struct Nodes {
    inner: Arc<Inner>,
    runtime: tokio::runtime::Handle,
}

impl RedisStore {
    /// The nodes, for a store that is opened as one of them.
    pub(super) fn nodes(&self) -> Option<Arc<dyn Membership>> {
        self.inner.members.as_ref()?;
        Some(Arc::new(Nodes { inner: Arc::clone(&self.inner), runtime: self.runtime.clone() }))
    }
}

/// The store was closed before it answered.
fn closed() -> CommitError {
    CommitError::Unavailable(Arc::new(super::Closed))
}

impl Nodes {
    fn members(&self) -> Option<&Members> {
        self.inner.members.as_ref()
    }
}

impl Membership for Nodes {
    fn me(&self) -> NodeId {
        self.members().map_or(NodeId(Uuid::nil()), |members| members.me)
    }

    fn name(&self) -> String {
        self.members().map(|members| members.name.clone()).unwrap_or_default()
    }

    fn renew(&self, leaving: bool, judge: bool) -> BoxFuture<Result<Roster, RenewError>> {
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move {
            match &inner.members {
                Some(members) => inner.renew(members, leaving, judge).await,
                None => Err(closed().into()),
            }
        });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(closed().into())) })
    }

    fn assign(&self, after: u64, homes: Homes) -> BoxFuture<Result<bool, CommitError>> {
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move { inner.assign(after, homes).await });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn leave(&self) -> BoxFuture<Result<(), CommitError>> {
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move {
            match &inner.members {
                Some(members) => inner.leave(members).await,
                None => Ok(()),
            }
        });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn depose(&self, partitions: Vec<PartitionId>) -> BoxFuture<Result<(), CommitError>> {
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move { inner.depose_all(partitions).await });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn first_use(&self, name: [u8; 32], within: Duration) -> BoxFuture<Result<bool, CommitError>> {
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move { inner.first_use(name, within).await });
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn forget_use(&self, name: [u8; 32]) -> BoxFuture<()> {
        let inner = Arc::clone(&self.inner);
        let task = self.runtime.spawn(async move { inner.forget_use(name).await });
        Box::pin(async move { drop(task.await) })
    }

    fn tell(&self, word: Word) {
        let Some(members) = self.members() else { return };
        if members.told.try_send(word).is_err() {
            members.lost.fetch_add(1, SeqCst);
        }
    }

    fn listen(&self) -> broadcast::Receiver<Word> {
        match self.members() {
            Some(members) => members.heard.subscribe(),
            None => broadcast::channel(1).1,
        }
    }
}
