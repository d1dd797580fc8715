//! `POST /v1/inventory/moves`: stock comes in.

use actix_web::{HttpRequest, HttpResponse, web};
use wavegate_engine::domain::command::Command;
use wavegate_engine::wire::requests;

use super::accept::{self, Wishes, Work};
use super::auth::Caller;
use super::body;
use super::call::Call;
use super::problem::Problem;
use super::query::Params;
use super::state::State;

/// `POST /v1/inventory/moves`
pub(crate) async fn create(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    state.take_work()?;
    body::expect_json(&request)?;
    let wishes = Wishes::read(request.headers())?;
    let params = Params::read(&request, &[])?;
    let body = body::read(&request, payload, state.body_max).await?;
    let moved = requests::stock_move(body::tree(&body)?, &state.catalogue)?;
    if !call.caller.enters(&moved.command.warehouse) {
        return Err(Problem::Forbidden("the key is for other warehouses"));
    }
    let (named, at) = match (&moved.owner, &call.caller) {
        (Some(owner), _) => (Some(owner.as_str()), "owner"),
        // The system of a warehouse says it in the move itself, or not at all.
        (None, Caller::Wms(_)) => return Err(Problem::ClientRequired),
        (None, Caller::Client(_) | Caller::Operator | Caller::Local(_) | Caller::Anybody) => {
            (params.text("client"), "client")
        }
    };
    let client = call.caller.client(&state.engine, named, at)?;
    let warehouse = state.engine.warehouses().named(&moved.command.warehouse);
    let home = warehouse.ok_or(Problem::Internal)?.partition;
    let work = Work { client, home, command: Command::Move(moved.command), ship_to: None };
    accept::one(&state, &call, wishes, work).await
}
