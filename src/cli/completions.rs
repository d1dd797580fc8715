//! `wavegate completions SHELL`: the script that a shell sources.

use clap::{Args, CommandFactory};

use super::{Cli, Failure, print};

/// Its argument.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub(super) fn run(command: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "wavegate", &mut script);
    print(&String::from_utf8_lossy(&script))
}
