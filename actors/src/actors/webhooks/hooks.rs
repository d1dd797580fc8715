//! What is known of a node's webhook endpoints from outside their actors: doors, counts, times. It
//! outlives the actors, so that one which keeps dying is still seen.

use actix::Recipient;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::endpoint::Endpoint;
use super::notifier::Look;
use crate::actors::gate::Door;
use crate::actors::report::Phase;
use crate::actors::vitals::Vitals;
use crate::domain::endpoint::{EndpointId, Schedule};
use crate::ports::endpoints::AttemptOutcome;
use crate::ports::measure::{Distribution, Histogram, Scale};
use crate::ports::webhook::Courier;

/// From a consumer beside us to one that uses up its time. Nanoseconds, reported as seconds.
static ATTEMPT_TIME: Scale = Scale {
    per_unit: 1_000_000_000,
    bounds: &[
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
        15_000_000_000,
    ],
};

/// All endpoints of a node, and what they share.
pub(crate) struct Hooks {
    /// Who carries deliveries.
    pub(crate) courier: Arc<dyn Courier>,
    /// When.
    pub(crate) schedule: Schedule,
    /// Of the Notifier, through all its restarts.
    pub(crate) notifier: Arc<Vitals>,
    known: RwLock<BTreeMap<EndpointId, Arc<Hook>>>,
    supervisor: Mutex<Option<Recipient<Look>>>,
    attempts: [Histogram; AttemptOutcome::ALL.len()],
    dead: AtomicU64,
}

/// One endpoint that has or had an actor.
pub(crate) struct Hook {
    /// What is counted of its actor.
    pub(crate) vitals: Arc<Vitals>,
    phase: Mutex<Phase>,
    door: Mutex<Option<Door<Endpoint>>>,
    /// Events that it holds.
    waiting: AtomicUsize,
}

impl Hooks {
    pub(crate) fn new(courier: Arc<dyn Courier>, schedule: Schedule) -> Hooks {
        Hooks {
            courier,
            schedule,
            notifier: Vitals::new(),
            known: RwLock::default(),
            supervisor: Mutex::default(),
            attempts: std::array::from_fn(|_| Histogram::new(&ATTEMPT_TIME)),
            dead: AtomicU64::new(0),
        }
    }

    /// The Notifier that is told of changes from here on.
    pub(super) fn supervisor_is(&self, supervisor: Recipient<Look>) {
        *self.supervisor.lock() = Some(supervisor);
    }

    /// Has the Notifier look at what the store says of endpoints. One that is gone meanwhile looks
    /// when it starts.
    pub(crate) fn look(&self) {
        if let Some(supervisor) = &*self.supervisor.lock() {
            supervisor.do_send(Look);
        }
    }

    /// An endpoint; made known when it is not.
    pub(super) fn hook(&self, id: EndpointId) -> Arc<Hook> {
        self.known.write().entry(id).or_insert_with(|| Arc::new(Hook::new())).clone()
    }

    /// An endpoint that is known.
    pub(super) fn known(&self, id: EndpointId) -> Option<Arc<Hook>> {
        self.known.read().get(&id).cloned()
    }

    /// True when an endpoint has an actor here.
    pub(crate) fn has(&self, id: EndpointId) -> bool {
        self.known(id).is_some_and(|hook| hook.door().is_some())
    }

    /// An endpoint is no more.
    pub(super) fn forget(&self, id: EndpointId) {
        self.known.write().remove(&id);
    }

    /// All that are known.
    pub(crate) fn all(&self) -> Vec<(EndpointId, Arc<Hook>)> {
        self.known.read().iter().map(|(id, hook)| (*id, hook.clone())).collect()
    }

    /// Endpoints whose actors live.
    pub(crate) fn running(&self) -> usize {
        self.known.read().values().filter(|hook| hook.phase() != Phase::Asleep).count()
    }

    /// Counts an attempt.
    pub(super) fn attempted(&self, outcome: AttemptOutcome, took: Duration) {
        self.attempts[outcome as usize].record_time(took);
    }

    /// Counts deliveries that are kept aside.
    pub(super) fn kept_aside(&self, n: usize) {
        self.dead.fetch_add(n as u64, Relaxed);
    }

    /// Attempts by outcome.
    pub(crate) fn attempts(&self) -> Vec<(&'static str, Distribution)> {
        let read = |outcome: AttemptOutcome| (outcome.as_str(), self.attempts[outcome as usize].read());
        AttemptOutcome::ALL.map(read).into()
    }

    /// Deliveries that were kept aside.
    pub(crate) fn dead(&self) -> u64 {
        self.dead.load(Relaxed)
    }
}

impl Hook {
    fn new() -> Hook {
        Hook {
            vitals: Vitals::new(),
            phase: Mutex::new(Phase::Asleep),
            door: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Where its actor stands; asleep when it has none.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    pub(super) fn phase_is(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    pub(super) fn door_is(&self, door: Option<Door<Endpoint>>) {
        *self.door.lock() = door;
    }

    /// Its actor's door, while there is one.
    pub(super) fn door(&self) -> Option<Door<Endpoint>> {
        self.door.lock().clone()
    }

    pub(super) fn waiting_is(&self, events: usize) {
        self.waiting.store(events, Relaxed);
    }

    /// Events that it holds and has not delivered.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}
