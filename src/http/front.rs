//! What every request passes and every response shows: correlation, admission, the problem
//! document, the span.

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use tracing::Span;
use tracing::field::Empty;
use tracing_actix_web::RootSpanBuilder;
use wavegate_engine::domain::ids::CorrelationId;

use super::auth::{self, Caller};
use super::call::{self, CORRELATION_HEADER, Call, Correlation};
use super::cors;
use super::problem::Problem;
use super::state::State;
use super::unread::Unread;

/// The outermost layer; `spans` says whether there is the one for spans within it, and [`admit`] in that.
///
/// Problems are written here and nowhere else, so that no failure, of an extractor or of the
/// framework either, reaches a client as anything but a problem document.
pub(crate) async fn front<B: MessageBody + 'static>(
    spans: bool,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<BoxBody, B>>, Error> {
    let correlation = call::correlation(request.headers());
    let path = request.path().to_owned();
    let unread = Unread::watch(&mut request);
    let page = request.app_data::<web::Data<State>>().and_then(|state| cors::origin(&request, state));
    if let Some(origin) = &page
        && let Some(mut response) = cors::preflight(&request)
    {
        cors::stamp(response.headers_mut(), origin.clone());
        stamp(response.headers_mut(), &correlation);
        return Ok(request.into_response(response).map_into_left_body());
    }
    let answered = if spans {
        request.extensions_mut().insert(Correlation(correlation.clone()));
        next.call(request).await
    } else {
        // A layer of its own would cost each request another future on the heap.
        answer(correlation.clone(), request, next).await
    };
    match answered {
        Ok(response) => {
            let mut response = finish(response, &path, &correlation);
            if let Some(origin) = page {
                cors::stamp(response.headers_mut(), origin);
            }
            Ok(match unread.filter(Unread::is_left) {
                Some(unread) => response.map_body(|_, body| EitherBody::left(unread.behind(body))),
                None => response,
            })
        }
        Err(error) => {
            let problem = problem_of(&error);
            let mut response = problem.respond(&path, &correlation);
            stamp(response.headers_mut(), &correlation);
            if let Some(origin) = page {
                cors::stamp(response.headers_mut(), origin);
            }
            Err(InternalError::from_response(error, response).into())
        }
    }
}

/// Decides who calls, inside the span. A refusal is an error that [`front`] writes out.
pub(crate) async fn admit<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let correlation = call::correlation_of(&request).ok_or(Problem::Internal)?;
    answer(correlation, request, next).await
}

async fn answer<B: MessageBody + 'static>(
    correlation: CorrelationId,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let state = request.app_data::<web::Data<State>>().ok_or(Problem::Internal)?;
    let guest = auth::stream_guest(&request, state).await?.map(|grant| (grant, state.clone()));
    let caller = match &guest {
        Some((grant, _)) => Caller::Client(grant.client),
        None => state.keys.admit(&request)?,
    };
    let trace = call::trace(request.headers());
    request.extensions_mut().insert(Call { correlation, trace, caller });
    let Some((grant, state)) = guest else { return next.call(request).await };
    request.extensions_mut().insert(grant.clone());
    let mut answered = next.call(request).await;
    match &mut answered {
        Ok(response) if response.status().is_success() => {
            if let Some(cookie) = grant.cookie.as_deref().and_then(|c| HeaderValue::from_str(c).ok()) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
        }
        // What has opened nothing is not used up.
        Ok(_) | Err(_) => state.tickets.give_back(grant).await,
    }
    answered
}

fn finish<B: MessageBody + 'static>(
    response: ServiceResponse<B>,
    path: &str,
    correlation: &CorrelationId,
) -> ServiceResponse<EitherBody<BoxBody, B>> {
    let problem = match response.response().error() {
        Some(error) => Some(problem_of(error)),
        None => bare_problem(response.response()),
    };
    let mut response = match problem {
        Some(problem) => {
            let (request, _) = response.into_parts();
            let written = problem.respond(path, correlation);
            ServiceResponse::new(request, written).map_into_left_body()
        }
        None => response.map_into_right_body(),
    };
    stamp(response.headers_mut(), correlation);
    response
}

/// The problem behind an error; for one that is not ours, what its status says.
fn problem_of(error: &Error) -> Problem {
    match error.as_error::<Problem>() {
        Some(problem) => problem.clone(),
        None => Problem::of_status(error.as_response_error().status_code()),
    }
}

/// A refusal that the framework wrote without an error.
fn bare_problem<B>(response: &HttpResponse<B>) -> Option<Problem> {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    (refused && !response.headers().contains_key(header::CONTENT_TYPE)).then(|| Problem::of_status(status))
}

fn stamp(headers: &mut header::HeaderMap, correlation: &CorrelationId) {
    // Its pattern is visible ASCII, so this cannot fail.
    if let Ok(value) = HeaderValue::from_str(correlation.as_str()) {
        headers.insert(HeaderName::from_static(CORRELATION_HEADER), value);
    }
}

/// Whether anybody looks at spans of requests. Where nobody does the layer that makes them is left out,
/// for it costs each request an id and a walk over the routes.
pub(crate) fn spans_are_shown() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// The span of a request: who it is by correlation id, which route, how it ended. At debug, for
/// at info it would cost a third of the throughput. Never the query or a header: keys and
/// tickets stand there.
pub(crate) struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let correlation = call::correlation_of(request);
        tracing::debug_span!(
            "request",
            method = %request.method(),
            route = request.match_pattern().as_deref().unwrap_or("-"),
            correlation_id = correlation.as_ref().map(CorrelationId::as_str),
            status = Empty,
        )
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let status = match outcome {
            Ok(response) => response.status(),
            Err(error) => problem_of(error).status(),
        };
        span.record("status", status.as_u16());
        tracing::debug!(parent: &span, "answered");
    }
}
