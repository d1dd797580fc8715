//! Accepting over two slots: a claim in its own, then the transaction in its partition's. Everything
//! here may be cut off between any two awaits; the table in [`super`] says what is found then. It must
//! never answer "new" before the append is on disk, nor a conflict with a transaction that is not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::{Pipeline, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Inner;
use super::link::{Call, LinkError, Lua};
use super::place::{self, Slot};
use super::program::COMMAND;
use super::replies::{bytes, list, number};
use crate::domain::command::Kind;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::ports::store::{Digest, Lane, NewCommand, Verdict};
use crate::store::format::{self, CommandHead};
use crate::store::keys::{self, CHUNK_BYTES, Key};
use crate::store::rows::ClaimHash;

/// Commands that one round takes.
const ITEMS_MAX: usize = 1_024;

/// An append under an id that is older than this is refused, in ms: only so can a void that stays for
/// twice as long stop all of them.
pub(super) const APPEND_WITHIN_MS: u64 = 3_600_000;

/// How long a void stays, in s.
const VOID_S: u64 = 7_200;

/// `Idempotency-Key`s that are remembered for one transaction, as in the other backends.
const KEYS_PER_TRANSACTION_MAX: usize = 16;

/// How often a command begins anew because somebody else's claim was in its way.
const ATTEMPTS_MAX: usize = 4;

/// Commands to accept, and who waits for their verdicts.
pub(super) type Batch = (Vec<NewCommand>, oneshot::Sender<Vec<Verdict>>);

/// Takes what is queued, round by round, until the store is dropped. One round at a time: so two equal
/// commands of this process never race.
pub(super) async fn run(inner: Arc<Inner>, mut batches: mpsc::Receiver<Batch>) {
    let mut receipts: Option<JoinHandle<()>> = None;
    while let Some(first) = batches.recv().await {
        inner.vitals.takes(1);
        let mut all = vec![first];
        let mut count = all[0].0.len();
        while count < ITEMS_MAX
            && let Ok(next) = batches.try_recv()
        {
            inner.vitals.takes(1);
            count += next.0.len();
            all.push(next);
        }
        let mut answers = Vec::with_capacity(all.len());
        let mut items = Vec::with_capacity(count);
        for (batch, answer) in all {
            answers.push((batch.len(), answer));
            items.extend(batch);
        }
        let begun = tokio::time::Instant::now();
        let era = inner.receipts.era();
        let mut verdicts = inner.accept(&items).await;
        inner.vitals.commits(count, begun.elapsed());
        if let Some(before) = receipts.take() {
            // A panic there has cost its answers.
            let _ended = before.await;
        }
        // While they are synced the next round is accepted.
        let kept = Arc::clone(&inner.receipts);
        receipts = Some(tokio::spawn(async move {
            kept.keep(era, &items, &mut verdicts).await;
            let mut verdicts = verdicts.into_iter();
            for (n, answer) in answers {
                // Whoever has hung up asks again.
                let _gone = answer.send(verdicts.by_ref().take(n).collect());
            }
        }));
    }
}

/// What is known of one command on its way.
struct Item<'n> {
    new: &'n NewCommand,
    reference: ClaimHash,
    key: Option<ClaimHash>,
    /// The id it goes on with: its own, or the one that the claim holds.
    id: TransactionId,
    /// The claim of the key is this attempt's.
    key_is_ours: bool,
    attempts: usize,
    verdict: Option<Verdict>,
}

impl Item<'_> {
    fn is_own(&self) -> bool {
        self.id == self.new.id
    }

    fn has_claims(&self) -> bool {
        self.new.client != ClientNo::HOUSE
    }

    fn held(&self, id: TransactionId) -> Vec<u8> {
        format::encode_held_claim(id, &self.new.digest)
    }

    fn end(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    fn open(&self) -> bool {
        self.verdict.is_none()
    }
}

fn verdict_of(e: &LinkError) -> Verdict {
    match e {
        LinkError::Unknown(_) => Verdict::Unknown,
        LinkError::Full => Verdict::StoreFull,
        LinkError::Apart(_) | LinkError::Unfit(_) | LinkError::Refused(_) => Verdict::Unavailable,
    }
}

/// A claim that somebody holds.
struct Holder {
    id: TransactionId,
    digest: Digest,
    bytes: Vec<u8>,
}

fn holder(value: Value) -> Option<Holder> {
    let bytes = bytes(value)?;
    let (id, digest) = format::decode_held_claim(&bytes).ok()?;
    Some(Holder { id, digest, bytes })
}

/// What is found under an id.
pub(super) enum Found {
    Nothing,
    Transaction(Digest),
}

impl Found {
    /// True for a transaction, or what is left of one.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Found::Nothing => false,
            Found::Transaction(_) => true,
        }
    }
}

impl Inner {
    /// Judges and accepts commands; verdicts stand in their order.
    pub(super) async fn accept(&self, items: &[NewCommand]) -> Vec<Verdict> {
        let mut items: Vec<Item<'_>> = items.iter().map(|new| self.item(new)).collect();
        // Commands that share a claim wait for each other; all others go together.
        while items.iter().any(Item::open) {
            let mut met = BTreeSet::new();
            let mut wave: Vec<&mut Item<'_>> = Vec::new();
            for item in items.iter_mut().filter(|item| item.open()) {
                let claims: Vec<[u8; 16]> =
                    [Some(item.reference), item.key].into_iter().flatten().map(|ClaimHash(h)| h).collect();
                let free = !item.has_claims() || !claims.iter().any(|claim| met.contains(claim));
                met.extend(claims);
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

    fn item<'n>(&self, new: &'n NewCommand) -> Item<'n> {
        Item {
            new,
            reference: self.hasher.reference(new.client, new.command.kind(), new.command.reference()),
            key: new.key.as_ref().map(|key| self.hasher.key(new.client, key)),
            id: new.id,
            key_is_ours: false,
            attempts: 0,
            verdict: None,
        }
    }

    /// One attempt. What has no verdict afterwards begins anew.
    async fn wave(&self, wave: &mut [&mut Item<'_>]) -> Result<(), LinkError> {
        for item in wave.iter() {
            self.note(item.new.id.home()).await?;
        }
        let now = self.store_time().await?;
        self.judge_keys(wave).await?;
        let mut going: Vec<&mut Item<'_>> = wave.iter_mut().filter(|i| i.open()).map(|i| &mut **i).collect();
        self.refuse_full(&mut going).await?;
        let mut going: Vec<_> = going.into_iter().filter(|item| item.open()).collect();
        let mut going = self.claim_references(&mut going).await?;
        let mut going = self.claim_keys(&mut going).await?;
        self.append(&mut going, now).await
    }

    async fn store_time(&self) -> Result<u64, LinkError> {
        let mut ask = redis::pipe();
        ask.cmd("TIME");
        let mut parts =
            self.writes.ask(&ask).await?.into_iter().next().map(list).unwrap_or_default().into_iter();
        let (seconds, micros) = (parts.next().and_then(number), parts.next().and_then(number));
        Ok(seconds.unwrap_or(0) * 1_000 + micros.unwrap_or(0) / 1_000)
    }

    /// The key is judged before the reference.
    async fn judge_keys(&self, wave: &mut [&mut Item<'_>]) -> Result<(), LinkError> {
        let keyed: Vec<usize> =
            (0..wave.len()).filter(|i| wave[*i].has_claims() && wave[*i].key.is_some()).collect();
        let mut ask = redis::pipe();
        for key in keyed.iter().filter_map(|i| wave[*i].key) {
            ask.cmd("GET").arg(place::claim(key));
        }
        let holders = self.writes.ask(&ask).await?.into_iter().map(holder);
        let held: Vec<_> =
            keyed.into_iter().zip(holders).filter_map(|(i, holder)| Some((i, holder?))).collect();
        let found = self.find(held.iter().map(|(_, holder)| holder.id)).await?;
        let mut lost = Vec::new();
        for ((i, holder), found) in held.into_iter().zip(found) {
            let item = &mut wave[i];
            match found {
                Found::Transaction(digest) if digest == item.new.digest => {
                    item.end(Verdict::Replay(holder.id))
                }
                Found::Transaction(_) => item.end(Verdict::KeyReused),
                // Claimed and never appended, by a command like this one: it goes on by the reference.
                Found::Nothing if holder.digest == item.new.digest => {}
                Found::Nothing => lost.extend(item.key.map(|key| (holder, vec![key]))),
            }
        }
        self.unclaim(lost).await
    }

    /// Where a lane is full, only what was claimed before goes on: a refusal then costs no write.
    async fn refuse_full(&self, going: &mut [&mut Item<'_>]) -> Result<(), LinkError> {
        let mut ask = redis::pipe();
        let limited = |item: &Item<'_>| item.has_claims() && item.new.lane() == Lane::Work;
        for item in going.iter().filter(|item| limited(item)) {
            ask.cmd("XLEN").arg(place::lane(item.new.id.home(), Lane::Work));
            ask.cmd("EXISTS").arg(place::claim(item.reference));
        }
        let mut answers = self.writes.ask(&ask).await?.into_iter().map(|value| number(value).unwrap_or(0));
        for item in going.iter_mut().filter(|item| limited(item)) {
            let (Some(waiting), Some(claimed)) = (answers.next(), answers.next()) else { break };
            if waiting >= item.new.backlog_max && claimed == 0 {
                item.end(Verdict::BacklogFull);
            }
        }
        Ok(())
    }

    /// Everybody goes on with the id that the claim holds.
    async fn claim_references<'w, 'n>(
        &self,
        going: &'w mut [&mut Item<'n>],
    ) -> Result<Vec<&'w mut Item<'n>>, LinkError> {
        let mut claim = redis::pipe();
        for item in going.iter().filter(|item| item.has_claims()) {
            set_new(&mut claim, item.reference, &item.held(item.new.id));
        }
        let mut answers = self.writes.write(&claim).await?.into_iter();
        let mut others = Vec::new();
        for (i, item) in going.iter_mut().enumerate().filter(|(_, item)| item.has_claims()) {
            match answers.next().and_then(holder) {
                None => {}
                Some(held) if held.digest == item.new.digest => item.id = held.id,
                Some(held) => others.push((i, held)),
            }
        }
        let found = self.find(others.iter().map(|(_, held)| held.id)).await?;
        let mut lost = Vec::new();
        let mut out = BTreeSet::new();
        for ((i, held), found) in others.into_iter().zip(found) {
            out.insert(i);
            match found {
                Found::Transaction(_) => going[i].end(Verdict::ReferenceConflict(held.id)),
                Found::Nothing => lost.push((held, vec![going[i].reference])),
            }
        }
        self.unclaim(lost).await?;
        Ok(going
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| !out.contains(i))
            .map(|(_, item)| &mut **item)
            .collect())
    }

    /// The key's claim is written last, with the reference's id.
    async fn claim_keys<'w, 'n>(
        &self,
        going: &'w mut [&mut Item<'n>],
    ) -> Result<Vec<&'w mut Item<'n>>, LinkError> {
        let mut claim = redis::pipe();
        for item in going.iter() {
            if let Some(key) = item.key.filter(|_| item.has_claims()) {
                set_new(&mut claim, key, &item.held(item.id));
            }
        }
        let mut answers = self.writes.write(&claim).await?.into_iter();
        let mut out = BTreeSet::new();
        let mut lost = Vec::new();
        for (i, item) in going.iter_mut().enumerate() {
            if item.key.is_none() || !item.has_claims() {
                continue;
            }
            match answers.next().and_then(holder) {
                None => item.key_is_ours = true,
                Some(held) if held.id == item.id => {}
                Some(_) => {
                    // Somebody took the key since it was looked at: judged anew.
                    out.insert(i);
                    if item.is_own() {
                        lost.push((own(item), vec![item.reference]));
                    }
                }
            }
        }
        self.unclaim(lost).await?;
        Ok(going
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| !out.contains(i))
            .map(|(_, item)| &mut **item)
            .collect())
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

    /// A key that led to a transaction which was there already: its note, so that it is freed with it.
    async fn note_keys(&self, going: &[&mut Item<'_>], noted: &[usize]) -> Result<(), LinkError> {
        let with_key = || noted.iter().filter_map(|i| Some((&going[*i], going[*i].key?)));
        let calls: Vec<Call> = with_key()
            .map(|(item, key)| Call {
                lua: Lua::AddKey,
                keys: vec![Slot::Partition(item.id.home()).key(&format!("t:{}", item.id))],
                args: vec![
                    key_field(key),
                    format::encode_mark(),
                    KEYS_PER_TRANSACTION_MAX.to_string().into_bytes(),
                ],
            })
            .collect();
        let mut free = Vec::new();
        for ((item, key), answer) in with_key().zip(self.writes.run(&calls).await?) {
            if number(answer?) == Some(0) {
                free.push(unclaim_call(key, item.held(item.id)));
            }
        }
        for answer in self.writes.run(&free).await? {
            answer?;
        }
        Ok(())
    }

    /// Frees claims whose transaction is not there: first it is made sure that it never will be.
    async fn unclaim(&self, lost: Vec<(Holder, Vec<ClaimHash>)>) -> Result<(), LinkError> {
        let voids: Vec<Call> = lost
            .iter()
            .map(|(held, _)| Call {
                lua: Lua::Void,
                keys: vec![Slot::Partition(held.id.home()).key(&format!("t:{}", held.id))],
                args: vec![VOID_S.to_string().into_bytes()],
            })
            .collect();
        let mut free = Vec::new();
        for ((held, claims), answer) in lost.into_iter().zip(self.writes.run(&voids).await?) {
            // There after all: the claim is true.
            if bytes(answer?).is_none() {
                free.extend(claims.into_iter().map(|claim| unclaim_call(claim, held.bytes.clone())));
            }
        }
        for answer in self.writes.run(&free).await? {
            answer?;
        }
        Ok(())
    }

    /// Looks which ids are transactions, or what is left of them.
    pub(super) async fn find(
        &self,
        ids: impl Iterator<Item = TransactionId>,
    ) -> Result<Vec<Found>, LinkError> {
        let mut ask = redis::pipe();
        for id in ids {
            ask.cmd("HGET").arg(Slot::Partition(id.home()).key(&format!("t:{id}"))).arg(COMMAND);
        }
        let found = |value| match bytes(value).map(|first| format::decode_digest(&first)) {
            Some(Ok(digest)) => Found::Transaction(digest),
            // It is there, whatever it is: no command is like it.
            Some(Err(_)) => Found::Transaction([0; 32]),
            None => Found::Nothing,
        };
        Ok(self.writes.ask(&ask).await?.into_iter().map(found).collect())
    }
}

/// What this command's claims hold, if they are its own.
fn own(item: &Item<'_>) -> Holder {
    Holder { id: item.id, digest: item.new.digest, bytes: item.held(item.id) }
}

fn set_new(pipeline: &mut Pipeline, claim: ClaimHash, value: &[u8]) {
    pipeline.cmd("SET").arg(place::claim(claim)).arg(value).arg("NX").arg("GET");
}

fn unclaim_call(claim: ClaimHash, held: Vec<u8>) -> Call {
    Call { lua: Lua::Unclaim, keys: vec![place::claim(claim)], args: vec![held] }
}

/// The field of a key's note in its transaction.
fn key_field(ClaimHash(hash): ClaimHash) -> Vec<u8> {
    [&[3u8][..], &hash].concat()
}

fn append_call(item: &Item<'_>, now: u64) -> Call {
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
