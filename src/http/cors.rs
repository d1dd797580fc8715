//! Pages of other origins (WHATWG Fetch, CORS): only the origins that the settings name, compared
//! exactly, and only for `/v1`.

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};

use super::state::State;

/// What such a page may send and read beside what every page may.
const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
const SENT: &str = "authorization, content-type, idempotency-key, if-none-match, last-event-id, prefer, \
                    traceparent, tracestate, x-correlation-id";
const READ: &str =
    "allow, etag, idempotent-replayed, location, preference-applied, retry-after, x-correlation-id";
/// How long a browser remembers the answer to a preflight, in seconds.
const REMEMBERED: &str = "600";

/// The origin of a call to `/v1`, when it is one of the settings'. With no such origins nothing is
/// looked at.
pub(crate) fn origin(request: &ServiceRequest, state: &State) -> Option<HeaderValue> {
    if state.cors_origins.is_empty() || !request.path().starts_with("/v1/") {
        return None;
    }
    let mut origins = request.headers().get_all(header::ORIGIN);
    let origin = origins.next().filter(|_| origins.next().is_none())?;
    let text = origin.to_str().ok()?;
    state.cors_origins.iter().any(|known| known == text).then(|| origin.clone())
}

/// The answer to a preflight; `None` when the request is none.
pub(crate) fn preflight(request: &ServiceRequest) -> Option<HttpResponse> {
    let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() != Method::OPTIONS || !asks {
        return None;
    }
    let mut response = HttpResponse::build(StatusCode::NO_CONTENT);
    response.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS));
    response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, SENT));
    response.insert_header((header::ACCESS_CONTROL_MAX_AGE, REMEMBERED));
    Some(response.finish())
}

/// Lets the page of this origin read the answer.
pub(crate) fn stamp(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READ));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}
