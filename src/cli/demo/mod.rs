//! `wavegate demo`: the real server in a directory of its own, opening stock, sample orders
//! through to the end, and the count of what was lost.

mod progress;
mod run;
mod sample;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;
use wavegate_engine::domain::ids::PartitionId;
use wavegate_engine::ports::faults::{ArmedFaults, FaultPoint};

use self::progress::{Progress, grouped, percentiles};
use self::run::Outcome;
use self::sample::Sample;
use super::api::Api;
use super::{Failure, SettingsArgs, print};
use crate::settings::{Assignment, Backend, Loaded, Settings, load};
use crate::shutdown::{self, Signals};
use crate::startup::{self, Running};
use crate::telemetry;

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// How many orders
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    orders: u32,
    /// The same seed makes the same orders
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Lets a pipeline crash halfway, to show that nothing is lost
    #[arg(long)]
    crash: bool,
    /// Ends after the last order: 0 when none was lost, else 1
    #[arg(long)]
    exit: bool,
}

/// Runs it; without `--exit` it serves on until it is stopped.
pub(super) fn run(command: &Demo, args: &SettingsArgs) -> Result<(), Failure> {
    let dir = tempfile::Builder::new().prefix("wavegate-demo-").tempdir()?;
    let settings = settings(args, &dir)?;
    let _flush = telemetry::start(&settings.log);
    let done = actix_rt::System::new().block_on(demo(command, &settings));
    drop(dir);
    done
}

/// The user's settings on top of the demonstration's: a free port, few log lines, a fast warehouse.
fn settings(args: &SettingsArgs, dir: &TempDir) -> Result<Settings, Failure> {
    let own = [("http.listen", "127.0.0.1:0"), ("log.level", "warn"), ("manifests.close_every", "500ms")];
    let mut sources = args.sources();
    sources.base = own.map(|(key, value)| Assignment { key: key.into(), value: value.into() }).to_vec();
    let loaded = load(&sources)?;
    let fast = loaded.is_default("warehouses");
    let Loaded { mut settings, .. } = loaded;
    // Whatever is configured: the demonstration never touches a real store, and calls itself
    // without a key.
    settings.store.backend = Backend::Embedded;
    settings.store.embedded.data_dir = dir.path().join("data");
    settings.store.redis.receipts_dir = dir.path().join("receipts");
    settings.keys.clear();
    if !settings.http.listen.ip().is_loopback() {
        settings.http.listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    if fast {
        for warehouse in &mut settings.warehouses {
            warehouse.wms.pick = Duration::from_millis(100);
            warehouse.wms.pack = Duration::from_millis(50);
            warehouse.wms.depart = Duration::from_millis(250);
        }
    }
    Ok(settings)
}

async fn demo(command: &Demo, settings: &Settings) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let faults = Arc::new(ArmedFaults::default());
    let running = startup::start(settings, faults.clone()).await?;
    print(&format!("listening on http://{}\n", running.address))?;
    let told = tokio::select! {
        told = show(command, settings, &running, &faults) => told,
        _ = signals.next() => {
            shutdown::stop(running, signals).await;
            return Ok(());
        }
    };
    let end = match told {
        Ok(outcome) => verdict(&outcome),
        Err(failure) => Err(failure),
    };
    if command.exit || end.is_err() {
        shutdown::stop(running, signals).await;
        return end;
    }
    shutdown::serve(running, signals).await.map_err(Failure::from)
}

fn verdict(outcome: &Outcome) -> Result<(), Failure> {
    match (outcome.lost, outcome.refused.first()) {
        (0, None) => Ok(()),
        (0, Some(first)) => {
            Err(Failure::failed(format!("{} orders were refused, the first: {first}", outcome.refused.len())))
        }
        (lost, _) => Err(Failure::failed(format!("{lost} accepted orders are not to be found"))),
    }
}

async fn show(
    command: &Demo,
    settings: &Settings,
    running: &Running,
    faults: &ArmedFaults,
) -> Result<Outcome, Failure> {
    let count = usize::try_from(command.orders).unwrap_or(usize::MAX);
    let sample = Sample::new(command.seed, count, &settings.warehouses);
    let url = format!("http://{}", running.address);
    let api = Api::new(&url, None)?;
    let progress = Progress::new(count);
    progress.say(&format!("booking {} receipts as opening stock\n", grouped(sample.receipts.len())));
    run::stock(&api, &sample).await?;
    progress.say(&format!("sending {} orders\n", grouped(count)));
    let victim = &settings.warehouses[0];
    let halfway = || {
        if command.crash {
            progress.say(&format!("half are in: the pipeline of {} is made to panic now\n", victim.code));
            faults.arm(FaultPoint::PipelineDurable, Some(PartitionId(victim.partition)));
        }
    };
    let outcome = run::orders(&api, &sample, &progress, halfway).await;
    progress.finish();
    let mut outcome = outcome?;
    if command.crash {
        print(&match faults.armed() {
            0 => format!(
                "the pipeline of {} panicked after a commit and before it acted on it; its tree was rebuilt \
                 from the store\n",
                victim.code
            ),
            _ => format!("the pipeline of {} had nothing left to do when it was to panic\n", victim.code),
        })?;
    }
    print(&summary(&mut outcome, running, &url, settings, command))?;
    Ok(outcome)
}

fn summary(
    outcome: &mut Outcome,
    running: &Running,
    url: &str,
    settings: &Settings,
    command: &Demo,
) -> String {
    let mut text = format!(
        "accepted      {}, in {} (durability {})\ndoor to door  {}\n",
        grouped(outcome.accepted),
        percentiles(&mut outcome.accept),
        running.durability.as_str(),
        percentiles(&mut outcome.door_to_door),
    );
    if outcome.otherwise > 0 {
        text.push_str(&format!("not shipped   {}, done in another way\n", grouped(outcome.otherwise)));
    }
    if outcome.waiting > 0 {
        text.push_str(&format!("waiting       {}\n", grouped(outcome.waiting)));
    }
    if !command.exit {
        let id = outcome.example.as_deref().unwrap_or("TRANSACTION_ID");
        let code = &settings.warehouses[0].code;
        text.push_str(&format!(
            "\nstill serving on {url}, stop with Ctrl-C; try\n  \
             {url}/track/{id}                  # in a browser\n  \
             curl -s {url}/v1/status/{id}\n  \
             curl -sN {url}/v1/events -H 'Accept: text/event-stream'   # then, from another terminal:\n  \
             curl -s {url}/v1/orders -H 'Content-Type: application/json' -d '{}'\n\n",
            format_args!(
                "{{\"reference\": \"MINE-1\", \"warehouse\": \"{code}\", \"service_level\": \"{}\", \"ship_to\": \
                 {{\"name\": \"Me\", \"lines\": [\"1 Main St\"], \"city\": \"Atlanta\", \"country\": \"US\"}}, \
                 \"lines\": [{{\"line\": 1, \"sku\": \"TSHIRT-BLK-M\", \"quantity\": 1}}]}}",
                settings.warehouses[0].services[0]
            ),
        ));
    }
    text.push_str(&format!(
        "{} accepted, {} shipped, {} lost in {:.1} s\n",
        grouped(outcome.accepted),
        grouped(outcome.shipped),
        grouped(outcome.lost),
        outcome.took.as_secs_f64(),
    ));
    text
}
