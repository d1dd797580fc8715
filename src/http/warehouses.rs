//! `/v1/warehouses`: how busy each is, and what its clients have there.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::domain::ids::{PartitionId, Sku};
use wavegate_engine::domain::stock::Position;
use wavegate_engine::engine::WarehouseOptions;
use wavegate_engine::wire::stock::StockView;

use super::call::Call;
use super::orders::client_of;
use super::problem::Problem;
use super::query::Params;
use super::state::{State, ok_json, unreadable};

/// Positions of a page unless the caller says otherwise, and at most.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1_000;

#[derive(Serialize)]
struct Warehouse<'a> {
    code: &'a str,
    timezone: &'static str,
    services: &'a [String],
    cut_offs: BTreeMap<&'a str, String>,
    backlog: u64,
    backlog_max: u64,
    credits: Credits,
    pace: Pace,
    paused: bool,
    /// What was ever kept aside here; only where one warehouse is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters: Option<u64>,
}

#[derive(Serialize)]
struct Credits {
    used: u32,
    max: u32,
}

#[derive(Serialize)]
struct Pace {
    orders_per_second: Option<f64>,
    lead_p50_ms: u128,
    lead_p90_ms: u128,
    calibrated: bool,
}

/// A page of anything.
#[derive(Serialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

fn view<'a>(state: &State, warehouse: &'a WarehouseOptions) -> Warehouse<'a> {
    let snapshot = state.engine.snapshot(warehouse.partition);
    let cut_off = |(service, time): (&'a String, &chrono::NaiveTime)| {
        (service.as_str(), time.format("%H:%M").to_string())
    };
    Warehouse {
        code: &warehouse.code,
        timezone: warehouse.timezone.name(),
        services: &warehouse.services,
        cut_offs: warehouse.cut_offs.iter().map(cut_off).collect(),
        backlog: snapshot.backlog,
        backlog_max: warehouse.backlog_max,
        credits: Credits { used: snapshot.credits_used, max: warehouse.credits },
        pace: Pace {
            orders_per_second: snapshot.pace.orders_per_s,
            lead_p50_ms: snapshot.pace.lead_p50.as_millis(),
            lead_p90_ms: snapshot.pace.lead_p90.as_millis(),
            calibrated: snapshot.pace.calibrated,
        },
        paused: snapshot.paused,
        dead_letters: None,
    }
}

/// `GET /v1/warehouses`
pub(crate) async fn list(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    Params::read(&request, &[])?;
    let visible = state.engine.warehouses().iter().filter(|w| call.caller.enters(&w.code));
    ok_json(&Page { items: visible.map(|w| view(&state, w)).collect(), next: None })
}

/// `GET /v1/warehouses/{code}`
pub(crate) async fn get(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    code: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Params::read(&request, &[])?;
    let warehouse = enter(&state, &call, &code)?;
    show(&state, warehouse).await
}

/// One warehouse, with what was ever kept aside there.
pub(crate) async fn show(state: &State, warehouse: &WarehouseOptions) -> Result<HttpResponse, Problem> {
    let dead_letters = state.engine.store().dead_letters_total(warehouse.partition).await;
    let dead_letters = Some(dead_letters.map_err(|e| unreadable(&e))?);
    ok_json(&Warehouse { dead_letters, ..view(state, warehouse) })
}

/// The warehouse of this code, for a caller that may act there.
pub(crate) fn enter<'a>(state: &'a State, call: &Call, code: &str) -> Result<&'a WarehouseOptions, Problem> {
    let warehouse = state.engine.warehouses().named(code).ok_or(Problem::NotFound)?;
    if call.caller.enters(code) {
        Ok(warehouse)
    } else {
        Err(Problem::Forbidden("the key is for other warehouses"))
    }
}

/// `GET /v1/warehouses/{code}/inventory`
pub(crate) async fn inventory(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    code: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let params = Params::read(&request, &["sku", "after", "limit"])?;
    let partition = enter(&state, &call, &code)?.partition;
    let client = client_of(&state, &call, &params)?;
    let owner = state.engine.client_name(client).unwrap_or_default();
    let after: Option<Sku> = params.parsed("after")?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).map_err(|_| Problem::Internal)?;
    if let Some(sku) = params.parsed::<Sku>("sku")? {
        let position = position(&state, partition, client, &sku).await?;
        let position = position.filter(|_| after.is_none_or(|after| sku > after));
        let items = position.iter().map(|p| StockView::new(owner, &sku, p)).collect();
        return ok_json(&Page { items, next: None });
    }
    let page = state.engine.store().positions(partition, client, after, limit).await;
    let page = page.map_err(|e| unreadable(&e))?;
    let next = page.last().filter(|_| page.len() == limit).map(|(sku, _)| sku.as_str().to_owned());
    // A SKU that orders only wait for was never here.
    let known = page.iter().filter(|(_, position)| position.known);
    let items = known.map(|(sku, position)| StockView::new(owner, sku, position)).collect();
    ok_json(&Page { items, next })
}

/// `GET /v1/warehouses/{code}/inventory/{sku}`
pub(crate) async fn inventory_of(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let params = Params::read(&request, &[])?;
    let (code, sku) = path.into_inner();
    let partition = enter(&state, &call, &code)?.partition;
    let client = client_of(&state, &call, &params)?;
    let sku: Sku = sku.parse().map_err(|_| Problem::NotFound)?;
    let position = position(&state, partition, client, &sku).await?.ok_or(Problem::NotFound)?;
    ok_json(&StockView::new(state.engine.client_name(client).unwrap_or_default(), &sku, &position))
}

async fn position(
    state: &State,
    partition: PartitionId,
    client: wavegate_engine::domain::ids::ClientNo,
    sku: &Sku,
) -> Result<Option<Position>, Problem> {
    let position = state.engine.store().position(partition, client, sku.clone()).await;
    Ok(position.map_err(|e| unreadable(&e))?.filter(|p| p.known))
}
