//! `wavegate signature`: signs and verifies deliveries after Standard Webhooks, for whoever writes a
//! consumer and wonders why a signature fails.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use wavegate_engine::ports::clock::{Clock, SystemClock};
use wavegate_engine::wire::signature;

use super::{Failure, print};

/// The longest body that is read, in bytes; no delivery is longer.
const BODY_MAX: u64 = 64 << 20;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Signature {
    /// Prints the signature of a body
    Sign(Signed),
    /// Says whether a signature is of this body; ends with 1 and the reason when it is not
    Verify(Verified),
}

/// What is signed.
#[derive(Debug, Args)]
pub(super) struct Signed {
    /// The endpoint's secret, whsec_…
    #[arg(long, value_name = "S")]
    secret: String,
    /// The header webhook-id
    #[arg(long, value_name = "ID")]
    id: String,
    /// The header webhook-timestamp, in seconds since 1970
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    timestamp: String,
    /// The body as it was sent, byte by byte; standard input without it or with -
    file: Option<PathBuf>,
}

/// What is verified.
#[derive(Debug, Args)]
pub(super) struct Verified {
    #[command(flatten)]
    signed: Signed,
    /// The header webhook-signature
    #[arg(long, value_name = "SIG")]
    signature: String,
}

/// Runs one.
pub(super) fn run(command: &Signature) -> Result<(), Failure> {
    match command {
        Signature::Sign(Signed { secret, id, timestamp, file }) => {
            let secret = signature::secret(secret).map_err(|e| Failure::usage(format!("--secret: {e}")))?;
            let seconds = timestamp.parse().map_err(|_| {
                Failure::usage(format!("--timestamp: {}", signature::SignatureError::Timestamp))
            })?;
            let signed = signature::sign(&secret, id, seconds, &body(file.as_deref())?);
            print(&format!("{signed}\n"))
        }
        Signature::Verify(Verified { signed: Signed { secret, id, timestamp, file }, signature }) => {
            let secret = signature::secret(secret).map_err(|e| Failure::usage(format!("--secret: {e}")))?;
            let body = body(file.as_deref())?;
            signature::verify(&secret, id, timestamp, signature, &body, None)
                .map_err(|e| Failure::failed(e.to_string()))?;
            print("the signature is of this id, timestamp and body\n")?;
            // A delivery that is looked into is an old one; that is worth a word and no failure.
            if let Err(e) =
                signature::verify(&secret, id, timestamp, signature, &body, Some(SystemClock.now()))
            {
                print(&format!("a consumer would refuse it by now: {e}\n"))?;
            }
            Ok(())
        }
    }
}

fn body(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = match file.filter(|file| *file != Path::new("-")) {
        None => io::stdin().lock().take(BODY_MAX).read_to_end(&mut body),
        Some(file) => fs::File::open(file).and_then(|f| f.take(BODY_MAX).read_to_end(&mut body)),
    };
    match (read, file) {
        (Ok(_), _) => Ok(body),
        (Err(e), Some(file)) => Err(Failure::failed(format!("{}: {e}", file.display()))),
        (Err(e), None) => Err(e.into()),
    }
}
