//! Clients as keepers of their webhook endpoints: they make, delete, enable and ping them, ask for
//! replays, and have deliveries redriven that were kept aside.

use std::time::Duration;

use super::World;
use super::disk::at_once;
use super::life::Nodes;
use super::receivers::SLOTS;
use super::submissions::CLIENTS;
use crate::domain::endpoint::{EndpointSettings, Include, Standing, StoredEndpoint};
use crate::domain::ids::{ClientNo, TraceContext};
use crate::domain::time::Timestamp;
use crate::engine::{Handle, NewEndpoint};
use crate::ports::clock::Clock;
use crate::ports::endpoints::{DeadDelivery, EndpointStore};
use crate::ports::entropy::Entropy;

/// Once faults have healed everything must have been delivered within this, and as much more as the
/// clock was ever ahead: a breaker's longest pause (five minutes) several times over.
const REST_WITHIN: Duration = Duration::from_secs(1_800);

/// How far a replay goes back, in milliseconds.
const REPLAYED_MS: i64 = 600_000;

/// Makes the endpoints that there are not, as far as the store will have it.
pub(crate) async fn open(world: &World, handle: &Handle) {
    for client in 0..CLIENTS.len() {
        for slot in 0..SLOTS.len() {
            look_after(world, handle, (client, slot)).await;
        }
    }
}

/// Does something about one endpoint.
pub(crate) async fn act(world: &World, handle: &Handle) {
    let chance = &world.chance;
    let client = chance.below(CLIENTS.len() as u64) as usize;
    let slot = chance.below(SLOTS.len() as u64) as usize;
    let of = ClientNo(client as u32 + 1);
    let found = endpoint(world, (client, slot)).filter(|e| e.standing == Standing::Enabled);
    let (Some(found), office) = (found, handle.webhooks()) else {
        return look_after(world, handle, (client, slot)).await;
    };
    // What is answered is not the last word: what was asked shows on the disk.
    match chance.below(16) {
        0 if world.is_faulty() => {
            world.observer.saw("endpoints deleted");
            let _unknown = office.delete(of, found.id).await;
        }
        1..=3 => {
            let Ok(correlation) = format!("ping-{}", chance.next()).parse() else { return };
            let trace = TraceContext { trace_id: 1, parent_id: 1, flags: 0, state: None };
            let _unknown = office.ping(of, found.id, &correlation, &trace).await;
        }
        4 => {
            world.observer.saw("replays");
            let now = world.clock.now();
            let span = (Timestamp(now.0 - REPLAYED_MS), now);
            let _unknown = office.replay(of, found.id, span, Vec::new()).await;
        }
        5..=8 => redrive(world, handle, chance.below(4) as usize).await,
        _ => {}
    }
}

/// Waits until everything has been delivered, and does what it takes.
pub(crate) async fn rest(world: &World, nodes: &Nodes) {
    if !world.profile.webhooks || !world.judges_deliveries() {
        return;
    }
    let until = tokio::time::Instant::now() + REST_WITHIN + world.clock.ahead_max();
    while tokio::time::Instant::now() < until && !world.observer.is_broken() {
        open(world, nodes.front()).await;
        redrive(world, nodes.front(), 0).await;
        if world.receivers.left(world).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for found in world.receivers.left(world) {
        world.violated("INV-5", format!("at rest {found}"));
    }
}

/// Whatever is kept aside is tried again, but for the first `skip`.
async fn redrive(world: &World, handle: &Handle, skip: usize) {
    let aside = at_once(world.disk.dead_deliveries(None, 1_000)).unwrap_or_default();
    for DeadDelivery { endpoint, entry, .. } in aside.into_iter().skip(skip) {
        if at_once(world.disk.replays(endpoint)).is_ok_and(|replays| !replays.is_empty()) {
            continue;
        }
        if handle.webhooks().redrive(endpoint, entry.sequence).await.is_ok() {
            world.observer.saw("deliveries redriven");
        }
    }
}

/// Makes an endpoint that is not there, and enables one that is disabled.
async fn look_after(world: &World, handle: &Handle, (client, slot): (usize, usize)) {
    let of = ClientNo(client as u32 + 1);
    let office = handle.webhooks();
    match endpoint(world, (client, slot)) {
        Some(StoredEndpoint { id, standing: Standing::Disabled(_), .. }) => {
            if office.enable(of, id).await.is_ok() {
                world.observer.saw("endpoints enabled again");
            }
        }
        Some(_) => {}
        None => {
            let (name, delivery, types) = SLOTS[slot];
            // What not every reader sees is rendered apart from what they all share.
            let more = slot == 1;
            let settings = EndpointSettings {
                url: world.receivers.address(CLIENTS[client], name),
                types: vec![types.to_owned()],
                description: String::new(),
                delivery,
                content_type: Default::default(),
                include: Include { metadata: more, ship_to: more },
            };
            let _unknown = office.create(NewEndpoint { client: of, settings }).await;
        }
    }
}

/// The endpoint that a client keeps at a place, as the disk has it.
fn endpoint(world: &World, (client, slot): (usize, usize)) -> Option<StoredEndpoint> {
    let all = at_once(world.disk.endpoints_of(ClientNo(client as u32 + 1))).unwrap_or_default();
    all.into_iter().find(|endpoint| endpoint.settings.delivery == SLOTS[slot].1)
}
