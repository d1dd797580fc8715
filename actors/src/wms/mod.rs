//! Warehouse management systems that the engine can be given.

mod character;
pub mod http;
pub mod simulated;
