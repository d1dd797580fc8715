//! `POST /v1/orders/{id}/cancel`: a transaction of its own, of the order's warehouse.

use actix_web::{HttpRequest, HttpResponse, web};
use wavegate_engine::domain::command::{Command, OrderLine};
use wavegate_engine::domain::ids::{ClientNo, TransactionId};
use wavegate_engine::ports::store::Lookup;
use wavegate_engine::wire::requests::{self, CancellationRequest};

use super::accept::{self, Wishes, Work};
use super::body;
use super::call::Call;
use super::headers::{self, Media};
use super::problem::Problem;
use super::query::Params;
use super::state::State;
use super::status;

/// `POST /v1/orders/{id}/cancel`; without a body, all of the order.
pub(crate) async fn create(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    state.take_work()?;
    let wishes = Wishes::read(request.headers())?;
    let params = Params::read(&request, &[])?;
    let id = request.match_info().get("id").unwrap_or_default();
    let (order, client, lines) = order(&state, &call, id, params.text("client")).await?;
    let body = body::read(&request, payload, state.body_max).await?;
    let wanted = if body.is_empty() && headers::media(request.headers()) != Media::Other {
        CancellationRequest::WHOLE
    } else {
        body::expect_json(&request)?;
        requests::cancellation(body::tree(&body)?)?
    };
    let command = Command::Cancellation(wanted.command(order, &lines)?);
    let work = Work { client, home: order.home(), command, ship_to: None };
    accept::one(&state, &call, wishes, work).await
}

/// The order that is meant, if it is the caller's to cancel. What is no order is not found here.
async fn order(
    state: &State,
    call: &Call,
    id: &str,
    named: Option<&str>,
) -> Result<(TransactionId, ClientNo, Vec<OrderLine>), Problem> {
    match status::find(state, call, id, named).await? {
        Lookup::Live(transaction) => match transaction.command {
            Command::Order(order) => Ok((transaction.id, transaction.client, order.lines)),
            Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_) => Err(Problem::NotFound),
        },
        Lookup::Expired(_) => Err(Problem::Expired),
    }
}
