//! The files of receipts in a node's directory: one a minute, written and synced batch by batch, dropped
//! when all in them is older than it has to be. It must never append to a file of an earlier process,
//! whose tail may be torn.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::frames;
use crate::domain::time::Timestamp;
use crate::ports::store::NewCommand;
use crate::store::format;

/// One file takes what comes within a minute,
const FILE_FOR: Duration = Duration::from_secs(60);

/// and no more than this, in bytes: a file is read whole.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Held by the process that writes here.
const LOCK: &str = "receipts.lock";

const EXTENSION: &str = "receipts";

/// The log of one store on one node.
pub(super) struct Log {
    dir: PathBuf,
    keep: Duration,
    store: Uuid,
    current: Option<Current>,
    /// Unlocked when it is closed, however this process ends.
    _lock: File,
}

struct Current {
    file: File,
    opened: Timestamp,
    bytes: u64,
}

impl Log {
    /// Opens the log in a directory, which is made when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process has it.
    pub(super) fn open(dir: &Path, keep: Duration, store: Uuid) -> io::Result<Log> {
        fs::create_dir_all(dir)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        sync_dir(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        Ok(Log { dir: dir.to_owned(), keep, store, current: None, _lock: lock })
    }

    /// Writes frames; they are on disk when this returns.
    ///
    /// # Errors
    /// When they may not be there. The next write goes into a new file.
    pub(super) fn write(&mut self, now: Timestamp, frames: &[u8]) -> io::Result<()> {
        let mut current = match self.current.take().filter(|current| takes_more(current, now)) {
            Some(current) => current,
            None => {
                self.drop_old(now)?;
                self.begin(now)?
            }
        };
        current.file.write_all(frames)?;
        current.file.sync_data()?;
        current.bytes += frames.len() as u64;
        self.current = Some(current);
        Ok(())
    }

    fn begin(&self, now: Timestamp) -> io::Result<Current> {
        let mut n = 0;
        let file = loop {
            let path = self.dir.join(name(now, n));
            // Addresses stand in it: nobody else reads it.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
                opened => break opened?,
            }
        };
        let mut current = Current { file, opened: now, bytes: 0 };
        let mut head = Vec::new();
        frames::append(&mut head, &format::encode_receipts_head(self.store));
        current.file.write_all(&head)?;
        current.bytes = head.len() as u64;
        sync_dir(&self.dir)?;
        Ok(current)
    }

    /// Drops files whose receipts are all older than they have to be.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub(super) fn drop_old(&mut self, now: Timestamp) -> io::Result<()> {
        self.current = self.current.take().filter(|current| takes_more(current, now));
        for (opened, path) in files(&self.dir)? {
            let is_current = self.current.as_ref().is_some_and(|current| current.opened == opened);
            if !is_current && opened.after(FILE_FOR).after(self.keep) < now {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// All files so far, the oldest first; what is written from here on goes into another one.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn close_files(&mut self) -> io::Result<Vec<PathBuf>> {
        self.current = None;
        Ok(files(&self.dir)?.into_iter().map(|(_, path)| path).collect())
    }

    /// What a file is read with.
    pub(super) fn reader(&self) -> Reader {
        Reader { keep: self.keep, store: self.store }
    }
}

/// True for a file that takes what comes now; also a clock that stepped back begins another one.
fn takes_more(current: &Current, now: Timestamp) -> bool {
    let open_for = now.0.checked_sub(current.opened.0).and_then(|ms| u64::try_from(ms).ok());
    open_for.is_some_and(|ms| Duration::from_millis(ms) < FILE_FOR) && current.bytes < FILE_BYTES_MAX
}

fn name(opened: Timestamp, n: u32) -> String {
    format!("{:015}-{n:04}.{EXTENSION}", opened.0.max(0))
}

/// Files of receipts, by the time they were begun.
fn files(dir: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let opened = path.file_stem().and_then(|stem| stem.to_str()?.split_once('-')?.0.parse().ok());
        if let (true, Some(opened)) = (path.extension().is_some_and(|e| e == EXTENSION), opened) {
            found.push((Timestamp(opened), path));
        }
    }
    found.sort();
    Ok(found)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// How files are read.
#[derive(Clone, Copy)]
pub(in crate::store::redis) struct Reader {
    keep: Duration,
    store: Uuid,
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store::redis) struct Kept {
    /// Commands that were accepted lately enough.
    pub(in crate::store::redis) commands: Vec<NewCommand>,
    /// Receipts that cannot be read, and bytes that are none, before the torn tail.
    pub(in crate::store::redis) unreadable: usize,
    /// It is of another store.
    pub(in crate::store::redis) is_foreign: bool,
}

impl Reader {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read at all.
    pub(in crate::store::redis) fn read(self, path: &Path, now: Timestamp) -> io::Result<Kept> {
        Ok(self.of(&fs::read(path)?, now))
    }

    fn of(self, bytes: &[u8], now: Timestamp) -> Kept {
        let frames = frames::read(bytes);
        let mut kept = Kept { unreadable: frames.damaged, ..Kept::default() };
        for payload in frames.payloads {
            if let Ok(store) = format::decode_receipts_head(payload) {
                if store != self.store {
                    return Kept { is_foreign: true, ..Kept::default() };
                }
                continue;
            }
            match format::decode_receipt(payload) {
                Ok((at, new)) if at.after(self.keep) >= now => kept.commands.push(new),
                Ok(_) => {}
                Err(_) => kept.unreadable += 1,
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::order;

    const KEEP: Duration = Duration::from_secs(600);
    const STORE: Uuid = Uuid::from_u128(7);
    const MINUTE: i64 = 60_000;

    fn write(log: &mut Log, at: i64, n: u64) {
        let new = order(n, &format!("r{n}"), 1);
        let mut bytes = Vec::new();
        frames::append(&mut bytes, &format::encode_receipt(Timestamp(at), new.id, &new));
        log.write(Timestamp(at), &bytes).unwrap();
    }

    fn read(log: &mut Log, now: i64) -> Vec<String> {
        let reader = log.reader();
        let files = log.close_files().unwrap();
        let kept = files.iter().map(|path| reader.read(path, Timestamp(now)).unwrap());
        kept.flat_map(|kept| kept.commands).map(|new| new.command.reference().as_str().to_owned()).collect()
    }

    fn opened(dir: &Path) -> Log {
        Log::open(dir, KEEP, STORE).unwrap()
    }

    #[test]
    fn each_minute_has_its_file_and_goes_when_all_in_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = opened(dir.path());
        for minute in 0..30 {
            write(&mut log, minute * MINUTE, u64::try_from(minute).unwrap());
            write(&mut log, minute * MINUTE + 59_999, 100 + u64::try_from(minute).unwrap());
        }
        let count = files(dir.path()).unwrap().len();
        assert!((11..=13).contains(&count), "{count} files for ten minutes");
        // Whoever is not ten minutes old is there, whoever is older is not.
        let found = read(&mut log, 29 * MINUTE + 59_999);
        let of_minute = |minute: u32| [format!("r{minute}"), format!("r{}", 100 + minute)];
        let mut expected = vec!["r119".to_owned()];
        expected.extend((20..30).flat_map(of_minute));
        assert_eq!(found, expected, "with the one that is ten minutes old to the millisecond");
    }

    #[test]
    fn a_file_that_is_full_is_followed_by_another_of_the_same_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = opened(dir.path());
        write(&mut log, 0, 1);
        log.current.as_mut().unwrap().bytes = FILE_BYTES_MAX;
        write(&mut log, 0, 2);
        assert_eq!(files(dir.path()).unwrap().len(), 2);
        assert_eq!(read(&mut log, 0), ["r1", "r2"]);
    }

    #[test]
    fn a_clock_that_steps_back_loses_no_receipt() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = opened(dir.path());
        write(&mut log, 10 * MINUTE, 1);
        write(&mut log, 2 * MINUTE, 2);
        write(&mut log, 3 * MINUTE, 3);
        let mut found = read(&mut log, 3 * MINUTE);
        found.sort();
        assert_eq!(found, ["r1", "r2", "r3"]);
    }

    #[test]
    fn after_a_crash_in_the_middle_of_a_write_the_next_process_reads_all_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = opened(dir.path());
        write(&mut log, 0, 1);
        write(&mut log, 0, 2);
        drop(log);
        let (_, path) = files(dir.path()).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let mut log = opened(dir.path());
        write(&mut log, 1, 3);
        assert_eq!(files(dir.path()).unwrap().len(), 2, "nobody appends to a torn file");
        assert_eq!(read(&mut log, 1), ["r1", "r3"]);
        let kept = log.reader().read(&path, Timestamp(1)).unwrap();
        assert_eq!(kept.unreadable, 0, "nobody was told of what was torn off");
    }

    #[test]
    fn damage_before_the_tail_costs_its_receipt_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = opened(dir.path());
        write(&mut log, 0, 1);
        let first = usize::try_from(log.current.as_ref().unwrap().bytes).unwrap();
        write(&mut log, 0, 2);
        write(&mut log, 0, 3);
        let (_, path) = files(dir.path()).unwrap().remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[first + 20] ^= 1;
        fs::write(&path, bytes).unwrap();
        let kept = log.reader().read(&path, Timestamp(0)).unwrap();
        assert_eq!(kept.commands.len(), 2);
        assert!(kept.unreadable > 0 && !kept.is_foreign);
    }

    #[test]
    fn another_stores_receipts_are_never_taken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        write(&mut opened(dir.path()), 0, 1);
        let log = Log::open(dir.path(), KEEP, Uuid::from_u128(8)).unwrap();
        let (_, path) = files(dir.path()).unwrap().remove(0);
        let kept = log.reader().read(&path, Timestamp(0)).unwrap();
        assert_eq!(kept, Kept { is_foreign: true, ..Kept::default() });
    }

    #[test]
    fn a_second_process_does_not_get_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _log = opened(dir.path());
        assert!(Log::open(dir.path(), KEEP, STORE).is_err());
    }
}
