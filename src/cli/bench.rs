//! `wavegate bench`: measures the server beside its ceilings, and says whether it is fast enough
//! and as fast as it was.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Failure, SettingsArgs, print, tell, with_causes};
use crate::bench::{self, Error, Measure, Options, Passed, Report, Scale, ceiling, ceiling_redis};
use crate::settings::Backend;

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    /// Writes everything that was measured into FILE
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Prints the table in Markdown
    #[arg(long, global = true)]
    markdown: bool,
    /// Exit code 1 when a target is missed
    #[arg(long, global = true)]
    check: bool,
    /// Exit code 1 when a check is worse by more than a tenth than in FILE, an earlier --json
    #[arg(long, value_name = "FILE", global = true)]
    baseline: Option<PathBuf>,
    /// Rounds of each measure; the median counts
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: Option<u16>,
    /// Seconds of each run
    #[arg(long, value_name = "S", global = true, value_parser = seconds)]
    seconds: Option<Duration>,
    /// A first impression: few short rounds
    #[arg(long, global = true)]
    quick: bool,
    /// Connections of the load; the targets are for 256
    #[arg(long, value_name = "N", global = true, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Measures at once, however busy the machine is, and keeps what other work has spoiled
    #[arg(long, global = true)]
    noisy: bool,
    /// Puts the stores under DIR: the disk is a part of what is measured
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
}

/// The measures; without one, the first three.
#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Accepting orders: rate, processor time and latency
    Accept,
    /// Whole orders, accepted to shipped
    Pipeline,
    /// Reading statuses
    Status,
    /// Streams of events, thousands of them; beside nginx with the nchan module where it is installed
    Sse,
    /// Webhooks beside endpoints that hang and that are dead
    Webhook,
    /// What grows with a million orders and thousands of warehouses; takes long, only when it is named
    Scale,
    /// What the server is measured against, as a process of its own
    #[command(hide = true)]
    Ceiling {
        #[arg(long, conflicts_with = "redis", required_unless_present = "redis")]
        store: Option<PathBuf>,
        #[arg(long, value_name = "URL")]
        redis: Option<String>,
        #[arg(long)]
        warehouses: u32,
    },
    /// Answers every request as recorded
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        recording: PathBuf,
        /// After one read of the transaction that is asked for
        #[arg(long, value_name = "URL")]
        redis: Option<String>,
    },
    /// Fills a store with claims
    #[command(hide = true)]
    Fill {
        #[arg(long)]
        store: PathBuf,
        #[arg(long)]
        warehouses: u32,
        #[arg(long)]
        claims: u64,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let sound = text.parse::<f64>().ok().filter(|s| (0.1..=600.0).contains(s));
    sound.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, 0.1 to 600".to_owned())
}

/// Runs it.
pub(super) fn run(command: &Bench, args: &SettingsArgs) -> Result<(), Failure> {
    let measures: &[Measure] = match &command.what {
        None => &[Measure::Accept, Measure::Pipeline, Measure::Status],
        Some(What::Accept) => &[Measure::Accept],
        Some(What::Pipeline) => &[Measure::Pipeline],
        Some(What::Status) => &[Measure::Status],
        Some(What::Sse) => &[Measure::Sse],
        Some(What::Webhook) => &[Measure::Webhook],
        Some(What::Scale) => &[Measure::Scale],
        Some(What::Ceiling { store, redis, warehouses }) => {
            let done = match (store, redis) {
                (_, Some(url)) => ceiling_redis::least(url, *warehouses, listening),
                (store, None) => {
                    ceiling::least(store.as_deref().unwrap_or(Path::new("")), *warehouses, listening)
                }
            };
            return done.map_err(Failure::from);
        }
        Some(What::Bare { recording, redis }) => {
            return ceiling::bare(recording, redis.as_deref(), listening).map_err(Failure::from);
        }
        Some(What::Fill { store, warehouses, claims }) => {
            return ceiling::fill(store, *warehouses, *claims).map_err(Failure::from);
        }
    };
    if cfg!(debug_assertions) {
        tell("warning: this program is not optimised; its numbers mean nothing\n");
    }
    // Before the minutes that it takes, not after them.
    let before = command.baseline.as_deref().map(read).transpose()?;
    let report = bench::run(options(command, args)?, measures, &|line| tell(&format!("{line}\n")))?;
    if let Some(file) = &command.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| Failure::failed(e.to_string()))?;
        std::fs::write(file, text + "\n").map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
    }
    print(&if command.markdown { report.markdown() } else { report.text() })?;
    judge(command.check, &report, before.as_ref())
}

fn listening(address: SocketAddr) {
    // The parent reads it; without one there is nobody to serve.
    print(&format!("listening on http://{address}\n")).ok();
}

fn options(command: &Bench, args: &SettingsArgs) -> Result<Options, Failure> {
    // What is wrong with them is said before anything starts.
    let settings = args.load()?.settings;
    let (pairs, window, orders, claims) =
        if command.quick { (2, 2.0, 6_000, 0) } else { (5, 5.0, 30_000, 1_000_000) };
    let window = command.seconds.unwrap_or(Duration::from_secs_f64(window));
    Ok(Options {
        pairs: command.pairs.map_or(pairs, usize::from),
        window,
        // A whole run of the pipelines is about as long as one of the others.
        orders: match command.seconds {
            Some(seconds) => (seconds.as_secs_f64() * 5_000.0).ceil() as u64,
            None => orders,
        },
        claims,
        scale: if command.quick {
            Scale { finished: 30_000, open: 5_000 }
        } else {
            Scale { finished: 1_000_000, open: 100_000 }
        },
        connections: usize::from(command.connections),
        noisy: command.noisy,
        dir: command.dir.clone(),
        passed: Passed {
            files: args.config.clone(),
            sets: args.set.iter().map(|set| format!("{}={}", set.key, set.value)).collect(),
            is_redis: matches!(settings.store.backend, Backend::Redis),
        },
    })
}

fn read(file: &Path) -> Result<Report, Failure> {
    let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("--baseline {}: {e}", file.display()));
    let text = std::fs::read(file).map_err(|e| wrong(&e))?;
    serde_json::from_slice(&text).map_err(|e| wrong(&e))
}

fn judge(check: bool, report: &Report, before: Option<&Report>) -> Result<(), Failure> {
    let lost = before.map(|before| report.lost_since(before)).unwrap_or_default();
    if !lost.is_empty() {
        return Err(Failure::failed(format!("worse than the baseline: {}", lost.join("; "))));
    }
    let missed = report.missed();
    if check && !missed.is_empty() {
        return Err(Failure::failed(format!("targets missed: {}", missed.join(", "))));
    }
    Ok(())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::failed(with_causes(&error))
    }
}
