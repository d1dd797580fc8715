//! Whoever carries deliveries to consumers.

use bytes::Bytes;
use std::time::Duration;

use super::BoxFuture;

/// Posts deliveries. It decides nothing: who posts again, and when, is the Endpoint's.
pub trait Courier: Send + Sync + 'static {
    /// Posts once. Ends within its own bound, whatever the other side does.
    fn post(&self, parcel: Parcel) -> BoxFuture<Result<Answer, PostError>>;

    /// Whether deliveries may go to an address, as far as can be said now: a name that does not
    /// resolve may.
    fn judge(&self, url: String) -> BoxFuture<Result<(), AddressForbidden>>;
}

/// A delivery as it is posted.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// An absolute http or https address.
    pub url: String,
    /// What the body is called.
    pub content_type: &'static str,
    /// Further headers; one that HTTP cannot hold is left out.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// What a consumer answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status; of an answer that leads elsewhere, that one: nobody follows it.
    pub status: u16,
    /// How long it wants to be left alone, as it says; neither zero nor past.
    pub retry_after: Option<Duration>,
    /// It wants nothing more: `webhook-delivery: disable`.
    pub disable: bool,
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The address may not be called; nothing was sent.
    #[error("its address may not be called")]
    Forbidden,
    /// There was no answer in time.
    #[error("there was no answer in time")]
    Silent,
    /// It could not be reached, or did not speak HTTP.
    #[error("it could not be reached: {0}")]
    Unreachable(String),
}

/// Deliveries may not go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not one of the public internet")]
pub struct AddressForbidden;

/// Reaches nobody: for worlds without consumers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCourier;

impl Courier for NoCourier {
    fn post(&self, _: Parcel) -> BoxFuture<Result<Answer, PostError>> {
        Box::pin(std::future::ready(Err(PostError::Forbidden)))
    }

    fn judge(&self, _: String) -> BoxFuture<Result<(), AddressForbidden>> {
        Box::pin(std::future::ready(Err(AddressForbidden)))
    }
}
