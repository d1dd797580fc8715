//! The project's own benchmark: the server under a load, each measure beside its ceiling in the
//! same run.
//!
//! The server is this same program as a child process on a fresh directory; the ceilings are
//! children too, so that processor time and memory can be read of each alone. The load comes from
//! this process. Runs alternate, and their order too, so that a machine that slows down slows both
//! sides; what counts is the median of the rounds' ratios. A round in which others used the machine is repeated.

mod accept;
mod accept_redis;
pub(crate) mod ceiling;
pub(crate) mod ceiling_redis;
mod keys;
mod load;
mod machine;
mod nchan;
mod order;
mod pipeline;
mod process;
mod redis;
mod report;
mod rounds;
mod scale;
mod server;
mod sse;
mod statistics;
mod status;
mod webhook;
mod wire;

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::LocalSet;

pub(crate) use self::report::Report;
pub(crate) use self::scale::Scale;
pub(crate) use self::server::Passed;

use self::load::Answered;
use self::machine::{Machine, Watch};

/// The machine must have been quiet for so long before a round.
const QUIET_FOR: Duration = Duration::from_millis(500);
/// A machine that does not become quiet within this is measured as it is.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// A benchmark that could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A process under test ended, or never listened.
    #[error("a process of the benchmark failed; it said: {log}")]
    Child {
        /// The end of its standard error.
        log: String,
    },
    /// A store of the benchmark's cannot be used.
    #[error("the benchmark's store cannot be used")]
    Store(#[source] Box<dyn StdError + Send + Sync>),
    /// What was measured did not do what it must.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    fn io(what: &'static str, source: io::Error) -> Error {
        Error::Io { what, source }
    }

    fn failed(what: impl Into<String>) -> Error {
        Error::Failed(what.into())
    }
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Accepting orders.
    Accept,
    /// Orders from accepted to shipped.
    Pipeline,
    /// Reading statuses.
    Status,
    /// Streams of events.
    Sse,
    /// Webhooks.
    Webhook,
    /// What grows with orders and warehouses.
    Scale,
}

/// How to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Rounds of each measure.
    pub(crate) pairs: usize,
    /// The length of one run.
    pub(crate) window: Duration,
    /// Orders that one run of the pipelines works.
    pub(crate) orders: u64,
    /// Claims stored before references are compared once more; 0 leaves that out.
    pub(crate) claims: u64,
    /// Orders of the scale.
    pub(crate) scale: Scale,
    /// Connections of the load.
    pub(crate) connections: usize,
    /// Measure at once and keep every round, however busy the machine is.
    pub(crate) noisy: bool,
    /// Where the stores are put; the system's directory for temporary files if not said.
    pub(crate) dir: Option<PathBuf>,
    /// For the server under test.
    pub(crate) passed: Passed,
}

/// Measures and reports; `tell` gets a line for each step.
///
/// # Errors
/// When something cannot be started, or does not answer as it must. A missed target is none.
pub(crate) fn run(options: Options, measures: &[Measure], tell: &dyn Fn(&str)) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("start the load's thread", e))?;
    let bench = Bench { options, tell };
    let machine = Machine::here(bench.directory()?.path());
    let mut report = Report {
        machine,
        rounds: bench.options.pairs,
        seconds: bench.options.window.as_secs_f64(),
        ..Report::default()
    };
    LocalSet::new().block_on(&runtime, async {
        for measure in measures {
            match measure {
                Measure::Accept if bench.options.passed.is_redis => {
                    accept_redis::measure(&bench, &mut report).await?;
                }
                Measure::Accept => accept::measure(&bench, &mut report).await?,
                Measure::Pipeline => pipeline::measure(&bench, &mut report).await?,
                Measure::Status => status::measure(&bench, &mut report).await?,
                Measure::Sse => sse::measure(&bench, &mut report).await?,
                Measure::Webhook => webhook::measure(&bench, &mut report).await?,
                Measure::Scale => scale::measure(&bench, &mut report).await?,
            }
        }
        Ok(report)
    })
}

/// What all measures share.
struct Bench<'a> {
    options: Options,
    tell: &'a dyn Fn(&str),
}

impl Bench<'_> {
    /// A fresh directory for a store.
    fn directory(&self) -> Result<TempDir, Error> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("wavegate-bench-");
        let made = match &self.options.dir {
            Some(dir) => builder.tempdir_in(dir),
            None => builder.tempdir(),
        };
        made.map_err(|e| Error::io("make a directory for the store", e))
    }

    /// How long a load runs before it counts: a third of what is counted.
    fn warm(&self) -> Duration {
        self.options.window / 3
    }

    fn tell(&self, line: &str) {
        (self.tell)(line);
    }

    /// Waits, not for ever, until nobody else works on the machine.
    async fn quiet(&self, name: &str) {
        let begun = Instant::now();
        loop {
            let watch = Watch::begin();
            tokio::time::sleep(QUIET_FOR).await;
            if !machine::is_spoiled(watch.others()) || begun.elapsed() > QUIET_WITHIN {
                return;
            }
            if begun.elapsed() < 2 * QUIET_FOR {
                self.tell(&format!("{name}: waiting for other work on the machine to end"));
            }
        }
    }

    /// Refuses a run in which anything else than the wanted answer came.
    fn sound(answered: Answered, name: &str) -> Result<Answered, Error> {
        match answered.others.first_key_value() {
            None if answered.count > 0 => Ok(answered),
            None => Err(Error::failed(format!("{name}: no answer came"))),
            Some((0, n)) => Err(Error::failed(format!("{name}: {n} requests were not answered"))),
            Some((status, n)) => Err(Error::failed(format!("{name}: {n} answers had status {status}"))),
        }
    }
}
