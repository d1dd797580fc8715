//! Who holds a reference or an `Idempotency-Key`.
//!
//! A claim's key is a keyed hash, and a random key dirties a page of its own in a B-tree: plainly
//! inserted, a million stored claims cost nine tenths of the throughput. So a new claim is
//! appended to a log (`claims_log`) and held in memory; when a generation of them has come
//! together, it is merged into the table `claims` in the order of its keys, a few with every
//! commit, and then leaves the log in the log's order. Both walk pages in sequence.
//!
//! It must never lose a claim, nor bring back one that was freed: until its merge is committed it
//! stands in the log, a start reads the log, and what leaves the table leaves the log with it.

use parking_lot::RwLock;
use std::collections::HashMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::{ReadRows, RowError, Walk, WriteRows, decoded, misshapen};
use crate::domain::command::Kind;
use crate::domain::ids::{ClientNo, Reference, TransactionId};
use crate::ports::store::IdempotencyKey;
use crate::store::format;
use crate::store::keys::{self, Table};

/// Claims of a generation: they take about 10 MiB of memory, and make runs that are dense enough
/// to share pages in a table of ten million.
pub const GENERATION: usize = 131_072;

/// A generation is merged, and trimmed, in no more steps than this: 512 claims of a full one are a
/// few dozen pages of a commit that is synced anyway.
const STEPS_MAX: usize = 256;

/// The same for each claim that the commit adds: each is merged once and trimmed once, so with
/// more than two the log stays bounded at any load.
const STEP_PER_CLAIM: usize = 4;

/// 128 bits of keyed hash. Two claims that meet would be one reference to a client; with a key
/// that no client knows, that takes 2⁶⁴ claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimHash(pub [u8; 16]);

/// Hashes with the store's own secret, so that no client can choose where its claims fall.
#[derive(Clone, Copy)]
pub struct ClaimHasher(pub [u8; 16]);

impl ClaimHasher {
    /// The claim of a reference.
    #[must_use]
    pub fn reference(&self, client: ClientNo, kind: Kind, reference: &Reference) -> ClaimHash {
        self.claim(client, kind.number(), reference.as_str())
    }

    /// The claim of an `Idempotency-Key`; apart from references by the high bit of the kind.
    #[must_use]
    pub fn key(&self, client: ClientNo, of: &IdempotencyKey) -> ClaimHash {
        self.claim(client, 0x80 | of.call.number(), &of.key)
    }

    fn claim(&self, client: ClientNo, namespace: u8, text: &str) -> ClaimHash {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&client.0.to_be_bytes());
        hasher.write(&[namespace]);
        hasher.write(text.as_bytes());
        ClaimHash(hasher.finish128().as_u128().to_be_bytes())
    }
}

/// A claim that stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Logged {
    /// Its number there.
    n: u64,
    id: TransactionId,
}

/// The committed claims of the log; the writer's and its readers'. A reader looks here first and
/// then opens its view of the table: what has left the log by then is there.
#[derive(Clone)]
pub struct RecentClaims {
    hasher: ClaimHasher,
    logged: Arc<RwLock<HashMap<ClaimHash, Logged>>>,
}

impl RecentClaims {
    /// Hashes as this store does.
    #[must_use]
    pub fn hasher(&self) -> &ClaimHasher {
        &self.hasher
    }

    /// Who holds a claim, if it is recent.
    #[must_use]
    pub fn get(&self, claim: ClaimHash) -> Option<TransactionId> {
        self.logged.read().get(&claim).map(|l| l.id)
    }
}

/// All claims as the writer sees them. A batch works on a clone and puts it in the original's
/// place once it is committed; an abort drops the clone.
#[derive(Clone)]
pub struct Claims {
    recent: RecentClaims,
    generation: usize,
    /// The number of the next row of the log.
    next: u64,
    /// What the batch in hand claims, or releases.
    staged: HashMap<ClaimHash, Option<Logged>>,
    /// What left the log with the batch in hand.
    trimmed: Vec<(ClaimHash, u64)>,
    tidying: Tidying,
}

/// Where the way from the log to the table stands.
#[derive(Clone)]
enum Tidying {
    /// The generation is not full yet.
    Gathering,
    /// `run` is sorted; what stands before `at` is in the table.
    Merging { run: Arc<[(ClaimHash, Logged)]>, at: usize },
    /// All rows of the log before `end` are in the table.
    Trimming { end: u64 },
}

impl Claims {
    /// Reads the log; a merge that was under way begins again, which is harmless.
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn load(rows: &dyn ReadRows, hasher: ClaimHasher, generation: usize) -> Result<Claims, RowError> {
        let mut logged = HashMap::new();
        let mut next = 1;
        rows.walk(Table::ClaimsLog, &[], None, &mut |key, value| {
            let n = keys::u64_at(key, 0).ok_or_else(|| misshapen(Table::ClaimsLog))?;
            let (claim, id) = decoded(|| format!("claim {n}"), format::decode_logged_claim(value))?;
            logged.insert(ClaimHash(claim), Logged { n, id });
            next = n + 1;
            Ok(Walk::On)
        })?;
        let recent = RecentClaims { hasher, logged: Arc::new(RwLock::new(logged)) };
        let (staged, trimmed) = (HashMap::new(), Vec::new());
        Ok(Claims { recent, generation, next, staged, trimmed, tidying: Tidying::Gathering })
    }

    /// What readers share.
    #[must_use]
    pub fn recent(&self) -> &RecentClaims {
        &self.recent
    }

    /// Hashes as this store does.
    #[must_use]
    pub fn hasher(&self) -> ClaimHasher {
        self.recent.hasher
    }

    /// Who holds a claim.
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn find(&self, rows: &dyn ReadRows, claim: ClaimHash) -> Result<Option<TransactionId>, RowError> {
        if let Some(staged) = self.staged.get(&claim) {
            return Ok(staged.map(|l| l.id));
        }
        match self.recent.get(claim) {
            Some(id) => Ok(Some(id)),
            None => merged(rows, claim),
        }
    }

    /// Takes a claim for a transaction, from whoever held it.
    ///
    /// # Errors
    /// When rows cannot be written.
    pub fn claim(
        &mut self,
        rows: &mut dyn WriteRows,
        claim: ClaimHash,
        id: TransactionId,
    ) -> Result<(), RowError> {
        if let Some(Logged { n, .. }) = self.logged(claim) {
            rows.delete(Table::ClaimsLog, &keys::claim_row(n))?;
        }
        let n = self.next;
        rows.put(Table::ClaimsLog, &keys::claim_row(n), &format::encode_logged_claim(claim.0, id))?;
        self.next += 1;
        self.staged.insert(claim, Some(Logged { n, id }));
        Ok(())
    }

    /// Frees a claim, if this transaction holds it.
    ///
    /// # Errors
    /// When rows cannot be read, decoded or written.
    pub fn release(
        &mut self,
        rows: &mut dyn WriteRows,
        claim: ClaimHash,
        id: TransactionId,
    ) -> Result<(), RowError> {
        if self.find(rows, claim)? != Some(id) {
            return Ok(());
        }
        rows.delete(Table::Claims, &claim.0)?;
        if let Some(Logged { n, .. }) = self.logged(claim) {
            rows.delete(Table::ClaimsLog, &keys::claim_row(n))?;
        }
        self.staged.insert(claim, None);
        Ok(())
    }

    /// Brings a few claims on their way from the log to the table. Call it before the commit.
    ///
    /// # Errors
    /// When rows cannot be read or written.
    pub fn tidy(&mut self, rows: &mut dyn WriteRows) -> Result<(), RowError> {
        let step = self.generation.div_ceil(STEPS_MAX).max(self.staged.len() * STEP_PER_CLAIM);
        match &self.tidying {
            Tidying::Gathering => {
                let logged = self.recent.logged.read();
                if logged.len() >= self.generation {
                    let mut run: Vec<_> = logged.iter().map(|(claim, l)| (*claim, *l)).collect();
                    run.sort_unstable_by_key(|(claim, _)| *claim);
                    self.tidying = Tidying::Merging { run: run.into(), at: 0 };
                }
            }
            Tidying::Merging { run, at } => {
                let (run, at) = (Arc::clone(run), *at);
                let end = run.len().min(at + step);
                for &(claim, entry) in &run[at..end] {
                    // One that was released, or released and claimed anew, is not this one.
                    if self.logged(claim) == Some(entry) {
                        rows.put(Table::Claims, &claim.0, &format::encode_claim(entry.id))?;
                    }
                }
                self.tidying = if end < run.len() {
                    Tidying::Merging { run, at: end }
                } else {
                    Tidying::Trimming { end: run.iter().map(|(_, l)| l.n + 1).max().unwrap_or(0) }
                };
            }
            Tidying::Trimming { end } => {
                self.trimmed = trim(rows, *end, step)?;
                if self.trimmed.len() < step {
                    self.tidying = Tidying::Gathering;
                }
            }
        }
        Ok(())
    }

    /// Shows readers what the batch did. Call it after the commit and before the answers.
    pub fn committed(&mut self) {
        if self.staged.is_empty() && self.trimmed.is_empty() {
            return;
        }
        let mut logged = self.recent.logged.write();
        for (claim, entry) in self.staged.drain() {
            match entry {
                Some(entry) => logged.insert(claim, entry),
                None => logged.remove(&claim),
            };
        }
        for (claim, n) in self.trimmed.drain(..) {
            if logged.get(&claim).is_some_and(|l| l.n == n) {
                logged.remove(&claim);
            }
        }
    }

    /// A claim as it stands in the log, the batch in hand included.
    fn logged(&self, claim: ClaimHash) -> Option<Logged> {
        match self.staged.get(&claim) {
            Some(staged) => *staged,
            None => self.recent.logged.read().get(&claim).copied(),
        }
    }
}

/// Who holds a claim of the table.
///
/// # Errors
/// When rows cannot be read or decoded.
pub fn merged(rows: &dyn ReadRows, claim: ClaimHash) -> Result<Option<TransactionId>, RowError> {
    let Some(bytes) = rows.get(Table::Claims, &claim.0)? else { return Ok(None) };
    decoded(|| "a claim".to_owned(), format::decode_claim(bytes)).map(Some)
}

/// Deletes up to `limit` of the log's first rows that stand before `end`, and says which.
fn trim(rows: &mut dyn WriteRows, end: u64, limit: usize) -> Result<Vec<(ClaimHash, u64)>, RowError> {
    let mut first = Vec::new();
    rows.walk(Table::ClaimsLog, &[], None, &mut |key, value| {
        let n = keys::u64_at(key, 0).ok_or_else(|| misshapen(Table::ClaimsLog))?;
        if first.len() == limit || n >= end {
            return Ok(Walk::Stop);
        }
        let (claim, _) = decoded(|| format!("claim {n}"), format::decode_logged_claim(value))?;
        first.push((ClaimHash(claim), n));
        Ok(Walk::On)
    })?;
    for (_, n) in &first {
        rows.delete(Table::ClaimsLog, &keys::claim_row(*n))?;
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_other_clients_kinds_and_uses_do_not_meet() {
        let hasher = ClaimHasher([7; 16]);
        let reference: Reference = "r".parse().unwrap();
        let key = IdempotencyKey { call: Kind::Order, key: "r".to_owned() };
        let all = [
            hasher.reference(ClientNo(1), Kind::Order, &reference),
            hasher.reference(ClientNo(2), Kind::Order, &reference),
            hasher.reference(ClientNo(1), Kind::Move, &reference),
            hasher.key(ClientNo(1), &key),
            ClaimHasher([8; 16]).reference(ClientNo(1), Kind::Order, &reference),
        ];
        let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
