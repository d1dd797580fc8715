//! Reads rows into an overlay, any number of them in one round trip. It must never decide what they
//! mean.

use redis::{Pipeline, Value};

use super::link::{Link, LinkError};
use super::overlay::{Fetch, Overlay};
use super::place::{self, DELIVERY_PARTS, Shape, Slot, Unit};
use super::program::{VERSION, counted};
use super::replies::{bytes, entries, list, pairs};
use crate::domain::ids::{ClientNo, PartitionId};
use crate::ports::store::Lane;
use crate::store::format::{self, Counter};
use crate::store::keys::{self, Key, Table};
use crate::store::rows::RowError;

/// Commands in one round trip; more are several, so that none of them meets a time-out by its size.
const COMMANDS_MAX: usize = 512;

/// Fields of a hash that are no rows.
const NO_ROWS: [&[u8]; 4] = [VERSION, b"void", b"e", b"n"];

/// One command and what its answer is about.
enum Asked {
    Field { table: Table, key: Key, unit: Unit },
    Member { table: Table, key: Key },
    Entry { table: Table, key: Key },
    Count { key: Key, unit: Unit },
    Hash { table: Table, prefix: Key, unit: Unit },
    Index { table: Table, prefix: Key, unit: Unit },
    Lane { partition: PartitionId, lane: Lane },
    Length { partition: PartitionId, lane: Lane },
    Head { table: Table, unit: Unit },
}

/// Takes over what `HGETALL` answered about all rows that begin so.
///
/// # Errors
/// When they have no place in the slot.
pub(super) fn learn_hash(
    overlay: &mut Overlay,
    table: Table,
    prefix: Key,
    answer: Value,
) -> Result<(), RowError> {
    let unit = place::unit(overlay.slot, table, &prefix)?;
    Asked::Hash { table, prefix, unit }.learn(overlay, answer);
    Ok(())
}

/// Commands under way.
pub(super) struct Reading {
    slot: Slot,
    asked: Vec<Asked>,
    commands: Vec<redis::Cmd>,
}

impl Reading {
    /// In this slot.
    pub(super) fn of(slot: Slot) -> Reading {
        Reading { slot, asked: Vec::new(), commands: Vec::new() }
    }

    fn ask(&mut self, name: &str, args: &[&[u8]], asked: Asked) {
        let mut command = redis::cmd(name);
        args.iter().for_each(|arg| {
            command.arg(*arg);
        });
        self.commands.push(command);
        self.asked.push(asked);
    }

    /// Reads what an operation asked for.
    ///
    /// # Errors
    /// When it has no place in the slot.
    pub(super) fn fetch(&mut self, fetch: Fetch) -> Result<(), RowError> {
        match fetch {
            Fetch::Row(table, key) => self.row(table, key),
            Fetch::All(Table::Deliveries, endpoint) if endpoint.len() == 16 => {
                for part in DELIVERY_PARTS {
                    self.all(Table::Deliveries, [endpoint.as_slice(), &[part]].concat())?;
                }
                Ok(())
            }
            Fetch::All(table, prefix) => self.all(table, prefix),
        }
    }

    fn row(&mut self, table: Table, key: Key) -> Result<(), RowError> {
        let unit = place::unit(self.slot, table, &key)?;
        let of = unit.key.clone();
        let field = unit.field(&key).to_vec();
        match unit.shape {
            Shape::Hash if table == Table::Counters && matches!(self.slot, Slot::Shard(_)) => {
                self.ask("HGET", &[&of, &field], Asked::Count { key, unit });
            }
            Shape::Hash | Shape::Disposable => {
                self.ask("HMGET", &[&of, &field, VERSION], Asked::Field { table, key, unit });
            }
            Shape::Index => self.ask("ZSCORE", &[&of, &field], Asked::Member { table, key }),
            Shape::Stream => {
                let n = keys::u64_at(&field, 0).unwrap_or_default();
                let id = format!("0-{n}").into_bytes();
                self.ask("XRANGE", &[&of, &id, &id], Asked::Entry { table, key });
            }
        }
        Ok(())
    }

    fn all(&mut self, table: Table, prefix: Key) -> Result<(), RowError> {
        let unit = place::unit(self.slot, table, &prefix)?;
        let (of, shape) = (unit.key.clone(), unit.shape);
        match shape {
            Shape::Hash | Shape::Disposable => {
                self.ask("HGETALL", &[&of], Asked::Hash { table, prefix, unit });
            }
            Shape::Index => self.ask("ZRANGE", &[&of, b"0", b"-1"], Asked::Index { table, prefix, unit }),
            Shape::Stream => {
                return Err(RowError::Broken(format!("{} is not read to its end", table.name())));
            }
        }
        Ok(())
    }

    /// Reads the first entries of a lane, which stand for all of it.
    pub(super) fn lane(&mut self, partition: PartitionId, lane: Lane, limit: usize) {
        let limit = limit.to_string().into_bytes();
        let of = place::lane(partition, lane);
        self.ask("XRANGE", &[&of, b"-", b"+", b"COUNT", &limit], Asked::Lane { partition, lane });
    }

    /// Reads how many entries a lane has.
    pub(super) fn length(&mut self, partition: PartitionId, lane: Lane) {
        self.ask("XLEN", &[&place::lane(partition, lane)], Asked::Length { partition, lane });
    }

    /// Reads the first rows of an index, which stand for all of it.
    ///
    /// # Errors
    /// When the table has no place in the slot.
    pub(super) fn head(&mut self, table: Table, limit: usize) -> Result<(), RowError> {
        let unit = place::unit(self.slot, table, &[])?;
        let of = unit.key.clone();
        let last = limit.saturating_sub(1).to_string().into_bytes();
        self.ask("ZRANGE", &[&of, b"0", &last], Asked::Head { table, unit });
        Ok(())
    }

    /// Reads all of it. Answers false when something changed between two reads: then what the overlay
    /// knows is of no one time.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(super) async fn read(self, link: &Link, overlay: &mut Overlay) -> Result<bool, LinkError> {
        let mut asked = self.asked.into_iter();
        let mut of_one_time = true;
        for commands in self.commands.chunks(COMMANDS_MAX) {
            let mut pipeline = Pipeline::with_capacity(commands.len());
            for command in commands {
                pipeline.add_command(command.clone());
            }
            for answer in link.ask(&pipeline).await? {
                let Some(asked) = asked.next() else { break };
                of_one_time &= asked.learn(overlay, answer);
            }
        }
        Ok(of_one_time)
    }
}

impl Asked {
    fn learn(self, overlay: &mut Overlay, answer: Value) -> bool {
        match self {
            Asked::Field { table, key, unit } => {
                let mut parts = list(answer).into_iter().map(bytes);
                overlay.learn(table, key, parts.next().flatten());
                overlay.see(&unit.key, VERSION, parts.next().flatten().unwrap_or_default())
            }
            Asked::Member { table, key } => {
                overlay.learn(table, key, bytes(answer).map(|_| format::encode_mark()));
                true
            }
            Asked::Entry { table, key } => {
                let name: &[u8] = if table == Table::Lanes { b"i" } else { b"e" };
                let value = entries(answer).first().map(|entry| entry.field(name).to_vec());
                overlay.learn(table, key, value);
                true
            }
            Asked::Count { key, unit } => {
                let found = bytes(answer).unwrap_or_default();
                let last = String::from_utf8_lossy(&found).parse().unwrap_or(0);
                let client = ClientNo(keys::u32_at(&key, 1).unwrap_or_default());
                let counter = format::encode_counter(Counter { next: last + 1, count: last });
                overlay.learn(Table::Counters, key, Some(counter));
                overlay.see(&unit.key, &counted(client), found)
            }
            Asked::Hash { table, prefix, unit } => {
                let mut version = Vec::new();
                for (field, value) in pairs(answer) {
                    if field == VERSION {
                        version = value;
                    } else if !NO_ROWS.contains(&field.as_slice()) {
                        overlay.learn(table, unit.row(&prefix, &field), Some(value));
                    }
                }
                overlay.learn_all(table, prefix.get(..unit.shared).unwrap_or(&prefix).to_vec());
                overlay.see(&unit.key, VERSION, version)
            }
            Asked::Index { table, prefix, unit } => {
                for field in list(answer).into_iter().filter_map(bytes) {
                    overlay.learn(table, unit.row(&prefix, &field), Some(format::encode_mark()));
                }
                overlay.learn_all(table, prefix.get(..unit.shared).unwrap_or(&prefix).to_vec());
                true
            }
            Asked::Lane { partition, lane } => {
                for entry in entries(answer) {
                    let key = keys::chunk(&keys::lane_entry(partition, lane, entry.n), 0);
                    overlay.learn(Table::Lanes, key, Some(entry.field(b"i").to_vec()));
                }
                overlay.learn_all(Table::Lanes, keys::lane(partition, lane));
                true
            }
            Asked::Length { partition, lane } => {
                let count = super::replies::number(answer).unwrap_or(0);
                let counter = format::encode_counter(Counter { next: 1, count });
                overlay.learn(Table::Counters, keys::lane_counter(partition, lane), Some(counter));
                true
            }
            Asked::Head { table, unit } => {
                for field in list(answer).into_iter().filter_map(bytes) {
                    overlay.learn(table, unit.row(&[], &field), Some(format::encode_mark()));
                }
                overlay.learn_all(table, Vec::new());
                true
            }
        }
    }
}
