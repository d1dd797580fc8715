//! Where a test, or `wavegate demo --crash`, makes an actor panic. No route leads here.

use crate::domain::ids::PartitionId;

/// A place in an actor where a fault can strike: one in each handler, named for the actor and the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultPoint {
    /// The House is told to wake a warehouse.
    House,
    /// The House looks around.
    HouseLooks,
    /// The House has read who is there, and is to go by it.
    HouseAgrees,
    /// The House hears what another node has said.
    HouseHears,
    /// The House hears that a tree is gone.
    HouseTreeDown,
    /// The House is told to end.
    HouseDrains,
    /// Ingestion handles a submission.
    Ingestion,
    /// The Warehouse supervisor begins its tree.
    Warehouse,
    /// The Warehouse supervisor has taken its partition, and no child runs yet.
    WarehouseTaken,
    /// The Warehouse supervisor hears that a child is gone.
    WarehouseChildDown,
    /// The Pipeline has gathered a turn.
    PipelineGathered,
    /// The Pipeline has a durable commit and has not yet acted on it.
    PipelineDurable,
    /// Inventory decides.
    Inventory,
    /// The WmsLink plans waves.
    WmsLink,
    /// The WmsLink hands its answers to a turn.
    WmsLinkCollects,
    /// The WmsLink is told what is owed to the WMS.
    WmsLinkPerforms,
    /// The WmsLink hears what came of a call, which no turn has yet.
    WmsLinkAnswered,
    /// The Manifester decides.
    Manifester,
    /// The Manifester takes cartons in.
    ManifesterLoads,
    /// The FeedHub takes a follower in.
    FeedHub,
    /// The FeedHub has read a page and has handed it to nobody.
    FeedHubReads,
    /// The Notifier is told to look.
    NotifierLooks,
    /// The Notifier has read which endpoints there are, and is to go by it.
    NotifierAgrees,
    /// The Notifier hears that an endpoint is gone.
    NotifierChildDown,
    /// The Notifier is told to end.
    NotifierEnds,
    /// A webhook endpoint has taken its deliveries over.
    EndpointBegins,
    /// A webhook endpoint hears that its record is another.
    EndpointRefreshed,
    /// A webhook endpoint is asked for a ping.
    Endpoint,
    /// A webhook endpoint hears what came of an attempt, which is in no record yet.
    EndpointAnswered,
    /// A webhook endpoint has a durable record and has not yet gone on.
    EndpointRecorded,
    /// A webhook endpoint is told to end.
    EndpointFinishes,
}

impl FaultPoint {
    /// All of them.
    pub const ALL: [FaultPoint; 31] = [
        FaultPoint::House,
        FaultPoint::HouseLooks,
        FaultPoint::HouseAgrees,
        FaultPoint::HouseHears,
        FaultPoint::HouseTreeDown,
        FaultPoint::HouseDrains,
        FaultPoint::Ingestion,
        FaultPoint::Warehouse,
        FaultPoint::WarehouseTaken,
        FaultPoint::WarehouseChildDown,
        FaultPoint::PipelineGathered,
        FaultPoint::PipelineDurable,
        FaultPoint::Inventory,
        FaultPoint::WmsLink,
        FaultPoint::WmsLinkCollects,
        FaultPoint::WmsLinkPerforms,
        FaultPoint::WmsLinkAnswered,
        FaultPoint::Manifester,
        FaultPoint::ManifesterLoads,
        FaultPoint::FeedHub,
        FaultPoint::FeedHubReads,
        FaultPoint::NotifierLooks,
        FaultPoint::NotifierAgrees,
        FaultPoint::NotifierChildDown,
        FaultPoint::NotifierEnds,
        FaultPoint::EndpointBegins,
        FaultPoint::EndpointRefreshed,
        FaultPoint::Endpoint,
        FaultPoint::EndpointAnswered,
        FaultPoint::EndpointRecorded,
        FaultPoint::EndpointFinishes,
    ];

    /// Its name in what is counted.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FaultPoint::House => "house wakes",
            FaultPoint::HouseLooks => "house looks",
            FaultPoint::HouseAgrees => "house agrees",
            FaultPoint::HouseHears => "house hears",
            FaultPoint::HouseTreeDown => "house loses a tree",
            FaultPoint::HouseDrains => "house drains",
            FaultPoint::Ingestion => "ingestion submits",
            FaultPoint::Warehouse => "warehouse begins",
            FaultPoint::WarehouseTaken => "warehouse taken",
            FaultPoint::WarehouseChildDown => "warehouse loses a child",
            FaultPoint::PipelineGathered => "pipeline gathered",
            FaultPoint::PipelineDurable => "pipeline durable",
            FaultPoint::Inventory => "inventory decides",
            FaultPoint::WmsLink => "wms link plans",
            FaultPoint::WmsLinkCollects => "wms link collects",
            FaultPoint::WmsLinkPerforms => "wms link performs",
            FaultPoint::WmsLinkAnswered => "wms link answered",
            FaultPoint::Manifester => "manifester decides",
            FaultPoint::ManifesterLoads => "manifester loads",
            FaultPoint::FeedHub => "feed hub follows",
            FaultPoint::FeedHubReads => "feed hub reads",
            FaultPoint::NotifierLooks => "notifier looks",
            FaultPoint::NotifierAgrees => "notifier agrees",
            FaultPoint::NotifierChildDown => "notifier loses an endpoint",
            FaultPoint::NotifierEnds => "notifier ends",
            FaultPoint::EndpointBegins => "endpoint begins",
            FaultPoint::EndpointRefreshed => "endpoint refreshed",
            FaultPoint::Endpoint => "endpoint pings",
            FaultPoint::EndpointAnswered => "endpoint answered",
            FaultPoint::EndpointRecorded => "endpoint recorded",
            FaultPoint::EndpointFinishes => "endpoint finishes",
        }
    }
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
