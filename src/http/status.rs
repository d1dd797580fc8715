//! `/v1/status`: one transaction now, then, or when it changes; and many at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::domain::command::{Command, Kind};
use wavegate_engine::domain::ids::{ClientNo, TransactionId};
use wavegate_engine::domain::sscc::Sscc;
use wavegate_engine::domain::state::State as Standing;
use wavegate_engine::ports::store::{Lookup, StoredTransaction};
use wavegate_engine::wire::reader::FaultCode;
use wavegate_engine::wire::requests;
use wavegate_engine::wire::status::{self, EstimateItem, Source, StatusDocument};

use super::accept::json_body;
use super::body;
use super::call::Call;
use super::headers::{NoneMatch, WAIT_S_MAX};
use super::pace;
use super::problem::{Problem, ProblemDocument};
use super::query::{self, Params};
use super::shown::Shown;
use super::state::{State, ok_json, unreadable};

/// `GET /v1/status/{id}`
pub(crate) async fn get(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let params = Params::read(&request, &["version", "include", "wait", "after_version"])?;
    let version: Option<u32> = params.parsed("version")?;
    let with_ship_to = includes_ship_to(&params)?;
    // A longer wait than is given is cut, as with `Prefer`.
    let wait_s = params.number("wait", 0..=u64::MAX)?.unwrap_or(0).min(WAIT_S_MAX);
    let after: Option<u32> = params.parsed("after_version")?;
    let none_match = NoneMatch::read(request.headers());
    let id = request.match_info().get("id").unwrap_or_default();
    let mut lookup = find(&state, &call, id, params.text("client")).await?;
    if wait_s > 0 && version.is_none() {
        // Nothing follows what is done, so nobody waits for it.
        let seen = |l: &Lookup| seen(l, none_match.as_ref(), after) && !is_done(l);
        if seen(&lookup) {
            let bound = Duration::from_secs(wait_s);
            let id = id_of(&lookup);
            // On the heap, as below: most polls would only move the room for it about.
            let changed = Box::pin(state.read_when(id, bound, |l| !seen(l)));
            lookup = changed.await?.ok_or(Problem::NotFound)?;
        }
    }
    let transaction = match lookup {
        Lookup::Live(transaction) => transaction,
        Lookup::Expired(_) => return Err(Problem::Expired),
    };
    // Versions are numbered without holes from 1, so the tag of an old one is known without it.
    let shown = version.unwrap_or(transaction.version());
    let exists = (1..=transaction.version()).contains(&shown);
    if exists && none_match.is_some_and(|n| n.has(shown)) {
        return Ok(not_modified(&state, &transaction, shown));
    }
    if version.is_none() && !with_ship_to {
        return current(&state, transaction).await;
    }
    Box::pin(written(&state, &transaction, version, with_ship_to)).await
}

/// A version as it is written for this caller alone.
async fn written(
    state: &State,
    transaction: &StoredTransaction,
    version: Option<u32>,
    with_ship_to: bool,
) -> Result<HttpResponse, Problem> {
    let cartons = cartons(state, transaction).await?;
    let mut document = document(state, transaction, &cartons, version)?;
    if with_ship_to {
        let ship_to = state.engine.store().ship_to(transaction.id).await;
        document.ship_to = ship_to.map_err(|e| unreadable(&e))?;
    }
    respond(state, &document)
}

/// The current version, from what was written of it before where there is such.
async fn current(state: &State, transaction: Arc<StoredTransaction>) -> Result<HttpResponse, Problem> {
    let shown = match state.shown.get(&transaction) {
        Some(shown) => shown,
        None => Box::pin(kept(state, &transaction)).await?,
    };
    let estimate = estimate(state, &transaction, shown.standing);
    let mut response = HttpResponse::Ok();
    let (kind, version) = (transaction.command.kind(), transaction.version());
    poll_headers(state, &mut response, transaction.id, version, (kind, shown.standing));
    Ok(response.content_type("application/json").body(shown.text(estimate.as_ref())?))
}

/// Writes the current version, without its estimate, for everybody who asks for it next.
async fn kept(state: &State, transaction: &Arc<StoredTransaction>) -> Result<Arc<Shown>, Problem> {
    let cartons = cartons(state, transaction).await?;
    let shown = {
        let mut document = document(state, transaction, &cartons, None)?;
        document.estimate = None;
        Shown::write(transaction.clone(), &document)?
    };
    Ok(state.shown.keep(shown))
}

/// Whether the caller has seen this version: it lists it, or says it has it or a newer one.
fn seen(lookup: &Lookup, none_match: Option<&NoneMatch>, after: Option<u32>) -> bool {
    let version = match lookup {
        Lookup::Live(transaction) => transaction.version(),
        Lookup::Expired(_) => return false,
    };
    none_match.is_some_and(|n| n.has(version)) || after.is_some_and(|after| version <= after)
}

/// Whether nothing can follow.
pub(crate) fn is_done(lookup: &Lookup) -> bool {
    match lookup {
        Lookup::Live(transaction) => state_of(transaction).is_final(),
        Lookup::Expired(_) => true,
    }
}

fn includes_ship_to(params: &Params) -> Result<bool, Problem> {
    match params.text("include") {
        None | Some("") => Ok(false),
        Some(list) if list.split(',').all(|part| part == "ship_to") => Ok(true),
        Some(_) => Err(query::fault("include", FaultCode::UnknownValue, "must be ship_to")),
    }
}

fn not_modified(state: &State, transaction: &Arc<StoredTransaction>, version: u32) -> HttpResponse {
    let mut response = HttpResponse::NotModified();
    let written = state.shown.get(transaction).filter(|_| version == transaction.version());
    let standing = written.map_or_else(
        || {
            let facts = usize::try_from(version).ok().and_then(|n| transaction.facts.get(..n));
            let facts = facts.unwrap_or(&transaction.facts);
            status::state_of(transaction.id, &transaction.command, facts)
        },
        |written| written.standing,
    );
    let kind = transaction.command.kind();
    poll_headers(state, &mut response, transaction.id, version, (kind, standing));
    response.finish()
}

/// A 200 with a document, the headers by which it is polled, and its tag.
pub(crate) fn respond(state: &State, document: &StatusDocument<'_>) -> Result<HttpResponse, Problem> {
    let mut response = HttpResponse::Ok();
    poll_headers(
        state,
        &mut response,
        document.transaction_id,
        document.version,
        (document.kind.0, document.state.0),
    );
    json_body(&mut response, document)
}

fn poll_headers(
    state: &State,
    response: &mut actix_web::HttpResponseBuilder,
    id: TransactionId,
    version: u32,
    (kind, standing): (Kind, Standing),
) {
    response.insert_header((header::ETAG, tag(version)));
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")));
    if !standing.is_final() {
        let snapshot = state.engine.snapshot(id.home());
        response.insert_header((header::RETRY_AFTER, pace::poll_s(&snapshot, kind, standing)));
    }
}

/// The tag of a version. Few transactions come beyond those whose tags stand here.
fn tag(version: u32) -> HeaderValue {
    const TAGS: [&str; 12] = [
        "\"1\"", "\"2\"", "\"3\"", "\"4\"", "\"5\"", "\"6\"", "\"7\"", "\"8\"", "\"9\"", "\"10\"", "\"11\"",
        "\"12\"",
    ];
    let ready = usize::try_from(version).ok().and_then(|n| TAGS.get(n.checked_sub(1)?));
    ready.map_or_else(
        || HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes are a header's value"),
        |tag| HeaderValue::from_static(tag),
    )
}

/// Finds a transaction of the caller's; another's is not found, exactly as one that is not there.
pub(crate) async fn find(
    state: &State,
    call: &Call,
    id: &str,
    named: Option<&str>,
) -> Result<Lookup, Problem> {
    let scope = named.map(|name| call.caller.client(&state.engine, Some(name), "client")).transpose()?;
    let id: TransactionId = id.parse().map_err(|_| Problem::NotFound)?;
    let lookup = state.read(id).await?.ok_or(Problem::NotFound)?;
    let (owner, kind) = owner_of(&lookup);
    let seen = call.caller.sees(owner, kind, state.code_of(id.home()));
    if seen && scope.is_none_or(|client| client == owner) { Ok(lookup) } else { Err(Problem::NotFound) }
}

fn owner_of(lookup: &Lookup) -> (ClientNo, Kind) {
    match lookup {
        Lookup::Live(transaction) => (transaction.client, transaction.command.kind()),
        Lookup::Expired(tombstone) => (tombstone.client, tombstone.kind),
    }
}

fn id_of(lookup: &Lookup) -> TransactionId {
    match lookup {
        Lookup::Live(transaction) => transaction.id,
        Lookup::Expired(tombstone) => tombstone.id,
    }
}

/// Where a transaction stands.
pub(crate) fn state_of(transaction: &StoredTransaction) -> Standing {
    status::state_of(transaction.id, &transaction.command, &transaction.facts)
}

/// The cartons of a manifest; none for every other kind.
pub(crate) async fn cartons(state: &State, transaction: &StoredTransaction) -> Result<Vec<Sscc>, Problem> {
    match transaction.command {
        Command::Manifest(_) => {
            let cartons = state.engine.store().cartons(transaction.id).await;
            Ok(cartons.map_err(|e| unreadable(&e))?.into_iter().map(|c| c.sscc).collect())
        }
        Command::Order(_) | Command::Move(_) | Command::Cancellation(_) => Ok(Vec::new()),
    }
}

/// The document of a stored transaction.
pub(crate) fn document<'a>(
    state: &'a State,
    transaction: &'a StoredTransaction,
    cartons: &'a [Sscc],
    version: Option<u32>,
) -> Result<StatusDocument<'a>, Problem> {
    let source = Source {
        id: transaction.id,
        client: state.engine.client_name(transaction.client),
        warehouse: state.code_of(transaction.id.home()),
        command: &transaction.command,
        facts: &transaction.facts,
        cartons,
    };
    // A fold sees one transaction alone: facts that contradict each other are its own trouble.
    let folded = catch_unwind(AssertUnwindSafe(|| status::document(&source, version)));
    let folded = folded.map_err(|_| Problem::Internal)?;
    let mut document = folded.ok_or(Problem::VersionNotFound)?;
    if version.is_none() {
        document.estimate = estimate(state, transaction, document.state.0);
    }
    Ok(document)
}

/// When an order will probably ship. No part of a version: only the newest has one, and it moves
/// while the version stays.
fn estimate(state: &State, transaction: &StoredTransaction, standing: Standing) -> Option<EstimateItem> {
    let Command::Order(order) = &transaction.command else { return None };
    let now = state.engine.now();
    if standing.is_final() || order.not_before.is_some_and(|begins| begins > now) {
        return None;
    }
    let snapshot = state.engine.snapshot(transaction.id.home());
    pace::estimate(&snapshot, &transaction.facts, standing, now).map(Into::into)
}

#[derive(Serialize)]
#[serde(untagged)]
enum QueryItem<'a> {
    Found(Box<StatusDocument<'a>>),
    Refused { transaction_id: &'a str, problem: ProblemDocument<'a> },
}

#[derive(Serialize)]
struct QueryItems<'a> {
    items: Vec<QueryItem<'a>>,
}

/// `POST /v1/status/query`
pub(crate) async fn query(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    body::expect_json(&request)?;
    let params = Params::read(&request, &[])?;
    let body = body::read(&request, payload, state.body_max).await?;
    let ids = requests::status_query(body::tree(&body)?)?;
    let mut found = Vec::with_capacity(ids.len());
    for id in &ids {
        found.push(match find(&state, &call, id, params.text("client")).await {
            Ok(Lookup::Live(transaction)) => {
                let cartons = cartons(&state, &transaction).await?;
                Ok((transaction, cartons))
            }
            Ok(Lookup::Expired(_)) => Err(Problem::Expired),
            // What concerns one id is its item's; a store that cannot be read is everybody's.
            Err(problem @ (Problem::NotFound | Problem::Internal)) => Err(problem),
            Err(problem) => return Err(problem),
        });
    }
    let mut items = Vec::with_capacity(found.len());
    for (id, found) in ids.iter().zip(&found) {
        items.push(match found {
            Ok((transaction, cartons)) => {
                QueryItem::Found(Box::new(document(&state, transaction, cartons, None)?))
            }
            Err(problem) => QueryItem::Refused {
                transaction_id: id,
                problem: problem.document(request.path(), &call.correlation),
            },
        });
    }
    ok_json(&QueryItems { items })
}
