//! Black-box tests: the real binary, over its command line and over HTTP.
#![allow(clippy::unwrap_used)] // A test that unwraps says where it failed; that is all it has to say.

mod access;
mod bad_input;
mod batch;
mod cli;
mod door;
mod idempotency;
mod killed;
mod northwind;
mod reading;
mod server;
mod shop;
