//! The command line: what may be typed, and which exit code a failure has.
//!
//! 0 done, 1 failed, 2 wrong usage or configuration, 3 the store is unreachable, unreadable or
//! held by another process.

mod api;
mod bench;
mod completions;
mod config;
mod demo;
mod follow;
mod key;
mod listen;
mod serve;
mod signature;
mod store;
mod submit;
mod watch;
mod wms;

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::settings::{Assignment, Faults, Loaded, Sources, load};
use crate::startup;

/// Takes orders at the speed of the internet and feeds them to warehouses at theirs.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = false, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where settings come from; understood by every sub-command.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Reads settings from FILE (TOML), over the defaults; may be repeated, later files win
    #[arg(long, value_name = "FILE", global = true)]
    config: Vec<PathBuf>,
    /// Sets one setting, over files and environment, say http.listen=127.0.0.1:9000
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<Assignment>,
}

impl SettingsArgs {
    fn sources(&self) -> Sources {
        Sources::new(self.config.clone(), self.set.clone())
    }

    fn load(&self) -> Result<Loaded, Faults> {
        load(&self.sources())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server (also without any sub-command); embedded store in ./data by default
    Serve,
    /// Runs the server in a fresh temporary directory with sample orders, through to the end
    Demo(demo::Demo),
    /// Sends orders (or moves) from a file; may be repeated, references are recognised
    Submit(submit::Submit),
    /// Follows a feed, or one transaction to its end, in the terminal
    Watch(watch::Watch),
    /// Brings signed webhooks to a program on this machine without a public address
    Listen(listen::Listen),
    /// Makes keys
    #[command(subcommand)]
    Key(key::Key),
    /// Checks the settings, or shows each with its value and where it came from
    #[command(subcommand)]
    Config(config::Config),
    /// Checks a store at rest, or copies a live one
    #[command(subcommand)]
    Store(store::Store),
    /// Runs a simulated WMS of one warehouse as a process of its own, over the real protocol
    Wms(wms::Wms),
    /// Measures this version on this machine, each measure beside its ceiling
    Bench(bench::Bench),
    /// Signs a webhook's body, or says why a signature fails
    #[command(subcommand)]
    Signature(signature::Signature),
    /// Prints the completion script of a shell
    Completions(completions::Completions),
}

/// Parses the command line and does what it says. Wrong usage ends the process with 2.
pub(crate) fn run() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    let done = match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&settings),
        Command::Demo(demo) => demo::run(&demo, &settings),
        Command::Submit(submit) => submit::run(&submit),
        Command::Watch(watch) => watch::run(&watch),
        Command::Listen(listen) => listen::run(&listen),
        Command::Key(key) => key::run(&key),
        Command::Config(config) => config::run(&config, &settings),
        Command::Store(store) => store::run(&store, &settings),
        Command::Wms(wms) => wms::run(&wms, &settings),
        Command::Bench(bench) => bench::run(&bench, &settings),
        Command::Signature(signature) => signature::run(&signature),
        Command::Completions(completions) => completions::run(&completions),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&format!("error: {failure}\n"));
            ExitCode::from(failure.code)
        }
    }
}

/// What a sub-command failed of, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command did not do what it was asked to.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure { code: 1, message: message.into() }
    }

    /// The command line or a setting is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { code: 2, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Failure::usage(faults.to_string())
    }
}

impl From<startup::Error> for Failure {
    fn from(error: startup::Error) -> Self {
        Failure { code: error.exit_code(), message: with_causes(&error) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::failed(with_causes(&error))
    }
}

/// An error and the errors behind it, in one line.
pub(crate) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let next = e.to_string();
        // Transparent wrappers repeat their source word for word.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = e.source();
    }
    text
}

/// Prints to standard output. A reader that has closed it (`… | head`) has seen enough: that is
/// success, where `println!` would panic.
///
/// # Errors
/// When it cannot be written for another reason, a full disk for example.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Tells the user something on standard error; nobody there is no failure.
pub(crate) fn tell(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}
