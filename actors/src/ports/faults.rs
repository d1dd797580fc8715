//! Where a test, or `wavegate demo --crash`, makes an actor panic. No route leads here.

use crate::domain::ids::PartitionId;

/// A place in an actor where a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultPoint {
    /// The House handles a signal.
    House,
    /// Ingestion handles a submission.
    Ingestion,
    /// The Warehouse supervisor begins its tree.
    Warehouse,
    /// The Pipeline has gathered a turn.
    PipelineGathered,
    /// The Pipeline has a durable commit and has not yet acted on it.
    PipelineDurable,
    /// Inventory decides.
    Inventory,
    /// The WmsLink plans waves.
    WmsLink,
    /// The Manifester decides.
    Manifester,
    /// The FeedHub takes a follower in.
    FeedHub,
    /// A webhook endpoint is asked for a ping.
    Endpoint,
    /// A webhook endpoint hears what came of an attempt, which is in no record yet.
    EndpointAnswered,
}

impl FaultPoint {
    /// All points that every world has: it needs no webhook endpoint to come there.
    pub const ALL: [FaultPoint; 9] = [
        FaultPoint::House,
        FaultPoint::Ingestion,
        FaultPoint::Warehouse,
        FaultPoint::PipelineGathered,
        FaultPoint::PipelineDurable,
        FaultPoint::Inventory,
        FaultPoint::WmsLink,
        FaultPoint::Manifester,
        FaultPoint::FeedHub,
    ];
}

/// Decides whether a fault strikes.
pub trait Faults: Send + Sync + 'static {
    /// Called at each point; panics when the fault strikes. `partition` is `None` outside a tree.
    fn strike(&self, point: FaultPoint, partition: Option<PartitionId>);

    /// Called when a tree is about to decide or perform something for the order of this reference;
    /// panics, or ends the process, when the order is poisoned.
    fn work(&self, reference: &str) {
        let _healthy = reference;
    }
}

/// Production: no fault ever strikes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn strike(&self, _: FaultPoint, _: Option<PartitionId>) {}
}

/// Strikes once at each place it was armed for.
#[derive(Debug, Default)]
pub struct ArmedFaults(parking_lot::Mutex<Vec<(FaultPoint, Option<PartitionId>)>>);

impl ArmedFaults {
    /// The next call at `point` (in `partition`, when named) panics.
    pub fn arm(&self, point: FaultPoint, partition: Option<PartitionId>) {
        self.0.lock().push((point, partition));
    }

    /// Faults that have not struck yet.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.0.lock().len()
    }
}

impl Faults for ArmedFaults {
    fn strike(&self, point: FaultPoint, partition: Option<PartitionId>) {
        let mut armed = self.0.lock();
        let here = |(p, where_): &(FaultPoint, Option<PartitionId>)| {
            *p == point && (where_.is_none() || *where_ == partition)
        };
        if let Some(i) = armed.iter().position(here) {
            armed.remove(i);
            drop(armed);
            panic!("a fault strikes at {point:?}");
        }
    }
}

/// Poison by order, for tests of the whole process: a file says what happens to whoever works the
/// order of a reference. Its text is `panic REFERENCE`, `abort REFERENCE` or `overflow REFERENCE`; no file, no
/// fault.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct PoisonFile(std::path::PathBuf);

#[cfg(feature = "testing")]
impl PoisonFile {
    /// The variable of the environment that names the file.
    pub const VARIABLE: &str = "WAVEGATE_TEST_POISON";
}

#[cfg(feature = "testing")]
impl Faults for PoisonFile {
    fn strike(&self, _: FaultPoint, _: Option<PartitionId>) {}

    fn work(&self, reference: &str) {
        let Ok(text) = std::fs::read_to_string(&self.0) else { return };
        match text.trim().split_once(' ') {
            Some(("panic", poisoned)) if poisoned == reference => panic!("{reference} is poisoned"),
            Some(("abort", poisoned)) if poisoned == reference => std::process::abort(),
            Some(("overflow", poisoned)) if poisoned == reference => {
                std::hint::black_box(overflow(0));
            }
            Some(_) | None => {}
        }
    }
}

/// Uses up the stack of whatever thread calls it, a page at a time, so that none is stepped over: the
/// guard page behind it ends the process. The bound only makes it a function that could return.
#[cfg(feature = "testing")]
fn overflow(depth: u64) -> u64 {
    const FRAME: usize = 512;
    if std::hint::black_box(depth) == u64::MAX {
        return depth;
    }
    let frame = std::hint::black_box([depth; FRAME]);
    // The frame is needed after the call, so the call cannot become a loop.
    let below = overflow(depth + 1);
    below ^ std::hint::black_box(frame)[0]
}

/// The faults of a server: none, unless it is built for tests and a test says otherwise.
#[must_use]
pub fn of_process() -> std::sync::Arc<dyn Faults> {
    #[cfg(feature = "testing")]
    if let Some(path) = std::env::var_os(PoisonFile::VARIABLE) {
        return std::sync::Arc::new(PoisonFile(path.into()));
    }
    std::sync::Arc::new(NoFaults)
}
