//! What a transaction of one slot asks of Redis: the keys and arguments of `lua/apply.lua`. It must
//! never talk to Redis.

use std::collections::{BTreeMap, BTreeSet};

use super::overlay::{Overlay, Queued};
use super::place::{self, Shape, Slot, Unit};
use crate::domain::ids::ClientNo;
use crate::ports::store::Fence;
use crate::store::format;
use crate::store::keys::{self, Table};
use crate::store::rows::RowError;

/// Keys and arguments of one script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
    numbers: BTreeMap<Vec<u8>, usize>,
    /// Members that go, last of all: in a slot that is on its way to another primary a set that became
    /// empty could not be added to any more, and the script would end in its middle.
    removed: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The field of a command's first chunk: who has it is a transaction.
pub(super) const COMMAND: &[u8] = &[0, 0, 0];

/// The version of a hash.
pub(super) const VERSION: &[u8] = b"v";

/// The bytes of a key of `counters` before the client.
const COUNTED_AT: usize = 1;

impl Program {
    /// What an operation wrote, as one script; `None` when it wrote nothing.
    ///
    /// # Errors
    /// [`RowError::Broken`] when it wrote what cannot be written so.
    pub(super) fn of(overlay: &Overlay, fence: Option<Fence>) -> Result<Option<Program>, RowError> {
        if !overlay.is_dirty() {
            return Ok(None);
        }
        let mut program = Program::default();
        if let Some(Fence { partition, epoch, nonce }) = fence {
            let own = Slot::Partition(partition).key("own");
            program.step(b"fence", &own, &[&decimal(epoch), &decimal(nonce)]);
        }
        for (key, field, value) in overlay.seen() {
            program.step(b"same", key, &[field, value]);
        }
        for (table, key) in &overlay.fresh {
            let unit = place::unit(overlay.slot, *table, key)?;
            program.step(b"new", &unit.key, &[unit.field(key)]);
        }
        for queued in &overlay.queued {
            if let Queued::Dequeue(partition, lane, n) = queued {
                program.step(b"entry", &place::lane(*partition, *lane), &[&decimal(*n)]);
            }
        }
        program.args.push(b".".to_vec());
        program.rows(overlay)?;
        for queued in &overlay.queued {
            program.queued(queued, overlay.slot);
        }
        Ok(Some(program))
    }

    /// The number of a key, from 1.
    fn number(&mut self, key: &[u8]) -> usize {
        if let Some(n) = self.numbers.get(key) {
            return *n;
        }
        self.keys.push(key.to_vec());
        self.numbers.insert(key.to_vec(), self.keys.len());
        self.keys.len()
    }

    fn step(&mut self, name: &[u8], key: &[u8], operands: &[&[u8]]) {
        let n = self.number(key);
        self.args.push(name.to_vec());
        self.args.push(n.to_string().into_bytes());
        self.args.extend(operands.iter().map(|operand| operand.to_vec()));
    }

    fn rows(&mut self, overlay: &Overlay) -> Result<(), RowError> {
        let mut changed: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut emptied: BTreeSet<Vec<u8>> = BTreeSet::new();
        for ((table, key), value) in &overlay.staged {
            let unit = place::unit(overlay.slot, *table, key)?;
            match unit.shape {
                Shape::Index => {
                    self.member(&unit.key, unit.field(key), value.is_some());
                }
                Shape::Stream => self.feed(overlay.slot, *table, key, value.as_deref(), &unit)?,
                // The entry that took the number writes it.
                Shape::Hash if *table == Table::Counters && matches!(overlay.slot, Slot::Shard(_)) => {}
                Shape::Hash | Shape::Disposable => {
                    self.field(overlay.slot, *table, key, value.as_deref(), &unit)?;
                    if value.is_none() && unit.shape == Shape::Disposable {
                        emptied.insert(unit.key.clone());
                    }
                    changed.insert(unit.key);
                }
            }
        }
        for key in &changed {
            self.step(b"bump", key, &[]);
        }
        for (key, member) in std::mem::take(&mut self.removed) {
            self.step(b"rem", &key, &[&member]);
        }
        for key in &emptied {
            self.step(b"drop", key, &[]);
        }
        Ok(())
    }

    fn member(&mut self, key: &[u8], member: &[u8], is_there: bool) {
        if is_there {
            self.step(b"add", key, &[member]);
        } else {
            self.removed.push((key.to_vec(), member.to_vec()));
        }
    }

    fn field(
        &mut self,
        slot: Slot,
        table: Table,
        key: &[u8],
        value: Option<&[u8]>,
        unit: &Unit,
    ) -> Result<(), RowError> {
        let field = unit.field(key);
        let is_command = table == Table::Tx && field == COMMAND;
        match value {
            Some(value) => {
                self.step(b"set", &unit.key, &[field, value]);
                if table == Table::Partition {
                    // What the fence is compared with, in words that a script can read.
                    let row = format::decode_partition(value).map_err(|e| RowError::Broken(e.to_string()))?;
                    self.step(b"set", &unit.key, &[b"e", &decimal(row.epoch)]);
                    self.step(b"set", &unit.key, &[b"n", &decimal(row.nonce)]);
                }
                if table == Table::Stock {
                    self.step(b"add", &slot.key("skus"), &[field]);
                }
            }
            None => self.step(b"del", &unit.key, &[field]),
        }
        if is_command {
            self.member(&slot.key("ids"), key.get(..16).unwrap_or_default(), value.is_some());
        }
        Ok(())
    }

    /// An entry of a feed, written in the feed's own slot.
    fn feed(
        &mut self,
        slot: Slot,
        table: Table,
        key: &[u8],
        value: Option<&[u8]>,
        unit: &Unit,
    ) -> Result<(), RowError> {
        let broken = || RowError::Broken(format!("a row of {} is not written so", table.name()));
        let (Table::Feed, Some(value)) = (table, value) else { return Err(broken()) };
        let sequence = keys::u64_at(key, 4).ok_or_else(broken)?;
        let client = key.get(..4).ok_or_else(broken)?;
        let (id, _) = format::decode_feed(value).map_err(|_| broken())?;
        let when = id.at().0.to_string().into_bytes();
        self.step(b"feed", &unit.key, &[&decimal(sequence), value, &when]);
        self.step(b"set", &slot.key("next"), &[client, &decimal(sequence)]);
        Ok(())
    }

    fn queued(&mut self, queued: &Queued, slot: Slot) {
        match queued {
            Queued::Enqueue(partition, lane, value) => {
                self.step(b"push", &place::lane(*partition, *lane), &[value]);
            }
            Queued::Dequeue(partition, lane, n) => {
                self.step(b"take", &place::lane(*partition, *lane), &[&decimal(*n)]);
            }
            Queued::Tell(ClientNo(client), entry, at) => {
                let own = self.number(&slot.key("own")).to_string().into_bytes();
                let (client, when) = (decimal(u64::from(*client)), at.0.to_string().into_bytes());
                self.step(b"log", &slot.key("log"), &[&own, &client, entry, &when]);
            }
        }
    }
}

/// The field of a client's feed in a shard's `next`.
pub(super) fn counted(client: ClientNo) -> Vec<u8> {
    keys::feed_counter(client).split_off(COUNTED_AT)
}

fn decimal(n: u64) -> Vec<u8> {
    n.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{PartitionId, TransactionId};
    use crate::domain::time::Timestamp;
    use crate::ports::store::Lane;
    use crate::store::rows::{Queues as _, WriteRows as _};

    fn words(program: &Program) -> Vec<String> {
        program.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    #[test]
    fn checks_stand_before_the_first_write_and_all_keys_in_one_slot() {
        let home = PartitionId(7);
        let id = TransactionId::new(Timestamp(1), home, 2);
        let mut overlay = Overlay::new(Slot::Partition(home));
        overlay.see(b"wg:{7}:own", b"v", b"3".to_vec());
        overlay.dequeue(home, Lane::Work, 4);
        overlay.tell(ClientNo(1), b"said", Timestamp(9));
        overlay.put_new(Table::Tx, &keys::chunk(&keys::fact(id, 2), 0), b"fact").unwrap();
        let fence = Fence { partition: home, epoch: 5, nonce: 6 };
        let program = Program::of(&overlay, Some(fence)).unwrap().unwrap();
        let words = words(&program);
        let dot = words.iter().position(|word| word == ".").unwrap();
        let (checks, writes) = words.split_at(dot);
        for check in ["fence", "same", "new", "entry"] {
            assert!(checks.contains(&check.to_owned()) && !writes.contains(&check.to_owned()), "{check}");
        }
        for write in ["set", "bump", "take", "log"] {
            assert!(writes.contains(&write.to_owned()) && !checks.contains(&write.to_owned()), "{write}");
        }
        assert!(program.keys.iter().all(|key| key.starts_with(b"wg:{7}:")));
    }

    #[test]
    fn a_set_is_added_to_before_anything_is_taken_out_of_it() {
        let home = PartitionId(7);
        let id = |n| keys::in_partition(home, TransactionId::new(Timestamp(1), home, n));
        let mut overlay = Overlay::new(Slot::Partition(home));
        overlay.delete(Table::Open, &id(1)).unwrap();
        overlay.put(Table::Open, &id(2), &format::encode_mark()).unwrap();
        let program = Program::of(&overlay, None).unwrap().unwrap();
        let words = words(&program);
        let at = |name: &str| words.iter().position(|word| word == name);
        assert!(at("add").unwrap() < at("rem").unwrap(), "{words:?}");
    }

    #[test]
    fn an_operation_that_wrote_nothing_asks_for_nothing() {
        let overlay = Overlay::new(Slot::Meta);
        assert_eq!(Program::of(&overlay, None).unwrap(), None);
    }
}
