//! Bugs that the world plants in what it wraps around the engine, as tests of the simulator: one
//! that finds none of them would prove nothing when it finds nothing.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A command is acknowledged and not stored.
    LostCommand,
    /// A partition's work is not named to a node that starts or looks again: the wake-up is lost.
    LostWakeUp,
    /// A command is accepted and its owner is not told; only a later look around finds it.
    LateWakeUp,
    /// A repeated wave goes out under fresh release ids.
    DoubleShip,
    /// A commit is answered as durable before it is written.
    EffectBeforeCommit,
    /// A turn promises units that are not there.
    Overpromise,
    /// A turn writes units that no move brought.
    StockFromNothing,
    /// A number of a feed is used twice.
    FeedNumberTwice,
    /// A commit whose fence is void is written nevertheless.
    StaleOwner,
    /// A version is written over.
    VersionRewritten,
    /// A command is stored as another client's.
    MixedClients,
    /// An endpoint's cursor moves on, and what failed has no row.
    CursorAhead,
    /// Deliveries are recorded as done before they were attempted.
    DoneBeforeSent,
    /// A delivery goes to another client's address.
    MisledDelivery,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 14] = [
        Planted::LostCommand,
        Planted::LostWakeUp,
        Planted::LateWakeUp,
        Planted::DoubleShip,
        Planted::EffectBeforeCommit,
        Planted::Overpromise,
        Planted::StockFromNothing,
        Planted::FeedNumberTwice,
        Planted::StaleOwner,
        Planted::VersionRewritten,
        Planted::MixedClients,
        Planted::CursorAhead,
        Planted::DoneBeforeSent,
        Planted::MisledDelivery,
    ];

    /// The invariant that it breaks.
    #[must_use]
    pub fn breaks(self) -> &'static str {
        match self {
            Planted::LostCommand | Planted::LostWakeUp | Planted::LateWakeUp => "INV-1",
            Planted::DoubleShip | Planted::EffectBeforeCommit => "INV-2",
            Planted::Overpromise => "INV-3",
            Planted::StockFromNothing => "INV-4",
            Planted::FeedNumberTwice | Planted::CursorAhead | Planted::DoneBeforeSent => "INV-5",
            Planted::StaleOwner => "INV-6",
            Planted::VersionRewritten => "INV-7",
            Planted::MixedClients | Planted::MisledDelivery => "INV-8",
        }
    }

    /// True when it spoils how events are delivered, and not what is delivered.
    pub(crate) fn is_of_deliveries(self) -> bool {
        match self {
            Planted::CursorAhead | Planted::DoneBeforeSent | Planted::MisledDelivery => true,
            Planted::LostCommand
            | Planted::LostWakeUp
            | Planted::LateWakeUp
            | Planted::DoubleShip
            | Planted::EffectBeforeCommit
            | Planted::Overpromise
            | Planted::StockFromNothing
            | Planted::FeedNumberTwice
            | Planted::StaleOwner
            | Planted::VersionRewritten
            | Planted::MixedClients => false,
        }
    }
}
