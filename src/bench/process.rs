//! This program as a child process: started, listened to, its processor time and memory read, and
//! ended when its handle is dropped.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::Error;
use super::machine;
use super::redis::RedisServer;

/// The longest that a child may take to say where it listens: recovery of a large store included.
const START_MAX: Duration = Duration::from_secs(300);
/// How much of a child's standard error is shown when it fails, in bytes.
const LOG_SHOWN: usize = 4_000;

/// A child that listens.
pub(super) struct Served {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The Redis that it uses, if it has one to itself; it ends after the child.
    pub(super) redis: Option<RedisServer>,
}

/// A command that runs this same program, its standard error in `dir`.
pub(super) fn this_program(dir: &Path) -> Result<Command, Error> {
    let program = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
    let log = fs::File::create(dir.join("stderr.log")).map_err(|e| Error::io("make a log file", e))?;
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null()).stderr(log);
    Ok(command)
}

/// What a child of `dir` said last on standard error.
fn last_words(dir: &Path) -> String {
    let text = fs::read(dir.join("stderr.log")).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_SHOWN)..]).trim().to_owned()
}

/// Runs a child of this program to its end.
///
/// # Errors
/// When it fails, with what it said.
pub(super) fn run<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> Result<(), Error> {
    let status = this_program(dir)?.args(args).stdout(Stdio::null()).status();
    let status = status.map_err(|e| Error::io("start this program", e))?;
    if status.success() { Ok(()) } else { Err(Error::Child { log: last_words(dir) }) }
}

impl Served {
    /// Starts a child and waits until it listens.
    ///
    /// # Errors
    /// When it ends before, or says nothing for too long; with what it said on standard error.
    pub(super) fn start<S: AsRef<OsStr>>(
        dir: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Served, Error> {
        let mut child = this_program(dir)?
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("start this program", e))?;
        let stdout = child.stdout.take();
        let (send, first) = mpsc::channel();
        // Reads on to the end, so that the child never waits for a reader of its output.
        std::thread::spawn(move || {
            let Some(mut reader) = stdout.map(BufReader::new) else { return };
            let mut line = String::new();
            if reader.read_line(&mut line).is_ok() {
                send.send(line).ok();
            }
            std::io::copy(&mut reader.by_ref(), &mut std::io::sink()).ok();
        });
        let line = first.recv_timeout(START_MAX).unwrap_or_default();
        match line.trim_end().strip_prefix("listening on http://").and_then(|a| a.parse().ok()) {
            Some(address) => Ok(Served { child, address, redis: None }),
            None => {
                child.kill().ok();
                child.wait().ok();
                Err(Error::Child { log: last_words(dir) })
            }
        }
    }

    /// The same child; a Redis ends with it.
    pub(super) fn on(mut self, redis: Option<RedisServer>) -> Served {
        self.redis = redis;
        self
    }

    /// Processor time it has used so far, in user and kernel mode, all threads.
    pub(super) fn cpu(&self) -> Duration {
        machine::cpu_of(self.child.id())
    }

    /// Bytes of memory of its own (`RssAnon`): the pages of the store's file are not in it, for the
    /// system takes them back when it needs them.
    pub(super) fn memory(&self) -> u64 {
        machine::memory_of(self.child.id())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Its directory is thrown away: nothing is to be saved, and nothing acknowledged depends
        // on an orderly end.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
