//! Numbers that were given out and must never be given out again, though the Redis that counted them has
//! lost its end: places in feeds, and serials of cartons. It must never lower one.
//!
//! What is known: the highest place in each feed that this node has read, the end of the last block of
//! serials that it leased, and whether another primary took over, which says its replication id: it keeps
//! that of the primary whose replica it was. Where one took over, or has counted less far than this node
//! has seen, its feeds begin a new turn ([`turn_of`]): every later number is above every earlier one,
//! cursors of the turn before get a gap, and what was lost is missing in nobody's sight. A Redis that only
//! restarted, with all its data, counts on.
//!
//! Every node does this before any of them uses a run, each for itself: a feed may begin several turns at
//! once. Not known is what a node had read that is gone when the run changes; where a primary took over,
//! that does not matter.

use std::collections::{BTreeMap, BTreeSet};

use super::Inner;
use super::link::{Call, LinkError, Lua};
use super::place::{SHARDS, Slot};
use super::program::counted;
use super::replies::pairs;
use crate::domain::ids::ClientNo;
use crate::ports::store::CommitError;
use crate::ports::turns::{first_of_turn, turn_of};
use crate::store::keys;
use crate::store::rows;

/// Serials that are passed over where another primary took over: more blocks of a thousand than all
/// nodes lease in the moment that it may have lost.
const SERIALS_MARGIN: u64 = 20_000;

/// What this process has seen of what Redis counts.
#[derive(Default)]
pub(super) struct Seen {
    feeds: parking_lot::Mutex<BTreeMap<ClientNo, u64>>,
    serials: parking_lot::Mutex<u64>,
    /// The runs in which all of it was passed over: an attempt that fails behind it does it once.
    passed: parking_lot::Mutex<BTreeSet<String>>,
}

impl Seen {
    /// A feed goes up to here at least.
    pub(super) fn fed(&self, client: ClientNo, sequence: u64) {
        let mut feeds = self.feeds.lock();
        let seen = feeds.entry(client).or_default();
        *seen = sequence.max(*seen);
    }

    /// Serials before this one are given out.
    pub(super) fn leased(&self, end: u64) {
        let mut serials = self.serials.lock();
        *serials = end.max(*serials);
    }
}

/// Whether a run is of a replica that took over from one of these.
pub(super) fn took_over(run: &str, before: &BTreeSet<String>) -> bool {
    let part = |run: &str, n| run.split('/').nth(n).map(str::to_owned);
    let of_its_primary = part(run, super::server::BEFORE_AT);
    of_its_primary.is_some()
        && before.iter().any(|known| part(known, super::server::REPLICATION_AT) == of_its_primary)
}

impl Inner {
    /// Passes over what the run before may have given out; by connections that lead to the new one.
    pub(super) async fn pass_over(
        &self,
        seen: &Seen,
        before: &BTreeSet<String>,
        runs: &BTreeSet<String>,
    ) -> Result<(), CommitError> {
        if *seen.passed.lock() == *runs {
            return Ok(());
        }
        for shard in (0..SHARDS).map(Slot::Shard) {
            let run = self.writes.run_at(&shard.key("next")).await?;
            if !before.contains(&*run) {
                self.turn_over(shard, seen, took_over(&run, before)).await?;
            }
        }
        let run = self.writes.run_at(&Slot::Meta.key("names")).await?;
        if !before.contains(&*run) {
            self.pass_serials(seen, took_over(&run, before)).await?;
        }
        *seen.passed.lock() = runs.clone();
        Ok(())
    }

    /// Begins a new turn of the feeds of a shard that are behind, or of all of them.
    async fn turn_over(&self, shard: Slot, seen: &Seen, all: bool) -> Result<(), LinkError> {
        let mut ask = redis::pipe();
        ask.cmd("HGETALL").arg(shard.key("next"));
        let found = self.writes.ask(&ask).await?.into_iter().next().map(pairs).unwrap_or_default();
        let read = |(client, n): (Vec<u8>, Vec<u8>)| {
            let n = std::str::from_utf8(&n).ok()?.parse::<u64>().ok()?;
            Some((ClientNo(keys::u32_at(&client, 0)?), n))
        };
        let found: BTreeMap<ClientNo, u64> = found.into_iter().filter_map(read).collect();
        let seen: BTreeMap<ClientNo, u64> = {
            let feeds = seen.feeds.lock();
            let here = feeds.iter().filter(|(client, _)| Slot::of_client(**client) == shard);
            here.map(|(client, n)| (*client, *n)).collect()
        };
        let clients: BTreeSet<ClientNo> = found.keys().chain(seen.keys()).copied().collect();
        let of = |all: &BTreeMap<ClientNo, u64>, client| all.get(&client).copied().unwrap_or(0);
        let is_behind = |client: &ClientNo| all || of(&found, *client) < of(&seen, *client);
        let mut args = Vec::new();
        for client in clients.into_iter().filter(is_behind) {
            let last = of(&found, client).max(of(&seen, client));
            let before_first = first_of_turn(turn_of(last) + 1) - 1;
            args.extend([counted(client), before_first.to_string().into_bytes()]);
            tracing::warn!(
                client = client.0,
                last,
                "a feed may have lost its end; its readers are told of a gap"
            );
        }
        if !args.is_empty() {
            let call = Call { lua: Lua::TurnOver, keys: vec![shard.key("next")], args };
            for answer in self.writes.run(&[call]).await? {
                answer?;
            }
        }
        Ok(())
    }

    async fn pass_serials(&self, seen: &Seen, took_over: bool) -> Result<(), CommitError> {
        let leased = *seen.serials.lock();
        let next = self.names(|w| rows::lease_serials(w, 0)).await?;
        let margin = if took_over { SERIALS_MARGIN } else { 0 };
        let passed = leased.saturating_sub(next) + margin;
        if passed > 0 {
            self.names(|w| rows::lease_serials(w, passed)).await?;
            tracing::warn!(passed, "serials of cartons are passed over, for they may have been given out");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_took_over_is_told_from_a_restart() {
        let before: BTreeSet<String> = ["r1/aa/00/master".to_owned()].into();
        assert!(took_over("r2/bb/aa/master", &before));
        assert!(!took_over("r1/bb/00/master", &before), "a restart forgets what it was");
        assert!(!took_over("r3/cc/dd/master", &before));
    }
}
