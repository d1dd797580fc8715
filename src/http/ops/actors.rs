//! `/v1/ops/actors`: the supervision trees as they are now, each actor with its gate, its times, its
//! restarts and what it holds. No actor is asked, so one that hangs stands in it like the others.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use wavegate_engine::engine::report::{ActorReport, NodeReport, Observed};
use wavegate_engine::wire::time::WireTime;

use crate::http::problem::Problem;
use crate::http::query::Params;
use crate::http::state::{State, ok_json};

/// The name of the one node that the embedded store serves.
const LOCAL: &str = "local";

#[derive(Serialize)]
struct Node<'a> {
    node: &'a str,
    actors: Vec<Actor<'a>>,
    /// Not where there can be only this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<Member<'a>>,
}

/// A node of the store, and what it is in charge of.
#[derive(Serialize)]
struct Member<'a> {
    id: String,
    name: &'a str,
    this: bool,
    leaving: bool,
    warehouses: &'a [String],
}

#[derive(Serialize)]
struct Actor<'a> {
    actor: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warehouse: Option<&'a str>,
    gate: Gate,
    handled: u64,
    handling_seconds: Times,
    in_hand_seconds: Option<f64>,
    restarts: Restarts,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<Observed>,
    children: Vec<Actor<'a>>,
}

#[derive(Serialize)]
struct Gate {
    depth: usize,
    /// `null`: nothing holds back signals of supervision.
    capacity: Option<usize>,
    refused: u64,
}

/// Quantiles are `null` before the first message.
#[derive(Serialize)]
struct Times {
    count: u64,
    sum: f64,
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Serialize)]
struct Restarts {
    count: u64,
    last_cause: Option<String>,
    last_at: Option<WireTime>,
}

/// `GET /v1/ops/actors`
pub(crate) async fn list(state: web::Data<State>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::read(&request, &[])?;
    let report = state.engine.report();
    let name = state.engine.node_name();
    ok_json(&Node {
        node: name.as_deref().unwrap_or(LOCAL),
        actors: report.actors.iter().map(view).collect(),
        nodes: report.nodes.iter().map(member).collect(),
    })
}

fn member(node: &NodeReport) -> Member<'_> {
    let NodeReport { id, name, is_this, leaving, warehouses } = node;
    Member { id: id.to_string(), name, this: *is_this, leaving: *leaving, warehouses }
}

fn view(actor: &ActorReport) -> Actor<'_> {
    let handled = actor.handling.count();
    Actor {
        actor: actor.actor.as_str(),
        name: &actor.name,
        warehouse: actor.warehouse.as_deref(),
        gate: Gate { depth: actor.gate.depth, capacity: actor.gate.capacity, refused: actor.gate.refused },
        handled,
        handling_seconds: Times {
            count: handled,
            sum: actor.handling.total(),
            p50: actor.handling.quantile(0.5),
            p99: actor.handling.quantile(0.99),
        },
        in_hand_seconds: actor.in_hand.map(|age| age.as_secs_f64()),
        restarts: Restarts {
            count: actor.restarts.count(),
            last_cause: actor.restarts.last.map(|last| last.to_string()),
            last_at: actor.restarts.last.map(|last| WireTime(last.at)),
        },
        state: actor.phase.as_str(),
        observed: actor.observed,
        children: actor.children.iter().map(view).collect(),
    }
}
