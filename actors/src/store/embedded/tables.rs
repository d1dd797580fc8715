//! Rows in LMDB. It must never begin or commit a transaction.

use std::ops::Bound;
use std::sync::Arc;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, MdbError, PutFlags, RoTxn, RwTxn, WithoutTls};

use super::place::{self, Transactions};
use crate::store::keys::Table;
use crate::store::rows::{ReadRows, RowError, Visit, Walk, WriteRows};

pub(super) type Handle = Database<'static, Bytes, Bytes>;

/// The open tables, by [`Table::index`], and behind them the table of later facts (see [`place`]).
#[derive(Clone)]
pub(super) struct Tables(Arc<[Handle]>);

impl Tables {
    /// Named databases that LMDB makes room for: ours, and some for later layouts.
    pub(super) const COUNT_MAX: u32 = 32;

    /// Opens all tables; those that are missing begin empty.
    pub(super) fn open(env: &Env<WithoutTls>) -> heed::Result<Tables> {
        let open = |name: &str| -> heed::Result<Handle> {
            let txn = env.write_txn()?;
            let opened = env.create_databases_and_commit(txn, |opener, txn| {
                opener.create_database(txn, Some(name)).map(CommitOrAbort::<_, ()>::Commit)
            })?;
            Ok(opened.unwrap_commit())
        };
        let names = Table::ALL.into_iter().map(Table::name).chain([place::FACTS]);
        names.map(open).collect::<heed::Result<Vec<_>>>().map(|all| Tables(all.into()))
    }

    fn of(&self, table: Table) -> &Handle {
        &self.0[table.index()]
    }

    fn facts(&self) -> &Handle {
        &self.0[Table::ALL.len()]
    }

    /// Moves what lies apart to where the layout before had it; how many rows.
    #[cfg(test)]
    pub(super) fn put_together(&self, txn: &mut RwTxn<'_>) -> Result<usize, RowError> {
        let mut rows = Vec::new();
        visit_from(self.facts(), txn, &[], None, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(Walk::On)
        })?;
        for (key, value) in &rows {
            let together = place::together(key).expect("a key of facts");
            self.put_before(txn, &together, value)?;
            self.facts().delete(txn, key).map_err(row_error)?;
        }
        Ok(rows.len())
    }

    /// Writes a row where the layout before had it.
    #[cfg(test)]
    pub(super) fn put_before(&self, txn: &mut RwTxn<'_>, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        self.of(Table::Tx).put(txn, key, value).map_err(row_error)
    }

    fn get<'t>(&self, txn: &'t RoTxn<'_>, table: Table, key: &[u8]) -> Result<Option<&'t [u8]>, RowError> {
        if let Some(apart) = place::apart(table, key)
            && let Some(found) = self.facts().get(txn, &apart).map_err(row_error)?
        {
            return Ok(Some(found));
        }
        self.of(table).get(txn, key).map_err(row_error)
    }

    fn walk(
        &self,
        txn: &RoTxn<'_>,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        if table == Table::Tx {
            let both = Transactions { tx: self.of(table), facts: self.facts() };
            return both.walk(txn, prefix, after, visit);
        }
        visit_from(self.of(table), txn, prefix, after, visit).map(drop)
    }
}

/// What LMDB's failures mean.
pub(super) fn row_error(e: heed::Error) -> RowError {
    match e {
        heed::Error::Mdb(MdbError::MapFull) => RowError::Full,
        other => RowError::Backend(Arc::new(other)),
    }
}

/// Rows as a read transaction sees them.
pub(super) struct Reading<'a> {
    pub(super) tables: &'a Tables,
    pub(super) txn: &'a RoTxn<'a, WithoutTls>,
}

/// Rows of a write transaction.
pub(super) struct Writing<'a> {
    pub(super) tables: &'a Tables,
    pub(super) txn: RwTxn<'a>,
}

/// Visits the rows of one table; how the visitor left it.
pub(super) fn visit_from(
    handle: &Handle,
    txn: &RoTxn<'_>,
    prefix: &[u8],
    after: Option<&[u8]>,
    visit: &mut Visit<'_>,
) -> Result<Walk, RowError> {
    let from = match after {
        Some(after) => Bound::Excluded(after),
        // LMDB takes no empty key.
        None if prefix.is_empty() => Bound::Unbounded,
        None => Bound::Included(prefix),
    };
    for row in handle.range(txn, &(from, Bound::Unbounded)).map_err(row_error)? {
        let (key, value) = row.map_err(row_error)?;
        if !key.starts_with(prefix) {
            break;
        }
        match visit(key, value)? {
            Walk::On => {}
            Walk::Stop => return Ok(Walk::Stop),
        }
    }
    Ok(Walk::On)
}

impl ReadRows for Reading<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError> {
        self.tables.get(self.txn, table, key)
    }

    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        self.tables.walk(self.txn, table, prefix, after, visit)
    }
}

impl ReadRows for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError> {
        self.tables.get(&self.txn, table, key)
    }

    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        self.tables.walk(&self.txn, table, prefix, after, visit)
    }
}

impl WriteRows for Writing<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let put = match place::apart(table, key) {
            Some(apart) => self.tables.facts().put(&mut self.txn, &apart, value),
            None => self.tables.of(table).put(&mut self.txn, key, value),
        };
        put.map_err(row_error)
    }

    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<bool, RowError> {
        let flags = PutFlags::NO_OVERWRITE;
        let put = match place::apart(table, key) {
            Some(apart) => self.tables.facts().put_with_flags(&mut self.txn, flags, &apart, value),
            None => self.tables.of(table).put_with_flags(&mut self.txn, flags, key, value),
        };
        match put {
            Ok(()) => Ok(true),
            Err(heed::Error::Mdb(MdbError::KeyExist)) => Ok(false),
            Err(e) => Err(row_error(e)),
        }
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, RowError> {
        if let Some(apart) = place::apart(table, key)
            && self.tables.facts().delete(&mut self.txn, &apart).map_err(row_error)?
        {
            return Ok(true);
        }
        self.tables.of(table).delete(&mut self.txn, key).map_err(row_error)
    }
}
