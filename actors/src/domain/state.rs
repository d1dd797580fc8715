//! The states that a client sees, of every kind of transaction.

/// Where a transaction stands. Which states a kind can reach is said at its fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Durably queued, not worked yet.
    Accepted,
    /// Stock is reserved.
    Allocated,
    /// In a wave to the WMS.
    Released,
    /// The WMS has begun to pick.
    Picking,
    /// In cartons.
    Packed,
    /// On a closed manifest.
    Manifested,
    /// Gone with the carrier. Final.
    Shipped,
    /// Waits for stock.
    Backordered,
    /// A dead letter: an operator must look. Not final.
    Failed,
    /// Ended by its client's request. Final.
    Cancelled,
    /// Refused or given up. Final.
    Rejected,
    /// A move or a cancellation took effect. Final.
    Applied,
    /// A manifest takes no more cartons.
    Closed,
    /// A manifest left with its carrier. Final.
    Departed,
}

impl State {
    /// All states, for parsing and for metrics.
    pub const ALL: [State; 14] = [
        State::Accepted,
        State::Allocated,
        State::Released,
        State::Picking,
        State::Packed,
        State::Manifested,
        State::Shipped,
        State::Backordered,
        State::Failed,
        State::Cancelled,
        State::Rejected,
        State::Applied,
        State::Closed,
        State::Departed,
    ];

    /// The state's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Accepted => "accepted",
            State::Allocated => "allocated",
            State::Released => "released",
            State::Picking => "picking",
            State::Packed => "packed",
            State::Manifested => "manifested",
            State::Shipped => "shipped",
            State::Backordered => "backordered",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Rejected => "rejected",
            State::Applied => "applied",
            State::Closed => "closed",
            State::Departed => "departed",
        }
    }

    /// Reads a name as it stands on the wire.
    #[must_use]
    pub fn parse(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == name)
    }

    /// True for the states in which an order can end.
    #[must_use]
    pub fn ends_an_order(self) -> bool {
        match self {
            State::Shipped | State::Cancelled | State::Rejected => true,
            State::Accepted
            | State::Allocated
            | State::Released
            | State::Picking
            | State::Packed
            | State::Manifested
            | State::Backordered
            | State::Failed
            | State::Applied
            | State::Closed
            | State::Departed => false,
        }
    }

    /// True when nothing can follow (INV-7).
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            State::Shipped | State::Cancelled | State::Rejected | State::Applied | State::Departed => true,
            State::Accepted
            | State::Allocated
            | State::Released
            | State::Picking
            | State::Packed
            | State::Manifested
            | State::Backordered
            | State::Failed
            | State::Closed => false,
        }
    }
}
