//! `[cluster]`: several nodes on one store.

use std::time::Duration;

use serde::Deserialize;

use super::parse;

/// A lease is renewed every second, and a node that missed two of them is not dead yet.
const LEASE_MIN_MS: u64 = 3_000;
/// Whoever waits longer for a dead node has no use for a second one.
const LEASE_MAX_MS: u64 = 60_000;

/// `[cluster]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// This node's name, for people; empty: the beginning of its id.
    #[serde(deserialize_with = "parse::node_name")]
    pub(crate) node: String,
    /// So long after it was last heard of a node is taken for alive.
    #[serde(deserialize_with = "parse::duration::<_, LEASE_MIN_MS, LEASE_MAX_MS>")]
    pub(crate) lease: Duration,
}
