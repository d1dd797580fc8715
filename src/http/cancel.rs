//! `POST /v1/orders/{id}/cancel`: a transaction of its own, of the order's warehouse.

use actix_web::{HttpRequest, HttpResponse, web};
use wavegate_engine::domain::command::{Command, Kind, OrderLine};
use wavegate_engine::domain::ids::{ClientNo, TransactionId};
use wavegate_engine::ports::store::Lookup;
use wavegate_engine::wire::requests::{self, CancellationRequest};

use super::accept::{self, Wishes, Work};
use super::body;
use super::call::Call;
use super::headers::{self, Media};
use super::problem::Problem;
use super::query::Params;
use super::state::{State, unreadable};
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
    let meant = order(&state, &call, id, params.text("client")).await?;
    let body = body::read(&request, payload, state.body_max).await?;
    let wanted = if body.is_empty() && headers::media(request.headers()) != Media::Other {
        CancellationRequest::WHOLE
    } else {
        body::expect_json(&request)?;
        requests::cancellation(body::tree(&body)?)?
    };
    let Meant { order, client, lines } = meant;
    if lines.is_none() && !is_repeat(&state, client, order, &wanted).await? {
        return Err(Problem::Expired);
    }
    let command = Command::Cancellation(wanted.command(order, lines.as_deref())?);
    let work = Work { client, home: order.home(), command, ship_to: None };
    accept::one(&state, &call, wishes, work).await
}

/// An order that is to be cancelled.
struct Meant {
    order: TransactionId,
    client: ClientNo,
    /// `None` once the order is past its retention.
    lines: Option<Vec<OrderLine>>,
}

/// Whether the request was accepted before: its record outlives the order, and a caller that asks
/// again must find out.
async fn is_repeat(
    state: &State,
    client: ClientNo,
    order: TransactionId,
    wanted: &CancellationRequest,
) -> Result<bool, Problem> {
    let Some(reference) = wanted.reference_for(order) else { return Ok(false) };
    let claimed = state.engine.store().claimed(client, Kind::Cancellation, reference).await;
    Ok(claimed.map_err(|e| unreadable(&e))?.is_some())
}

/// The order that is meant, if it is the caller's to cancel. What is no order is not found here.
async fn order(state: &State, call: &Call, id: &str, named: Option<&str>) -> Result<Meant, Problem> {
    match status::find(state, call, id, named).await? {
        Lookup::Live(transaction) => match &transaction.command {
            Command::Order(order) => {
                let lines = Some(order.lines.clone());
                Ok(Meant { order: transaction.id, client: transaction.client, lines })
            }
            Command::Move(_) | Command::Cancellation(_) | Command::Manifest(_) => Err(Problem::NotFound),
        },
        Lookup::Expired(tombstone) => match tombstone.kind {
            Kind::Order => Ok(Meant { order: tombstone.id, client: tombstone.client, lines: None }),
            Kind::Move | Kind::Cancellation | Kind::Manifest => Err(Problem::NotFound),
        },
    }
}
