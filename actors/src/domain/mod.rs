//! The pure core: what orders, stock, releases and manifests are and how they change.
//!
//! A domain type decides (`-> Vec<Fact>` or a refusal), changes only by `apply`, and says what it still
//! owes the world (a release that is ready for a wave, a question, a carton to load). Nothing in this folder knows a clock, IO, async, JSON or
//! an actor; whoever calls it brings the time.

pub mod cancellation;
pub mod command;
pub mod confirmation;
#[cfg(test)]
mod confirmation_table;
pub mod endpoint;
pub mod estimate;
pub mod fact;
pub mod ids;
pub mod invariants;
pub mod manifest;
pub mod movement;
pub mod order;
pub mod promise;
#[cfg(test)]
mod properties;
pub mod rank;
pub mod release;
pub mod spread;
pub mod sscc;
pub mod state;
pub mod stock;
pub mod time;
