//! The embedded store: LMDB in one data directory, one writer thread, group commit with fsync.
//!
//! Reads run in short transactions, never across an await: small hot ones on the caller's thread,
//! the rest on threads of their own (`reader`). Writes queue
//! for the writer (`writer`), which answers once they are on disk. It must never be opened
//! without sync: a 202 would lie.
//!
//! A data directory holds `data.mdb` and `lock.mdb` (LMDB's own) and `wavegate.lock`, which only
//! guards serving: LMDB lets several processes in, so a backup can read beside the server.

mod backup;
#[cfg(feature = "testing")]
mod damage;
mod place;
mod reader;
mod room;
mod tables;
mod writer;

use std::error::Error;
use std::fs::{File, TryLockError};
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use heed::{Env, EnvOpenOptions, WithoutTls};
use uuid::Uuid;

use super::backend::{Backend, Reader, backend_error};
use super::format;
use super::keys::{self, Table};
use super::rows::{
    self, Claims, Counters, GENERATION, ReadRows, RecentClaims, Room, RowError, Write, WriteRows as _,
};
use crate::domain::ids::TransactionId;
use crate::ports::BoxFuture;
use crate::ports::background;
use crate::ports::entropy::{Entropy, SystemEntropy};
use crate::ports::fate::Fate;
use crate::ports::store::{CommitError, Durability, Lookup, ReadError};
use crate::ports::store_report::{StoreReport, StoreVitals};
use reader::{HotTransactions, ReadPool, Views};
use tables::{Tables, Writing};
use writer::{Job, Operation, Writer};

pub use backup::BackupError;
#[cfg(feature = "testing")]
pub use damage::{Rot, SLOW_DISK};

/// Reads that may be held at once; each is a slot in LMDB's lock file. One more is refused.
const READERS_MAX: u32 = 1_024;

/// Writes that may wait for the writer. One more is `Unavailable`: nothing of it was written.
const QUEUE_MAX: usize = 4_096;

/// LMDB wants a map of whole pages; a multiple of 64 KiB is one on every platform.
const MAP_UNIT: u64 = 64 * 1024;

/// A store in one directory of this machine.
pub struct EmbeddedStore {
    queue: Option<SyncSender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
    alive: Arc<AtomicBool>,
    vitals: Arc<StoreVitals>,
    env: Env<WithoutTls>,
    views: Views,
    reads: ReadPool,
    owners_reads: ReadPool,
    recent_claims: RecentClaims,
    dir: PathBuf,
    id: Uuid,
    /// See [`Backend::copied`].
    copied: u64,
    /// Released when the store is dropped, after everything else.
    _lock: File,
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves from it, or this one already does.
    #[error("the data directory {} is held by another process", dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
    },
    /// It cannot be read or written.
    #[error("{} cannot be opened", path.display())]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It was written by another release.
    #[error("the data directory has layout {found}, this release reads {supported}")]
    WrongFormat {
        /// Its layout.
        found: u32,
        /// The layout that this release writes.
        supported: u32,
    },
}

fn unreadable(path: &Path, source: impl Error + Send + Sync + 'static) -> OpenError {
    OpenError::Unreadable { path: path.to_owned(), source: Box::new(source) }
}

impl EmbeddedStore {
    /// Opens a data directory, or begins one, with room for `size_max` bytes (address space, not
    /// disk; data that is larger already keeps its size).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, size_max: u64, fate: Arc<dyn Fate>) -> Result<EmbeddedStore, OpenError> {
        std::fs::create_dir_all(dir).map_err(|e| unreadable(dir, e))?;
        let lock = hold(dir)?;
        let env = open_env(dir, size_max).map_err(|e| unreadable(dir, e))?;
        // Slots of processes that were killed in a read would keep their pages for ever.
        env.clear_stale_readers().map_err(|e| unreadable(dir, e))?;
        let copied = backup::copied(dir).map_err(|e| unreadable(dir, e))?;
        let tables = Tables::open(&env).map_err(|e| unreadable(dir, e))?;
        let (id, found) = begin(&env, &tables).map_err(|e| unreadable(dir, e))?;
        if found != place::LAYOUT {
            return Err(OpenError::WrongFormat { found, supported: place::LAYOUT });
        }
        let claims = load_claims(&env, &tables).map_err(|e| unreadable(dir, e))?;
        let recent_claims = claims.recent().clone();
        let hot = HotTransactions::new();
        let views = Views { env: env.clone(), tables: tables.clone() };
        let pool = |begin| ReadPool::start(views.clone(), hot.clone(), begin).map_err(|e| unreadable(dir, e));
        let (reads, owners_reads) = (pool(|| ())?, pool(background::stand_back)?);
        let alive = Arc::new(AtomicBool::new(true));
        let vitals = Arc::new(StoreVitals::new(QUEUE_MAX));
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let writer = Writer {
            env: env.clone(),
            tables: tables.clone(),
            dir: dir.to_owned(),
            counters: Counters::default(),
            claims,
            hot,
            fate,
            alive: Arc::clone(&alive),
            vitals: Arc::clone(&vitals),
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let writer = thread.spawn(move || writer.run(&jobs)).map_err(|e| unreadable(dir, e))?;
        let (queue, writer, dir) = (Some(queue), Some(writer), dir.to_owned());
        Ok(EmbeddedStore {
            queue,
            writer,
            alive,
            vitals,
            env,
            views,
            reads,
            owners_reads,
            recent_claims,
            dir,
            id,
            copied,
            _lock: lock,
        })
    }

    fn pool(&self, reader: Reader) -> &ReadPool {
        match reader {
            Reader::Caller => &self.reads,
            Reader::Owner => &self.owners_reads,
        }
    }
}

/// Holds the directory for serving, until the file is dropped; the kernel frees it when the
/// process dies.
fn hold(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("wavegate.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| unreadable(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Held { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(unreadable(&path, e)),
    }
}

fn open_env(dir: &Path, size_max: u64) -> heed::Result<Env<WithoutTls>> {
    let map = size_max.max(1).next_multiple_of(MAP_UNIT);
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options
        .map_size(usize::try_from(map).unwrap_or(usize::MAX))
        .max_readers(READERS_MAX)
        .max_dbs(Tables::COUNT_MAX);
    #[expect(unsafe_code, reason = "LMDB maps its file; only LMDB writes it, under its own lock file")]
    unsafe {
        options.open(dir)
    }
}

fn begin(env: &Env<WithoutTls>, tables: &Tables) -> Result<(Uuid, u32), RowError> {
    let txn = env.write_txn().map_err(backend_error)?;
    let mut writing = Writing { tables, txn };
    let id = Uuid::from_u64_pair(SystemEntropy.next(), SystemEntropy.next());
    let mut begun = rows::begin(&mut writing, id, place::LAYOUT)?;
    if begun.1 == place::LAYOUT_BEFORE {
        // From here on it is not for the release before this one, which would not find later facts.
        begun.1 = place::LAYOUT;
        writing.put(Table::Meta, keys::STORE, &format::encode_store(begun.0, place::LAYOUT))?;
    }
    writing.txn.commit().map_err(backend_error)?;
    Ok(begun)
}

fn load_claims(env: &Env<WithoutTls>, tables: &Tables) -> Result<Claims, RowError> {
    let txn = env.write_txn().map_err(backend_error)?;
    let mut writing = Writing { tables, txn };
    let fresh = Uuid::from_u64_pair(SystemEntropy.next(), SystemEntropy.next());
    let hasher = rows::claim_hasher(&mut writing, fresh.into_bytes())?;
    let claims = Claims::load(&writing, hasher, GENERATION)?;
    writing.txn.commit().map_err(backend_error)?;
    Ok(claims)
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // Without a sender the writer finishes what is queued and stops.
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != std::thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

/// The writer stopped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the store's writer stopped before it answered")]
struct NoAnswer;

/// The writer cannot take more.
#[derive(Debug, thiserror::Error)]
#[error("the store's writer takes no more requests now")]
struct QueueFull;

impl Backend for EmbeddedStore {
    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    fn is_writable(&self) -> bool {
        self.alive.load(Ordering::Acquire) && room::measure(&self.dir, 0) > Room::Nothing
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn copied(&self) -> u64 {
        self.copied
    }

    fn report(&self) -> StoreReport {
        self.vitals.read()
    }

    fn recent_claims(&self) -> RecentClaims {
        self.recent_claims.clone()
    }

    fn read<T>(&self, read: impl FnOnce(&dyn ReadRows) -> Result<T, RowError>) -> Result<T, ReadError> {
        self.views.read(read)
    }

    fn read_apart<T: Send + 'static>(
        &self,
        reader: Reader,
        read: impl FnOnce(&dyn ReadRows) -> Result<T, RowError> + Send + 'static,
    ) -> BoxFuture<Result<T, ReadError>> {
        self.pool(reader).read(|views, _| views.read(read))
    }

    fn look_up(&self, reader: Reader, id: TransactionId) -> BoxFuture<Result<Option<Lookup>, ReadError>> {
        self.pool(reader).transaction(id)
    }

    fn write<T: Send + 'static>(
        &self,
        items: usize,
        operation: impl FnMut(&mut Write<'_>) -> Result<T, RowError> + Send + 'static,
    ) -> BoxFuture<Result<T, CommitError>> {
        let (answer, result) = tokio::sync::oneshot::channel();
        let job = Box::new(Operation { operation, items, value: None, answer });
        self.vitals.queues();
        let sent = self.queue.as_ref().is_some_and(|queue| queue.try_send(job).is_ok());
        if !sent {
            self.vitals.refuses();
            return Box::pin(ready(Err(CommitError::Unavailable(Arc::new(QueueFull)))));
        }
        Box::pin(async move {
            // The request may have been in the commit that the writer died of.
            result.await.unwrap_or_else(|_| Err(CommitError::Unknown(Arc::new(NoAnswer))))
        })
    }
}

#[cfg(test)]
pub(in crate::store) mod tests;
