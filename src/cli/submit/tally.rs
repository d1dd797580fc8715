//! Counts what became of the commands, shows it while it goes on, and sums it up.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::cli::{Failure, print, tell};

/// Without a terminal the count is told this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The counts of one run.
pub(super) struct Tally {
    what: &'static str,
    begun: Instant,
    told: Mutex<Instant>,
    bar: Option<ProgressBar>,
    position: Arc<AtomicU64>,
    new: AtomicU64,
    replayed: AtomicU64,
    /// Accepted by a server that does not say which of the two.
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// Starts counting; `size` is the file's length in bytes, when it has one.
    pub(super) fn new(what: &'static str, size: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(size));
        Tally {
            what,
            begun: Instant::now(),
            told: Mutex::new(Instant::now()),
            bar,
            position: Arc::default(),
            new: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Bytes of the file that were read.
    pub(super) fn position(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.position)
    }

    /// One was accepted; `replayed` when the server says whether it knew it.
    pub(super) fn accept(&self, replayed: Option<bool>) {
        let count = match replayed {
            Some(true) => &self.replayed,
            Some(false) => &self.new,
            None => &self.accepted,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// One was refused; says so at once, on standard output, where a user can collect them.
    pub(super) fn refuse(&self, line: u64, reference: Option<&str>, why: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let name = reference.map(|r| format!(" {r:?}")).unwrap_or_default();
        let text = format!("line {line}{name}: {why}\n");
        let say = || print(&text);
        // What can't be printed was still counted, and the count is what the exit code tells.
        match &self.bar {
            Some(bar) => bar.suspend(say).ok(),
            None => say().ok(),
        };
    }

    /// How many were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Shows the counts as they are now.
    pub(super) fn tick(&self) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.position.load(Ordering::Relaxed));
                bar.set_message(self.counts());
            }
            None => {
                let mut told = self.told.lock();
                if told.elapsed() >= TELL_EVERY {
                    *told = Instant::now();
                    tell(&format!("{}\n", self.counts()));
                }
            }
        }
    }

    /// Takes the bar away and prints the sum.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        print(&format!("{} in {seconds:.1} s\n", self.counts()))
    }

    fn counts(&self) -> String {
        let [new, replayed, accepted, refused] =
            [&self.new, &self.replayed, &self.accepted, &self.refused].map(|n| n.load(Ordering::Relaxed));
        let taken = match accepted {
            0 => format!("{new} new, {replayed} replayed"),
            n => format!("{} accepted", n + new + replayed),
        };
        format!("{} {}: {taken}, {refused} refused", new + replayed + accepted + refused, self.what)
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr_with_hz(10));
    let template = match size {
        Some(_) => "{bar:30} {percent:>3} %  {msg}  {eta} left",
        None => "{spinner} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
