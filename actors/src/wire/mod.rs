//! What stands on the wire: requests as they are read, documents as they are written.
//!
//! Field names here are the public contract. Nothing in this folder decides anything, and
//! nothing in it knows the store, an actor or HTTP.

pub mod accepted;
mod address;
pub mod confirmations;
pub mod cursor;
pub mod endpoints;
pub mod event;
mod fold;
pub mod json;
pub mod reader;
pub mod requests;
pub mod signature;
pub mod status;
pub mod stock;
mod story;
pub mod tickets;
pub mod time;
pub mod wms;
