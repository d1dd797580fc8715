//! Black-box tests: the real binary, over its command line and over HTTP.

mod cli;
mod northwind;
mod server;
