//! `/v1/ops/dead-letters`: what is kept aside over all warehouses, and what operators do about it.
//! Only the owner of a warehouse decides; these calls queue an operator's word for it.

use std::fmt;
use std::str::FromStr;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::domain::endpoint::EndpointId;
use wavegate_engine::domain::ids::{PartitionId, TransactionId};
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::engine::InstructError;
use wavegate_engine::ports::endpoints::DeadDelivery;
use wavegate_engine::ports::store::{DeadKind, DeadLetter, Instruction};
use wavegate_engine::wire::time::WireTime;

use crate::http::accept::json_body;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::query::Params;
use crate::http::state::{State, ok_json, unreadable};
use crate::http::warehouses;

/// Letters on a page unless the caller says otherwise, and at most.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1_000;

/// A letter's name on the wire, the same for ever: its partition and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LetterId(PartitionId, u64);

/// The name of a delivery that is kept aside: its endpoint and the event's number in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DeliveryId(EndpointId, u64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for DeliveryId {
    type Err = NoLetter;

    fn from_str(text: &str) -> Result<DeliveryId, NoLetter> {
        let (endpoint, n) = text.split_once('.').ok_or(NoLetter)?;
        let endpoint = endpoint.parse().map_err(|_| NoLetter)?;
        let id = DeliveryId(endpoint, n.parse().map_err(|_| NoLetter)?);
        if id.to_string() == text { Ok(id) } else { Err(NoLetter) }
    }
}

/// Any letter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnyId {
    Letter(LetterId),
    Delivery(DeliveryId),
}

impl FromStr for AnyId {
    type Err = NoLetter;

    fn from_str(text: &str) -> Result<AnyId, NoLetter> {
        text.parse().map(AnyId::Letter).or_else(|NoLetter| text.parse().map(AnyId::Delivery))
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.0, self.1)
    }
}

/// The text is no letter's name.
struct NoLetter;

impl FromStr for LetterId {
    type Err = NoLetter;

    fn from_str(text: &str) -> Result<LetterId, NoLetter> {
        let (partition, n) = text.split_once('-').ok_or(NoLetter)?;
        let id =
            LetterId(PartitionId(partition.parse().map_err(|_| NoLetter)?), n.parse().map_err(|_| NoLetter)?);
        // One name for each letter: no signs, no leading zeros.
        if id.to_string() == text { Ok(id) } else { Err(NoLetter) }
    }
}

#[derive(Serialize)]
struct Item<'a> {
    id: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warehouse: Option<&'a str>,
    /// Of a delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<TransactionId>,
    reason: String,
    detail: String,
    at: WireTime,
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<Item<'a>>,
    next: Option<String>,
}

fn item(warehouse: &str, id: LetterId, letter: DeadLetter) -> Item<'_> {
    let kind = match letter.kind {
        DeadKind::Order => "order",
        DeadKind::Confirmation => "confirmation",
        DeadKind::Wave => "wave",
        DeadKind::Stock => "stock",
    };
    let DeadLetter { kind: _, id: transaction_id, reason, detail, at, entry: _ } = letter;
    Item {
        id: id.to_string(),
        kind,
        warehouse: Some(warehouse),
        endpoint: None,
        transaction_id,
        reason,
        detail,
        at: WireTime(at),
    }
}

/// What is shown of a letter whose bytes cannot be read: that it is there, and why no more. When it was
/// kept aside is lost with it, and shown as the beginning of time.
fn unread(reason: String) -> DeadLetter {
    let detail = "its own bytes cannot be read: they can be restored, and nothing else be done".to_owned();
    DeadLetter { kind: DeadKind::Confirmation, id: None, reason, detail, at: Timestamp(0), entry: None }
}

/// `GET /v1/ops/dead-letters`: by warehouse, then by age; `warehouse` shows one of them.
pub(crate) async fn list(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let params = Params::read(&request, &["warehouse", "after", "limit"])?;
    let after: Option<AnyId> = params.parsed("after")?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let limit = usize::try_from(limit).map_err(|_| Problem::Internal)?;
    let only = params.text("warehouse").map(|code| warehouses::enter(&state, &call, code)).transpose()?;
    let mut shown: Vec<_> = state.engine.warehouses().iter().collect();
    shown.retain(|w| only.is_none_or(|only| only.partition == w.partition));
    shown.sort_unstable_by_key(|w| w.partition);
    let (mut items, mut last) = (Vec::new(), None);
    for warehouse in shown {
        let after = match after {
            // Deliveries stand behind the letters of all warehouses.
            Some(AnyId::Delivery(_)) => break,
            Some(AnyId::Letter(LetterId(partition, _))) if warehouse.partition < partition => continue,
            Some(AnyId::Letter(LetterId(partition, n))) if warehouse.partition == partition => n,
            Some(AnyId::Letter(_)) | None => 0,
        };
        let rest = limit - items.len();
        if rest == 0 {
            break;
        }
        let letters = state.engine.store().dead_letters(warehouse.partition, after, rest).await;
        for (n, letter) in letters.map_err(|e| unreadable(&e))? {
            let id = LetterId(warehouse.partition, n);
            last = Some(id.to_string());
            items.push(item(&warehouse.code, id, letter.unwrap_or_else(unread)));
        }
    }
    let rest = limit - items.len();
    if only.is_none() && rest > 0 {
        let after = match after {
            Some(AnyId::Delivery(DeliveryId(endpoint, sequence))) => Some((endpoint, sequence)),
            Some(AnyId::Letter(_)) | None => None,
        };
        let deliveries = state.engine.store().dead_deliveries(after, rest).await;
        for dead in deliveries.map_err(|e| unreadable(&e))? {
            let id = DeliveryId(dead.endpoint, dead.entry.sequence).to_string();
            last = Some(id.clone());
            items.push(delivery(&state, id, dead));
        }
    }
    let next = last.filter(|_| items.len() == limit);
    ok_json(&Page { items, next })
}

fn delivery(state: &State, id: String, dead: DeadDelivery) -> Item<'static> {
    let client = state.engine.client_name(dead.client).unwrap_or_default();
    Item {
        id,
        kind: "delivery",
        warehouse: None,
        endpoint: Some(dead.endpoint),
        transaction_id: (dead.entry.points().version() > 0).then_some(dead.entry.id),
        reason: dead.reason,
        detail: format!("event {} of the feed of {client}", dead.entry.sequence),
        at: WireTime(dead.at),
    }
}

/// `POST /v1/ops/dead-letters/{id}/redrive`
pub(crate) async fn redrive(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    instruct(&state, &call, &request, &id, Instruction::Redrive).await
}

/// `POST /v1/ops/dead-letters/{id}/give-up`
pub(crate) async fn give_up(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    instruct(&state, &call, &request, &id, Instruction::GiveUp).await
}

#[derive(Serialize)]
struct Queued<'a> {
    id: &'a str,
}

async fn instruct(
    state: &State,
    call: &Call,
    request: &HttpRequest,
    id: &str,
    asked: fn(u64) -> Instruction,
) -> Result<HttpResponse, Problem> {
    Params::read(request, &[])?;
    let named: AnyId = id.parse().map_err(|NoLetter| Problem::NotFound)?;
    match named {
        AnyId::Letter(LetterId(partition, n)) => {
            let asked = asked(n);
            tracing::info!(correlation_id = %call.correlation, letter = id, ?asked, "an operator asks");
            state.engine.instruct(partition, asked).await.map_err(refusal)?;
        }
        AnyId::Delivery(DeliveryId(endpoint, n)) => {
            let asked = asked(n);
            tracing::info!(correlation_id = %call.correlation, letter = id, ?asked, "an operator asks");
            match asked {
                Instruction::Redrive(_) => state.engine.webhooks().redrive(endpoint, n).await?,
                Instruction::GiveUp(_) => state.engine.webhooks().give_up(endpoint, n).await?,
            }
        }
    }
    json_body(&mut HttpResponse::Accepted(), &Queued { id })
}

fn refusal(why: InstructError) -> Problem {
    match why {
        InstructError::Unknown => Problem::NotFound,
        InstructError::Settled => Problem::LetterSettled,
        InstructError::Unreadable
        | InstructError::RedriveOnly
        | InstructError::GiveUpOnly
        | InstructError::NotPossible(_) => Problem::NotPossible(why.to_string()),
        InstructError::Read(e) => unreadable(&e),
        InstructError::Commit(e) => e.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_one_name() {
        let id = LetterId(PartitionId(3), 17);
        assert_eq!(id.to_string().parse::<LetterId>().ok(), Some(id));
        for bad in ["", "3", "3-", "-17", "03-17", "3-+17", "3-17-1", "65536-1", "3-18446744073709551616"] {
            assert!(bad.parse::<LetterId>().is_err(), "{bad}");
        }
    }
}
