//! What actors show of what they hold, one variant a type of actor. It serialises as it is seen on
//! the operators' pages.

use serde::Serialize;

/// What an actor shows of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Observed {
    /// The House: trees by phase.
    House {
        /// With nothing to do.
        asleep: usize,
        /// Not yet ready.
        starting: usize,
        /// At work.
        running: usize,
        /// Waiting for their next start.
        down: usize,
        /// True when it starts no more trees.
        ending: bool,
    },
    /// The FeedHub.
    FeedHub {
        /// Feeds that are followed.
        feeds: usize,
        /// Who follows them, when one of them began or ended last.
        followers: usize,
    },
    /// A Warehouse.
    Warehouse {
        /// Of its partition; 0 while it does not own it.
        epoch: u64,
    },
    /// A Pipeline, when its last turn ended.
    Pipeline {
        /// Orders in the work lane.
        backlog: u64,
        /// Orders in hand.
        open: usize,
        /// Of these, to go into a wave when a credit is free.
        ready: usize,
        /// Releases that the WMS has not settled.
        credits_used: usize,
        /// Waves that it has not answered.
        unanswered_waves: usize,
        /// Closed manifests that have not departed.
        manifests: usize,
    },
    /// An Inventory.
    Inventory {
        /// Positions.
        positions: usize,
        /// Orders that wait for stock.
        waiting: usize,
    },
    /// A WmsLink.
    WmsLink {
        /// Calls to make.
        waiting: usize,
        /// Calls without an answer yet.
        under_way: usize,
        /// Calls in a row that failed.
        failures: u32,
        /// True during the pause after one.
        paused: bool,
    },
    /// A Manifester.
    Manifester {
        /// Carriers and services with cartons.
        groups: usize,
        /// Cartons that no manifest has yet.
        cartons: usize,
        /// Serials left in its block.
        serials_left: u64,
    },
    /// A Notifier.
    Notifier {
        /// Endpoints whose actors live.
        running: usize,
        /// Endpoints whose next start waits.
        down: usize,
    },
    /// An Endpoint.
    Endpoint {
        /// Every event of the feed up to here is finished or kept by itself.
        cursor: u64,
        /// Events that are taken up and not finished.
        waiting: usize,
        /// Attempts under way.
        under_way: usize,
        /// True while one try at a time is let through.
        breaker_open: bool,
        /// Replays that wait.
        replays: usize,
    },
}
