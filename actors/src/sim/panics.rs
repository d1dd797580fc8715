//! The panics of the world: those it means, at every fault point and over an order in hand, and
//! those that nobody meant, which are bugs.

use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use super::World;
use crate::domain::ids::PartitionId;
use crate::ports::entropy::Entropy;
use crate::ports::faults::{FaultPoint, Faults};

/// Visits of the points that are to be struck at one of them.
#[derive(Default)]
pub(super) struct Strikes {
    visits: Mutex<BTreeMap<FaultPoint, u32>>,
    /// Whether an order of a reference kills who works it, once that was drawn.
    poisoned: Mutex<BTreeMap<String, bool>>,
}

impl World {
    /// A panic that the world did not mean is a bug. Only an owner that does not know yet that it has lost
    /// its partition may meet in the store what its memory cannot explain.
    pub(super) fn look_at_panics(&self) {
        for (what, may_be_stale) in PANICS.with(|p| p.found.take()) {
            self.note(format_args!("a panic that nobody meant: {what}"));
            if may_be_stale {
                self.observer.saw("panics of stale owners");
            } else {
                self.violated("INV-1", format!("a panic that nobody meant: {what}"));
            }
        }
    }

    /// Whether an order kills who works it: drawn once.
    fn is_poisoned(&self, reference: &str) -> bool {
        let mut poisoned = self.strikes.poisoned.lock();
        if let Some(known) = poisoned.get(reference) {
            return *known;
        }
        let drawn = self.chance.below(1_000) < self.profile.poisons;
        poisoned.insert(reference.to_owned(), drawn);
        drawn
    }

    /// True at the visit of a point at which the profile wants a panic.
    fn is_armed(&self, point: FaultPoint) -> bool {
        if self.profile.panics_at.iter().all(|(at, _)| *at != point) {
            return false;
        }
        let mut visits = self.strikes.visits.lock();
        let visit = visits.entry(point).or_default();
        *visit += 1;
        self.profile.panics_at.contains(&(point, *visit))
    }
}

impl Faults for World {
    fn strike(&self, point: FaultPoint, partition: Option<PartitionId>) {
        let is_here = partition.is_none_or(|p| p == PartitionId(1));
        let rate = self.profile.panics * often(point);
        if is_here && self.is_armed(point)
            || (rate > 0 && self.is_faulty() && self.chance.below(100_000) < rate)
        {
            self.observer.saw("panics");
            self.observer.saw(point.as_str());
            self.note(format_args!("a fault strikes at {point:?} {partition:?}"));
            quiet_panic();
        }
    }

    fn work(&self, reference: &str) {
        let may_strike = self.profile.poisons > 0 && self.is_faulty();
        // Not each time, so that some get a little further before they kill.
        if may_strike && self.is_poisoned(reference) && self.chance.below(2) == 0 {
            self.observer.saw("panics over an order");
            self.note(format_args!("a fault strikes over {reference}"));
            quiet_panic();
        }
    }
}

/// How often a point is struck, in tenths of the profile's rate: one that few visits come to is struck at
/// more of them, so that every hundred worlds see each, and one that all come to all the time at fewer.
fn often(point: FaultPoint) -> u64 {
    match point {
        FaultPoint::HouseLooks | FaultPoint::FeedHubReads => 1,
        FaultPoint::HouseAgrees
        | FaultPoint::WmsLinkCollects
        | FaultPoint::ManifesterLoads
        | FaultPoint::EndpointAnswered
        | FaultPoint::EndpointRecorded => 3,
        FaultPoint::Ingestion
        | FaultPoint::WmsLinkPerforms
        | FaultPoint::WmsLinkAnswered
        | FaultPoint::NotifierAgrees => 5,
        FaultPoint::HouseHears
        | FaultPoint::Warehouse
        | FaultPoint::WarehouseTaken
        | FaultPoint::PipelineGathered
        | FaultPoint::PipelineDurable
        | FaultPoint::Inventory
        | FaultPoint::WmsLink
        | FaultPoint::Manifester
        | FaultPoint::FeedHub
        | FaultPoint::NotifierLooks => 10,
        FaultPoint::HouseTreeDown | FaultPoint::WarehouseChildDown => 20,
        FaultPoint::House | FaultPoint::NotifierChildDown | FaultPoint::EndpointBegins => 50,
        FaultPoint::EndpointRefreshed => 100,
        FaultPoint::HouseDrains
        | FaultPoint::NotifierEnds
        | FaultPoint::Endpoint
        | FaultPoint::EndpointFinishes => 400,
    }
}

thread_local! {
    static PANICS: Panics = const { Panics::new() };
}

/// What this thread makes of a panic; one world at a time runs on a thread.
struct Panics {
    /// The world strikes: it means the next one.
    meant: Cell<bool>,
    /// What panics here is to be expected: a bug is planted.
    expected: Cell<bool>,
    /// A world runs here: what panics is its business.
    kept: Cell<bool>,
    /// The world that runs here.
    world: RefCell<Weak<World>>,
    /// Panics that nobody meant, and whether there was a stale owner then.
    found: RefCell<Vec<(String, bool)>>,
}

impl Panics {
    const fn new() -> Panics {
        Panics {
            meant: Cell::new(false),
            expected: Cell::new(false),
            kept: Cell::new(false),
            world: RefCell::new(Weak::new()),
            found: RefCell::new(Vec::new()),
        }
    }

    /// True when a panic is dealt with here.
    fn take(&self, what: &dyn fmt::Display) -> bool {
        if self.meant.replace(false) || self.expected.get() {
            return true;
        }
        if self.kept.get() {
            let world = self.world.borrow().upgrade();
            let may_be_stale = world.is_some_and(|world| world.observer.has_stale_owners());
            self.found.borrow_mut().push((what.to_string(), may_be_stale));
        }
        self.kept.get()
    }
}

/// Panics without a message on standard error: the world meant it.
fn quiet_panic() -> ! {
    PANICS.with(|p| p.meant.set(true));
    panic!("a fault strikes");
}

fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !PANICS.with(|p| p.take(info)) {
                loud(info);
            }
        }));
    });
}

/// A world begins on this thread. What panics there is to be expected when a bug is planted.
pub(super) fn begin(world: &Arc<World>) {
    hush();
    PANICS.with(|p| {
        p.expected.set(world.profile.planted.is_some());
        p.world.replace(Arc::downgrade(world));
        p.kept.set(true);
    });
}

/// The world on this thread is over.
pub(super) fn end() {
    PANICS.with(|p| {
        p.expected.set(false);
        p.kept.set(false);
    });
}
