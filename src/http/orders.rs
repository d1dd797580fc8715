//! `/v1/orders`: one order in, and a client's orders out by page.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::domain::command::{Command, Kind};
use wavegate_engine::domain::ids::{ClientNo, PartitionId, TransactionId};
use wavegate_engine::domain::state::State as Standing;
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::ports::store::{Lookup, StoredTransaction};
use wavegate_engine::wire::reader::{FaultCode, Faults};
use wavegate_engine::wire::requests::{self, OrderRequest};
use wavegate_engine::wire::status::StatusDocument;

use super::accept::{self, Wishes, Work};
use super::body;
use super::call::Call;
use super::problem::Problem;
use super::query::{self, Params};
use super::state::{State, ok_json, unreadable};
use super::status;

/// Orders that one page looks at; it may be short or empty and still have a `next`.
const LOOKED_AT_MAX: usize = 5_000;
/// Orders of a page unless the caller says otherwise.
const PAGE: u64 = 50;
/// Orders of a page at most.
const PAGE_MAX: u64 = 1_000;
/// Lines after which a page ends early: large orders make short pages, not large answers.
const PAGE_LINES: usize = 20_000;
/// Ids read at once while walking.
const STRIDE: usize = 200;

/// `POST /v1/orders`
pub(crate) async fn create(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    state.take_work()?;
    body::expect_json(&request)?;
    let wishes = Wishes::read(request.headers())?;
    let client = client_of(&state, &call, &Params::read(&request, &[])?)?;
    let body = body::read(&request, payload, state.body_max).await?;
    let order = requests::order(body::tree(&body)?, &state.catalogue, Faults::MAX)?;
    drop(body);
    let work = work(&state, client, order).await?;
    accept::one(&state, &call, wishes, work).await
}

/// An order on its way to the warehouse that is to work it.
pub(crate) async fn work(state: &State, client: ClientNo, order: OrderRequest) -> Result<Work, Problem> {
    let command = Command::Order(order.command);
    let home = accept::route(state, client, &command).await?;
    Ok(Work { client, home, command, ship_to: Some(order.ship_to) })
}

/// The client that a call is for.
pub(crate) fn client_of(state: &State, call: &Call, params: &Params) -> Result<ClientNo, Problem> {
    call.caller.client(&state.engine, params.text("client"), "client")
}

/// Which orders a page shows.
struct Filter {
    state: Option<Standing>,
    warehouse: Option<PartitionId>,
    updated_since: Option<Timestamp>,
}

impl Filter {
    fn read(state: &State, params: &Params) -> Result<Filter, Problem> {
        let partition = |code: &str| state.engine.warehouses().named(code).map(|w| w.partition);
        let warehouse = match params.text("warehouse") {
            Some(code) => Some(partition(code).ok_or_else(|| {
                query::fault("warehouse", FaultCode::UnknownWarehouse, "no warehouse has this code")
            })?),
            None => None,
        };
        Ok(Filter {
            state: params.map("state", Standing::parse)?,
            warehouse,
            updated_since: params.time("updated_since")?,
        })
    }

    fn passes(&self, transaction: &StoredTransaction) -> bool {
        let updated = transaction.facts.last().map_or(Timestamp(0), |f| f.at);
        self.warehouse.is_none_or(|w| w == transaction.id.home())
            && self.updated_since.is_none_or(|since| updated >= since)
            && self.state.is_none_or(|s| s == status::state_of(transaction))
    }
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<StatusDocument<'a>>,
    next: Option<TransactionId>,
}

/// `GET /v1/orders`
pub(crate) async fn list(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let known = ["reference", "state", "warehouse", "updated_since", "after", "limit"];
    let params = Params::read(&request, &known)?;
    let client = client_of(&state, &call, &params)?;
    let filter = Filter::read(&state, &params)?;
    let after: Option<TransactionId> = params.parsed("after")?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).map_err(|_| Problem::Internal)?;
    let (found, next) = match params.parsed("reference")? {
        Some(reference) => {
            let id = state.engine.store().claimed(client, Kind::Order, reference).await;
            let id = id.map_err(|e| unreadable(&e))?.filter(|id| after.is_none_or(|a| *id > a));
            let found = match id {
                Some(id) => live(&state, id).await?.filter(|t| filter.passes(t)),
                None => None,
            };
            (found.into_iter().collect(), None)
        }
        None => walk(&state, client, &filter, after, limit).await?,
    };
    let items = found.iter().map(|t| status::document(&state, t, &[], None)).collect::<Result<_, _>>()?;
    ok_json(&Page { items, next })
}

/// Walks a client's orders by id until the page is full or enough were looked at.
async fn walk(
    state: &State,
    client: ClientNo,
    filter: &Filter,
    mut after: Option<TransactionId>,
    limit: usize,
) -> Result<(Vec<Arc<StoredTransaction>>, Option<TransactionId>), Problem> {
    let mut found = Vec::new();
    let (mut looked_at, mut lines) = (0, 0);
    loop {
        let ids = state.engine.store().orders_of(client, after, STRIDE).await.map_err(|e| unreadable(&e))?;
        let more = ids.len() == STRIDE;
        for id in ids {
            if found.len() == limit || looked_at == LOOKED_AT_MAX || lines >= PAGE_LINES {
                return Ok((found, after));
            }
            looked_at += 1;
            after = Some(id);
            if let Some(order) = live(state, id).await?.filter(|t| filter.passes(t)) {
                lines += lines_of(&order);
                found.push(order);
            }
        }
        if !more {
            return Ok((found, None));
        }
    }
}

fn lines_of(transaction: &StoredTransaction) -> usize {
    match &transaction.command {
        Command::Order(order) => order.lines.len(),
        Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_) => 0,
    }
}

/// What is past its retention is in no list.
async fn live(state: &State, id: TransactionId) -> Result<Option<Arc<StoredTransaction>>, Problem> {
    Ok(match state.read(id).await? {
        Some(Lookup::Live(transaction)) => Some(transaction),
        Some(Lookup::Expired(_)) | None => None,
    })
}
