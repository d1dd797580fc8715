//! `wavegate key new`: makes a key, shows it once, and writes what the configuration needs.
//!
//! The key itself is never stored: only its digest goes into a file.

use clap::{Args, Subcommand};
use rand::Rng;
use sha2::{Digest, Sha256};

use super::{Failure, print};
use crate::settings::{CLIENT_EXPECTED, KeyRole, client_name};

/// Random characters after the prefix: 40 of 62 are 238 bits.
const RANDOM_CHARS: usize = 40;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Prints a new key, once, and the lines for the configuration
    New(New),
}

/// Whose key it is to be.
#[derive(Debug, Args)]
pub(super) struct New {
    /// What the key may do
    #[arg(long, value_enum)]
    role: KeyRole,
    /// Whose transactions (role client)
    #[arg(long, value_name = "NAME", required_if_eq("role", "client"))]
    client: Option<String>,
    /// Which warehouses, by code; may be repeated (role wms)
    #[arg(long, value_name = "CODE", required_if_eq("role", "wms"))]
    warehouse: Vec<String>,
}

/// Runs one.
pub(super) fn run(command: &Key) -> Result<(), Failure> {
    match command {
        Key::New(new) => print(&text(new, &random_key())?),
    }
}

fn random_key() -> String {
    // The thread's generator is a cryptographic one, seeded by the operating system.
    let mut rng = rand::rng();
    let random = (0..RANDOM_CHARS).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    "wg_".chars().chain(random).collect()
}

fn text(new: &New, key: &str) -> Result<String, Failure> {
    let mut lines = vec!["[[keys]]".to_owned()];
    match new.role {
        KeyRole::Client => lines.push("role = \"client\"".into()),
        KeyRole::Wms => lines.push("role = \"wms\"".into()),
        KeyRole::Operator => lines.push("role = \"operator\"".into()),
    }
    match (&new.client, new.role) {
        (Some(client), KeyRole::Client) => {
            let client = client_name(client)
                .ok_or_else(|| Failure::usage(format!("--client {client:?}: expected {CLIENT_EXPECTED}")))?;
            lines.push(format!("client = \"{client}\""));
        }
        (Some(_), KeyRole::Wms | KeyRole::Operator) => {
            return Err(Failure::usage("--client: only a key of role client has one"));
        }
        (None, KeyRole::Client | KeyRole::Wms | KeyRole::Operator) => {}
    }
    match (new.warehouse.as_slice(), new.role) {
        ([], _) => {}
        (codes, KeyRole::Wms) => lines.push(format!("warehouses = {codes:?}")),
        (_, KeyRole::Client | KeyRole::Operator) => {
            return Err(Failure::usage("--warehouse: only a key of role wms has them"));
        }
    }
    let digest: String = Sha256::digest(key.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    lines.push(format!("sha256 = \"{digest}\""));
    Ok(format!(
        "# The key, shown this once; send it as  Authorization: Bearer {key}\n{key}\n\n\
         # Lines for a file that is given with --config (the list replaces an earlier one):\n{}\n",
        lines.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_enough_and_never_the_same() {
        let (a, b) = (random_key(), random_key());
        assert_ne!(a, b);
        assert!((32..=128).contains(&a.len()) && a.bytes().all(|c| c.is_ascii_graphic()), "{a}");
    }

    #[test]
    fn the_lines_carry_the_digest_of_the_key_as_printed() {
        let new = New { role: KeyRole::Client, client: Some("acme".into()), warehouse: vec![] };
        let text = text(&new, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        assert!(
            text.contains("sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"")
        );
        assert!(text.contains("client = \"acme\""));
    }

    #[test]
    fn a_name_that_belongs_to_another_role_is_refused() {
        for (role, client, warehouse) in [
            (KeyRole::Operator, Some("acme".to_owned()), vec![]),
            (KeyRole::Client, Some("a b".to_owned()), vec![]),
            (KeyRole::Client, Some("acme".to_owned()), vec!["ATL1".to_owned()]),
        ] {
            let failure = text(&New { role, client, warehouse }, "abc").unwrap_err();
            assert_eq!(failure.code, 2, "{failure}");
        }
    }
}
