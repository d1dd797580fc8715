//! `POST /v1/ops/warehouses/{code}/pause` and `/resume`: a warehouse pulls and releases nothing while
//! it is paused. Confirmations, cancellations and moves go on.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::query::Params;
use crate::http::state::State;
use crate::http::warehouses;

/// `POST /v1/ops/warehouses/{code}/pause`
pub(crate) async fn pause(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    code: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    set(&state, &call, &request, &code, true).await
}

/// `POST /v1/ops/warehouses/{code}/resume`
pub(crate) async fn resume(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    code: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    set(&state, &call, &request, &code, false).await
}

/// Answers with the warehouse as it is from here on. A repeat changes nothing and answers alike.
async fn set(
    state: &State,
    call: &Call,
    request: &HttpRequest,
    code: &str,
    paused: bool,
) -> Result<HttpResponse, Problem> {
    Params::read(request, &[])?;
    let warehouse = warehouses::enter(state, call, code)?;
    state.engine.set_paused(warehouse.partition, paused).await?;
    tracing::info!(correlation_id = %call.correlation, warehouse = code, paused, "an operator pauses or resumes");
    warehouses::show(state, warehouse).await
}
