//! Warehouse management systems that the engine can be given.

pub mod http;
pub mod simulated;
