//! A way in for the fuzz targets, compiled for them alone: the request headers with a grammar of
//! their own are nobody's business outside of this door.

use actix_web::http::header::HeaderMap;

use super::headers;

/// What the headers of a request say.
#[derive(Debug)]
pub struct Read {
    /// `Idempotency-Key`, where it is one.
    pub key: Option<String>,
    /// The seconds of `Prefer: wait`.
    pub wait_s: Option<u64>,
    /// Whether `If-None-Match` names version 1.
    pub has_version_1: bool,
    /// Whether the body claims to be JSON.
    pub is_json: bool,
}

/// Reads them all.
#[must_use]
pub fn read_headers(headers: &HeaderMap) -> Read {
    Read {
        key: headers::idempotency_key(headers).ok().flatten(),
        wait_s: headers::prefer_wait(headers),
        has_version_1: headers::NoneMatch::read(headers).is_some_and(|n| n.has(1)),
        is_json: headers::media(headers) == headers::Media::Json,
    }
}
