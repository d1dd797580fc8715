//! Copies of a store that are data directories themselves. It must never leave a half copy under
//! the name of a whole one.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use heed::{CompactionOption, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use crate::ports::entropy::{Entropy, SystemEntropy};

use super::{EmbeddedStore, READERS_MAX, Tables};

/// LMDB's name of the data file.
const DATA: &str = "data.mdb";

/// Address space for reading a store of unknown size while its server makes it larger.
const MAP_BYTES: usize = 1 << 40;

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A store is there already; a backup overwrites nothing.
    #[error("{} already holds a store", .0.display())]
    Occupied(PathBuf),
    /// There is no store to copy.
    #[error("{} holds no store", .0.display())]
    NoStore(PathBuf),
    /// A file could not be read or written.
    #[error("{} cannot be copied", path.display())]
    Failed {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

fn failed(path: &Path, source: impl Error + Send + Sync + 'static) -> BackupError {
    BackupError::Failed { path: path.to_owned(), source: Box::new(source) }
}

impl EmbeddedStore {
    /// Copies the store, as it is at one instant, into `dest` (made if missing), while it is
    /// served. `dest` is then a data directory.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn backup(&self, dest: &Path) -> Result<(), BackupError> {
        copy(&self.env, dest)
    }

    /// The same from outside: works on a data directory that another process serves from, and on
    /// one that nobody serves from.
    ///
    /// # Errors
    /// See [`BackupError`]. In the serving process itself use [`EmbeddedStore::backup`].
    pub fn backup_from(data_dir: &Path, dest: &Path) -> Result<(), BackupError> {
        if !data_dir.join(DATA).is_file() {
            return Err(BackupError::NoStore(data_dir.to_owned()));
        }
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_readers(READERS_MAX).max_dbs(Tables::COUNT_MAX);
        #[expect(unsafe_code, reason = "READ_ONLY is a safe flag; LMDB's lock file orders us and the server")]
        let env = unsafe { options.flags(EnvFlags::READ_ONLY).open(data_dir) };
        copy(&env.map_err(|e| failed(data_dir, e))?, dest)
    }
}

/// The file beside a copy that tells it from the store that it was copied from.
const COPY: &str = "wavegate.copy";

/// What [`COPY`] says; 0 where it is not there.
pub(super) fn copied(dir: &Path) -> std::io::Result<u64> {
    let bytes = match std::fs::read(dir.join(COPY)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let number = bytes.as_slice().try_into().map(u64::from_be_bytes);
    number.map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not eight bytes long"))
}

fn copy(env: &Env<WithoutTls>, dest: &Path) -> Result<(), BackupError> {
    let whole = dest.join(DATA);
    if whole.exists() {
        return Err(BackupError::Occupied(dest.to_owned()));
    }
    std::fs::create_dir_all(dest).map_err(|e| failed(dest, e))?;
    let part = dest.join("data.mdb.part");
    let file = env.copy_to_path(&part, CompactionOption::Enabled).map_err(|e| failed(&part, e))?;
    file.sync_all().map_err(|e| failed(&part, e))?;
    // Before the data has its name: a copy without it would go on numbering feeds as if it were the
    // store, and cursors of the one would be taken for the other's.
    let mark = dest.join(COPY);
    std::fs::write(&mark, SystemEntropy.next().to_be_bytes()).map_err(|e| failed(&mark, e))?;
    File::open(&mark).and_then(|mark| mark.sync_all()).map_err(|e| failed(&mark, e))?;
    std::fs::rename(&part, &whole).map_err(|e| failed(&whole, e))?;
    // The name must survive a power cut as well as the bytes.
    File::open(dest).and_then(|dir| dir.sync_all()).map_err(|e| failed(dest, e))
}
