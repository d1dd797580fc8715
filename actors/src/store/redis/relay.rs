//! From the partitions' logs to the clients' feeds. It must never number an entry twice, nor trim a
//! log before every shard has its entries on disk.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future;

use super::link::{Call, Link, LinkError, Lua};
use super::place::{self, Slot};
use super::program::counted;
use super::replies::{Entry, entries};
use crate::domain::ids::{ClientNo, PartitionId};
use crate::ports::store::{FeedEntry, Points};
use crate::store::format;

/// Entries of a log that are relayed at once.
/// Redis does nothing else meanwhile, about a millisecond: orders that come then wait so long.
const ENTRIES_MAX: usize = 128;

/// Which logs may hold something, and whose turn it is.
#[derive(Default)]
pub(super) struct Relay {
    written: parking_lot::Mutex<BTreeSet<PartitionId>>,
    turn: tokio::sync::Mutex<()>,
}

impl Relay {
    /// A partition's log may have grown.
    pub(super) fn wrote(&self, partition: PartitionId) {
        self.written.lock().insert(partition);
    }

    /// Relays everything that was written before this call.
    ///
    /// # Errors
    /// When Redis does not answer: what was not relayed is tried again by the next call.
    pub(super) async fn settle(&self, writes: &Link) -> Result<(), LinkError> {
        let _turn = self.turn.lock().await;
        let mut written = std::mem::take(&mut *self.written.lock());
        while let Some(partition) = written.first().copied() {
            if let Err(e) = drain(writes, partition).await {
                self.written.lock().append(&mut written);
                return Err(e);
            }
            written.remove(&partition);
        }
        Ok(())
    }
}

async fn drain(writes: &Link, partition: PartitionId) -> Result<(), LinkError> {
    let log = Slot::Partition(partition).key("log");
    let (mut from, mut trim) = ("-".to_owned(), redis::pipe());
    loop {
        let mut ask = redis::pipe();
        ask.cmd("XRANGE").arg(&log).arg(&from).arg("+").arg("COUNT").arg(ENTRIES_MAX);
        // By the connection for writes: nothing is fed that replicas have not acknowledged.
        let logged = writes.ask(&ask).await?.into_iter().next().map(entries).unwrap_or_default();
        let Some(last) = logged.last() else { break };
        // What was relayed before is trimmed meanwhile: one sync of Redis' file for both.
        let calls = calls(partition, &logged);
        let (trimmed, relayed) = future::join(writes.write(&trim), writes.run(&calls)).await;
        trimmed?;
        for answer in relayed? {
            answer?;
        }
        from = format!("({}-{}", last.epoch, last.n);
        trim = redis::pipe();
        trim.cmd("XTRIM").arg(&log).arg("MINID").arg(format!("{}-{}", last.epoch, last.n + 1));
        if logged.len() < ENTRIES_MAX {
            break;
        }
    }
    writes.write(&trim).await?;
    Ok(())
}

/// One script for each shard that some of the entries are for.
pub(super) fn calls(partition: PartitionId, logged: &[Entry]) -> Vec<Call> {
    let mut shards: BTreeMap<Slot, Vec<(ClientNo, &Entry)>> = BTreeMap::new();
    for entry in logged {
        let client = ClientNo(u32::try_from(entry.number(b"c")).unwrap_or(u32::MAX));
        shards.entry(Slot::of_client(client)).or_default().push((client, entry));
    }
    shards.into_iter().map(|(shard, entries)| call(partition, shard, &entries)).collect()
}

fn call(partition: PartitionId, shard: Slot, entries: &[(ClientNo, &Entry)]) -> Call {
    let mut keys = vec![shard.key("next"), shard.key("marks")];
    let mut places: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut number = |key: Vec<u8>| {
        *places.entry(key).or_insert_with_key(|key| {
            keys.push(key.clone());
            keys.len()
        })
    };
    let mut args = vec![partition.0.to_string().into_bytes()];
    for (client, entry) in entries {
        let event = entry.field(b"e");
        let pointer = format::decode_feed(event).ok();
        let pointer = pointer.map(|(id, version)| FeedEntry { sequence: 0, id, version });
        let field = match pointer.map(|pointer| pointer.points()) {
            Some(Points::Version(version)) => Some(version.to_string().into_bytes()),
            Some(Points::Estimate(_)) => Some(place::told_at(entry.field(b"a"))),
            Some(Points::Announcement) | None => None,
        };
        let of = pointer.filter(|_| field.is_some());
        let numbers = of.map_or(0, |pointer| number(place::numbers(*client, pointer.id)));
        args.extend([
            entry.epoch.to_string().into_bytes(),
            entry.n.to_string().into_bytes(),
            number(place::feed(*client)).to_string().into_bytes(),
            counted(*client),
            event.to_vec(),
            entry.field(b"a").to_vec(),
            numbers.to_string().into_bytes(),
            field.unwrap_or_default(),
        ]);
    }
    Call { lua: Lua::Relay, keys, args }
}
