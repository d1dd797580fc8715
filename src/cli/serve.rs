//! `wavegate serve`: the server, its banner and its end.

use wavegate_engine::ports::faults;

use super::{Failure, SettingsArgs, print, tell};
use crate::settings::{self, Backend, LogFormat, Settings, Sources};
use crate::shutdown::{self, Signals};
use crate::startup::{self, Running};
use crate::telemetry;

/// Warehouses that the banner names.
const WAREHOUSES_SHOWN: usize = 8;

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: &SettingsArgs) -> Result<(), Failure> {
    let sources = args.sources();
    let settings = crate::settings::load(&sources)?.settings;
    let _flush = telemetry::start(&settings.log);
    actix_rt::System::new().block_on(async {
        // Caught before anything is opened, so that an early signal finds a handler.
        let signals = Signals::catch()?;
        let running = startup::start(&settings, faults::of_process()).await?;
        print(&format!("listening on http://{}\n", running.address))?;
        banner(&settings, &sources, &running);
        for doubt in settings::doubts(&settings) {
            tracing::warn!(doubt, "the settings contradict each other");
        }
        shutdown::serve(running, signals).await.map_err(Failure::from)
    })
}

/// What runs here, on standard error: a page for people, an event for machines.
fn banner(settings: &Settings, sources: &Sources, running: &Running) {
    let facts = Facts::new(settings, sources, running);
    match settings.log.format {
        LogFormat::Json => tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            address = %running.address,
            store = facts.store,
            durability = running.durability.as_str(),
            warehouses = facts.warehouses,
            access = facts.access,
            settings = facts.settings,
            "serving"
        ),
        LogFormat::Text => {
            let (bold, plain) = if telemetry::colours() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            tell(&format!(
                "{bold}wavegate {}{plain} on {bold}http://{}{plain}, stop with Ctrl-C\n  \
                 store       {}, durability {}\n  warehouses  {}\n  access      {}\n  settings    {}\n  \
                 follow      http://{}/track/TRANSACTION_ID, or wavegate watch --url http://{}\n",
                env!("CARGO_PKG_VERSION"),
                running.address,
                facts.store,
                running.durability.as_str(),
                facts.warehouses,
                facts.access,
                facts.settings,
                running.address,
                running.address,
            ));
        }
    }
}

struct Facts {
    store: String,
    warehouses: String,
    access: String,
    settings: String,
}

impl Facts {
    fn new(settings: &Settings, sources: &Sources, running: &Running) -> Self {
        let store = match settings.store.backend {
            Backend::Embedded => {
                let dir = &settings.store.embedded.data_dir;
                let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
                format!("embedded in {}", dir.display())
            }
            Backend::Redis => format!("redis at {}", settings.store.redis.addresses()),
        };
        let mut warehouses: Vec<_> = settings
            .warehouses
            .iter()
            .take(WAREHOUSES_SHOWN)
            .map(|w| match &w.wms.url {
                Some(url) => format!("{} (partition {}, WMS at {url})", w.code, w.partition),
                None => format!("{} (partition {}, simulated WMS)", w.code, w.partition),
            })
            .collect();
        let more = settings.warehouses.len() - warehouses.len();
        if more > 0 {
            warehouses.push(format!("and {more} more"));
        }
        let access = match settings.keys.len() {
            0 => format!(
                "no keys: only this machine ({}), everybody is operator and client \"local\"",
                running.address.ip()
            ),
            1 => "1 key".into(),
            n => format!("{n} keys"),
        };
        let mut read = vec!["built-in defaults".to_owned()];
        read.extend(sources.files.iter().map(|file| file.display().to_string()));
        read.extend(sources.environment.iter().map(|(name, _)| name.clone()));
        read.extend(sources.sets.iter().map(|set| format!("--set {}", set.key)));
        Facts { store, warehouses: warehouses.join(", "), access, settings: read.join(", ") }
    }
}
