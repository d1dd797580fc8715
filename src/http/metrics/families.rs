//! Every metric there is: its name, its unit, its help, and where in the report its values stand.
//! A family is written also when it has no series yet, so that what exists can be read off a scrape.
//! The README's table of metrics is compared with this in a test.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;
use wavegate_engine::domain::command::Kind;
use wavegate_engine::engine::report::{ActorReport, ActorType, Cause, Outcome, Report, WarehouseReport};
use wavegate_engine::ports::measure::Distribution;

use super::process::Process;
use crate::http::state::Streams;

/// What a metric is called and means. The unit stands in the name when it is written.
struct Family {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
}

const fn plain(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: None, help }
}

const fn seconds(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: Some(Unit::Seconds), help }
}

const fn bytes(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: Some(Unit::Bytes), help }
}

/// Labels of a series.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// No label.
const ALONE: Labels<'static, 0> = [];

/// Writes families.
pub(super) struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Families<'a> {
        Families(encoder)
    }

    /// Commands at the door, and orders from there to their end.
    pub(super) fn orders(&mut self, report: &Report) -> fmt::Result {
        let tally = &report.tally;
        let of = |kind: Kind, outcome: Outcome| {
            let counted = tally.commands.iter().find(|(k, o, _)| (*k, *o) == (kind, outcome));
            counted.map_or(0, |(_, _, n)| *n)
        };
        let accepted = |kind| [(ALONE, of(kind, Outcome::Accepted))];
        self.counter(
            plain("orders_accepted", "New orders that were durably queued."),
            accepted(Kind::Order),
        )?;
        self.counter(
            plain(
                "orders_replayed",
                "Orders that had been accepted before and were answered with the stored id.",
            ),
            [(ALONE, of(Kind::Order, Outcome::Replayed))],
        )?;
        let refused =
            Outcome::ALL.into_iter().filter(|o| !matches!(o, Outcome::Accepted | Outcome::Replayed));
        self.counter(
            plain("orders_refused", "Orders that were well-formed and not accepted, by reason."),
            refused.map(|outcome| ([("reason", outcome.as_str())], of(Kind::Order, outcome))),
        )?;
        self.counter(
            plain("moves_accepted", "New stock moves that were durably queued."),
            accepted(Kind::Move),
        )?;
        self.counter(
            plain("cancellations_accepted", "New cancellations that were durably queued."),
            accepted(Kind::Cancellation),
        )?;
        self.histogram(
            seconds("accept", "Time from handing a batch of commands in to its durable answer."),
            [(ALONE, &tally.accept)],
        )?;
        self.gauge(
            plain("orders", "Orders that are not done, by state; accepted ones wait in a work lane. Those of warehouses whose tree has not run since the start are not counted."),
            report.orders.iter().map(|(state, n)| ([("state", state.as_str())], *n as f64)),
        )?;
        self.counter(
            plain("orders_ended", "Orders that came to a final state, by state."),
            tally.ended.iter().map(|(state, n)| ([("state", state.as_str())], *n)),
        )?;
        self.histogram(
            seconds("order_door_to_door", "Time from the acceptance of an order to its departure."),
            [(ALONE, &tally.door_to_door)],
        )?;
        self.counter(
            plain("dead_letters", "What was kept aside because it could not be worked, by kind."),
            tally
                .dead_letters
                .iter()
                .copied()
                .chain([("delivery", report.webhooks.dead)])
                .map(|(kind, n)| ([("kind", kind)], n)),
        )?;
        self.counter(
            plain(
                "invariant_violations",
                "Invariants that did not hold, by id; anything but 0 is a fault of the program.",
            ),
            tally.violations.iter().map(|(id, n)| ([("invariant", *id)], *n)),
        )?;
        self.counter(
            plain(
                "events_rendered",
                "Events that were rendered from their transaction, each once for all its readers.",
            ),
            [(ALONE, tally.events_rendered)],
        )?;
        self.counter(
            plain(
                "events_aside",
                "Events that cannot be rendered and were left aside; their readers went on.",
            ),
            [(ALONE, tally.events_aside)],
        )?;
        let (waiting, max) = report.waiters;
        self.gauge(
            plain("waiters", "Callers that wait for a transaction to change."),
            [(ALONE, waiting as f64)],
        )?;
        self.gauge(
            plain("waiters_max", "Callers that may wait; further ones are answered at once."),
            [(ALONE, max as f64)],
        )
    }

    /// What belongs to a warehouse.
    pub(super) fn warehouses(&mut self, report: &Report) -> fmt::Result {
        let each = |value: fn(&WarehouseReport) -> f64| {
            report.warehouses.iter().map(move |w| ([("warehouse", w.code.as_str())], value(w)))
        };
        self.gauge(
            plain("warehouse_backlog", "Orders in the work lane of a warehouse."),
            each(|w| w.backlog as f64),
        )?;
        self.gauge(
            plain("warehouse_backlog_max", "Orders in the work lane at which further ones are refused."),
            each(|w| w.backlog_max as f64),
        )?;
        self.gauge(
            seconds(
                "warehouse_backlog_oldest",
                "How long the oldest order in the work lane has waited; 0 when there is none.",
            ),
            each(|w| w.oldest.as_secs_f64()),
        )?;
        self.gauge(
            plain("warehouse_credits_used", "Releases that the WMS has not settled."),
            each(|w| f64::from(w.credits_used)),
        )?;
        self.gauge(
            plain("warehouse_credits_max", "Releases that may be unsettled at a time."),
            each(|w| f64::from(w.credits)),
        )?;
        self.gauge(
            plain("warehouse_paused", "1 while an operator keeps it from pulling and releasing."),
            each(|w| f64::from(u8::from(w.paused))),
        )?;
        self.gauge(
            plain("warehouse_wms_failures", "Calls to the WMS in a row that failed; 0 once one is answered."),
            each(|w| f64::from(w.wms_failures)),
        )?;
        self.gauge(
            plain("trees", "Trees of warehouses, by state."),
            report.trees.iter().map(|(phase, n)| ([("state", phase.as_str())], *n as f64)),
        )
    }

    /// Webhooks.
    pub(super) fn webhooks(&mut self, report: &Report) -> fmt::Result {
        let webhooks = &report.webhooks;
        self.histogram(
            seconds("delivery_attempt", "Time of an attempt to deliver a webhook, by outcome."),
            webhooks.attempts.iter().map(|(outcome, took)| ([("outcome", *outcome)], took)),
        )?;
        self.gauge(
            plain("deliveries_waiting", "Events that webhook endpoints have taken up and not delivered."),
            [(ALONE, webhooks.waiting as f64)],
        )
    }

    /// Actors, one series a type.
    pub(super) fn actors(&mut self, report: &Report) -> fmt::Result {
        let types = by_type(report);
        let gated = || types.iter().filter(|(_, all)| all.capacity > 0);
        let label = |actor: &ActorType| [("actor", actor.as_str())];
        self.gauge(
            plain("gate_depth", "Messages that actors have not finished, by type of actor."),
            gated().map(|(actor, all)| (label(actor), all.depth as f64)),
        )?;
        self.gauge(
            plain("gate_capacity", "Messages that the gates of all actors of a type let in at a time."),
            gated().map(|(actor, all)| (label(actor), all.capacity as f64)),
        )?;
        self.counter(
            plain("gate_refused", "Messages that a full gate did not let in, by type of actor."),
            gated().map(|(actor, all)| (label(actor), all.refused)),
        )?;
        self.counter(
            plain("actor_handled", "Messages (turns, of a pipeline) that actors have handled, by type."),
            types
                .iter()
                .map(|(actor, all)| (label(actor), all.handling.as_ref().map_or(0, Distribution::count))),
        )?;
        self.histogram(
            seconds("actor_handling", "How long actors held a message (a pipeline: a turn), by type."),
            types.iter().filter_map(|(actor, all)| Some((label(actor), all.handling.as_ref()?))),
        )?;
        self.gauge(
            seconds(
                "actor_in_hand",
                "Age of the oldest message that an actor of the type has in hand; grows when one hangs.",
            ),
            types.iter().map(|(actor, all)| (label(actor), all.in_hand)),
        )?;
        self.counter(
            plain(
                "actor_restarts",
                "Deaths of actors after which they were started again, by type and cause.",
            ),
            types.iter().flat_map(|(actor, all)| {
                let causes = Cause::ALL.into_iter().zip(all.restarts);
                // Only a panic can happen to every actor; what never happened to the others is no series.
                let shown = causes.filter(|(cause, n)| *cause == Cause::Panic || *n > 0);
                shown.map(move |(cause, n)| ([("actor", actor.as_str()), ("cause", cause.as_str())], n))
            }),
        )
    }

    /// Streams of events.
    pub(super) fn streams(&mut self, streams: Streams) -> fmt::Result {
        self.gauge(
            plain("sse_connections", "Streams of events that are open."),
            [(ALONE, streams.open as f64)],
        )?;
        self.gauge(
            plain("sse_connections_max", "Streams of events that may be open."),
            [(ALONE, streams.max as f64)],
        )?;
        self.counter(
            plain("sse_cut", "Streams that were cut because they did not keep up or could not be read; they go on by their cursor."),
            [(ALONE, streams.cut)],
        )
    }

    /// The store.
    pub(super) fn store(&mut self, report: &Report, writable: bool) -> fmt::Result {
        let store = &report.store;
        self.histogram(
            seconds("commit", "Time of a commit until it is durable."),
            [(ALONE, &store.commit_time)],
        )?;
        self.histogram(
            plain("commit_items", "Things (facts, positions, lane entries) written by one commit."),
            [(ALONE, &store.commit_items)],
        )?;
        self.gauge(
            plain("store_queue_depth", "Writes that wait for the store's writer."),
            [(ALONE, store.queue_depth as f64)],
        )?;
        self.gauge(
            plain("store_queue_capacity", "Writes that may wait for it."),
            [(ALONE, store.queue_capacity as f64)],
        )?;
        self.counter(
            plain("store_queue_refused", "Writes that were refused because the queue was full."),
            [(ALONE, store.queue_refused)],
        )?;
        self.gauge(
            plain(
                "store_writable",
                "1 while the store takes writes, 0 when its disk is full or its writer is gone.",
            ),
            [(ALONE, f64::from(u8::from(writable)))],
        )
    }

    /// The process and what it was built from.
    pub(super) fn process(&mut self, process: Option<&Process>) -> fmt::Result {
        let each = |value: fn(&Process) -> f64| process.map(|p| (ALONE, value(p)));
        self.float_counter(
            seconds("process_cpu", "User and system CPU time of the process."),
            each(|p| p.cpu_seconds),
        )?;
        self.gauge(
            bytes("process_resident_memory", "Memory of the process that is resident."),
            each(|p| p.resident_bytes as f64),
        )?;
        self.gauge(
            bytes("process_virtual_memory", "Address space of the process; the store's map is in it."),
            each(|p| p.virtual_bytes as f64),
        )?;
        self.gauge(
            seconds("process_start_time", "When the process started, since the Unix epoch."),
            each(|p| p.start_seconds),
        )?;
        self.gauge(
            plain("process_open_fds", "Files and sockets that are open."),
            each(|p| p.open_fds as f64),
        )?;
        let max = process.and_then(|p| p.max_fds).map(|max| (ALONE, max as f64));
        self.gauge(plain("process_max_fds", "Files and sockets that may be open."), max)?;
        self.gauge(plain("process_threads", "Threads of the process."), each(|p| p.threads as f64))?;
        self.gauge(
            plain("build_info", "What runs: the version as a label, the value is 1."),
            [([("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )
    }

    fn gauge<'l, const N: usize>(
        &mut self,
        family: Family,
        series: impl IntoIterator<Item = (Labels<'l, N>, f64)>,
    ) -> fmt::Result {
        self.family(family, MetricType::Gauge, series, |encoder, value| encoder.encode_gauge(&value))
    }

    fn counter<'l, const N: usize>(
        &mut self,
        family: Family,
        series: impl IntoIterator<Item = (Labels<'l, N>, u64)>,
    ) -> fmt::Result {
        let none: Option<&Exemplar<NoLabelSet, u64>> = None;
        self.family(family, MetricType::Counter, series, |encoder, value| {
            encoder.encode_counter(&value, none)
        })
    }

    fn float_counter<'l, const N: usize>(
        &mut self,
        family: Family,
        series: impl IntoIterator<Item = (Labels<'l, N>, f64)>,
    ) -> fmt::Result {
        let none: Option<&Exemplar<NoLabelSet, f64>> = None;
        self.family(family, MetricType::Counter, series, |encoder, value| {
            encoder.encode_counter(&value, none)
        })
    }

    fn histogram<'l, 'd, const N: usize>(
        &mut self,
        family: Family,
        series: impl IntoIterator<Item = (Labels<'l, N>, &'d Distribution)>,
    ) -> fmt::Result {
        self.family(family, MetricType::Histogram, series, |encoder, distribution| {
            let buckets: Vec<(f64, u64)> = distribution.buckets().collect();
            encoder.encode_histogram::<NoLabelSet>(distribution.total(), distribution.count(), &buckets, None)
        })
    }

    fn family<L: EncodeLabelSet, V>(
        &mut self,
        Family { name, unit, help }: Family,
        metric_type: MetricType,
        series: impl IntoIterator<Item = (L, V)>,
        write: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), metric_type)?;
        for (labels, value) in series {
            write(&mut encoder.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}

/// All actors of a type together.
#[derive(Default)]
struct All {
    depth: usize,
    capacity: usize,
    refused: u64,
    handling: Option<Distribution>,
    /// Of the oldest message in hand, in seconds.
    in_hand: f64,
    restarts: [u64; Cause::ALL.len()],
}

fn by_type(report: &Report) -> BTreeMap<ActorType, All> {
    let mut types: BTreeMap<ActorType, All> = ActorType::ALL.map(|actor| (actor, All::default())).into();
    let mut add = |one: &ActorReport| {
        let all = types.entry(one.actor).or_default();
        all.depth += one.gate.depth;
        all.capacity += one.gate.capacity.unwrap_or_default();
        all.refused += one.gate.refused;
        match &mut all.handling {
            Some(handling) => handling.add(&one.handling),
            None => all.handling = Some(one.handling.clone()),
        }
        all.in_hand = all.in_hand.max(one.in_hand.unwrap_or_default().as_secs_f64());
        for (sum, (_, n)) in all.restarts.iter_mut().zip(one.restarts.by_cause) {
            *sum += n;
        }
    };
    report.actors.iter().for_each(|root| root.each(&mut |one| add(one)));
    types
}
