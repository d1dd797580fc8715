//! Deliveries over HTTP to addresses that clients name: each call is made once, to an address that
//! was checked, and bounded in time and bytes. Nothing here knows an endpoint, a schedule or the store.

mod courier;
mod guard;
mod retry_after;

pub use courier::{BuildError, HttpCourier, Lookup, SystemLookup};
pub use guard::Guard;
