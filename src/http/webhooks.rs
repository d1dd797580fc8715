//! `/v1/webhooks/endpoints`: where a client wants its events posted. Somebody else's endpoint is
//! answered like one that does not exist.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::domain::endpoint::EndpointId;
use wavegate_engine::domain::ids::ClientNo;
use wavegate_engine::engine::NewEndpoint;
use wavegate_engine::wire::endpoints::{self, AttemptItem, EndpointDocument, Rotated};

use super::accept::json_body;
use super::body;
use super::call::Call;
use super::headers::{self, Media};
use super::orders::client_of;
use super::problem::Problem;
use super::query::Params;
use super::state::{State, ok_json, unreadable};

/// Attempts of a page unless the caller says otherwise, and at most.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 500;

#[derive(Serialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// The endpoint that a path names, and the client that the call is for.
fn named(state: &State, call: &Call, request: &HttpRequest) -> Result<(ClientNo, EndpointId), Problem> {
    let client = client_of(state, call, &Params::read(request, &[])?)?;
    Ok((client, id_of(request)?))
}

fn id_of(request: &HttpRequest) -> Result<EndpointId, Problem> {
    request.match_info().get("id").unwrap_or_default().parse().map_err(|_| Problem::NotFound)
}

/// A body that may be left out; `{}` then.
async fn optional_body(state: &State, request: &HttpRequest, payload: Payload) -> Result<Bytes, Problem> {
    let body = body::read(request, payload, state.body_max).await?;
    if body.is_empty() && headers::media(request.headers()) != Media::Other {
        return Ok(Bytes::from_static(b"{}"));
    }
    body::expect_json(request)?;
    Ok(body)
}

/// `POST /v1/webhooks/endpoints`
pub(crate) async fn create(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    state.take_work()?;
    body::expect_json(&request)?;
    let client = client_of(&state, &call, &Params::read(&request, &[])?)?;
    let body = body::read(&request, payload, state.body_max).await?;
    let settings = endpoints::endpoint(body::tree(&body)?)?;
    let made = state.engine.webhooks().create(NewEndpoint { client, settings }).await?;
    tracing::info!(correlation_id = %call.correlation, endpoint = %made.id, "a webhook endpoint is made");
    let mut response = HttpResponse::Created();
    response.insert_header((header::LOCATION, format!("/v1/webhooks/endpoints/{}", made.id)));
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    json_body(&mut response, &EndpointDocument::with_secret(&made))
}

/// `GET /v1/webhooks/endpoints`
pub(crate) async fn list(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let client = client_of(&state, &call, &Params::read(&request, &[])?)?;
    let found = state.engine.store().endpoints_of(client).await.map_err(|e| unreadable(&e))?;
    ok_json(&Page { items: found.iter().map(EndpointDocument::of).collect(), next: None })
}

/// `GET /v1/webhooks/endpoints/{id}`
pub(crate) async fn get(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (client, id) = named(&state, &call, &request)?;
    let found = state.engine.store().endpoint(client, id).await.map_err(|e| unreadable(&e))?;
    ok_json(&EndpointDocument::of(&found.ok_or(Problem::NotFound)?))
}

/// `PATCH /v1/webhooks/endpoints/{id}`
pub(crate) async fn patch(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    body::expect_json(&request)?;
    let (client, id) = named(&state, &call, &request)?;
    let body = body::read(&request, payload, state.body_max).await?;
    let patch = endpoints::patch(body::tree(&body)?)?;
    let changed = state.engine.webhooks().patch(client, id, |settings| patch.apply(settings)).await?;
    ok_json(&EndpointDocument::of(&changed))
}

/// `DELETE /v1/webhooks/endpoints/{id}`
pub(crate) async fn delete(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (client, id) = named(&state, &call, &request)?;
    state.engine.webhooks().delete(client, id).await?;
    tracing::info!(correlation_id = %call.correlation, endpoint = %id, "a webhook endpoint is deleted");
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/webhooks/endpoints/{id}/rotate`
pub(crate) async fn rotate(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (client, id) = named(&state, &call, &request)?;
    let body = optional_body(&state, &request, payload).await?;
    let grace = Duration::from_secs(endpoints::rotation(body::tree(&body)?)?.into());
    let (endpoint, until) = state.engine.webhooks().rotate(client, id, grace).await?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    json_body(&mut response, &Rotated::of(&endpoint.secrets.current, until))
}

#[derive(Serialize)]
struct Queued {
    id: String,
}

fn queued(id: EndpointId) -> Result<HttpResponse, Problem> {
    json_body(&mut HttpResponse::Accepted(), &Queued { id: id.to_string() })
}

/// `POST /v1/webhooks/endpoints/{id}/ping`
pub(crate) async fn ping(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (client, id) = named(&state, &call, &request)?;
    state.engine.webhooks().ping(client, id, &call.correlation, &call.trace).await?;
    queued(id)
}

/// `POST /v1/webhooks/endpoints/{id}/replay`
pub(crate) async fn replay(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    body::expect_json(&request)?;
    let (client, id) = named(&state, &call, &request)?;
    let body = body::read(&request, payload, state.body_max).await?;
    let asked = endpoints::replay(body::tree(&body)?, state.engine.now())?;
    let span = (asked.since, asked.until);
    state.engine.webhooks().replay(client, id, span, asked.types).await?;
    queued(id)
}

/// `POST /v1/webhooks/endpoints/{id}/enable`
pub(crate) async fn enable(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (client, id) = named(&state, &call, &request)?;
    let enabled = state.engine.webhooks().enable(client, id).await?;
    ok_json(&EndpointDocument::of(&enabled))
}

/// `GET /v1/webhooks/endpoints/{id}/attempts`: the last ones, newest first.
pub(crate) async fn attempts(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let params = Params::read(&request, &["after", "limit"])?;
    let client = client_of(&state, &call, &params)?;
    let id = id_of(&request)?;
    let before: Option<u64> = params.parsed("after")?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).map_err(|_| Problem::Internal)?;
    let store = state.engine.store();
    store.endpoint(client, id).await.map_err(|e| unreadable(&e))?.ok_or(Problem::NotFound)?;
    let mut found = store.attempts(id).await.map_err(|e| unreadable(&e))?;
    found.retain(|(n, _)| before.is_none_or(|before| *n < before));
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(n, _)| n.to_string());
    ok_json(&Page { items: found.into_iter().map(|(_, attempt)| AttemptItem::from(attempt)).collect(), next })
}
