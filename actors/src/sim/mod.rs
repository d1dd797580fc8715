//! The seeded world: the production actors, turn and fold over a store that fails, a WMS that
//! repeats and delays, readers of every feed, receivers of webhooks, panics in any handler, clocks that step, nodes that die between any two
//! writes and nodes that fight for a partition; one thread, one paused clock.
//!
//! A seed decides everything. Safety is checked at every write of the store, liveness once the
//! faults have healed; the same seed gives the same trace.

mod books;
mod clock;
mod disk;
mod endpoints;
mod floor;
mod followers;
mod inbox;
mod judge;
mod life;
mod observer;
mod operator;
mod panics;
mod planted;
mod profile;
mod receivers;
mod seats;
mod shops;
mod store;
mod submissions;
mod wms;
mod workload;

pub use planted::Planted;
pub use profile::{Outcome, Profile};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::task::LocalSet;

use crate::domain::invariants::Violation;
use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::store::memory::MemoryStore;
use clock::WorldClock;
use followers::Followers;
use life::{End, Life, Nodes};
use observer::Observer;
use panics::Strikes;
use receivers::Receivers;
use seats::Cluster;
use wms::WorldWms;
use workload::Workload;

/// What all parts of a world share, beyond the death of its node.
pub(crate) struct World {
    pub(crate) profile: Profile,
    pub(crate) clock: Arc<WorldClock>,
    pub(crate) chance: SeededEntropy,
    pub(crate) disk: MemoryStore,
    pub(crate) observer: Observer,
    pub(crate) followers: Followers,
    pub(crate) receivers: Receivers,
    /// The nodes, where they know of each other.
    pub(crate) cluster: Cluster,
    /// False once faults have healed.
    faulty: AtomicBool,
    strikes: Strikes,
    /// Commits that a planted bug has answered and not written yet.
    pub(crate) unwritten: AtomicUsize,
}

impl World {
    /// True `rate` times in a thousand, while faults last.
    pub(crate) fn strikes(&self, rate: u64) -> bool {
        rate > 0 && self.is_faulty() && self.chance.below(1_000) < rate
    }

    /// True while faults last.
    pub(crate) fn is_faulty(&self) -> bool {
        self.faulty.load(SeqCst)
    }

    /// True `rate` times in a thousand where a bug is planted, healed or not.
    pub(crate) fn plants(&self, bug: Planted, rate: u64) -> bool {
        self.profile.planted == Some(bug) && self.chance.below(1_000) < rate
    }

    /// A pause of up to `ms` milliseconds.
    pub(crate) fn pause(&self, ms: u64) -> Duration {
        Duration::from_millis(self.chance.below(ms + 1))
    }

    /// Writes an event into the trace, with the true time.
    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        self.observer.note(format_args!("{} {event}", self.clock.elapsed_ms()));
    }

    pub(crate) fn violated(&self, id: &'static str, found: String) {
        self.observer.violated(Violation { id, found });
    }

    fn heal(&self) {
        self.faulty.store(false, SeqCst);
        self.clock.correct();
        self.note(format_args!("the faults have healed"));
    }
}

/// Runs the world of a seed from its beginning to rest.
///
/// # Panics
/// When the world itself cannot be set up.
#[must_use]
pub fn run(seed: u64, profile: Profile) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without IO needs nothing");
    let clock = {
        let _inside = runtime.enter();
        Arc::new(WorldClock::new())
    };
    let world = Arc::new(World {
        observer: Observer::new(profile.traced),
        followers: Followers::default(),
        receivers: Receivers::default(),
        cluster: Cluster::default(),
        profile,
        clock,
        chance: SeededEntropy::new(seed),
        disk: MemoryStore::new(),
        faulty: AtomicBool::new(true),
        strikes: Strikes::default(),
        unwritten: AtomicUsize::new(0),
    });
    panics::begin(&world);
    let wms = Arc::new(WorldWms::new(world.clone()));
    let mut workload = Workload::new(world.clone());
    let mut lives = world.profile.deaths + 1;
    if world.profile.last_words {
        lives += 1;
    }
    for n in 0..lives {
        // A life is a LocalSet: its end drops every actor between two polls, as kill -9 would.
        let local = LocalSet::new();
        let which = Which { n, seed: seed ^ n as u64 };
        runtime.block_on(local.run_until(live(&world, &wms, &mut workload, which)));
        drop(local);
        // Inside, where the paused clock is the clock.
        runtime.block_on(async {
            world.note(format_args!("the node is gone ({n})"));
            workload.look().await;
            world.look_at_panics();
        });
        if world.observer.is_broken() {
            break;
        }
    }
    if !world.observer.is_broken() {
        runtime.block_on(workload.judge(&wms));
    }
    panics::end();
    world.observer.outcome()
}

/// Which life of a world's node.
#[derive(Clone, Copy)]
struct Which {
    n: usize,
    seed: u64,
}

/// One life of the node: until its end in the middle of the work, or to rest.
async fn live(world: &Arc<World>, wms: &Arc<WorldWms>, workload: &mut Workload, which: Which) {
    let end = match which.n < world.profile.deaths {
        true => life::draw_end(world),
        false => End::Rest,
    };
    world.note(format_args!("life {} begins and is to end: {end:?}", which.n));
    world.unwritten.store(0, SeqCst);
    let life = Life::that_ends(world, end);
    let over = life.clone();
    tokio::select! {
        biased;
        () = over.over() => {}
        () = work(world, wms, workload, which, (life, end)) => {}
    }
    // Whatever is still on its way must not arrive.
    over.end();
}

async fn work(
    world: &Arc<World>,
    wms: &Arc<WorldWms>,
    workload: &mut Workload,
    which: Which,
    (life, end): (Arc<Life>, End),
) {
    let mut nodes = Nodes::start(world, wms, life, which.seed).await;
    let profile = &world.profile;
    if end != End::Rest {
        workload.run(&mut nodes, profile.steps / (profile.deaths + 1)).await;
        match end {
            End::Shutdown => nodes.shutdown().await,
            End::AtWrite | End::AtAnyTime | End::Rest => tokio::time::sleep(world.pause(400)).await,
        }
        return;
    }
    if which.n == profile.deaths {
        workload.run(&mut nodes, usize::MAX).await;
        nodes.end_rival();
        world.heal();
        workload.resume(nodes.front()).await;
        workload.provide(&nodes).await;
        if profile.last_words {
            return tokio::time::sleep(world.pause(8_000)).await;
        }
        // Long enough for every other reason to look to be gone.
        tokio::time::sleep(Duration::from_secs(20)).await;
        workload.slip_in(&nodes).await;
    }
    workload.rest(&nodes).await;
    workload.knock(&nodes).await;
    world.followers.rest(world).await;
    shops::rest(world, &nodes).await;
    world.followers.rest(world).await;
}
