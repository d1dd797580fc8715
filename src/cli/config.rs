//! `wavegate config check | show`: the settings before anything starts.

use clap::Subcommand;
use std::time::Duration;

use super::{Failure, SettingsArgs, print, tell};
use crate::settings::{Backend, Settings, doubts, show};
use crate::startup;

/// Redis answers by then or is not waited for.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Says whether the settings can be used: exit code 0, or 2 with every fault
    Check,
    /// Prints every setting, its value and where it was set, and which node is in charge of what
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
        Config::Show => {
            print(&show(&loaded))?;
            print(&nodes(&loaded.settings))
        }
    }
}

/// Who is in charge of what, as lines of comment: where nodes share a store in Redis.
fn nodes(settings: &Settings) -> String {
    if !matches!(settings.store.backend, Backend::Redis) {
        return String::new();
    }
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async { tokio::time::timeout(ASKED_WITHIN, startup::nodes(settings)).await })
    });
    match asked {
        Ok(Ok(Ok(nodes))) if nodes.is_empty() => "# no node of this store is up\n".to_owned(),
        Ok(Ok(Ok(nodes))) => {
            let line = |(name, codes): (String, Vec<String>)| {
                let codes = if codes.is_empty() { "none".to_owned() } else { codes.join(", ") };
                format!("# node {name} is in charge of {codes}\n")
            };
            nodes.into_iter().map(line).collect()
        }
        Ok(Ok(Err(why))) => format!("# who is in charge of what is not known: {why}\n"),
        Ok(Err(_)) | Err(_) => "# who is in charge of what is not known: redis does not answer\n".to_owned(),
    }
}
