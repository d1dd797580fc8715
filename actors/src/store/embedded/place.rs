//! Where the rows of `tx` lie in LMDB: what follows a transaction's first fact lies apart from the rest,
//! by partition. It must never know what a value means.
//!
//! A turn writes facts of the transactions of one warehouse, and those of all warehouses come mixed. By
//! id alone each of them is on a page of its own, which every turn of its life copies, writes and syncs;
//! behind their partition the facts of a turn share a few pages. What is written when a transaction comes
//! stays in the order in which all of them come, and shares the last pages of `tx`.
//!
//! | table | key → value |
//! |---|---|
//! | `tx` | as in [`keys`], with fact 1 |
//! | `facts` | p ‖ id ‖ version u32 ‖ chunk → fact, from 2 on |
//!
//! Data of layout 2 has all facts in `tx`. They are read and deleted there; new ones go to `facts`, and the
//! directory has this layout from then on.

use heed::RoTxn;

use super::tables::{Handle, visit_from};
use crate::domain::ids::TransactionId;
use crate::store::keys::{self, Key, Table};
use crate::store::rows::{RowError, Visit, Walk};

/// The number of this layout, and of the one that only lacks `facts`.
pub(super) const LAYOUT: u32 = 3;
pub(super) const LAYOUT_BEFORE: u32 = 2;

/// The name of the table of later facts on disk.
pub(super) const FACTS: &str = "facts";

/// The part of a transaction that its facts are.
const FACTS_PART: u8 = 2;
/// Where the part, and then the version, stands in a key of `tx`.
const PART_AT: usize = 16;
const VERSION_AT: usize = PART_AT + 1;
/// Where the id begins in a key of `facts`.
const ID_AT: usize = 2;

/// The key of a later fact in `facts`, or the beginning of it; `None` for what lies where [`keys`] says.
pub(super) fn apart(table: Table, key: &[u8]) -> Option<Key> {
    if table != Table::Tx || key.get(PART_AT) != Some(&FACTS_PART) || keys::u32_at(key, VERSION_AT)? <= 1 {
        return None;
    }
    Some(of(keys::id_at(key, 0)?, key.get(VERSION_AT..)?))
}

fn of(id: TransactionId, rest: &[u8]) -> Key {
    [&id.home().0.to_be_bytes()[..], id.0.as_bytes(), rest].concat()
}

/// The key in `tx` of a row of `facts`.
pub(super) fn together(key: &[u8]) -> Option<Key> {
    let (id, rest) = key.get(ID_AT..)?.split_at_checked(PART_AT)?;
    Some([id, &[FACTS_PART], rest].concat())
}

/// The two tables that hold the rows of transactions.
pub(super) struct Transactions<'t> {
    pub(super) tx: &'t Handle,
    pub(super) facts: &'t Handle,
}

impl Transactions<'_> {
    /// Visits the rows as if they lay together. `after` must not be a later fact unless `prefix` is one.
    pub(super) fn walk(
        &self,
        txn: &RoTxn<'_>,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        if let Some(within) = apart(Table::Tx, prefix) {
            let behind = after.and_then(|after| apart(Table::Tx, after));
            if self.later(txn, &within, behind.as_deref(), visit)? == Walk::Stop {
                return Ok(());
            }
            return visit_from(self.tx, txn, prefix, after, visit).map(drop);
        }
        // Whose facts are being visited, while there may be more of them in `facts`.
        let mut of_whom = None;
        let mut stopped = false;
        let walk = visit_from(self.tx, txn, prefix, after, &mut |key, value| {
            if let Some(id) = of_whom.take_if(|id| !is_fact_of(key, *id))
                && self.later(txn, &of(id, &[]), None, visit)? == Walk::Stop
            {
                stopped = true;
                return Ok(Walk::Stop);
            }
            if prefix.len() <= VERSION_AT && key.get(PART_AT) == Some(&FACTS_PART) {
                of_whom = keys::id_at(key, 0);
            }
            visit(key, value)
        })?;
        if let Some(id) = of_whom
            && walk == Walk::On
            && !stopped
        {
            self.later(txn, &of(id, &[]), None, visit)?;
        }
        Ok(())
    }

    fn later(
        &self,
        txn: &RoTxn<'_>,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<Walk, RowError> {
        visit_from(self.facts, txn, prefix, after, &mut |key, value| {
            let key = together(key).ok_or_else(|| RowError::Broken("a key of facts is short".to_owned()))?;
            visit(&key, value)
        })
    }
}

fn is_fact_of(key: &[u8], id: TransactionId) -> bool {
    key.strip_prefix(id.0.as_bytes()).is_some_and(|rest| rest.first() == Some(&FACTS_PART))
}
