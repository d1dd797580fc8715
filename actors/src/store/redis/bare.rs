//! The least that accepting and reading take in Redis, for who measures the store against it: the same
//! claim, the same script and the same read, one command at a time, each by itself. It must never be used
//! for anything else: it finds no replay, frees no claim and keeps no receipt.

use std::sync::Arc;

use super::RedisStore;
use super::accept::{Item, append_call};
use super::claims::set_new;
use super::link::Link;
use super::place::Slot;
use super::replies::{bytes, list, pairs};
use crate::domain::ids::TransactionId;
use crate::ports::store::{CommitError, NewCommand, ReadError};
use crate::store::rows::ClaimHasher;

/// A connection of its own that does nothing else; all calls at one time share it.
pub struct Bare {
    link: Link,
    hasher: ClaimHasher,
}

impl RedisStore {
    /// The least, on a store that is open: it must stay so.
    pub fn bare(&self) -> Bare {
        Bare { link: Link::writes(Arc::clone(&self.inner.writes.shared)), hasher: self.inner.hasher }
    }
}

impl Bare {
    /// Claims a reference, then appends; true when both were new. Durable when it answers.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn accept(&self, new: &NewCommand) -> Result<bool, CommitError> {
        let item = Item::of(new, self.hasher);
        let mut claim = redis::pipe();
        set_new(&mut claim, item.reference, &item.held(new.id));
        let held = self.link.write(&claim).await?.into_iter().next().and_then(bytes);
        let now = u64::try_from(new.accepted.at.0).unwrap_or(0);
        let appended = self.link.run(&[append_call(&item, now)]).await?.into_iter().next().transpose()?;
        let said = appended.map(list).unwrap_or_default().into_iter().next().and_then(bytes);
        Ok(held.is_none() && said.as_deref() == Some(b"new"))
    }

    /// Reads all that stands of a transaction and says how many fields that are.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn read(&self, id: TransactionId) -> Result<usize, ReadError> {
        let mut ask = redis::pipe();
        ask.cmd("HGETALL").arg(Slot::Partition(id.home()).key(&format!("t:{id}")));
        Ok(self.link.ask(&ask).await?.into_iter().next().map_or(0, |value| pairs(value).len()))
    }
}
