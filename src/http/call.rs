//! What belongs to one call from its first byte to its last log line: correlation, trace, caller.

use std::future::{Ready, ready};

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use rand::Rng;
use uuid::Uuid;
use wavegate_engine::domain::ids::{CorrelationId, TraceContext};

use super::auth::Caller;
use super::problem::Problem;

/// The header that carries the correlation id both ways.
pub(crate) const CORRELATION_HEADER: &str = "x-correlation-id";

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The caller's id for it, or a fresh one.
    pub(crate) correlation: CorrelationId,
    /// The trace it belongs to, or a fresh one.
    pub(crate) trace: TraceContext,
    /// Who calls.
    pub(crate) caller: Caller,
}

impl FromRequest for Call {
    type Error = Problem;
    type Future = Ready<Result<Call, Problem>>;

    /// Gives what the front noted; a route that is not behind the front has no calls.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.extensions().get::<Call>().cloned().ok_or(Problem::Internal))
    }
}

/// Notes the id under which a request is spoken of, before anything can fail.
#[derive(Clone, Debug)]
pub(crate) struct Correlation(pub(crate) CorrelationId);

/// Reads the caller's correlation id, or makes one.
pub(crate) fn correlation(headers: &HeaderMap) -> CorrelationId {
    let mut values = headers.get_all(CORRELATION_HEADER);
    let named = values.next().filter(|_| values.next().is_none());
    let named = named.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    named.unwrap_or_else(fresh_correlation)
}

fn fresh_correlation() -> CorrelationId {
    let mut text = Uuid::encode_buffer();
    let text: &str = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    text.parse().expect("a UUID is within the pattern of correlation ids")
}

/// Reads the W3C trace context; one that is not well-formed starts a new trace, and then a
/// `tracestate` belongs to nothing and is dropped, as the standard asks.
pub(crate) fn trace(headers: &HeaderMap) -> TraceContext {
    let mut values = headers.get_all("traceparent");
    let parent = values.next().filter(|_| values.next().is_none());
    let parent = parent.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    match parent {
        Some(parent) => TraceContext { state: trace_state(headers), ..parent },
        None => fresh_trace(),
    }
}

/// `tracestate` may stand in several headers, which are then one list.
fn trace_state(headers: &HeaderMap) -> Option<String> {
    let mut state = String::new();
    for value in headers.get_all("tracestate") {
        let value = value.to_str().ok()?.trim();
        if !state.is_empty() && !value.is_empty() {
            state.push(',');
        }
        state.push_str(value);
        if state.len() > TraceContext::STATE_MAX {
            return None;
        }
    }
    (!state.is_empty()).then_some(state)
}

fn fresh_trace() -> TraceContext {
    let mut random = rand::rng();
    // Zero is no id; the sampled flag is not ours to set.
    TraceContext {
        trace_id: random.random_range(1..=u128::MAX),
        parent_id: random.random_range(1..=u64::MAX),
        flags: 0,
        state: None,
    }
}

/// The correlation id of a request that went through the front.
pub(crate) fn correlation_of(request: &ServiceRequest) -> Option<CorrelationId> {
    request.extensions().get::<Correlation>().map(|c| c.0.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut request = TestRequest::default();
        for pair in pairs {
            request = request.append_header(*pair);
        }
        request.to_http_request().headers().clone()
    }

    #[test]
    fn a_correlation_id_is_kept_when_it_follows_the_pattern() {
        assert_eq!(correlation(&headers(&[("x-correlation-id", "a.B_1:-")])).as_str(), "a.B_1:-");
        for bad in ["", "a b", "ä", &"x".repeat(129)] {
            let fresh = correlation(&headers(&[("x-correlation-id", bad)]));
            assert_eq!(fresh.as_str().len(), 36, "{bad}");
        }
    }

    #[test]
    fn a_bad_traceparent_starts_a_new_trace_without_the_state() {
        let kept = trace(&headers(&[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]));
        assert_eq!(kept.traceparent(), PARENT);
        assert_eq!(kept.state.as_deref(), Some("a=1,b=2"));
        let fresh = trace(&headers(&[("traceparent", "nonsense"), ("tracestate", "a=1")]));
        assert_ne!(fresh.trace_id_hex(), kept.trace_id_hex());
        assert_eq!(fresh.state, None);
        let long = "x".repeat(513);
        assert_eq!(trace(&headers(&[("traceparent", PARENT), ("tracestate", &long)])).state, None);
    }
}
