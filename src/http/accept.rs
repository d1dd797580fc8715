//! From a parsed command to its answer: submit, then 202, 200 or a refusal. Every call that
//! accepts work ends here.

use std::time::Duration;

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpResponse, HttpResponseBuilder};
use wavegate_engine::domain::command::{Command, Kind, ShipTo};
use wavegate_engine::domain::ids::{ClientNo, PartitionId, TransactionId};
use wavegate_engine::domain::state::State as Standing;
use wavegate_engine::engine::{Submission, Submitted};
use wavegate_engine::ports::store::{IdempotencyKey, Lookup, Tombstone, Verdict};
use wavegate_engine::wire::accepted::AcceptedDocument;
use wavegate_engine::wire::status::Links;
use wavegate_engine::wire::time::WireTime;

use super::call::Call;
use super::headers;
use super::pace;
use super::problem::Problem;
use super::state::State;
use super::status;

/// Routing looks at this many warehouses: it must not cost more than the order.
const ROUTES_MAX: usize = 16;

/// A command, and where it is to be worked.
pub(crate) struct Work {
    /// Whose it is.
    pub(crate) client: ClientNo,
    /// The partition that is to work it.
    pub(crate) home: PartitionId,
    /// What is asked for.
    pub(crate) command: Command,
    /// Personal data.
    pub(crate) ship_to: Option<ShipTo>,
}

impl Work {
    /// As the engine takes it.
    pub(crate) fn submission(self, call: &Call, key: Option<IdempotencyKey>) -> Submission {
        Submission {
            client: self.client,
            home: self.home,
            key,
            command: self.command,
            ship_to: self.ship_to,
            correlation: call.correlation.clone(),
            trace: call.trace.clone(),
        }
    }
}

/// How the caller wants to be answered.
pub(crate) struct Wishes {
    key: Option<String>,
    wait_s: u64,
}

impl Wishes {
    /// Reads `Idempotency-Key` and `Prefer`.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Wishes, Problem> {
        let key = headers::idempotency_key(headers)?;
        Ok(Wishes { key, wait_s: headers::prefer_wait(headers).unwrap_or(0) })
    }
}

/// Accepts one command and answers it.
pub(crate) async fn one(
    state: &State,
    call: &Call,
    wishes: Wishes,
    work: Work,
) -> Result<HttpResponse, Problem> {
    let (kind, reference) = (work.command.kind(), work.command.reference().clone());
    let home = work.home;
    state.take_turn(work.client, kind, &reference).await?;
    let key = wishes.key.map(|key| IdempotencyKey { call: kind, key });
    let mut submitted = state.engine.submit(vec![work.submission(call, key)]).await?;
    let submitted = submitted.pop().ok_or(Problem::StoreUnavailable)?;
    let (id, replayed) = accepted(state, home, &submitted)?;
    tracing::debug!(correlation_id = %call.correlation, transaction_id = %id, kind = kind.as_str(), replayed, "command accepted");

    if wishes.wait_s > 0 {
        let bound = Duration::from_secs(wishes.wait_s);
        let lookup = state.read_when(id, bound, status::is_done).await?;
        let applied = format!("wait={}", wishes.wait_s);
        return answer(state, id, replayed, lookup, Some(&applied)).await;
    }
    if replayed {
        let lookup = state.read(id).await?;
        return answer(state, id, replayed, lookup, None).await;
    }
    let document = AcceptedDocument {
        transaction_id: id,
        kind: kind.as_str(),
        reference: reference.as_str(),
        warehouse: state.code_of(home),
        state: Some(Standing::Accepted.as_str()),
        done: false,
        durability: state.engine.store().durability().as_str(),
        correlation_id: call.correlation.as_str(),
        accepted_at: WireTime(submitted.at),
        estimate: None,
        links: Links::of(id, kind),
    };
    respond_202(state, &document, false, Some((kind, Standing::Accepted)))
}

/// The id under which a command stands, and whether it did before; or why it does not.
pub(crate) fn accepted(
    state: &State,
    home: PartitionId,
    submitted: &Submitted,
) -> Result<(TransactionId, bool), Problem> {
    match submitted.verdict {
        Verdict::New => submitted.id.map(|id| (id, false)).ok_or(Problem::Internal),
        Verdict::Replay(id) => Ok((id, true)),
        Verdict::ReferenceConflict(_) => Err(Problem::ReferenceConflict),
        Verdict::KeyReused => Err(Problem::KeyReused),
        Verdict::BacklogFull => Err(Problem::BacklogFull(pace::backlog_s(&state.engine.snapshot(home)))),
        Verdict::StoreFull => Err(Problem::StoreFull),
        // Trying again is safe in both cases: it finds what was accepted, if anything was.
        Verdict::Unavailable | Verdict::Unknown => Err(Problem::StoreUnavailable),
    }
}

/// Answers with what is stored: the status of what is done for a caller that `waited`, else a 202.
async fn answer(
    state: &State,
    id: TransactionId,
    replayed: bool,
    lookup: Option<Lookup>,
    waited: Option<&str>,
) -> Result<HttpResponse, Problem> {
    match lookup {
        Some(Lookup::Live(transaction)) => {
            let cartons = status::cartons(state, &transaction).await?;
            let document = status::document(state, &transaction, &cartons, None)?;
            if let (Some(applied), true) = (waited, document.done) {
                let mut response = status::respond(state, &document)?;
                let headers = response.headers_mut();
                insert(headers, "preference-applied", applied);
                insert(headers, "idempotent-replayed", if replayed { "true" } else { "false" });
                return Ok(response);
            }
            let durability = state.engine.store().durability().as_str();
            let standing = Some((document.kind.0, document.state.0));
            respond_202(state, &AcceptedDocument::again(&document, durability), replayed, standing)
        }
        Some(Lookup::Expired(tombstone)) => respond_202(state, &expired(state, &tombstone), replayed, None),
        // Accepted and not there is a broken store.
        None => {
            tracing::error!(transaction_id = %id, "an accepted transaction cannot be found");
            Err(Problem::Internal)
        }
    }
}

fn expired<'a>(state: &'a State, tombstone: &'a Tombstone) -> AcceptedDocument<'a> {
    AcceptedDocument {
        transaction_id: tombstone.id,
        kind: tombstone.kind.as_str(),
        reference: tombstone.reference.as_str(),
        warehouse: state.code_of(tombstone.id.home()),
        state: None,
        done: true,
        durability: state.engine.store().durability().as_str(),
        correlation_id: tombstone.correlation.as_str(),
        accepted_at: WireTime(tombstone.accepted_at),
        estimate: None,
        links: Links::of(tombstone.id, tombstone.kind),
    }
}

fn respond_202(
    state: &State,
    document: &AcceptedDocument<'_>,
    replayed: bool,
    standing: Option<(Kind, Standing)>,
) -> Result<HttpResponse, Problem> {
    let mut response = HttpResponse::Accepted();
    response.insert_header((header::LOCATION, document.links.status.as_str()));
    response.insert_header(("idempotent-replayed", if replayed { "true" } else { "false" }));
    if let (Some((kind, standing)), false) = (standing, document.done) {
        let snapshot = state.engine.snapshot(document.transaction_id.home());
        response.insert_header((header::RETRY_AFTER, pace::poll_s(&snapshot, kind, standing)));
    }
    json_body(&mut response, document)
}

/// Bytes that most answers take.
const BODY_BYTES: usize = 768;

/// Ends a response with a JSON body.
pub(crate) fn json_body(
    response: &mut HttpResponseBuilder,
    body: &impl serde::Serialize,
) -> Result<HttpResponse, Problem> {
    let mut bytes = Vec::with_capacity(BODY_BYTES);
    serde_json::to_writer(&mut bytes, body).map_err(|_| Problem::Internal)?;
    Ok(response.content_type("application/json").body(bytes))
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        headers.insert(header::HeaderName::from_static(name), value);
    }
}

/// The warehouse of an order: the one it names, else the first in configured order that offers
/// its service and can promise all lines, else the first that offers its service. Reads what is
/// committed and never waits for a tree.
pub(crate) async fn route(
    state: &State,
    client: ClientNo,
    command: &Command,
) -> Result<PartitionId, Problem> {
    let Command::Order(order) = command else { return Err(Problem::Internal) };
    let warehouses = state.engine.warehouses();
    if let Some(code) = &order.warehouse {
        return warehouses.named(code).map(|w| w.partition).ok_or(Problem::Internal);
    }
    let mut wanted = std::collections::BTreeMap::new();
    for line in &order.lines {
        *wanted.entry(&line.sku).or_insert(0u64) += u64::from(line.quantity);
    }
    let offers = warehouses.iter().filter(|w| w.services.contains(&order.service_level));
    let mut first = None;
    for warehouse in offers.take(ROUTES_MAX) {
        first.get_or_insert(warehouse.partition);
        if promises(state, warehouse.partition, client, &wanted).await? {
            return Ok(warehouse.partition);
        }
    }
    first.ok_or(Problem::Internal)
}

async fn promises(
    state: &State,
    partition: PartitionId,
    client: ClientNo,
    wanted: &std::collections::BTreeMap<&wavegate_engine::domain::ids::Sku, u64>,
) -> Result<bool, Problem> {
    for (sku, units) in wanted {
        let position = state.engine.store().position(partition, client, (*sku).clone()).await;
        let position = position.map_err(|e| super::state::unreadable(&e))?;
        if position.is_none_or(|p| p.available() < *units) {
            return Ok(false);
        }
    }
    Ok(true)
}
