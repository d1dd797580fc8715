//! A life of a node: how it starts, what may end it, and the second node that starts beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::World;
use super::clock::NodeClock;
use super::followers::Followers;
use super::receivers::{Way, schedule};
use super::seats::{self, Seat};
use super::store::FaultyStore;
use super::wms::WorldWms;
use crate::domain::ids::PartitionId;
use crate::engine::{Engine, Handle, Options, Rules, Threads, WarehouseOptions};
use crate::ports::clock::Clock;
use crate::ports::entropy::{Entropy, SeededEntropy};

/// A shutdown may take this long while the store answers.
const GRACE: Duration = Duration::from_secs(60);
/// How far the clocks of nodes are apart at the start, at most, in milliseconds.
const OFF_MS: i64 = 500;
/// How fast they part, at most, in millionths: far more than any quartz.
const DRIFT_PPM: i64 = 1_000;
/// How long a node may sleep, at most, in milliseconds: past its lease and the look of the others.
const ASLEEP_MS: u64 = 15_000;
/// Writes within which a life that ends at one ends.
const WRITES_MAX: u64 = 60;

/// Promises that must have come true before estimates are published: a life is too short for many.
const OUTCOMES_MIN: usize = 3;

/// Whether a node is alive. A dead one reads, writes and calls nothing any more.
pub(crate) struct Life {
    over: CancellationToken,
    /// Writes until the last one.
    writes_left: AtomicI64,
    /// True when the last write is applied and only its answer is lost.
    applies_last: AtomicBool,
    /// Stopped, as by SIGSTOP: it reads, writes and calls nothing before it is woken.
    asleep: AtomicBool,
    /// Wakes whoever waits in the order in which they began to: a `watch` wakes in a random one.
    wakes: Notify,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Killed before or after a write of the store.
    AtWrite,
    /// Killed at any moment.
    AtAnyTime,
    /// Shut down in order.
    Shutdown,
    /// Not at all: it comes to rest.
    Rest,
}

/// What a write meets.
pub(crate) enum Moment {
    /// The node goes on.
    Alive,
    /// The node dies and the write is applied.
    LastWrite,
    /// The node is dead: nothing is written.
    Dead,
}

impl Life {
    pub(crate) fn new() -> Arc<Life> {
        Arc::new(Life {
            over: CancellationToken::new(),
            writes_left: AtomicI64::new(i64::MAX),
            applies_last: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            wakes: Notify::new(),
        })
    }

    /// A life that is to end so; by itself when it ends at a write.
    pub(crate) fn that_ends(world: &World, end: End) -> Arc<Life> {
        let life = Life::new();
        if end == End::AtWrite {
            let writes = 1 + world.chance.below(WRITES_MAX);
            life.writes_left.store(i64::try_from(writes).unwrap_or(i64::MAX), SeqCst);
            life.applies_last.store(world.chance.below(2) == 0, SeqCst);
        }
        life
    }

    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Resolves when the life is over.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Counts a write that is about to be applied.
    pub(crate) fn at_write(&self) -> Moment {
        if self.is_over() {
            return Moment::Dead;
        }
        if self.writes_left.fetch_sub(1, SeqCst) > 1 {
            return Moment::Alive;
        }
        self.end();
        if self.applies_last.load(SeqCst) { Moment::LastWrite } else { Moment::Dead }
    }

    /// Stops it for a while.
    pub(crate) fn sleep(self: &Arc<Self>, pause: Duration) {
        self.asleep.store(true, SeqCst);
        let life = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            life.asleep.store(false, SeqCst);
            life.wakes.notify_waiters();
        });
    }

    /// Goes on only while the node lives and is awake: a dead one hears and says nothing.
    pub(crate) async fn go_on(&self) {
        while self.asleep.load(SeqCst) {
            self.wakes.notified().await;
        }
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}

struct Node {
    life: Arc<Life>,
    handle: Handle,
}

/// The node that clients talk to, and now and then a second one that believes it is the first.
pub(crate) struct Nodes {
    world: Arc<World>,
    wms: Arc<WorldWms>,
    seed: u64,
    first: Node,
    rival: Option<Node>,
    /// How often owners had been overtaken when these began.
    overtaken: usize,
}

impl Nodes {
    /// Starts the first node.
    pub(crate) async fn start(world: &Arc<World>, wms: &Arc<WorldWms>, life: Arc<Life>, seed: u64) -> Nodes {
        wms.begin_life();
        // Mostly the same node comes again; now and then one that nobody has met.
        let me = if world.chance.below(3) == 0 { 3 + world.chance.below(1_000) } else { 1 };
        let handle = start(world, wms, &life, (seed, me)).await;
        wms.resume();
        Followers::begin(world, &handle);
        let first = Node { life, handle };
        let overtaken = world.observer.count("owners overtaken");
        Nodes { world: world.clone(), wms: wms.clone(), seed, first, rival: None, overtaken }
    }

    /// The node that the next call reaches.
    pub(crate) fn front(&self) -> &Handle {
        match &self.rival {
            Some(rival) if self.world.chance.below(2) == 0 => &rival.handle,
            Some(_) | None => &self.first.handle,
        }
    }

    /// Starts a rival now and then, and ends it again.
    pub(crate) async fn tick(&mut self) {
        if self.world.profile.shared && self.rival.is_some() {
            self.try_other().await;
        } else if self.rival.is_some() {
            if self.world.chance.below(4) == 0 {
                self.end_rival();
            }
        } else if self.world.strikes(self.world.profile.rivals) {
            self.world.observer.saw("rivals");
            self.world.note(format_args!("a rival starts"));
            let life = Life::new();
            let seed = self.seed ^ self.world.chance.next();
            let handle = start(&self.world, &self.wms, &life, (seed, 2)).await;
            self.rival = Some(Node { life, handle });
        }
    }

    /// Ends the node that shares with the first, or stops it for a while.
    async fn try_other(&mut self) {
        match self.world.chance.below(24) {
            0 => self.end_rival(),
            1 => {
                if let Some(other) = self.rival.take() {
                    self.world.observer.saw("nodes drained");
                    self.world.note(format_args!("the other node drains"));
                    other.handle.shutdown(GRACE).await;
                    self.look_at_tally(&other);
                    other.life.end();
                }
            }
            2 | 3 => {
                if let Some(other) = &self.rival {
                    self.world.observer.saw("nodes asleep");
                    let pause = self.world.pause(ASLEEP_MS);
                    self.world.note(format_args!("the other node sleeps for {pause:?}"));
                    other.life.sleep(pause);
                }
            }
            _ => {}
        }
    }

    /// Ends the rival as a kill would.
    pub(crate) fn end_rival(&mut self) {
        if let Some(rival) = self.rival.take() {
            self.world.note(format_args!("the rival is gone"));
            self.look_at_tally(&rival);
            rival.life.end();
        }
    }

    /// What a node counted itself of invariants that did not hold; only a stale owner may have.
    fn look_at_tally(&self, node: &Node) {
        if self.world.observer.count("owners overtaken") == self.overtaken {
            let counted = node.handle.report().tally.violations.into_iter();
            for (id, n) in counted.filter(|(_, n)| *n > 0) {
                self.world.violated(id, format!("the node counted it {n} times"));
            }
        }
    }

    /// Shuts the first node down in order.
    pub(crate) async fn shutdown(&mut self) {
        self.end_rival();
        self.world.observer.saw("shutdowns");
        self.world.note(format_args!("the node is asked to stop"));
        self.first.handle.shutdown(GRACE).await;
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.end_rival();
        self.look_at_tally(&self.first);
        self.first.life.end();
    }
}

/// Draws how a life ends.
pub(crate) fn draw_end(world: &World) -> End {
    match world.chance.below(10) {
        0..=5 => End::AtWrite,
        6..=7 => End::AtAnyTime,
        _ => End::Shutdown,
    }
}

async fn start(world: &Arc<World>, wms: &Arc<WorldWms>, life: &Arc<Life>, (seed, me): (u64, u64)) -> Handle {
    let seat = world.profile.shared.then(|| Seat::new(world, life, seats::node(me)));
    let clock = clock(world);
    let options = || Options {
        store: Arc::new(FaultyStore::new(world.clone(), life.clone(), seat.clone())),
        warehouses: warehouses(world.profile.warehouses, world.profile.backlog_max),
        rules: rules(),
        clients: vec!["acme".to_owned(), "bolt".to_owned()],
        threads: Threads::Here,
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(seed.wrapping_mul(0x9E37_79B9))),
        faults: world.clone(),
        wms: {
            let (wms, life) = (wms.clone(), life.clone());
            Box::new(move |warehouse, sink| wms.face(&life, warehouse.partition, sink))
        },
        courier: Arc::new(Way::new(world.clone(), life.clone())),
    };
    loop {
        match Engine::start(options()).await {
            Ok(handle) => return handle,
            // The store refused the start; an operator would try again.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The clock of a node: where nodes share a store each has its own, which nobody keeps beside another.
fn clock(world: &Arc<World>) -> Arc<dyn Clock> {
    if !world.profile.shared {
        return world.clock.clone();
    }
    let about = |range: i64| world.chance.below(range.unsigned_abs() * 2 + 1) as i64 - range;
    world.observer.saw("clocks that drift");
    Arc::new(NodeClock::new(world.clock.clone(), about(OFF_MS), about(DRIFT_PPM)))
}

fn warehouses(n: u16, backlog_max: u64) -> Vec<WarehouseOptions> {
    let codes = ["ATL1", "DFW2", "RNO3", "EWR4"];
    (0..n.min(4))
        .map(|i| WarehouseOptions {
            code: codes[usize::from(i)].to_owned(),
            partition: PartitionId(i + 1),
            timezone: chrono_tz::UTC,
            backlog_max,
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
        // Short enough that a silence or a step of the clock passes it now and then.
        wms_give_up_after: Duration::from_secs(1_200),
        wms_silent_after: Duration::from_secs(120),
        manifest_close_every: Duration::from_secs(2),
        manifest_cartons_max: 5,
        sscc_prefix: "0614141".parse().expect("seven digits"),
        outcomes_min: OUTCOMES_MIN,
        retention: Duration::from_secs(30 * 86_400),
        events_retention: Duration::from_secs(30 * 86_400),
        waiters_max: 100,
        stream_backlog_max: 1 << 20,
        webhook_schedule: schedule(),
    }
}
