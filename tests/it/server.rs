//! Runs the real binary for a test: a directory of its own, a free port, a bounded wait for the
//! first line, and a kill when the test is over. It must never reach into the program's insides.
#![allow(dead_code)] // Each test module uses its own part of the harness.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Once, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::redis_server::{DURABLE, Redis};

/// The longest a start may take on a busy machine before the test says that it hangs.
const START_MAX: Duration = Duration::from_secs(60);
/// The longest an ordered stop may take: the default `shutdown.grace` and some.
const STOP_MAX: Duration = Duration::from_secs(40);

/// A running server and the directory that outlives its restarts.
pub(crate) struct TestServer {
    child: Child,
    /// `http://ADDR:PORT`, as the first line of standard output says.
    pub(crate) url: String,
    dir: Arc<TempDir>,
    sets: Vec<String>,
    starts: usize,
    /// Killed after the server.
    _redis: Option<Redis>,
}

impl TestServer {
    /// Starts a server with the default configuration on a free port and an empty directory.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further `--set` options.
    pub(crate) fn start_with(sets: &[&str]) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        Self::start_in(dir, sets)
    }

    /// Starts a server on the directory of another that was stopped or killed.
    pub(crate) fn start_in(dir: Arc<TempDir>, sets: &[&str]) -> Self {
        let mut sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        let redis = on_redis(&sets).then(|| Redis::start(&dir.path().join("redis"), &DURABLE));
        sets.extend(redis.iter().flat_map(Redis::sets));
        let (child, url) = spawn(dir.path(), &sets, 0);
        TestServer { child, url, dir, sets, starts: 1, _redis: redis }
    }

    /// The address of a path on this server.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The directory that holds `data` and the logs.
    pub(crate) fn dir(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    /// The store's directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the running process has written to standard error so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_path(self.dir.path(), self.starts - 1)).unwrap_or_default()
    }

    /// From here on whoever works the order of this reference panics, or the whole process ends:
    /// `panic`, `abort` or `overflow`.
    pub(crate) fn poison(&self, how: &str, reference: &str) {
        // Renamed into place, so that nobody reads half of it.
        let next = self.dir.path().join("poison.next");
        fs::write(&next, format!("{how} {reference}")).expect("the file that poisons");
        fs::rename(next, self.dir.path().join(POISON)).expect("the file that poisons");
    }

    /// The order is healthy again.
    pub(crate) fn heal(&self) {
        fs::remove_file(self.dir.path().join(POISON)).expect("the file that poisons");
    }

    /// From here on no transaction is read from disk, until [`TestServer::quick_disk`].
    pub(crate) fn slow_disk(&self) {
        fs::write(self.dir.path().join(SLOW_DISK), []).expect("the file that slows the disk");
    }

    /// True once this many threads wait for the slow disk.
    pub(crate) fn is_held_by_disk(&self, threads: usize) -> bool {
        self.dir.path().join(SLOW_DISK).with_extension(threads.to_string()).exists()
    }

    /// The disk answers again.
    pub(crate) fn quick_disk(&self) {
        fs::remove_file(self.dir.path().join(SLOW_DISK)).expect("the file that slows the disk");
    }

    /// True once the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child's state").is_some()
    }

    /// Kills the process without warning (SIGKILL) and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().expect("the end of a killed process");
    }

    /// `store check` on the store of this server, which must have ended.
    pub(crate) fn check_command(&self) -> Command {
        let mut command = wavegate();
        command.current_dir(self.dir.path()).args(["store", "check"]);
        for set in self.sets.iter().filter(|set| set.starts_with("store.")) {
            command.args(["--set", set]);
        }
        command
    }

    /// `config show` with the settings of this server.
    pub(crate) fn show_command(&self) -> Command {
        let mut command = wavegate();
        command.current_dir(self.dir.path()).args(["config", "show"]);
        for set in &self.sets {
            command.args(["--set", set]);
        }
        command
    }

    /// Sends SIGTERM without waiting.
    pub(crate) fn signal_term(&self) {
        self.signal("TERM");
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn term(&mut self) -> ExitStatus {
        self.signal_term();
        wait_bounded(&mut self.child, STOP_MAX)
    }

    /// Waits for the end, at most `bound`.
    pub(crate) fn wait(&mut self, bound: Duration) -> ExitStatus {
        wait_bounded(&mut self.child, bound)
    }

    /// Starts a killed or stopped server again on the same directory; the port is a new one.
    pub(crate) fn restart(&mut self) {
        self.end();
        let (child, url) = spawn(self.dir.path(), &self.sets, self.starts);
        (self.child, self.url) = (child, url);
        self.starts += 1;
    }

    /// Starts it again as a service manager would: whenever it ends because its store is not to be had
    /// (exit code 3), once more.
    pub(crate) fn revive(&mut self) {
        self.end();
        let until = Instant::now() + START_MAX;
        loop {
            let command = serve(self.dir.path(), &self.sets);
            let started = try_listening(command, &log_path(self.dir.path(), self.starts));
            self.starts += 1;
            match started {
                Ok((child, url)) => return (self.child, self.url) = (child, url),
                Err(Silent { ended, log }) => {
                    let code = ended.and_then(|status| status.code());
                    assert!(code == Some(3) && Instant::now() < until, "it ends with {code:?}:\n{log}");
                }
            }
        }
    }

    /// What all its lives have written to standard error.
    pub(crate) fn logs(&self) -> Vec<String> {
        let log = |start| fs::read_to_string(log_path(self.dir.path(), start)).unwrap_or_default();
        (0..self.starts).map(log).collect()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").arg("-c").arg(kill).status();
        assert!(status.expect("a shell").success(), "SIG{name} was not sent");
    }

    fn end(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.kill();
        }
    }
}

/// True when whoever runs the tests wants servers on Redis that could as well be on the embedded store:
/// `TEST_STORE=redis`. Tests that look into a data directory then fail.
fn on_redis(sets: &[String]) -> bool {
    std::env::var_os("TEST_STORE").is_some_and(|store| store == "redis")
        && !sets.iter().any(|set| set.starts_with("store."))
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- the server's standard error:\n{}", self.log());
        }
    }
}

/// The binary under test without the settings of the environment that runs the tests.
pub(crate) fn wavegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wavegate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WAVEGATE__") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// An HTTP client with a bound on each call.
pub(crate) fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().ok();
    });
    reqwest::Client::builder().timeout(Duration::from_secs(60)).build().expect("an HTTP client")
}

/// Waits for the end of a process; kills it and fails when it takes longer than `bound`.
pub(crate) fn wait_bounded(child: &mut Child, bound: Duration) -> ExitStatus {
    let until = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().expect("a child's state") {
            return status;
        }
        if Instant::now() > until {
            child.kill().ok();
            child.wait().ok();
            panic!("the process did not end within {bound:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The file that poisons an order.
const POISON: &str = "poison";
/// The file that makes the disk slow.
const SLOW_DISK: &str = "slow-disk";

fn log_path(dir: &Path, start: usize) -> PathBuf {
    dir.join(format!("stderr-{start}.log"))
}

fn spawn(dir: &Path, sets: &[String], start: usize) -> (Child, String) {
    listening(serve(dir, sets), &log_path(dir, start))
}

fn serve(dir: &Path, sets: &[String]) -> Command {
    let mut command = wavegate();
    // No file, no fault: see `TestServer::poison`.
    command.env("WAVEGATE_TEST_POISON", dir.join(POISON));
    command.env("WAVEGATE_TEST_SLOW_DISK", dir.join(SLOW_DISK));
    command.current_dir(dir).arg("serve").args(["--set", "http.listen=127.0.0.1:0"]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

/// Starts a command that says where it listens; its standard error goes to `log`.
pub(crate) fn listening(command: Command, log: &Path) -> (Child, String) {
    try_listening(command, log).unwrap_or_else(|Silent { log, .. }| {
        panic!("the server did not start within {START_MAX:?}; its standard error:\n{log}")
    })
}

/// A command that did not say where it listens.
struct Silent {
    /// How it ended, if it did by itself.
    ended: Option<ExitStatus>,
    log: String,
}

fn try_listening(mut command: Command, log: &Path) -> Result<(Child, String), Silent> {
    let file = File::create(log).expect("a log file");
    let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("the binary starts");
    let stdout = child.stdout.take().expect("its standard output");
    let (send, first) = mpsc::channel();
    // Reads on until the end, so that the server never waits for a reader of its output.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            send.send(line).ok();
        }
    });
    match first.recv_timeout(START_MAX) {
        Ok(line) => {
            let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("first line {line:?}"));
            Ok((child, url.to_owned()))
        }
        Err(why) => {
            // Its output is closed: it ends, or has ended.
            let ended = (why == mpsc::RecvTimeoutError::Disconnected).then(|| child.wait().ok()).flatten();
            child.kill().ok();
            child.wait().ok();
            Err(Silent { ended, log: fs::read_to_string(log).unwrap_or_default() })
        }
    }
}
