//! Logs on standard error. A reader that does not keep up costs lines, never a request's time.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::{Log, LogFormat};

/// Lines that may wait for the reader of standard error; past it they are dropped and counted.
const LINES_MAX: usize = 8_192;
/// The longest that the end of the process waits for the last lines.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// True when standard error may carry colours: a terminal, and no `NO_COLOR` (no-color.org).
pub(crate) fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    io::stderr().is_terminal() && !refused
}

/// Starts logging for the whole process. Keep what it returns until the end: dropping it writes
/// what still waits. A second call changes nothing.
pub(crate) fn start(log: &Log) -> Flush {
    let (lines, waiting) = mpsc::sync_channel(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let writer = Writer { lines: lines.clone(), dropped: Arc::clone(&dropped) };
    // A process that cannot start this thread cannot start the others either and will say so.
    std::thread::Builder::new().name("log".into()).spawn(move || drain(&waiting, &dropped)).ok();
    // The setting was parsed by the same filter before.
    // The HTTP server tells of each of its worker threads; that is a warning's worth at most. And it
    // calls every request that it cannot parse an error: a stranger would fill the log. Unless the
    // setting names them.
    let filter = EnvFilter::try_new(format!("actix_server=warn,actix_http=off,{}", log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(colours()).with_target(false).try_init(),
        LogFormat::Json => builder.json().with_current_span(true).with_span_list(false).try_init(),
    };
    if started.is_ok() {
        LazyLock::force(&PANIC_HOOK);
    }
    Flush(lines)
}

/// Panics of actors are caught and survived, so they belong into the log like any other error.
static PANIC_HOOK: LazyLock<()> = LazyLock::new(|| {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current();
        // actix-http 3.20 panics at a header whose name is over 64 KiB. It is caught, and ends that
        // connection alone: what a stranger sends is no error of ours.
        if place.contains("/actix-http-") && place.contains("/h1/decoder.rs") {
            tracing::debug!(reason, place, "a request could not be parsed");
            return;
        }
        tracing::error!(reason, place, thread = thread.name().unwrap_or("-"), "panicked");
    }));
});

/// Writes the waiting lines when dropped.
pub(crate) struct Flush(SyncSender<Line>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, wait) = mpsc::sync_channel(1);
        if self.0.try_send(Line::Flush(done)).is_ok() {
            wait.recv_timeout(FLUSH_MAX).ok();
        }
    }
}

enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

fn drain(waiting: &Receiver<Line>, dropped: &AtomicU64) {
    while let Ok(line) = waiting.recv() {
        match line {
            Line::Text(text) => {
                let lost = dropped.swap(0, Ordering::Relaxed);
                let mut err = io::stderr().lock();
                // A closed standard error is the operator's choice; the server works on.
                if lost > 0 {
                    writeln!(err, "{lost} log lines were dropped: standard error was not read").ok();
                }
                err.write_all(&text).ok();
            }
            Line::Flush(done) => {
                done.send(()).ok();
            }
        }
    }
}

#[derive(Clone)]
struct Writer {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Buffer<'a>;
    fn make_writer(&'a self) -> Buffer<'a> {
        Buffer { text: Vec::new(), direct: false, to: self }
    }
    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Buffer<'a> {
        // The line before the end of the process must not wait in a queue that dies with it.
        Buffer { text: Vec::new(), direct: *metadata.level() == Level::ERROR, to: self }
    }
}

struct Buffer<'a> {
    text: Vec<u8>,
    direct: bool,
    to: &'a Writer,
}

impl Write for Buffer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if self.direct {
            io::stderr().lock().write_all(&text).ok();
            return;
        }
        match self.to.lines.try_send(Line::Text(text)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.to.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
