//! Webhooks: Notifier → Endpoint, one for each enabled endpoint. Endpoints read their client's feed
//! by a cursor and are never pushed; what they must not forget is in the store before it counts.

mod attempt;
mod deliver;
mod endpoint;
mod held;
mod hooks;
mod notifier;
mod office;
mod pauses;
mod queue;
mod reading;

pub(crate) use hooks::{Hook, Hooks};
pub(crate) use notifier::{End, Notifier};
pub(crate) use office::ping_here;
pub use office::{NewEndpoint, Office, OfficeError};
