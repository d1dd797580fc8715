//! Rows in LMDB. It must never begin or commit a transaction.

use std::ops::Bound;
use std::sync::Arc;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, MdbError, PutFlags, RoTxn, RwTxn, WithoutTls};

use crate::store::keys::Table;
use crate::store::rows::{ReadRows, RowError, Visit, Walk, WriteRows};

type Handle = Database<'static, Bytes, Bytes>;

/// The open tables, by [`Table::index`].
#[derive(Clone)]
pub(super) struct Tables(Arc<[Handle]>);

impl Tables {
    /// Named databases that LMDB makes room for: ours, and some for later layouts.
    pub(super) const COUNT_MAX: u32 = 32;

    /// Opens all tables; those that are missing begin empty.
    pub(super) fn open(env: &Env<WithoutTls>) -> heed::Result<Tables> {
        let open = |table: Table| -> heed::Result<Handle> {
            let txn = env.write_txn()?;
            let opened = env.create_databases_and_commit(txn, |opener, txn| {
                opener.create_database(txn, Some(table.name())).map(CommitOrAbort::<_, ()>::Commit)
            })?;
            Ok(opened.unwrap_commit())
        };
        Table::ALL.into_iter().map(open).collect::<heed::Result<Vec<_>>>().map(|all| Tables(all.into()))
    }

    fn of(&self, table: Table) -> &Handle {
        &self.0[table.index()]
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

fn walk(
    handle: &Handle,
    txn: &RoTxn<'_>,
    prefix: &[u8],
    after: Option<&[u8]>,
    visit: &mut Visit<'_>,
) -> Result<(), RowError> {
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
            Walk::Stop => break,
        }
    }
    Ok(())
}

impl ReadRows for Reading<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError> {
        self.tables.of(table).get(self.txn, key).map_err(row_error)
    }

    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        walk(self.tables.of(table), self.txn, prefix, after, visit)
    }
}

impl ReadRows for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, RowError> {
        self.tables.of(table).get(&self.txn, key).map_err(row_error)
    }

    fn walk(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        walk(self.tables.of(table), &self.txn, prefix, after, visit)
    }
}

impl WriteRows for Writing<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        self.tables.of(table).put(&mut self.txn, key, value).map_err(row_error)
    }

    fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<bool, RowError> {
        let flags = PutFlags::NO_OVERWRITE;
        match self.tables.of(table).put_with_flags(&mut self.txn, flags, key, value) {
            Ok(()) => Ok(true),
            Err(heed::Error::Mdb(MdbError::KeyExist)) => Ok(false),
            Err(e) => Err(row_error(e)),
        }
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, RowError> {
        self.tables.of(table).delete(&mut self.txn, key).map_err(row_error)
    }
}
