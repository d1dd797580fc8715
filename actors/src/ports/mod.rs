//! What the engine needs from the world, as traits: production and the seeded world both
//! implement them, so that the same actors run in either.

pub mod announcement;
pub(crate) mod background;
pub mod clock;
pub mod endpoints;
pub mod entropy;
pub mod fate;
pub mod faults;
pub mod measure;
pub mod membership;
pub mod store;
pub mod store_report;
pub mod trouble;
pub mod turns;
pub mod webhook;
pub mod wms;

/// A future that can be named behind a trait object.
pub type BoxFuture<T> = futures_util::future::BoxFuture<'static, T>;
