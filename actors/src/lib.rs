//! The engine of Wavegate: domain, store and supervised actors.
//!
//! Layers, each may name what is to its left, never the reverse:
//! `domain ← wire ← ports ← store ← actors ← engine`. `domain` knows no clock, IO, async or JSON;
//! `actors` names no backend, only ports; backends do not know each other; nothing names the
//! seeded world.

mod actors;
pub mod domain;
pub mod engine;
pub mod ports;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
pub mod store;
pub mod webhooks;
pub mod wire;
pub mod wms;
