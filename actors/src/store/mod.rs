//! How everything that must survive is kept: one set of operations, keys and formats for the
//! backends that hold ordered rows, and the backends themselves.
//!
//! Backends do not know each other, and nothing here knows an actor. [`keys`] has the table of
//! tables, [`mod@format`] the stored values, [`rows`] what the operations do.

mod backend;
mod backend_endpoints;
pub mod check;
#[cfg(test)]
mod contract;
pub mod embedded;
#[cfg(test)]
mod endpoints_tests;
pub mod format;
pub mod keys;
pub mod memory;
pub mod redis;
pub mod rows;

pub use backend::Backend;
pub use check::check;
pub use embedded::EmbeddedStore;
pub use format::digest;
pub use memory::MemoryStore;
pub use redis::RedisStore;
