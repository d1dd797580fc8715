//! The ordered end: no new work, running requests finished, then the warehouses, all within
//! `shutdown.grace`. Nothing acknowledged depends on it: a kill loses nothing either.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::startup::Running;

/// SIGTERM and SIGINT, caught from the moment this exists.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Resolves at the next one, with its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Serves until a signal comes or the server ends by itself, then stops within the grace.
///
/// # Errors
/// When the HTTP server ended by itself.
pub(crate) async fn serve(mut running: Running, mut signals: Signals) -> io::Result<()> {
    tokio::select! {
        name = signals.next() => tracing::info!(signal = name, "stopping; a second signal ends at once"),
        ended = &mut running.http => {
            stop(running, signals).await;
            return match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(e)) => Err(e),
                Err(e) => Err(io::Error::other(e)),
            };
        }
    }
    stop(running, signals).await;
    Ok(())
}

/// Stops everything within the grace; a signal meanwhile ends the process at once.
pub(crate) async fn stop(running: Running, mut signals: Signals) {
    tokio::select! {
        () = drain(running) => {}
        name = signals.next() => {
            tracing::error!(signal = name, "second signal: the process ends at once; accepted work goes on at the next start");
            std::process::exit(1);
        }
    }
}

async fn drain(running: Running) {
    let Running { engine, http, http_handle, drain, grace, .. } = running;
    let until = Instant::now() + grace;
    drain.cancel();
    // Answers the calls that wait for a change: the HTTP server can't end before them.
    engine.drain();
    if tokio::time::timeout(grace, http_handle.stop(true)).await.is_err() {
        tracing::warn!("requests were still running at the end of shutdown.grace; they are cut off");
        http_handle.stop(false).await;
    }
    http.abort();
    let left = until.saturating_duration_since(Instant::now());
    // Even without time left the engine is told, so that it commits what it holds.
    engine.shutdown(left.max(Duration::from_millis(100))).await;
    tracing::info!("stopped");
}
