//! `/v1/events` and `/v1/status/{id}/events`: a client's feed and one transaction's events, as a
//! stream (server-sent events, WHATWG HTML §9.2) or as a page of JSON, by `Accept`.

pub(super) mod ticket;

mod resume;
mod stream;
pub(super) mod tickets;

use std::sync::Arc;

use actix_web::http::header::{self, Accept, Header};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde::Serialize;
use serde_json::value::RawValue;
use wavegate_engine::domain::ids::{ClientNo, PartitionId};
use wavegate_engine::engine::Event;
use wavegate_engine::ports::store::{Lookup, StoredTransaction};
use wavegate_engine::wire::cursor::Cursor;
use wavegate_engine::wire::event::TypeFilter;
use wavegate_engine::wire::reader::FaultCode;

use super::call::Call;
use super::orders::client_of;
use super::problem::Problem;
use super::query::{self, Params};
use super::state::{State, ok_json, unreadable};
use super::status;
use resume::{EARLIEST, Gap, Start};
use stream::{Followed, Session};
use ticket::{Grant, Scope};

/// Events of a page unless the caller says otherwise.
const PAGE: u64 = 100;
/// Events of a page at most.
const PAGE_MAX: u64 = 1_000;
/// Entries that one page looks at; it may be short or empty and still have a `next`.
const LOOKED_AT_MAX: usize = 5_000;
/// Entries read at once while looking.
const STRIDE: usize = 250;
/// Bytes after which a page ends early: large orders make short pages, not large answers.
const PAGE_BYTES: usize = 8 << 20;

/// Which events of a feed a reader wants.
pub(super) struct Filter {
    types: TypeFilter,
    /// What a ticket may see.
    granted: TypeFilter,
    warehouse: Option<String>,
    reference: Option<String>,
}

impl Filter {
    fn read(state: &State, params: &Params, grant: Option<&Grant>) -> Result<Filter, Problem> {
        let types = params.map("types", |list| list.parse().ok())?.unwrap_or_default();
        let granted = match grant.map(|grant| &grant.scope) {
            Some(Scope::Types(types)) => types.clone(),
            Some(Scope::Transaction(_)) | None => TypeFilter::default(),
        };
        let partition = |code: &str| -> Option<PartitionId> {
            state.engine.warehouses().named(code).map(|w| w.partition)
        };
        let warehouse = params.text("warehouse").map(str::to_owned);
        if warehouse.as_deref().is_some_and(|code| partition(code).is_none()) {
            return Err(query::fault("warehouse", FaultCode::UnknownWarehouse, "no warehouse has this code"));
        }
        Ok(Filter { types, granted, warehouse, reference: params.text("reference").map(str::to_owned) })
    }

    fn passes(&self, event: &Event) -> bool {
        self.warehouse.as_ref().is_none_or(|code| *code == event.warehouse)
            && self.reference.as_ref().is_none_or(|name| name == event.reference.as_str())
            && self.types.passes(event.event_type)
            && self.granted.passes(event.event_type)
    }
}

/// `GET /v1/events`
pub(crate) async fn feed(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let known = ["types", "warehouse", "reference", "last_event_id", "ticket", "after", "limit"];
    let params = Params::read(&request, &known)?;
    let client = client_of(&state, &call, &params)?;
    let grant = request.extensions().get::<Grant>().cloned();
    let filter = Filter::read(&state, &params, grant.as_ref())?;
    if !wants_stream(&request) {
        return feed_page(&state, &params, client, &filter).await;
    }
    let last = resume::last_event_id(request.headers(), &params);
    let place = match state.take_stream() {
        Some(place) => place,
        None => return over_the_limit(last.is_some()),
    };
    let start = resume::in_feed(&state, client, last.as_deref()).await?;
    let reader = Followed::Feed(Box::new(state.engine.follow(client, start.after)), filter);
    let session = Session::new(state, client, place, start, reader);
    Ok(answer(&request, session))
}

/// `GET /v1/status/{id}/events`
pub(crate) async fn transaction(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let params = Params::read(&request, &["last_event_id", "ticket", "after", "limit"])?;
    let id = request.match_info().get("id").unwrap_or_default();
    let stored = match status::find(&state, &call, id, params.text("client")).await? {
        Lookup::Live(stored) => stored,
        Lookup::Expired(_) => return Err(Problem::Expired),
    };
    if !wants_stream(&request) {
        return transaction_page(&state, &params, &stored).await;
    }
    let last = resume::last_event_id(request.headers(), &params);
    let place = match state.take_stream() {
        Some(place) => place,
        None => return over_the_limit(last.is_some()),
    };
    let start = resume::in_transaction(&state, &stored, last.as_deref()).await?;
    if start.ended {
        // Nothing follows: EventSource does not come again after this.
        return Ok(HttpResponse::NoContent().insert_header((header::CACHE_CONTROL, "no-store")).finish());
    }
    let reader = state.engine.follow_transaction(stored.id, stored.client, start.after);
    let reader = Followed::Transaction(Box::new(reader), stored.id, status::state_of(&stored));
    let session = Session::new(state, stored.client, place, start, reader);
    Ok(answer(&request, session))
}

/// Whether the caller would rather have a stream than a page.
fn wants_stream(request: &HttpRequest) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    let known = accept.ranked().into_iter().find(|mime| {
        let (kind, name) = (mime.type_().as_str(), mime.subtype().as_str());
        matches!((kind, name), ("text", "event-stream" | "*") | ("application", "json" | "*") | ("*", "*"))
    });
    known.is_some_and(|mime| mime.type_().as_str() == "text")
}

/// A stream more than there may be. EventSource gives up for good at an answer that is no stream, so
/// one that comes again with a cursor gets none at all, and tries again.
fn over_the_limit(comes_again: bool) -> Result<HttpResponse, Problem> {
    if comes_again { Ok(stream::no_answer()) } else { Err(Problem::Overloaded) }
}

fn answer(request: &HttpRequest, session: Session) -> HttpResponse {
    let mut response = HttpResponseBuilder::new(StatusCode::OK);
    response.content_type("text/event-stream");
    response.insert_header((header::CACHE_CONTROL, "no-store, no-transform"));
    response.insert_header(("x-accel-buffering", "no"));
    // Where a stream ends its connection does, so that also who reads no chunks sees the end.
    response.force_close();
    if request.method() == Method::HEAD {
        return response.finish();
    }
    response.streaming(session.into_stream())
}

#[derive(Serialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: String,
    /// What could have been missed between `after` and the first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
}

/// An event's JSON as it stands in a list.
fn item(event: &Event) -> Result<Box<RawValue>, Problem> {
    let text = std::str::from_utf8(&event.body).map_err(|_| Problem::Internal)?;
    RawValue::from_string(text.to_owned()).map_err(|_| Problem::Internal)
}

async fn feed_page(
    state: &State,
    params: &Params,
    client: ClientNo,
    filter: &Filter,
) -> Result<HttpResponse, Problem> {
    let limit = usize::try_from(params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE)).unwrap_or(1);
    // A list begins with what is kept; only a stream can begin with what is to come.
    let after = params.text("after").filter(|text| !text.is_empty()).unwrap_or(EARLIEST);
    let start = resume::in_feed(state, client, Some(after)).await?;
    let (mut found, mut bytes, mut looked_at, mut last): (Vec<Arc<Event>>, _, _, _) =
        (Vec::new(), 0, 0, start.after);
    'looking: while found.len() < limit && looked_at < LOOKED_AT_MAX && bytes < PAGE_BYTES {
        let stride = STRIDE.min(LOOKED_AT_MAX - looked_at);
        let (events, to) = state.engine.events(client, last, stride).await.map_err(|e| unreadable(&e))?;
        if to == last {
            break;
        }
        looked_at += stride;
        for event in events {
            last = event.sequence;
            if filter.passes(&event) {
                bytes += event.body.len();
                found.push(event);
            }
            if found.len() == limit || bytes >= PAGE_BYTES {
                break 'looking;
            }
        }
        last = to;
    }
    let events = found.iter().map(|event| item(event)).collect::<Result<_, _>>()?;
    ok_json(&Page { events, next: state.engine.cursor(client, last).to_string(), gap: start.gap })
}

async fn transaction_page(
    state: &State,
    params: &Params,
    stored: &StoredTransaction,
) -> Result<HttpResponse, Problem> {
    let limit = usize::try_from(params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE)).unwrap_or(1);
    let start = resume::in_transaction(state, stored, params.text("after")).await?;
    let places = state.engine.places_of(stored).await.map_err(|e| unreadable(&e))?;
    let (mut events, mut bytes, mut last) = (Vec::new(), 0, start.after);
    for place in places.into_iter().filter(|p| p.points.version() <= stored.version() && p.at > start.after) {
        if events.len() == limit || bytes >= PAGE_BYTES {
            break;
        }
        last = place.at;
        if let Some(event) = state.engine.event_at(stored, place).await.map_err(|e| unreadable(&e))? {
            bytes += event.body.len();
            events.push(item(&event)?);
        }
    }
    let next = Cursor { ended: start.ended, ..state.engine.cursor(stored.client, last) };
    ok_json(&Page { events, next: next.to_string(), gap: start.gap })
}

/// What a reader that begins here has seen.
impl Start {
    fn cursor(&self, state: &State, client: ClientNo) -> Cursor {
        state.engine.cursor(client, self.after)
    }
}
