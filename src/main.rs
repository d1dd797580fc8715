//! The `wavegate` binary: picks the sub-command, turns failures into exit codes.
//!
//! Nothing is decided here; the engine is a crate of its own, HTTP and start-up are modules.

mod bench;
mod cli;
mod settings;
mod shutdown;
mod startup;
mod telemetry;

use std::process::ExitCode;

/// The system's allocator takes a lock where many threads free what others allocated, as store
/// and HTTP threads do here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Building an HTTP client panics until a provider is installed. The only error is that one
    // already is.
    rustls::crypto::ring::default_provider().install_default().ok();
    cli::run()
}
