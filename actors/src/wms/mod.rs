//! Warehouse management systems that the engine can be given.

pub mod simulated;
