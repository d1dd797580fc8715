//! The claims of accepting: who holds a reference or an `Idempotency-Key`, and freeing what is held
//! for nothing. It must never free a claim before its id can no longer be appended under.

use std::collections::BTreeSet;

use redis::{Pipeline, Value};

use super::Inner;
use super::accept::Item;
use super::link::{Call, LinkError, Lua};
use super::place::{self, Slot};
use super::program::COMMAND;
use super::replies::{bytes, number};
use crate::domain::ids::{ClientNo, TransactionId};
use crate::ports::store::{Digest, NewCommand, Verdict};
use crate::store::format;
use crate::store::rows::ClaimHash;

/// How long a void stays, in s: twice as long as an append may be late.
const VOID_S: u64 = 2 * super::accept::APPEND_WITHIN_MS / 1_000;

/// `Idempotency-Key`s that are remembered for one transaction, as in the other backends.
const KEYS_PER_TRANSACTION_MAX: usize = 16;

/// A claim that somebody holds.
pub(super) struct Holder {
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
    /// The key is judged before the reference.
    pub(super) async fn judge_keys(&self, wave: &mut [&mut Item<'_>]) -> Result<(), LinkError> {
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

    /// Everybody goes on with the id that the claim holds.
    pub(super) async fn claim_references<'w, 'n>(
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
    pub(super) async fn claim_keys<'w, 'n>(
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

    /// A key that led to a transaction which was there already: its note, so that it is freed with it.
    pub(super) async fn note_keys(&self, going: &[&mut Item<'_>], noted: &[usize]) -> Result<(), LinkError> {
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
    pub(super) async fn unclaim(&self, lost: Vec<(Holder, Vec<ClaimHash>)>) -> Result<(), LinkError> {
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

    /// Looks which commands have every claim that they are to have, whosever it is.
    pub(super) async fn are_held(&self, commands: &[NewCommand]) -> Result<Vec<bool>, LinkError> {
        let claims = |new: &NewCommand| {
            let reference = self.hasher.reference(new.client, new.command.kind(), new.command.reference());
            let key = new.key.as_ref().map(|key| self.hasher.key(new.client, key));
            let claims = [Some(reference), key].map(|claim| claim.filter(|_| new.client != ClientNo::HOUSE));
            claims.into_iter().flatten()
        };
        let mut ask = redis::pipe();
        for claim in commands.iter().flat_map(claims) {
            ask.cmd("EXISTS").arg(place::claim(claim));
        }
        let mut answers = self.writes.ask(&ask).await?.into_iter().map(|found| number(found) == Some(1));
        // Every answer is taken, also behind one that is no.
        let are_held = |new| {
            let found: Vec<bool> = (&mut answers).take(claims(new).count()).collect();
            !found.contains(&false)
        };
        Ok(commands.iter().map(are_held).collect())
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
pub(super) fn own(item: &Item<'_>) -> Holder {
    Holder { id: item.id, digest: item.new.digest, bytes: item.held(item.id) }
}

fn set_new(pipeline: &mut Pipeline, claim: ClaimHash, value: &[u8]) {
    pipeline.cmd("SET").arg(place::claim(claim)).arg(value).arg("NX").arg("GET");
}

fn unclaim_call(claim: ClaimHash, held: Vec<u8>) -> Call {
    Call { lua: Lua::Unclaim, keys: vec![place::claim(claim)], args: vec![held] }
}

/// The field of a key's note in its transaction.
pub(super) fn key_field(ClaimHash(hash): ClaimHash) -> Vec<u8> {
    [&[3u8][..], &hash].concat()
}
