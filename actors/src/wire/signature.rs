//! Signatures of deliveries after Standard Webhooks 1.0
//! (<https://github.com/standard-webhooks/standard-webhooks>): HMAC-SHA256 over id, time and body.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::domain::endpoint::Secret;
use crate::domain::time::Timestamp;

/// What stands before the text of a secret.
const SECRET_PREFIX: &str = "whsec_";
/// The version of signatures that is made and read here.
const VERSION: &str = "v1";
/// A time that is further off than this is no time of now.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Writes a secret as clients get it: `whsec_…`.
#[must_use]
pub fn secret_text(secret: &Secret) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret.bytes()))
}

/// Why a signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a secret.
    #[error("the secret is not `whsec_` and 24 to 64 bytes in base64")]
    Secret,
    /// Not a time.
    #[error("the timestamp is not a number of seconds since 1970")]
    Timestamp,
    /// Further back than [`TOLERANCE`].
    #[error("the timestamp is more than five minutes old")]
    TooOld,
    /// Further ahead than [`TOLERANCE`].
    #[error("the timestamp is more than five minutes in the future")]
    TooNew,
    /// None of this version.
    #[error("no `v1,…` stands in the signature")]
    NoSignature,
    /// Well-formed, and of other content or by another secret.
    #[error("no signature is of this id, timestamp and body by this secret")]
    Mismatch,
}

/// Reads a secret, with or without its prefix.
///
/// # Errors
/// [`SignatureError::Secret`].
pub fn secret(text: &str) -> Result<Secret, SignatureError> {
    let text = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
    let bytes = STANDARD.decode(text).map_err(|_| SignatureError::Secret)?;
    if (24..=64).contains(&bytes.len()) { Ok(Secret::new(bytes)) } else { Err(SignatureError::Secret) }
}

fn mac(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    mac
}

/// Signs a delivery: `v1,` and the signature in base64. `timestamp` is in seconds.
#[must_use]
pub fn sign(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let signature = mac(secret, id, timestamp, body).finalize().into_bytes();
    format!("{VERSION},{}", STANDARD.encode(signature))
}

/// Verifies a delivery as its receiver does: `timestamp` and `signature` are the texts of the
/// headers, and one good signature among several is enough.
///
/// # Errors
/// Why it does not verify.
pub fn verify(
    secret: &Secret,
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: Option<Timestamp>,
) -> Result<(), SignatureError> {
    let seconds: i64 = timestamp.parse().map_err(|_| SignatureError::Timestamp)?;
    if let Some(now) = now {
        let at = Timestamp(seconds.saturating_mul(1_000));
        if now.since(at) > TOLERANCE {
            return Err(SignatureError::TooOld);
        }
        if at.since(now) > TOLERANCE {
            return Err(SignatureError::TooNew);
        }
    }
    let mut ours = signature.split(' ').filter_map(|one| one.strip_prefix("v1,")).peekable();
    if ours.peek().is_none() {
        return Err(SignatureError::NoSignature);
    }
    let good = |one: &str| {
        STANDARD.decode(one).is_ok_and(|bytes| mac(secret, id, seconds, body).verify_slice(&bytes).is_ok())
    };
    if ours.any(good) { Ok(()) } else { Err(SignatureError::Mismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const AT: &str = "1614265330";

    #[test]
    fn the_sample_of_the_specification_is_signed_and_verified() {
        let key = secret(SECRET).unwrap();
        assert_eq!(secret_text(&key), SECRET);
        assert_eq!(sign(&key, ID, 1_614_265_330, BODY), SIGNED);
        let verified = |signature: &str| verify(&key, ID, AT, signature, BODY, None);
        assert_eq!(verified(SIGNED), Ok(()));
        assert_eq!(verified(&format!("v1,AAAA v2,x {SIGNED}")), Ok(()));
        assert_eq!(verified("v1,AAAA"), Err(SignatureError::Mismatch));
        for none in ["", "v2,AAAA", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
            assert_eq!(verified(none), Err(SignatureError::NoSignature), "{none}");
        }
    }

    #[test]
    fn any_change_and_any_other_time_is_told() {
        let key = secret(SECRET).unwrap();
        let mismatch = Err(SignatureError::Mismatch);
        assert_eq!(verify(&key, "msg", AT, SIGNED, BODY, None), mismatch);
        assert_eq!(verify(&key, ID, "1614265331", SIGNED, BODY, None), mismatch);
        assert_eq!(verify(&key, ID, AT, SIGNED, b"{}", None), mismatch);
        assert_eq!(verify(&Secret::random([1; 4]), ID, AT, SIGNED, BODY, None), mismatch);
        let at = |seconds: i64| {
            verify(&key, ID, AT, SIGNED, BODY, Some(Timestamp((1_614_265_330 + seconds) * 1_000)))
        };
        assert_eq!((at(300), at(-300)), (Ok(()), Ok(())));
        assert_eq!((at(301), at(-301)), (Err(SignatureError::TooOld), Err(SignatureError::TooNew)));
        assert_eq!(verify(&key, ID, "now", SIGNED, BODY, None), Err(SignatureError::Timestamp));
    }

    #[test]
    fn a_secret_has_a_length() {
        for bad in ["", "whsec_", "whsec_AAAA", "whsec_!!!", &format!("whsec_{}", "A".repeat(88))] {
            assert_eq!(secret(bad).err(), Some(SignatureError::Secret), "{bad}");
        }
    }
}
