//! The seeded world: the production actors, turn and fold over a store that fails, a WMS that
//! repeats and delays, panics in any handler and a node that dies; one thread, one paused clock.
//!
//! A seed decides everything. Safety is checked at every commit, liveness once the faults have
//! healed; the same seed gives the same trace.

mod observer;
mod store;
mod wms;
mod workload;

use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::domain::ids::PartitionId;
use crate::domain::invariants::Violation;
use crate::domain::time::Timestamp;
use crate::engine::{Engine, Handle, Options, Rules, Threads, WarehouseOptions};
use crate::ports::clock::Clock;
use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::ports::faults::{FaultPoint, Faults};
use crate::store::memory::MemoryStore;
use observer::Observer;
use store::FaultyStore;
use wms::WorldWms;
use workload::Workload;

/// How hard a world is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Steps of the workload: orders, receipts, cancellations, repeats.
    pub steps: usize,
    /// Warehouses.
    pub warehouses: u16,
    /// Store calls that are refused, in a thousand.
    pub refused: u64,
    /// Store writes that are applied and then answered as unknown, in a thousand.
    pub applied_unknown: u64,
    /// Store writes that are not applied and answered as unknown, in a thousand.
    pub lost_unknown: u64,
    /// Panics, in ten thousand visits of a fault point.
    pub panics: u64,
    /// One panic, at the given visit of a fault point in the first warehouse (or outside of any).
    pub panic_at: Option<(FaultPoint, u32)>,
    /// Deaths of the whole node.
    pub deaths: usize,
    /// True when the node dies once more after the last word, and the next must come to rest by
    /// what the store says alone.
    pub last_words: bool,
    /// WMS calls that fail, are answered late, or are answered twice, in a thousand.
    pub wms_faults: u64,
    /// Reports that are repeated, in a thousand.
    pub repeats: u64,
    /// Releases with a short pick, in a thousand.
    pub shorts: u64,
    /// Releases that the WMS rejects, in a thousand.
    pub rejects: u64,
    /// Releases that it takes and refuses later, by a report, in a thousand.
    pub late_rejects: u64,
    /// Releases that it takes and forgets, in a thousand.
    pub forgets: u64,
    /// Waves that it refuses as a whole, in a thousand.
    pub refusals: u64,
    /// Cancellations that it decides later, through the control lane, in a thousand.
    pub pendings: u64,
}

impl Profile {
    /// A world in which nothing fails.
    #[must_use]
    pub fn calm() -> Profile {
        Profile {
            steps: 60,
            warehouses: 2,
            refused: 0,
            applied_unknown: 0,
            lost_unknown: 0,
            panics: 0,
            panic_at: None,
            deaths: 0,
            last_words: false,
            wms_faults: 0,
            repeats: 0,
            shorts: 0,
            rejects: 0,
            late_rejects: 0,
            forgets: 0,
            refusals: 0,
            pendings: 0,
        }
    }

    /// A world in which everything fails now and then.
    #[must_use]
    pub fn harsh() -> Profile {
        Profile {
            refused: 20,
            applied_unknown: 15,
            lost_unknown: 15,
            panics: 60,
            deaths: 3,
            last_words: true,
            wms_faults: 100,
            repeats: 150,
            shorts: 80,
            rejects: 20,
            late_rejects: 15,
            forgets: 20,
            refusals: 30,
            pendings: 300,
            ..Profile::calm()
        }
    }
}

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What must never be; empty when all is well.
    pub violations: Vec<Violation>,
    /// Every commit, in order: the same for the same seed.
    pub trace: Vec<String>,
    /// Commands that were acknowledged.
    pub acknowledged: usize,
    /// Orders that shipped.
    pub shipped: usize,
    /// Times a tree died and came back, and the node with it.
    pub deaths: usize,
    /// Panics that struck.
    pub panics: usize,
}

/// What all parts of a world share, beyond the death of its node.
pub(crate) struct World {
    pub(crate) profile: Profile,
    pub(crate) clock: Arc<WorldClock>,
    pub(crate) chance: SeededEntropy,
    pub(crate) disk: MemoryStore,
    pub(crate) observer: Observer,
    /// False once faults have healed.
    pub(crate) faulty: AtomicBool,
    panics: Mutex<usize>,
    visits: Mutex<u32>,
}

impl World {
    /// True `rate` times in a thousand, while faults last.
    pub(crate) fn strikes(&self, rate: u64) -> bool {
        rate > 0 && self.faulty.load(SeqCst) && self.chance.below(1_000) < rate
    }

    /// A pause of up to `ms` milliseconds.
    pub(crate) fn pause(&self, ms: u64) -> Duration {
        Duration::from_millis(self.chance.below(ms + 1))
    }
}

/// The paused clock, as a wall clock.
pub(crate) struct WorldClock {
    began: Instant,
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        // 24 November 2026, so that traces read well.
        Timestamp(1_795_478_400_000).after(self.began.elapsed())
    }
}

impl Faults for World {
    fn strike(&self, point: FaultPoint, partition: Option<PartitionId>) {
        let rate = self.profile.panics;
        let here = |at: FaultPoint| at == point && partition.is_none_or(|p| p == PartitionId(1));
        let armed = self.profile.panic_at.filter(|(at, _)| here(*at)).is_some_and(|(_, visit)| {
            *self.visits.lock() += 1;
            *self.visits.lock() == visit
        });
        if armed || (rate > 0 && self.faulty.load(SeqCst) && self.chance.below(10_000) < rate) {
            *self.panics.lock() += 1;
            self.observer.note(format!("a fault strikes at {point:?} {partition:?}"));
            quiet_panic();
        }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics without a message on standard error: the world meant it.
fn quiet_panic() -> ! {
    QUIET.with(|q| q.set(true));
    panic!("a fault strikes");
}

fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.with(|q| q.replace(false)) {
                loud(info);
            }
        }));
    });
}

/// Runs the world of a seed from its beginning to rest.
///
/// # Panics
/// When the world itself cannot be set up.
#[must_use]
pub fn run(seed: u64, profile: Profile) -> Outcome {
    hush();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without IO needs nothing");
    let clock = {
        let _inside = runtime.enter();
        Arc::new(WorldClock { began: Instant::now() })
    };
    let world = Arc::new(World {
        profile,
        clock,
        chance: SeededEntropy::new(seed),
        disk: MemoryStore::new(),
        observer: Observer::default(),
        faulty: AtomicBool::new(true),
        panics: Mutex::new(0),
        visits: Mutex::new(0),
    });
    let wms = Arc::new(WorldWms::new(world.clone()));
    let mut workload = Workload::new(world.clone());
    let mut deaths = 0;
    for life in 0..=world.profile.deaths {
        let last = life == world.profile.deaths;
        // A life is a LocalSet: its end drops every actor between two polls, as kill -9 would.
        let local = LocalSet::new();
        runtime.block_on(local.run_until(live(&world, &wms, &mut workload, last, seed ^ life as u64)));
        world.observer.note(format!("the node is gone ({life})"));
        deaths += usize::from(!last);
        drop(local);
    }
    if world.profile.last_words {
        let local = LocalSet::new();
        runtime.block_on(local.run_until(async {
            let handle = start(&world, &wms, !seed).await;
            workload.rest(&handle).await;
        }));
    }
    runtime.block_on(workload.judge());
    Outcome {
        acknowledged: workload.acknowledged(),
        shipped: workload.shipped(),
        violations: world.observer.violations(),
        trace: world.observer.trace(),
        deaths,
        panics: *world.panics.lock(),
    }
}

/// One life of the node: until its death in the middle of the work, or to rest.
async fn live(world: &Arc<World>, wms: &Arc<WorldWms>, workload: &mut Workload, last: bool, seed: u64) {
    let handle = start(world, wms, seed).await;
    if !last {
        let dies_after = world.profile.steps / (world.profile.deaths + 1);
        workload.run(&handle, dies_after).await;
        tokio::time::sleep(world.pause(400)).await;
        return counted(world, &handle);
    }
    workload.run(&handle, usize::MAX).await;
    world.faulty.store(false, SeqCst);
    world.observer.note("the faults have healed".to_owned());
    workload.provide(&handle).await;
    match world.profile.last_words {
        true => tokio::time::sleep(world.pause(8_000)).await,
        false => {
            // Long enough for every other reason to look to be gone.
            tokio::time::sleep(Duration::from_secs(20)).await;
            workload.slip_in(&handle).await;
            workload.rest(&handle).await;
        }
    }
    counted(world, &handle);
}

/// What the node itself counted of invariants that did not hold.
fn counted(world: &World, handle: &Handle) {
    for (id, n) in handle.report().tally.violations.into_iter().filter(|(_, n)| *n > 0) {
        world.observer.violated(Violation { id, found: format!("the node counted it {n} times") });
    }
}

async fn start(world: &Arc<World>, wms: &Arc<WorldWms>, seed: u64) -> Handle {
    let reporting = wms.clone();
    let options = || Options {
        store: Arc::new(FaultyStore::new(world.clone())),
        warehouses: warehouses(world.profile.warehouses),
        rules: rules(),
        clients: vec!["acme".to_owned(), "bolt".to_owned()],
        threads: Threads::Here,
        clock: world.clock.clone(),
        entropy: Arc::new(SeededEntropy::new(seed.wrapping_mul(0x9E37_79B9))),
        faults: world.clone(),
        wms: {
            let reporting = reporting.clone();
            Box::new(move |warehouse, sink| reporting.of(warehouse.partition, sink))
        },
    };
    loop {
        match Engine::start(options()).await {
            Ok(handle) => return handle,
            // The store refused the start; an operator would try again.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn warehouses(n: u16) -> Vec<WarehouseOptions> {
    let codes = ["ATL1", "DFW2", "RNO3", "EWR4"];
    (0..n.min(4))
        .map(|i| WarehouseOptions {
            code: codes[usize::from(i)].to_owned(),
            partition: PartitionId(i + 1),
            timezone: chrono_tz::UTC,
            backlog_max: 40,
            services: vec!["ground".to_owned(), "express".to_owned()],
            cut_offs: Default::default(),
            carriers: Default::default(),
            credits: 6,
            wave_max: 4,
        })
        .collect()
}

fn rules() -> Rules {
    Rules {
        backorder_max_wait: Duration::from_secs(3_600),
        wms_give_up_after: Duration::from_secs(86_400),
        wms_silent_after: Duration::from_secs(120),
        manifest_close_every: Duration::from_secs(2),
        manifest_cartons_max: 5,
        sscc_prefix: "0614141".parse().expect("seven digits"),
        retention: Duration::from_secs(30 * 86_400),
        waiters_max: 100,
    }
}
