//! A redis-server of the benchmark's own: in a directory that is thrown away, on a free port, with the
//! durability that a 202 promises, ended when its handle is dropped.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Error, machine};

/// What it is called, found by `PATH`.
const PROGRAM: &str = "redis-server";
/// The longest that it may take until it answers: it may have to read what it holds.
const START_MAX: Duration = Duration::from_secs(300);
/// Somebody may take the port that was free; then another one is tried, so often.
const PORTS_MAX: usize = 20;
/// Between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Every write is on disk before its answer. The file is not rewritten while it is measured: that would
/// fall into one run and not into the other.
const SETTINGS: [&str; 8] =
    ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"];

/// A running one.
pub(super) struct RedisServer {
    server: Child,
    port: u16,
}

/// What it has done since it began, by its own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Commands.
    pub(super) commands: u64,
    /// Times that it read from a connection.
    pub(super) reads: u64,
}

impl RedisServer {
    /// Starts one on what is in `dir`, if anything.
    ///
    /// # Errors
    /// When it is not installed, or does not answer.
    pub(super) fn start(dir: &Path) -> Result<RedisServer, Error> {
        fs::create_dir_all(dir).map_err(|e| Error::io("make a directory for Redis", e))?;
        for _ in 0..PORTS_MAX {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.map_err(|e| Error::io("find a free port", e))?.port();
            let mut redis = RedisServer { server: spawn(dir, port)?, port };
            if redis.answers()? {
                return Ok(redis);
            }
        }
        let log = fs::read_to_string(dir.join("redis.log")).unwrap_or_default();
        Err(Error::Child { log: log.lines().last().unwrap_or_default().to_owned() })
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Processor time it has used so far.
    pub(super) fn cpu(&self) -> Duration {
        machine::cpu_of(self.server.id())
    }

    /// What it says that it has done.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn done(&self) -> Result<Done, Error> {
        let info = self.info().map_err(|e| Error::io("ask Redis what it has done", e))?;
        Ok(Done {
            commands: of(&info, "total_commands_processed"),
            reads: of(&info, "total_reads_processed"),
        })
    }

    fn info(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"INFO stats\r\nQUIT\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until it answers; false when it ended before.
    fn answers(&mut self) -> Result<bool, Error> {
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            let ended = self.server.try_wait().map_err(|e| Error::io("look after Redis", e))?;
            if ended.is_some() {
                return Ok(false);
            }
            // One that still reads its data says so instead.
            if self.info().is_ok_and(|info| info.contains("total_commands_processed")) {
                return Ok(true);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(false)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Its directory is thrown away, and what it acknowledged is on disk.
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn spawn(dir: &Path, port: u16) -> Result<Child, Error> {
    let mut command = Command::new(PROGRAM);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--logfile", "redis.log", "--dir"]);
    command.arg(dir).args(SETTINGS).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::failed(
            "redis-server is not installed, and with store.backend=redis the benchmark starts one of its own; \
             install Redis 7.0 or later (Debian: apt-get install redis-server)",
        ),
        _ => Error::io("start redis-server", e),
    })
}

/// A number of `INFO`; 0 when it has none of this name.
fn of(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_has_done_is_read_from_what_it_says() {
        let info = "$90\r\n# Stats\r\ntotal_commands_processed:42\r\ntotal_reads_processed:7\r\n";
        assert_eq!((of(info, "total_commands_processed"), of(info, "total_reads_processed")), (42, 7));
        assert_eq!(of(info, "total_writes_processed"), 0);
    }
}
