//! Which store a Redis holds. The store's own record lies in one slot; in a cluster each shard of the
//! feeds has a note of the store's id besides, so that a primary that came back without its data is told
//! from one that never had any. It must never write over another store's id.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};
use uuid::Uuid;

use super::link::{Link, LinkError};
use super::place::{SHARDS, Slot};
use super::replies::bytes;
use super::server::Doubt;
use super::shared::Shared;
use super::slots::{Address, Elsewhere, slot_of};
use crate::store::format;
use crate::store::keys;

/// The name of a shard's note.
const NOTE: &str = "store";

/// Set once every shard has its note.
const NOTED: &str = "noted";

fn shards() -> impl Iterator<Item = Slot> {
    (0..SHARDS).map(Slot::Shard)
}

/// Looks whether the Redis at an address holds what it should of the store that is expected, if one is.
///
/// # Errors
/// When it does not, or does not answer.
pub(super) async fn check(
    shared: &Shared,
    address: &Address,
    connection: &mut MultiplexedConnection,
) -> Result<(), LinkError> {
    let Some(expected) = *shared.store.lock() else { return Ok(()) };
    let Some(map) = shared.map() else { return Ok(()) };
    let mut ask = redis::pipe();
    ask.ignore_errors();
    let is_here = |slot: &Slot| map.owner(|| slot_of(&slot.key(NOTE))) == Some(address);
    let mut asked = Vec::new();
    if is_here(&Slot::Meta) {
        ask.cmd("HGET").arg(Slot::Meta.key("names")).arg(keys::STORE);
        asked.push(Slot::Meta);
    }
    if shared.wanted.is_cluster {
        for shard in shards().filter(is_here) {
            ask.cmd("GET").arg(shard.key(NOTE));
            asked.push(shard);
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let answers = ask.query_async::<Vec<Result<Value, RedisError>>>(connection).await;
    let answers = answers.map_err(|e| LinkError::Apart(Arc::new(e)))?;
    for (slot, answer) in asked.into_iter().zip(answers) {
        let found = match answer {
            Ok(answer) => bytes(answer).and_then(|found| read(slot, &found)),
            // It has just gone to another primary, who is asked the same.
            Err(e) if Elsewhere::of(&e, address).is_some() => continue,
            Err(e) => return Err(LinkError::Apart(Arc::new(e))),
        };
        if found != Some(expected) {
            return Err(LinkError::Unfit(Arc::new(Doubt::Another { expected, found })));
        }
    }
    Ok(())
}

fn read(slot: Slot, found: &[u8]) -> Option<Uuid> {
    match slot {
        Slot::Meta => format::decode_store(found).ok().map(|(id, _)| id),
        Slot::Shard(_) | Slot::Partition(_) => Uuid::from_slice(found).ok(),
    }
}

/// Gives each shard of a new store its note. Killed between any two of them it is done again; once all
/// are there, a shard without one has lost its data.
///
/// # Errors
/// When Redis does not answer.
pub(super) async fn note(link: &Link, store: Uuid) -> Result<(), LinkError> {
    let mut ask = redis::pipe();
    ask.cmd("EXISTS").arg(Slot::Meta.key(NOTED));
    let is_noted = link.ask(&ask).await?.into_iter().next().and_then(super::replies::number) == Some(1);
    if is_noted {
        return Ok(());
    }
    let mut notes = Pipeline::new();
    for shard in shards() {
        notes.cmd("SET").arg(shard.key(NOTE)).arg(store.as_bytes().as_slice()).arg("NX");
    }
    link.write(&notes).await?;
    let mut noted = redis::pipe();
    noted.cmd("SET").arg(Slot::Meta.key(NOTED)).arg("1");
    link.write(&noted).await?;
    Ok(())
}
