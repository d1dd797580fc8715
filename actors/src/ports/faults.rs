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
}

impl FaultPoint {
    /// All points.
    pub const ALL: [FaultPoint; 8] = [
        FaultPoint::House,
        FaultPoint::Ingestion,
        FaultPoint::Warehouse,
        FaultPoint::PipelineGathered,
        FaultPoint::PipelineDurable,
        FaultPoint::Inventory,
        FaultPoint::WmsLink,
        FaultPoint::Manifester,
    ];
}

/// Decides whether a fault strikes.
pub trait Faults: Send + Sync + 'static {
    /// Called at each point; panics when the fault strikes. `partition` is `None` outside a tree.
    fn strike(&self, point: FaultPoint, partition: Option<PartitionId>);
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
