//! The engine of Wavegate: domain, store and supervised actors.
//!
//! Layers, each may name what is to its left, never the reverse:
//! `domain ← wire ← ports ← store ← actors ← engine`.

pub mod domain;
pub mod engine;
pub mod ports;
pub mod wire;
