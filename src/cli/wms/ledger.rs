//! The ledger file of `wavegate wms`: what the warehouse took, did and reported, in order, one JSON
//! object a line, only ever appended. Nothing is answered or reported before its line is on disk.
//!
//! One process at a time holds the file (an advisory lock that ends with the process, however it
//! ends). It holds no addresses: personal data is needed to ship, not to keep books. It grows by
//! about a kilobyte an order, for as long as the warehouse is simulated; delete it to start anew.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use wavegate_engine::domain::ids::{LineNo, Quantity};
use wavegate_engine::wire::time::WireTime;
use wavegate_engine::wire::wms::{
    CancellationResult, ConfirmationMessage, ContentMessage, ReleaseLineMessage, ReleaseMessage,
};

use super::books::Books;
use crate::cli::tell;

/// Of the lines; a later version reads this one or refuses it by name.
const VERSION: u32 = 1;
/// How the first line begins.
const FIRST: &[u8] = br#"{"entry":"opened","#;
/// Lines written with one sync hold at most about so many bytes, so that no answer waits long.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Entry {
    /// The first line.
    Opened { version: u32, warehouse: String, at: WireTime },
    /// A release will be worked, from now on.
    Taken { at: WireTime, wave_id: String, release: Box<TakenRelease> },
    /// A release will not be worked.
    Rejected { at: WireTime, wave_id: String, release_id: String, code: String },
    /// A release was answered as taken, and is not known any more: the WMS was told to forget.
    Forgotten { at: WireTime, wave_id: String, release_id: String },
    /// A cancellation was decided; the same question gets the same answer.
    Cancellation { at: WireTime, release_id: String, lines: Option<Vec<LineNo>>, result: CancellationResult },
    /// A truck was loaded.
    Loaded {
        at: WireTime,
        manifest_id: String,
        carrier: String,
        service_level: String,
        correlation_id: Option<String>,
        traceparent: Option<String>,
        contents: Vec<ContentMessage>,
    },
    /// Something was done on the floor; `shipped` says of a departure what was on the truck.
    Done {
        confirmation: ConfirmationMessage,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shipped: Vec<ShippedUnits>,
    },
    /// Wavegate answered 202 to reports of what was done.
    Reported { at: WireTime, confirmations: Vec<String> },
}

/// A release as it is kept: what the wave said, without the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TakenRelease {
    pub(super) release_id: String,
    pub(super) transaction_id: String,
    pub(super) owner: String,
    pub(super) reference: String,
    pub(super) correlation_id: String,
    pub(super) traceparent: String,
    pub(super) service_level: String,
    pub(super) lines: Vec<ReleaseLineMessage>,
}

impl From<&ReleaseMessage> for TakenRelease {
    fn from(m: &ReleaseMessage) -> Self {
        TakenRelease {
            release_id: m.release_id.clone(),
            transaction_id: m.transaction_id.clone(),
            owner: m.owner.clone(),
            reference: m.reference.clone(),
            correlation_id: m.correlation_id.clone(),
            traceparent: m.traceparent.clone(),
            service_level: m.service_level.clone(),
            lines: m.lines.clone(),
        }
    }
}

/// Units that left with a truck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShippedUnits {
    pub(super) release_id: String,
    pub(super) line: LineNo,
    pub(super) sku: String,
    pub(super) quantity: Quantity,
}

/// A ledger that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// Another process writes it.
    #[error("the ledger {} is held by another process; stop that one, or choose another with --ledger FILE", .0.display())]
    Held(PathBuf),
    /// The file system's refusal.
    #[error("the ledger {} cannot be read or written", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a line of ours.
    #[error(
        "line {line} of the ledger {} is not one of this version; choose another file with --ledger FILE", .path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Anything else.
    #[error("{} is no ledger; choose another file with --ledger FILE", .0.display())]
    NoLedger(PathBuf),
    /// Somebody else's.
    #[error("the ledger {} is of warehouse {found} (version {version}); choose another with --ledger FILE", .path.display())]
    Another {
        /// The file.
        path: PathBuf,
        /// As its first line says.
        found: String,
        /// As its first line says.
        version: u32,
    },
}

/// The open file. Lines are written in the order of [`Ledger::append`].
pub(super) struct Ledger {
    /// Bounded by the calls under way: each waits for its lines before it is answered.
    queue: Sender<Job>,
}

struct Job {
    text: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// Resolves when the lines, and all before them, are on disk.
pub(super) struct Durable(oneshot::Receiver<()>);

impl Durable {
    /// Waits for it. A ledger that cannot be written ends the process, so there is no error.
    pub(super) async fn wait(self) {
        if self.0.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Ledger {
    /// Opens the ledger, or begins one, and reads what it says.
    ///
    /// # Errors
    /// When it cannot be had; nothing was changed then.
    pub(super) fn open(path: &Path, warehouse: &str, now: WireTime) -> Result<(Ledger, Books), LedgerError> {
        let io = |source| LedgerError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => LedgerError::Held(path.to_owned()),
            TryLockError::Error(source) => io(source),
        })?;
        let mut books = Books::default();
        let whole = read(path, &file, warehouse, &mut books)?;
        // A line that was cut off was never answered for.
        file.set_len(whole).map_err(io)?;
        if whole == 0 {
            let opened = Entry::Opened { version: VERSION, warehouse: warehouse.to_owned(), at: now };
            file.write_all(&text(&[opened])).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        // A new file's name must survive as well.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(io)?;
        let (queue, jobs) = mpsc::channel();
        let name = path.to_owned();
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || keep(&name, &mut file, &jobs))
            .map_err(io)?;
        Ok((Ledger { queue }, books))
    }

    /// Queues lines; none is a barrier behind those of others.
    pub(super) fn append(&self, entries: &[Entry]) -> Durable {
        let (done, durable) = oneshot::channel();
        // The writer ends only with the process.
        self.queue.send(Job { text: text(entries), done }).ok();
        Durable(durable)
    }
}

/// Reads every whole line into the books; the bytes that they take.
fn read(path: &Path, file: &File, warehouse: &str, books: &mut Books) -> Result<u64, LedgerError> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let (mut whole, mut number) = (0, 0);
    loop {
        line.clear();
        let n = reader
            .read_until(b'\n', &mut line)
            .map_err(|source| LedgerError::Io { path: path.to_owned(), source })?;
        if line.last() != Some(&b'\n') {
            // Cutting off what was never a line of ours would destroy somebody's file.
            let ours = number > 0 || FIRST.starts_with(&line) || line.starts_with(FIRST);
            return if ours { Ok(whole) } else { Err(LedgerError::NoLedger(path.to_owned())) };
        }
        (whole, number) = (whole + n as u64, number + 1);
        let entry: Entry = serde_json::from_slice(&line).map_err(|source| LedgerError::Line {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        if number == 1 && !line.starts_with(FIRST) {
            return Err(LedgerError::NoLedger(path.to_owned()));
        }
        if let Entry::Opened { version, warehouse: found, .. } = &entry
            && (*version, found.as_str()) != (VERSION, warehouse)
        {
            let (found, version) = (found.clone(), *version);
            return Err(LedgerError::Another { path: path.to_owned(), found, version });
        }
        books.apply(&entry);
    }
}

fn text(entries: &[Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    for entry in entries {
        // Names, numbers and times: there is no value here that JSON cannot say.
        if serde_json::to_writer(&mut text, entry).is_ok() {
            text.push(b'\n');
        }
    }
    text
}

/// Writes what is queued, many jobs with one sync.
fn keep(path: &Path, file: &mut File, jobs: &Receiver<Job>) {
    while let Ok(Job { mut text, done }) = jobs.recv() {
        let mut waiting = vec![done];
        while text.len() < GROUP_BYTES_MAX
            && let Ok(more) = jobs.try_recv()
        {
            text.extend_from_slice(&more.text);
            waiting.push(more.done);
        }
        let written = match text.is_empty() {
            true => Ok(()),
            false => file.write_all(&text).and_then(|()| file.sync_data()),
        };
        if let Err(e) = written {
            // What it would say from now on could not be kept.
            tell(&format!("error: the ledger {} cannot be written: {e}\n", path.display()));
            std::process::exit(3);
        }
        for done in waiting {
            done.send(()).ok();
        }
    }
}
