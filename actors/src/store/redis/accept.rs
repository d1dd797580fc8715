//! Accepting over two slots: a claim in its own, then the transaction in its partition's. Everything
//! here may be cut off between any two awaits; the table in [`super`] says what is found then. It must
//! never answer "new" before the append is on disk, nor a conflict with a transaction that is not there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinSet};

use super::Inner;
use super::claims::{ask_keys, key_field, own};
use super::link::{Call, LinkError, Lua};
use super::place::{self, Slot};
use super::replies::{bytes, list, number};
use super::rooms::is_limited;
use crate::domain::command::Kind;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::ports::store::{Lane, NewCommand, Verdict};
use crate::store::format::{self, CommandHead};
use crate::store::keys::{self, CHUNK_BYTES, Key};
use crate::store::rows::{ClaimHash, ClaimHasher};

/// Commands that one round takes.
const ITEMS_MAX: usize = 1_024;

/// An append under an id that is older than this is refused, in ms: only so can a void that stays for
/// twice as long stop all of them.
pub(super) const APPEND_WITHIN_MS: u64 = 3_600_000;

/// How often a command begins anew because somebody else's claim was in its way.
const ATTEMPTS_MAX: usize = 4;

/// Rounds that are under way at once: one is claimed and one appended, which share a sync of Redis' file,
/// and the receipts of one are synced here. More would be smaller ones.
const ROUNDS_MAX: usize = 3;

/// Commands to accept, and who waits for their verdicts.
pub(super) type Batch = (Vec<NewCommand>, oneshot::Sender<Vec<Verdict>>);

/// Takes what is queued, round by round, until the store is dropped. A round begins while others are
/// under way, but never beside one that has a claim of its own: so two equal commands of this process
/// never race.
pub(super) async fn run(inner: Arc<Inner>, mut batches: mpsc::Receiver<Batch>) {
    let mut rounds = Rounds::default();
    loop {
        while rounds.running.len() >= ROUNDS_MAX {
            rounds.one_ends().await;
        }
        // As late as possible: what comes while all are under way goes together.
        let Some(first) = batches.recv().await else { break };
        let round = Round::of(&inner, first, &mut batches);
        while rounds.share_a_claim(&round) {
            rounds.one_ends().await;
        }
        rounds.begin(&inner, round);
    }
    while !rounds.running.is_empty() {
        rounds.one_ends().await;
    }
}

/// What goes together.
struct Round {
    items: Vec<NewCommand>,
    claims: BTreeSet<[u8; 16]>,
    /// How many of them are whose.
    answers: Vec<(usize, oneshot::Sender<Vec<Verdict>>)>,
}

impl Round {
    /// The first and what is queued behind it.
    fn of(inner: &Inner, first: Batch, batches: &mut mpsc::Receiver<Batch>) -> Round {
        let mut round = Round { items: Vec::new(), claims: BTreeSet::new(), answers: Vec::new() };
        let mut next = Some(first);
        while let Some((batch, answer)) = next {
            inner.vitals.takes(1);
            round.answers.push((batch.len(), answer));
            round.items.extend(batch);
            next = if round.items.len() < ITEMS_MAX { batches.try_recv().ok() } else { None };
        }
        round.claims = round.items.iter().flat_map(|new| Item::of(new, inner.hasher).claims()).collect();
        round
    }

    /// Accepts, keeps the receipts and answers.
    async fn go(self, inner: Arc<Inner>) {
        let Round { items, claims: _, answers } = self;
        let begun = tokio::time::Instant::now();
        let era = inner.receipts.era();
        let mut verdicts = inner.accept(&items).await;
        inner.vitals.commits(items.len(), begun.elapsed());
        inner.receipts.keep(era, &items, &mut verdicts).await;
        let mut verdicts = verdicts.into_iter();
        for (n, answer) in answers {
            // Whoever has hung up asks again.
            let _gone = answer.send(verdicts.by_ref().take(n).collect());
        }
    }
}

/// Those under way.
#[derive(Default)]
struct Rounds {
    running: JoinSet<()>,
    claims: HashMap<task::Id, BTreeSet<[u8; 16]>>,
}

impl Rounds {
    fn share_a_claim(&self, round: &Round) -> bool {
        self.claims.values().any(|held| !held.is_disjoint(&round.claims))
    }

    fn begin(&mut self, inner: &Arc<Inner>, mut round: Round) {
        let claims = std::mem::take(&mut round.claims);
        let task = self.running.spawn(round.go(Arc::clone(inner)));
        self.claims.insert(task.id(), claims);
    }

    async fn one_ends(&mut self) {
        let ended = match self.running.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            // A panic there has cost its answers.
            Some(Err(e)) => e.id(),
            None => return,
        };
        self.claims.remove(&ended);
    }
}

/// What is known of one command on its way.
pub(super) struct Item<'n> {
    pub(super) new: &'n NewCommand,
    pub(super) reference: ClaimHash,
    pub(super) key: Option<ClaimHash>,
    /// The id it goes on with: its own, or the one that the claim holds.
    pub(super) id: TransactionId,
    /// The claim of the key is this attempt's.
    pub(super) key_is_ours: bool,
    attempts: usize,
    verdict: Option<Verdict>,
}

impl<'n> Item<'n> {
    /// Before its first attempt.
    pub(super) fn of(new: &'n NewCommand, hasher: ClaimHasher) -> Item<'n> {
        Item {
            new,
            reference: hasher.reference(new.client, new.command.kind(), new.command.reference()),
            key: new.key.as_ref().map(|key| hasher.key(new.client, key)),
            id: new.id,
            key_is_ours: false,
            attempts: 0,
            verdict: None,
        }
    }

    pub(super) fn is_own(&self) -> bool {
        self.id == self.new.id
    }

    pub(super) fn has_claims(&self) -> bool {
        self.new.client != ClientNo::HOUSE
    }

    /// What it claims, if it claims anything.
    fn claims(&self) -> impl Iterator<Item = [u8; 16]> + use<> {
        let both = [Some(self.reference), self.key].into_iter().flatten();
        let any = self.has_claims();
        both.filter(move |_| any).map(|ClaimHash(hash)| hash)
    }

    pub(super) fn held(&self, id: TransactionId) -> Vec<u8> {
        format::encode_held_claim(id, &self.new.digest)
    }

    pub(super) fn end(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    pub(super) fn open(&self) -> bool {
        self.verdict.is_none()
    }
}

fn verdict_of(e: &LinkError) -> Verdict {
    match e {
        LinkError::Alone(_) | LinkError::Unknown(_) => Verdict::Unknown,
        LinkError::Full => Verdict::StoreFull,
        LinkError::Apart(_) | LinkError::Unfit(_) | LinkError::Uncovered | LinkError::Refused(_) => {
            Verdict::Unavailable
        }
    }
}

impl Inner {
    /// Judges and accepts commands; verdicts stand in their order.
    pub(super) async fn accept(&self, items: &[NewCommand]) -> Vec<Verdict> {
        let mut items: Vec<Item<'_>> = items.iter().map(|new| Item::of(new, self.hasher)).collect();
        // Commands that share a claim wait for each other; all others go together.
        while items.iter().any(Item::open) {
            let mut met = BTreeSet::new();
            let mut wave: Vec<&mut Item<'_>> = Vec::new();
            for item in items.iter_mut().filter(|item| item.open()) {
                let free = !item.claims().any(|claim| met.contains(&claim));
                met.extend(item.claims());
                if free {
                    wave.push(item);
                }
            }
            if let Err(e) = self.wave(&mut wave).await {
                wave.iter_mut().filter(|item| item.open()).for_each(|item| item.end(verdict_of(&e)));
            }
            for item in wave {
                item.attempts += 1;
                item.id = item.new.id;
                item.key_is_ours = false;
                if item.open() && item.attempts == ATTEMPTS_MAX {
                    item.end(Verdict::Unavailable);
                }
            }
        }
        items.into_iter().map(|item| item.verdict.unwrap_or(Verdict::Unavailable)).collect()
    }

    /// One attempt. What has no verdict afterwards begins anew.
    async fn wave(&self, wave: &mut [&mut Item<'_>]) -> Result<(), LinkError> {
        for item in wave.iter() {
            self.note(item.new.id.home()).await?;
        }
        self.look(wave).await?;
        let mut going: Vec<&mut Item<'_>> = wave.iter_mut().filter(|i| i.open()).map(|i| &mut **i).collect();
        let (mut going, now) = self.claim_references(&mut going).await?;
        let mut going = self.claim_keys(&mut going).await?;
        self.append(&mut going, now).await
    }

    /// What is read before anything is claimed, in one round trip: who holds the keys, which are judged
    /// before the reference, and where a lane may be full, what was claimed before. Nothing where there
    /// are neither.
    async fn look(&self, wave: &mut [&mut Item<'_>]) -> Result<(), LinkError> {
        let limited: Vec<usize> = (0..wave.len()).filter(|i| is_limited(wave[*i])).collect();
        let limited = if self.rooms.are_ample(&*wave) { Vec::new() } else { limited };
        let mut ask = redis::pipe();
        let keyed = ask_keys(wave, &mut ask);
        for item in limited.iter().map(|i| &wave[*i]) {
            ask.cmd("XLEN").arg(place::lane(item.new.id.home(), Lane::Work));
            ask.cmd("EXISTS").arg(place::claim(item.reference));
        }
        let mut answers = self.writes.ask(&ask).await?.into_iter();
        self.judge_keys(wave, keyed, &mut answers).await?;
        let mut answers = answers.map(|value| number(value).unwrap_or(0));
        for item in limited {
            let (Some(waiting), Some(claimed)) = (answers.next(), answers.next()) else { break };
            // A refusal then costs no write.
            if wave[item].open() && waiting >= wave[item].new.backlog_max && claimed == 0 {
                wave[item].end(Verdict::BacklogFull);
            }
        }
        Ok(())
    }

    async fn append(&self, going: &mut [&mut Item<'_>], now: u64) -> Result<(), LinkError> {
        let calls: Vec<Call> = going.iter().map(|item| append_call(item, now)).collect();
        let answers = self.writes.run(&calls).await;
        going.iter().for_each(|item| self.relay.wrote(item.id.home()));
        let mut lost = Vec::new();
        let mut noted = Vec::new();
        for (i, answer) in answers?.into_iter().enumerate() {
            let item = &mut going[i];
            let answer = match answer {
                Ok(answer) => answer,
                Err(e) => {
                    item.end(verdict_of(&e));
                    continue;
                }
            };
            let claims =
                || [Some(item.reference), item.key.filter(|_| item.key_is_ours)].into_iter().flatten();
            let holds = own(item);
            let mut parts = list(answer).into_iter().map(bytes);
            match (parts.next().flatten().as_deref(), parts.next().flatten()) {
                (Some(b"new"), _) if item.is_own() => item.end(Verdict::New),
                // Somebody claimed for the same command and died: its id, this body.
                (Some(b"new"), _) => item.end(Verdict::Replay(item.id)),
                (Some(b"there"), first) => match first.and_then(|first| format::decode_digest(&first).ok()) {
                    Some(digest) if digest == item.new.digest => {
                        if item.key_is_ours {
                            noted.push(i);
                        }
                        item.end(Verdict::Replay(item.id));
                    }
                    // Two ids of the same millisecond and partition met; the next try draws another one.
                    Some(_) | None => {
                        lost.extend(item.has_claims().then(|| (holds, claims().collect())));
                        item.end(Verdict::Unavailable);
                    }
                },
                (Some(b"full"), _) => {
                    lost.extend(item.has_claims().then(|| (holds, claims().collect())));
                    item.end(Verdict::BacklogFull);
                }
                // Void or too old: whoever holds the claim can never append. It begins anew.
                (Some(_), _) => lost.extend(item.has_claims().then(|| (holds, claims().collect()))),
                (None, _) => item.end(Verdict::Unknown),
            }
        }
        self.unclaim(lost).await?;
        self.note_keys(going, &noted).await
    }
}

pub(super) fn append_call(item: &Item<'_>, now: u64) -> Call {
    let (new, id) = (item.new, item.id);
    let slot = Slot::Partition(id.home());
    let keys = vec![
        slot.key(&format!("t:{id}")),
        place::lane(id.home(), new.lane()),
        slot.key("own"),
        slot.key("log"),
        slot.key("ids"),
        place::orders(id.home(), new.client),
    ];
    let born = if item.is_own() { now } else { u64::try_from(id.at().0).unwrap_or(0) };
    let (client, entry) = match new.client {
        ClientNo::HOUSE => (Vec::new(), Vec::new()),
        ClientNo(client) => (client.to_string().into_bytes(), format::encode_feed(id, 1)),
    };
    let is_order = new.client != ClientNo::HOUSE && new.command.kind() == Kind::Order;
    let limit = (new.lane() == Lane::Work).then(|| new.backlog_max.to_string().into_bytes());
    let mut args = vec![
        limit.unwrap_or_default(),
        (born + APPEND_WITHIN_MS).to_string().into_bytes(),
        format::encode_lane_transaction(id),
        client,
        entry,
        new.accepted.at.0.to_string().into_bytes(),
        if is_order { id.0.as_bytes().to_vec() } else { Vec::new() },
        id.0.as_bytes().to_vec(),
    ];
    for (field, value) in fields(item) {
        args.extend([field, value]);
    }
    Call { lua: Lua::Append, keys, args }
}

/// The rows of a new transaction, as fields of its hash.
fn fields(item: &Item<'_>) -> Vec<(Key, Vec<u8>)> {
    let (new, id) = (item.new, item.id);
    let head = CommandHead { client: new.client, digest: new.digest };
    let mut rows: Vec<(Key, Vec<u8>)> = Vec::new();
    let values = [
        (keys::command(id), format::encode_command(&head, &new.command)),
        (keys::fact(id, 1), format::encode_fact(&new.accepted)),
    ];
    for (key, value) in values {
        let parts = (0u16..).zip(value.chunks(CHUNK_BYTES));
        rows.extend(parts.map(|(n, part)| (keys::chunk(&key, n), part.to_vec())));
    }
    if let Some(ship_to) = &new.ship_to {
        rows.push((keys::ship_to(id), format::encode_ship_to(ship_to)));
    }
    let field = |(key, value): (Key, Vec<u8>)| (key.get(16..).unwrap_or_default().to_vec(), value);
    let mut fields: Vec<_> = rows.into_iter().map(field).collect();
    if let Some(key) = item.key.filter(|_| item.has_claims()) {
        fields.push((key_field(key), format::encode_mark()));
    }
    fields
}
