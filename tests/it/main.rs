//! Black-box tests: the real binary, over its command line and over HTTP.
#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod access;
mod bad_input;
mod batch;
mod bench;
mod cli;
mod compose;
mod door;
mod estimates;
mod events;
mod floor;
mod full_disk;
mod hostile;
mod idempotency;
mod killed;
mod life;
mod live_events;
mod node;
mod nodes;
mod northwind;
mod operators;
mod reading;
mod redis;
mod redis_server;
mod report;
mod scarce;
mod server;
mod shop;
mod sse;
mod tickets;
mod track;
mod watch;
mod webhooks;
mod wms;
mod wms_alone;
mod wms_process;
