//! `POST /v1/warehouses/{code}/confirmations`: what a warehouse's system reports, into the control
//! lane. Nothing is judged here but the form; the answer says that the report is kept, not that it
//! is believed.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::domain::confirmation::{Confirmation, Report};
use wavegate_engine::wire::confirmations;

use super::accept;
use super::auth::Caller;
use super::body;
use super::call::Call;
use super::problem::Problem;
use super::query::Params;
use super::state::State;
use super::warehouses;

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

/// `POST /v1/warehouses/{code}/confirmations`
pub(crate) async fn create(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: web::Payload,
    code: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    match &call.caller {
        Caller::Wms(_) | Caller::Operator | Caller::Local(_) => {}
        Caller::Client(_) | Caller::Anybody => {
            return Err(Problem::Forbidden("only a warehouse's own system confirms"));
        }
    }
    let warehouse = warehouses::enter(&state, &call, &code)?;
    state.take_work()?;
    body::expect_json(&request)?;
    Params::read(&request, &[])?;
    // A small message needs no place: many at once are what a busy warehouse sends.
    let small = body::is_declared_within(&request, state.body_max);
    let _place = if small { None } else { Some(state.take_large_report()?) };
    let body = body::read(&request, payload, state.batch_body_max).await?;
    let reports = confirmations::confirmations(body::tree(&body)?)?;
    drop(body);
    let accepted = reports.len();
    reports.iter().for_each(|report| note(&call, &warehouse.code, report));
    state.engine.confirm(warehouse.partition, reports).await?;
    accept::json_body(&mut HttpResponse::Accepted(), &Accepted { accepted })
}

/// Both sides' logs name a report alike.
fn note(call: &Call, warehouse: &str, report: &Confirmation) {
    let (correlation_id, confirmation_id) = (&call.correlation, &report.confirmation_id);
    match &report.report {
        Report::Release { release, .. } => {
            tracing::debug!(%correlation_id, warehouse, confirmation_id, %release, "confirmation received");
        }
        Report::Departed { manifest } => {
            tracing::debug!(%correlation_id, warehouse, confirmation_id, %manifest, "departure received");
        }
    }
}
