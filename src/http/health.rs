//! `/healthz`: the process lives. `/readyz`: it is worth sending it work.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::problem::Problem;
use super::state::{State, ok_json};

#[derive(Serialize)]
struct Alive {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    durability: &'static str,
}

/// `GET /healthz`
pub(crate) async fn alive() -> Result<HttpResponse, Problem> {
    ok_json(&Alive { status: "alive" })
}

/// `GET /readyz`
pub(crate) async fn ready(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let mut reasons = Vec::new();
    if state.is_draining() {
        reasons.push("the server is about to end".to_owned());
    }
    if !state.engine.store().is_writable() {
        reasons.push("the store takes no writes".to_owned());
    }
    for partition in state.engine.unready() {
        reasons.push(format!("warehouse {} has work and no owner", state.code_of(partition)));
    }
    if reasons.is_empty() {
        ok_json(&Ready { status: "ready", durability: state.engine.store().durability().as_str() })
    } else {
        Err(Problem::NotReady(reasons.join("; ")))
    }
}
