//! `POST /v1/events/tickets`: a ticket for a browser.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::domain::ids::{ClientNo, TransactionId};
use wavegate_engine::ports::store::Lookup;
use wavegate_engine::wire::reader::FaultCode;
use wavegate_engine::wire::tickets::{TicketRequest, ticket};
use wavegate_engine::wire::time::WireTime;

use super::ticket::Scope;
use crate::http::auth::Caller;
use crate::http::body;
use crate::http::call::Call;
use crate::http::orders::client_of;
use crate::http::problem::Problem;
use crate::http::query::{self, Params};
use crate::http::state::State;
use crate::http::status;

#[derive(Serialize)]
struct Made {
    ticket: String,
    expires_at: WireTime,
}

/// `POST /v1/events/tickets`
pub(crate) async fn create(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    body::expect_json(&request)?;
    let params = Params::read(&request, &[])?;
    let body = body::read(&request, payload, state.body_max).await?;
    let (client, scope) = match ticket(body::tree(&body)?)? {
        TicketRequest::Transaction(id) => of_transaction(&state, &call, &params, id).await?,
        // A warehouse's system sees transactions of some kinds, and no client's feed.
        TicketRequest::Types(_) if matches!(call.caller, Caller::Wms(_)) => {
            return Err(Problem::Forbidden("the key of a warehouse's system has no feed"));
        }
        TicketRequest::Types(types) => (client_of(&state, &call, &params)?, Scope::Types(types)),
    };
    if !state.tickets.is_short_enough(client, &scope) {
        return Err(query::fault("types", FaultCode::TooLong, "are longer than a browser's cookie holds"));
    }
    let (ticket, until) = state.tickets.make(client, &scope, state.engine.now());
    let made = Made { ticket, expires_at: WireTime(until) };
    let bytes = serde_json::to_vec(&made).map_err(|_| Problem::Internal)?;
    let mut response = HttpResponse::Created();
    response.content_type("application/json").insert_header(("cache-control", "no-store"));
    Ok(response.body(bytes))
}

async fn of_transaction(
    state: &State,
    call: &Call,
    params: &Params,
    id: TransactionId,
) -> Result<(ClientNo, Scope), Problem> {
    match status::find(state, call, &id.to_string(), params.text("client")).await? {
        Lookup::Live(stored) => Ok((stored.client, Scope::Transaction(id))),
        Lookup::Expired(_) => Err(Problem::Expired),
    }
}
