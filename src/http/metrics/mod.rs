//! `/metrics`: the same report for Prometheus. One series an actor type, never one an actor; only
//! what belongs to a warehouse by nature has one for each, and only for those that have or had work.
//!
//! Nothing is kept between two scrapes: a registry is made from the report and thrown away, so
//! nothing here is global and nothing can disagree with `/v1/ops/actors`.

mod families;
mod process;

use std::fmt;

use actix_web::http::header::{Accept, Header};
use actix_web::{HttpRequest, HttpResponse, web};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use wavegate_engine::engine::report::Report;

use super::problem::Problem;
use super::query::Params;
use super::state::{State, Streams};
use families::Families;
use process::Process;

/// OpenMetrics 1.0, for a scraper that asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one scrape shows.
#[derive(Debug)]
struct Scrape {
    report: Report,
    streams: Streams,
    writable: bool,
    process: Option<Process>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder);
        families.orders(&self.report)?;
        families.warehouses(&self.report)?;
        families.webhooks(&self.report)?;
        families.actors(&self.report)?;
        families.streams(self.streams)?;
        families.store(&self.report, self.writable)?;
        families.process(self.process.as_ref())
    }
}

/// `GET /metrics`
pub(crate) async fn get(state: web::Data<State>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Params::read(&request, &[])?;
    let scrape = Scrape {
        report: state.engine.report(),
        streams: state.streams(),
        writable: state.engine.store().is_writable(),
        process: process::read(),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut body = String::new();
    let (content_type, written) = if wants_open_metrics(&request) {
        (OPEN_METRICS, text::encode(&mut body, &registry))
    } else {
        (prometheus_text::CONTENT_TYPE, prometheus_text::encode(&mut body, &registry))
    };
    // Writing to a string does not fail.
    written.map_err(|fmt::Error| Problem::Internal)?;
    Ok(HttpResponse::Ok().content_type(content_type).body(body))
}

/// Whether the caller would rather have OpenMetrics than Prometheus's own text.
fn wants_open_metrics(request: &HttpRequest) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    let known = accept.ranked().into_iter().find(|mime| {
        let (kind, name) = (mime.type_().as_str(), mime.subtype().as_str());
        matches!((kind, name), ("application", "openmetrics-text") | ("text", "plain" | "*") | ("*", "*"))
    });
    known.is_some_and(|mime| mime.subtype().as_str() == "openmetrics-text")
}
