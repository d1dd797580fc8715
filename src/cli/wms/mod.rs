//! `wavegate wms`: the simulated WMS as a process of its own, over the real protocol, with a ledger
//! that outlives it. The floor is the one that the server has inside.

mod books;
mod desk;
mod http;
mod ledger;
mod reports;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use wavegate_engine::domain::ids::PartitionId;
use wavegate_engine::ports::clock::SystemClock;
use wavegate_engine::wms::http::ApiKey;
use wavegate_engine::wms::simulated::{self, Simulated};

use self::desk::{Desk, Records, now};
use self::ledger::{Ledger, LedgerError};
use self::reports::{Post, Reports};
use super::api::Api;
use super::{Failure, SettingsArgs, print, tell, with_causes};
use crate::shutdown::Signals;
use crate::{startup, telemetry};

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Wms {
    /// Where Wavegate calls it; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// The Wavegate that it reports to, say http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// The key that both sides call each other with
    #[arg(long)]
    key: Option<String>,
    /// The warehouse, by code; its character is what the settings say of its simulated WMS
    #[arg(long, value_name = "CODE")]
    warehouse: String,
    /// Keeps what it took, did and reported in FILE [default: wms-<CODE>.ndjson]
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT, or until its settings tell it to die.
pub(super) fn run(command: &Wms, args: &SettingsArgs) -> Result<(), Failure> {
    let settings = args.load()?.settings;
    if command.key.is_none() && !command.listen.ip().is_loopback() {
        // What arrives here are people's names and addresses.
        return Err(Failure::usage("--listen: without --key only a loopback address"));
    }
    if let Some(Err(e)) = command.key.as_ref().map(|key| key.parse::<ApiKey>()) {
        return Err(Failure::usage(format!("--key: {e}")));
    }
    let api = Api::new(&command.url, command.key.as_deref())?;
    let _flush = telemetry::start(&settings.log);
    actix_rt::System::new().block_on(async {
        let signals = Signals::catch()?;
        let listener = TcpListener::bind(command.listen)
            .map_err(|source| startup::Error::Bind { address: command.listen, source })?;
        let character = startup::simulation_of(&settings, &command.warehouse)?;
        serve(command, character, api, listener, signals).await
    })
}

async fn serve(
    command: &Wms,
    character: simulated::Settings,
    api: Api,
    listener: TcpListener,
    mut signals: Signals,
) -> Result<(), Failure> {
    let address = listener.local_addr()?;
    let warehouse = command.warehouse.clone();
    let path = command.ledger.clone().unwrap_or_else(|| format!("wms-{warehouse}.ndjson").into());
    let (ledger, books) = Ledger::open(&path, &warehouse, now())?;
    let (totals, open, loading, unreported) =
        (books.totals(), books.open(), books.loading(), books.unreported());
    let records = Arc::new(Records::new(ledger, books));
    let reports = Arc::new(Reports::new(&warehouse, api, records.clone()));
    // The partition is Wavegate's own affair; the wire knows the warehouse by its code.
    let sink = Arc::new(Post(reports.clone()));
    let floor = Simulated::new(PartitionId(0), character, Arc::new(SystemClock), sink);
    let died = floor.died();
    // First what the books say, then the door: a call must not find a floor that knows nothing.
    floor.resume(open, loading);
    let desk = Arc::new(Desk { warehouse, records, floor });
    let server = http::start(desk, command.key.as_deref(), listener)?;
    let handle = server.handle();
    let mut server = actix_rt::spawn(server);
    let rest = actix_rt::spawn(async move { reports.send(&unreported).await });
    print(&format!("listening on http://{address}\n"))?;
    tell(&format!(
        "wavegate {} as the WMS of {} on http://{address}, stop with Ctrl-C\n  reports to  {}\n  \
         ledger      {}: {} releases, {} open, {} reports to make, {} units shipped\n",
        env!("CARGO_PKG_VERSION"),
        command.warehouse,
        command.url,
        path.display(),
        totals.releases,
        totals.open,
        totals.unreported,
        totals.shipped,
    ));
    let ended = tokio::select! {
        _ = signals.next() => None,
        () = died.cancelled() => {
            tell("error: died, as wms.die_after tells it to; the ledger is whole, start it again\n");
            std::process::exit(1);
        }
        ended = &mut server => Some(ended),
    };
    rest.abort();
    match ended {
        None => handle.stop(false).await,
        Some(Ok(ended)) => ended?,
        Some(Err(e)) => return Err(Failure::failed(e.to_string())),
    }
    Ok(())
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let code = match error {
            LedgerError::Held(_)
            | LedgerError::Io { .. }
            | LedgerError::Line { .. }
            | LedgerError::NoLedger(_) => 3,
            LedgerError::Another { .. } => 2,
        };
        Failure { code, message: with_causes(&error) }
    }
}
