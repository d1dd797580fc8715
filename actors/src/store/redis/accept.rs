//! Accepting over two slots: a claim in its own, then the transaction in its partition's. Everything
//! here may be cut off between any two awaits; the table in [`super`] says what is found then. It must
//! never answer "new" before the append is on disk, nor a conflict with a transaction that is not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Inner;
use super::claims::{key_field, own};
use super::link::{Call, LinkError, Lua};
use super::place::{self, Slot};
use super::replies::{bytes, list, number};
use crate::domain::command::Kind;
use crate::domain::ids::{ClientNo, TransactionId};
use crate::ports::store::{Lane, NewCommand, Verdict};
use crate::store::format::{self, CommandHead};
use crate::store::keys::{self, CHUNK_BYTES, Key};
use crate::store::rows::ClaimHash;

/// Commands that one round takes.
const ITEMS_MAX: usize = 1_024;

/// An append under an id that is older than this is refused, in ms: only so can a void that stays for
/// twice as long stop all of them.
pub(super) const APPEND_WITHIN_MS: u64 = 3_600_000;

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

impl Item<'_> {
    pub(super) fn is_own(&self) -> bool {
        self.id == self.new.id
    }

    pub(super) fn has_claims(&self) -> bool {
        self.new.client != ClientNo::HOUSE
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
