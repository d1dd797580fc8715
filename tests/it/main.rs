//! Black-box tests: the real binary, over its command line and over HTTP.

mod cli;
mod killed;
mod northwind;
mod server;
mod shop;
