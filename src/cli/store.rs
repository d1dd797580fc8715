//! `wavegate store check | backup DIR`: the invariants over a store at rest; a copy of a live one.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use wavegate_engine::store::embedded::BackupError;
use wavegate_engine::store::{EmbeddedStore, check};

use super::{Failure, SettingsArgs, print, with_causes};
use crate::settings::{Backend, Settings};
use crate::startup;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Checks the invariants over a store that no server has open; exit code 1 on a violation
    Check,
    /// Writes a consistent copy into DIR, beside a running server; DIR is then a data directory
    Backup {
        /// An empty directory, or one to be made
        dir: PathBuf,
    },
}

/// Runs one.
pub(super) fn run(command: &Store, args: &SettingsArgs) -> Result<(), Failure> {
    let settings = args.load()?.settings;
    existing(&settings)?;
    match command {
        Store::Check => check_store(&settings),
        Store::Backup { dir } => backup(&settings, dir),
    }
}

/// A misspelt directory must not be made, found empty and praised.
fn existing(settings: &Settings) -> Result<(), Failure> {
    match settings.store.backend {
        Backend::Embedded => {}
        // One that holds no store yet is begun, and has nothing that could be wrong.
        Backend::Redis => return Ok(()),
    }
    let dir = &settings.store.embedded.data_dir;
    match std::fs::read_dir(dir) {
        Ok(_) => Ok(()),
        Err(source) => Err(startup::Error::Store { dir: dir.clone(), source: Box::new(source) }.into()),
    }
}

fn check_store(settings: &Settings) -> Result<(), Failure> {
    let store = startup::open_store(settings, startup::Purpose::Check)?;
    let violations = actix_rt::System::new().block_on(check(&*store));
    for violation in &violations {
        print(&format!("{violation}\n"))?;
    }
    match violations.len() {
        0 => print("ok: every invariant holds\n"),
        1 => Err(Failure::failed("1 violation")),
        n => Err(Failure::failed(format!("{n} violations"))),
    }
}

fn backup(settings: &Settings, to: &Path) -> Result<(), Failure> {
    let from = &settings.store.embedded.data_dir;
    match settings.store.backend {
        Backend::Embedded => EmbeddedStore::backup_from(from, to).map_err(|e| not_copied(e, from))?,
        Backend::Redis => {
            return Err(Failure::failed(
                "a store in Redis is copied with Redis' own means: BGREWRITEAOF, then its appendonlydir",
            ));
        }
    }
    print(&format!("copied to {0}; serve it with --set store.embedded.data_dir={0}\n", to.display()))
}

fn not_copied(error: BackupError, from: &Path) -> Failure {
    match error {
        BackupError::NoStore(dir) => {
            startup::Error::Store { dir: dir.clone(), source: Box::new(BackupError::NoStore(dir)) }.into()
        }
        // What can't be read is the store's fault, what can't be written the copy's.
        BackupError::Failed { path, source } if path.starts_with(from) => {
            startup::Error::Store { dir: from.to_owned(), source }.into()
        }
        BackupError::Occupied(_) | BackupError::Failed { .. } => Failure::failed(with_causes(&error)),
    }
}
