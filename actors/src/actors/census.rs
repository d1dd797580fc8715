//! Puts the report together from the desks, the vitals and the tallies. It reads and copies; it
//! never asks an actor and never waits for one.

use std::sync::Arc;

use super::desk::Desk;
use super::options::WarehouseOptions;
use super::report::{
    ActorReport, ActorType, GateReport, NodeReport, Observed, Phase, Report, WarehouseReport, WebhookReport,
};
use super::site::Node;
use super::vitals::{TreeVitals, Vitals};
use super::webhooks::Hook;
use crate::domain::endpoint::EndpointId;
use crate::domain::spread::{Charge, NodeId};
use crate::domain::state::State;
use crate::ports::membership::Member;

/// The report of a node as it is now.
pub(crate) fn report(node: &Node) -> Report {
    let mut warehouses = Vec::new();
    let mut trees = Phase::ALL.map(|phase| (phase, 0));
    let mut orders = State::ALL.map(|state| (state, 0));
    let mut children = Vec::new();
    for options in node.warehouses.iter() {
        let Some(desk) = node.desks.get(&options.partition) else { continue };
        let phase = desk.phase();
        trees[phase as usize].1 += 1;
        children.push(tree(options, desk, phase));
        if let Some(vitals) = desk.vitals_if_any() {
            warehouses.push(warehouse(node, options, desk, vitals));
            let snapshot = desk.snapshot();
            orders[State::Accepted as usize].1 += snapshot.backlog;
            for (all, own) in orders.iter_mut().zip(snapshot.open) {
                all.1 += u64::from(own);
            }
        }
    }
    let [asleep, starting, running, down] = trees.map(|(_, n)| n);
    let ending = node.is_ending();
    let mut house = of(ActorType::House, "house".to_owned(), None, &node.house, Phase::Running);
    house.observed = Some(Observed::House { asleep, starting, running, down, ending });
    house.children = children;
    let mut actors = vec![house];
    for (n, vitals) in node.ingestion.read().iter().enumerate() {
        let name = format!("ingestion/{n}");
        actors.push(of(ActorType::Ingestion, name, None, vitals, Phase::Running));
    }
    actors.push(notifier(node));
    // It starts with the first who follows a feed.
    let phase = if node.feed_hub.observed().is_some() { Phase::Running } else { Phase::Asleep };
    actors.push(of(ActorType::FeedHub, "feed_hub".to_owned(), None, &node.feed_hub, phase));
    Report {
        actors,
        warehouses,
        trees: trees.to_vec(),
        orders: orders.into_iter().filter(|(state, _)| is_of_an_open_order(*state)).collect(),
        tally: node.tallies.read(),
        webhooks: webhooks(node),
        store: node.store.report(),
        waiters: node.waiters.load(),
        nodes: nodes(node),
    }
}

/// The nodes that are there and what they are in charge of, as this one has last read it.
pub(crate) fn nodes(node: &Node) -> Vec<NodeReport> {
    let (Some(me), Some(roster)) = (node.ownership.me(), node.ownership.roster()) else { return Vec::new() };
    let of = |id: NodeId| {
        let in_charge =
            |w: &&WarehouseOptions| roster.homes.get(&Charge::Warehouse(w.partition)) == Some(&id);
        node.warehouses.iter().filter(in_charge).map(|w| w.code.clone()).collect()
    };
    let report = |member: &Member| NodeReport {
        id: member.id,
        name: member.name.clone(),
        is_this: member.id == me,
        leaving: member.leaving,
        warehouses: of(member.id),
    };
    roster.members.iter().map(report).collect()
}

/// The webhook endpoints that have or had an actor.
fn notifier(node: &Node) -> ActorReport {
    let hooks = &node.hooks;
    let mut notifier = of(ActorType::Notifier, "notifier".to_owned(), None, &hooks.notifier, Phase::Running);
    let endpoint = |(id, hook): (EndpointId, Arc<Hook>)| {
        of(ActorType::Endpoint, format!("endpoint/{id}"), None, &hook.vitals, hook.phase())
    };
    notifier.children = hooks.all().into_iter().map(endpoint).collect();
    notifier
}

fn webhooks(node: &Node) -> WebhookReport {
    WebhookReport {
        attempts: node.hooks.attempts(),
        waiting: node.hooks.all().iter().map(|(_, hook)| hook.waiting()).sum(),
        dead: node.hooks.dead(),
    }
}

fn is_of_an_open_order(state: State) -> bool {
    match state {
        State::Accepted
        | State::Allocated
        | State::Released
        | State::Picking
        | State::Packed
        | State::Manifested
        | State::Backordered
        | State::Failed => true,
        State::Shipped
        | State::Cancelled
        | State::Rejected
        | State::Applied
        | State::Closed
        | State::Departed => false,
    }
}

fn of(
    actor: ActorType,
    name: String,
    warehouse: Option<&WarehouseOptions>,
    vitals: &Vitals,
    phase: Phase,
) -> ActorReport {
    ActorReport {
        actor,
        name,
        warehouse: warehouse.map(|w| w.code.clone()),
        gate: vitals.gate().unwrap_or_default(),
        handling: vitals.handling(),
        in_hand: vitals.in_hand(),
        restarts: vitals.restarts(),
        phase,
        observed: vitals.observed(),
        children: Vec::new(),
    }
}

/// A warehouse's tree; without children when it has not run since the node started.
fn tree(options: &WarehouseOptions, desk: &Desk, phase: Phase) -> ActorReport {
    let named = |actor: ActorType, vitals: &Vitals| {
        of(actor, format!("{}/{}", actor.as_str(), options.code), Some(options), vitals, phase)
    };
    let Some(vitals) = desk.vitals_if_any() else {
        return named(ActorType::Warehouse, &Vitals::new());
    };
    let TreeVitals { warehouse, pipeline, inventory, wms_link, manifester } = vitals;
    let mut pipeline = named(ActorType::Pipeline, pipeline);
    // A nudge is a flag: it is up or it is not, and one that is up already loses nothing.
    pipeline.gate = GateReport { depth: usize::from(desk.is_nudged()), capacity: Some(1), refused: 0 };
    let mut warehouse = named(ActorType::Warehouse, warehouse);
    warehouse.observed = Some(Observed::Warehouse { epoch: desk.epoch() });
    warehouse.children = vec![
        pipeline,
        named(ActorType::Inventory, inventory),
        named(ActorType::WmsLink, wms_link),
        named(ActorType::Manifester, manifester),
    ];
    warehouse
}

fn warehouse(node: &Node, options: &WarehouseOptions, desk: &Desk, vitals: &TreeVitals) -> WarehouseReport {
    let snapshot = desk.snapshot();
    let now = node.now();
    WarehouseReport {
        code: options.code.clone(),
        backlog: snapshot.backlog,
        backlog_max: options.backlog_max,
        oldest: snapshot.oldest.map(|at| now.since(at)).unwrap_or_default(),
        credits_used: snapshot.credits_used,
        credits: options.credits,
        paused: snapshot.paused,
        wms_failures: failures(&vitals.wms_link),
    }
}

fn failures(wms_link: &Arc<Vitals>) -> u32 {
    match wms_link.observed() {
        Some(Observed::WmsLink { failures, .. }) => failures,
        Some(
            Observed::House { .. }
            | Observed::FeedHub { .. }
            | Observed::Warehouse { .. }
            | Observed::Pipeline { .. }
            | Observed::Inventory { .. }
            | Observed::Manifester { .. }
            | Observed::Notifier { .. }
            | Observed::Endpoint { .. },
        )
        | None => 0,
    }
}
