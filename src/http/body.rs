//! Bodies, read whole under a bound on bytes and on time.

use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpRequest, rt};
use futures_util::StreamExt;
use wavegate_engine::wire::json::{self, Json};

use super::headers::{self, Media};
use super::problem::Problem;

/// A body has this long to arrive; one that trickles in holds a connection and its memory.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// Reads a body of at most `max` bytes.
pub(crate) async fn read(request: &HttpRequest, payload: Payload, max: usize) -> Result<Bytes, Problem> {
    if declared_length(request.headers()).is_some_and(|n| n > max as u64) {
        return Err(Problem::TooLarge(max));
    }
    rt::time::timeout(ARRIVAL_MAX, collect(payload, max)).await.map_err(|_| Problem::BodyTooSlow)?
}

/// Whether a request says that its body has at most `max` bytes.
pub(crate) fn is_declared_within(request: &HttpRequest, max: usize) -> bool {
    declared_length(request.headers()).is_some_and(|n| n <= max as u64)
}

/// Reads a JSON body; the tree borrows from the bytes.
pub(crate) fn tree(body: &Bytes) -> Result<Json<'_>, Problem> {
    json::parse(body).map_err(|e| Problem::MalformedJson(e.to_string()))
}

/// Refuses a body that does not claim to be JSON.
pub(crate) fn expect_json(request: &HttpRequest) -> Result<(), Problem> {
    match headers::media(request.headers()) {
        Media::Json => Ok(()),
        Media::NdJson | Media::Absent | Media::Other => {
            Err(Problem::UnsupportedMediaType("application/json or application/*+json"))
        }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(mut payload: Payload, max: usize) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| broken(&e, max))?;
        if first.len() + all.len() + chunk.len() > max {
            return Err(Problem::TooLarge(max));
        }
        // Most bodies come in one piece, which is then not copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn broken(error: &PayloadError, max: usize) -> Problem {
    if let PayloadError::Overflow = error { Problem::TooLarge(max) } else { Problem::MalformedBody }
}
