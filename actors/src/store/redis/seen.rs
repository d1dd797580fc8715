//! Transactions as they were last read: decoded once for as long as Redis answers the same bytes, so that
//! who polls one costs a read and no more. Every read still asks Redis; it must never answer by itself.

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use redis::Value;

use crate::domain::ids::TransactionId;
use crate::ports::store::Lookup;

/// Memory for them, in bytes; about ten thousand small orders.
const BYTES_MAX: u64 = 64 << 20;

/// Transactions that the cache expects to hold; it only sizes its tables.
const ITEMS: usize = 10_000;

/// What one takes beside its bytes, in bytes.
const ITEM_BYTES: u64 = 400;

/// What is decoded takes about twice what it was decoded from, which is kept as well.
const TIMES: u64 = 3;

/// What Redis answered, and what that is.
#[derive(Clone)]
struct Seen {
    answer: std::sync::Arc<[u8]>,
    lookup: Lookup,
}

#[derive(Clone)]
struct Size;

impl Weighter<TransactionId, Seen> for Size {
    fn weight(&self, _: &TransactionId, seen: &Seen) -> u64 {
        ITEM_BYTES + TIMES * seen.answer.len() as u64
    }
}

/// Those that were read last.
pub(super) struct SeenTransactions(Cache<TransactionId, Seen, Size>);

impl Default for SeenTransactions {
    fn default() -> Self {
        SeenTransactions(Cache::with_weighter(ITEMS, BYTES_MAX, Size))
    }
}

impl SeenTransactions {
    /// What this answer was the last time, if it was the same to the byte.
    pub(super) fn get(&self, id: TransactionId, answer: &Value) -> Option<Lookup> {
        let seen = self.0.get(&id)?;
        is_same(&seen.answer, answer).then_some(seen.lookup)
    }

    /// Keeps what an answer is.
    pub(super) fn keep(&self, id: TransactionId, answer: &[u8], lookup: &Lookup) {
        self.0.insert(id, Seen { answer: answer.into(), lookup: lookup.clone() });
    }
}

fn parts(answer: &Value) -> impl Iterator<Item = Option<&[u8]>> {
    let parts: &[Value] = match answer {
        Value::Array(parts) => parts,
        _ => &[],
    };
    parts.iter().map(|part| match part {
        Value::BulkString(bytes) => Some(bytes.as_slice()),
        _ => None,
    })
}

/// All parts in a row, each behind its length; `None` for an answer of another shape.
pub(super) fn flat(answer: &Value) -> Option<Vec<u8>> {
    let mut flat = Vec::new();
    for part in parts(answer) {
        let part = part?;
        flat.extend(u32::try_from(part.len()).ok()?.to_be_bytes());
        flat.extend_from_slice(part);
    }
    (!flat.is_empty()).then_some(flat)
}

fn is_same(flat: &[u8], answer: &Value) -> bool {
    let mut rest = flat;
    for part in parts(answer) {
        let (Some(part), Some((length, behind))) = (part, rest.split_first_chunk::<4>()) else {
            return false;
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        match behind.split_at_checked(length) {
            Some((same, behind)) if same == part => rest = behind,
            Some(_) | None => return false,
        }
    }
    rest.is_empty() && !flat.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(parts: &[&str]) -> Value {
        Value::Array(parts.iter().map(|part| Value::BulkString(part.as_bytes().to_vec())).collect())
    }

    #[test]
    fn only_the_same_parts_in_the_same_order_are_the_same() {
        let seen = flat(&answer(&["v", "1", "fact", ""])).unwrap();
        assert!(is_same(&seen, &answer(&["v", "1", "fact", ""])));
        let others: [&[&str]; 6] = [
            &["v", "2", "fact", ""],
            &["v", "1", "fact"],
            &["v", "1", "fact", "", ""],
            &["v", "1f", "act", ""],
            &["fact", "", "v", "1"],
            &[],
        ];
        for other in others {
            assert!(!is_same(&seen, &answer(other)), "{other:?}");
        }
        assert!(!is_same(&seen, &Value::Nil) && flat(&Value::Nil).is_none() && flat(&answer(&[])).is_none());
        assert!(!is_same(&[], &answer(&[])), "what is not there is not seen");
    }
}
