//! `wavegate config check | show`: the settings before anything starts.

use clap::Subcommand;

use super::{Failure, SettingsArgs, print, tell};
use crate::settings::{doubts, show};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Says whether the settings can be used: exit code 0, or 2 with every fault
    Check,
    /// Prints every setting, its value and where it was set
    Show,
}

/// Runs one.
pub(super) fn run(command: &Config, args: &SettingsArgs) -> Result<(), Failure> {
    let loaded = args.load()?;
    match command {
        Config::Check => {
            for doubt in doubts(&loaded.settings) {
                tell(&format!("warning: {doubt}\n"));
            }
            print("ok\n")
        }
        Config::Show => print(&show(&loaded)),
    }
}
