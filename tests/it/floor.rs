//! Runs `wavegate wms` for a test: a directory of its own, a fixed port, restarts, and its ledger.
#![allow(dead_code)] // Each test module uses its own part of the harness.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

use crate::server::{listening, wait_bounded, wavegate};

/// The key that both sides call each other with.
pub(crate) const KEY: &str = "both-sides-key-0123456789";

/// A port that nobody has now. Both sides must know the other's before either runs, so it can't be
/// the one that the system gives to a running process.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("its address").port()
}

/// A simulated WMS of one warehouse, in a process of its own.
pub(crate) struct TestWms {
    child: Option<Child>,
    pub(crate) code: String,
    port: u16,
    wavegate: String,
    sets: Vec<String>,
    dir: Arc<TempDir>,
    starts: usize,
}

impl TestWms {
    /// One that is not started yet; `character` is the inside of its `wms` table.
    pub(crate) fn new(code: &str, wavegate: &str, character: &str) -> Self {
        let partition = code.bytes().map(u16::from).sum::<u16>();
        let set = format!("warehouses=[{{code=\"{code}\",partition={partition},wms={{{character}}}}}]");
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let (code, wavegate) = (code.to_owned(), wavegate.to_owned());
        TestWms { child: None, code, port: free_port(), wavegate, sets: vec![set], dir, starts: 0 }
    }

    /// The `wms` table with which Wavegate finds it.
    pub(crate) fn table(&self) -> String {
        format!("{{kind=\"http\",url=\"http://127.0.0.1:{}\",key=\"{KEY}\",credits=200}}", self.port)
    }

    /// The address of a path.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Starts it, again or for the first time.
    pub(crate) fn start(&mut self) {
        self.kill();
        let mut command = wavegate();
        command.current_dir(self.dir.path()).arg("wms").args(["--key", KEY, "--warehouse", &self.code]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port), "--url", &self.wavegate]);
        for set in &self.sets {
            command.args(["--set", set]);
        }
        let (child, _) = listening(command, &self.log_path());
        (self.child, self.starts) = (Some(child), self.starts + 1);
    }

    /// Kills it without warning, if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().expect("the end of a killed process");
        }
    }

    /// Sends a signal by its name to a running one.
    pub(crate) fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("a running process");
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status();
        assert!(status.expect("a shell").success(), "SIG{name} was not sent");
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(&mut self, bound: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("a running process");
        wait_bounded(&mut child, bound)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("stderr-{}.log", self.starts))
    }

    /// What all its lives have written to standard error.
    pub(crate) fn log(&self) -> String {
        let log = |start| fs::read_to_string(self.dir.path().join(format!("stderr-{start}.log")));
        (0..self.starts).map(|start| log(start).unwrap_or_default()).collect()
    }

    /// The ledger's path.
    pub(crate) fn ledger_path(&self) -> PathBuf {
        self.dir.path().join(format!("wms-{}.ndjson", self.code))
    }

    /// The ledger as it stands.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::at(&self.ledger_path())
    }
}

impl Drop for TestWms {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the standard error of the WMS of {}:\n{}", self.code, self.log());
        }
    }
}

/// What a test wants to know from a ledger; counted here once more, from its lines alone.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Units asked for, by release and line.
    pub(crate) asked: BTreeMap<(String, u64), u64>,
    sku: BTreeMap<(String, u64), String>,
    /// How often each release was taken, and forgotten.
    pub(crate) taken: BTreeMap<String, u64>,
    pub(crate) forgotten: BTreeMap<String, u64>,
    pub(crate) rejected: BTreeSet<String>,
    /// Units packed and missing, by release and line.
    pub(crate) packed: BTreeMap<(String, u64), u64>,
    pub(crate) missing: BTreeMap<(String, u64), u64>,
    /// Units shipped, by release and line.
    pub(crate) shipped: BTreeMap<(String, u64), u64>,
    pub(crate) cancelled: BTreeSet<String>,
    /// The most releases that were on the floor at once.
    pub(crate) open_max: usize,
}

impl Ledger {
    /// Reads the one at a path, as it stands.
    pub(crate) fn at(path: &Path) -> Self {
        Ledger::read(&fs::read_to_string(path).unwrap_or_default())
    }

    fn read(text: &str) -> Self {
        let mut ledger = Ledger::default();
        let mut open = BTreeSet::new();
        // A line without its end was not written for anybody yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let entry: Value = serde_json::from_str(line).expect("a line of JSON");
            ledger.apply(&entry, &mut open);
            ledger.open_max = ledger.open_max.max(open.len());
        }
        ledger
    }

    fn apply(&mut self, entry: &Value, open: &mut BTreeSet<String>) {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let number = |v: &Value| v.as_u64().expect("a number");
        let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
        match entry["entry"].as_str().expect("an entry") {
            "taken" => {
                let release = text(&entry["release"]["release_id"]);
                for line in list(&entry["release"]["lines"]) {
                    let key = (release.clone(), number(&line["line"]));
                    self.asked.insert(key.clone(), number(&line["quantity"]));
                    self.sku.insert(key, text(&line["sku"]));
                }
                open.insert(release.clone());
                *self.taken.entry(release).or_default() += 1;
            }
            "forgotten" => *self.forgotten.entry(text(&entry["release_id"])).or_default() += 1,
            "rejected" => {
                self.rejected.insert(text(&entry["release_id"]));
            }
            "cancellation" if entry["result"] == "cancelled" => {
                let release = text(&entry["release_id"]);
                open.remove(&release);
                self.cancelled.insert(release);
            }
            "done" => {
                let confirmation = &entry["confirmation"];
                let release = text(&confirmation["release_id"]);
                let add = |to: &mut BTreeMap<(String, u64), u64>, lines: &Value| {
                    for line in list(lines) {
                        *to.entry((release.clone(), number(&line["line"]))).or_default() +=
                            number(&line["quantity"]);
                    }
                };
                match confirmation["type"].as_str().expect("a type") {
                    "packed" => {
                        for carton in list(&confirmation["cartons"]) {
                            add(&mut self.packed, &carton["lines"]);
                        }
                    }
                    "short_pick" | "damaged" => add(&mut self.missing, &confirmation["lines"]),
                    _ => {}
                }
                if self.is_settled(&release) {
                    open.remove(&release);
                }
                for units in list(&entry["shipped"]) {
                    let key = (text(&units["release_id"]), number(&units["line"]));
                    *self.shipped.entry(key).or_default() += number(&units["quantity"]);
                }
            }
            _ => {}
        }
    }

    fn is_settled(&self, release: &str) -> bool {
        let of = |m: &BTreeMap<(String, u64), u64>, key: &(String, u64)| m.get(key).copied().unwrap_or(0);
        let mut lines = self.asked.iter().filter(|((r, _), _)| r == release);
        lines.all(|(key, asked)| of(&self.packed, key) + of(&self.missing, key) == *asked)
    }

    /// Units shipped by SKU.
    pub(crate) fn shipped_by_sku(&self) -> BTreeMap<String, u64> {
        let mut by_sku = BTreeMap::new();
        for (key, quantity) in &self.shipped {
            *by_sku.entry(self.sku[key].clone()).or_default() += quantity;
        }
        by_sku
    }

    /// Units shipped by order and line.
    pub(crate) fn shipped_by_order(&self) -> BTreeMap<(String, u64), u64> {
        let mut by_order = BTreeMap::new();
        for ((release, line), quantity) in &self.shipped {
            let order = release.split('.').next().expect("an order").to_owned();
            *by_order.entry((order, *line)).or_default() += quantity;
        }
        by_order
    }

    /// What no WMS may do, whatever happened: work a release twice, or pack or ship more than was
    /// asked for.
    pub(crate) fn must_be_sound(&self) {
        assert_eq!(self.faults(), Vec::<String>::new());
    }

    /// What it did of that.
    pub(crate) fn faults(&self) -> Vec<String> {
        let twice = self.taken.iter().filter(|(_, n)| **n != 1);
        let mut faults: Vec<String> =
            twice.map(|(r, n)| format!("release {r} was taken {n} times")).collect();
        for (key, asked) in &self.asked {
            let of = |m: &BTreeMap<(String, u64), u64>| m.get(key).copied().unwrap_or(0);
            if of(&self.packed) + of(&self.missing) > *asked {
                faults.push(format!("{key:?} was worked twice"));
            }
            if of(&self.shipped) > of(&self.packed) {
                faults.push(format!("{key:?} left twice"));
            }
        }
        faults
    }
}
