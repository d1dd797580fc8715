//! `[store.redis]`: where Redis is, and what a store in it promises. It must never show a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::parse;

/// `[store.redis]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redis {
    /// Its address, or some of a cluster's, which may hold a password.
    #[serde(deserialize_with = "parse::redis")]
    pub(crate) urls: Vec<RedisUrl>,
    /// `rediss://`: whom its certificate must be signed by.
    #[serde(deserialize_with = "parse::file")]
    pub(crate) ca_file: Option<PathBuf>,
    /// `rediss://`: this client's certificate.
    #[serde(deserialize_with = "parse::file")]
    pub(crate) cert_file: Option<PathBuf>,
    /// `rediss://`: its key.
    #[serde(deserialize_with = "parse::file")]
    pub(crate) key_file: Option<PathBuf>,
    /// It is a cluster.
    pub(crate) cluster: bool,
    /// What a 202 promises.
    pub(crate) durability: RedisDurability,
    /// `replicated`: of each primary, that must have each write.
    #[serde(deserialize_with = "parse::number::<_, _, 1, 10>")]
    pub(crate) replicas: u32,
    /// `replicated`: how long they are waited for.
    #[serde(deserialize_with = "parse::duration::<_, 50, 400>")]
    pub(crate) replicas_within: Duration,
    /// Whatever Redis says of its own settings.
    pub(crate) assume_durability: bool,
    /// Of what this process accepted lately; relative to the working directory.
    #[serde(deserialize_with = "parse::path")]
    pub(crate) receipts_dir: PathBuf,
}

impl Redis {
    /// Hosts and ports, without what is secret.
    pub(crate) fn addresses(&self) -> String {
        self.urls.iter().map(RedisUrl::address).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("assume_durability", &self.assume_durability).finish_non_exhaustive()
    }
}

/// What the address of a Redis begins with: in clear, and by TLS.
pub(super) const REDIS_SCHEMES: [&str; 2] = ["redis://", "rediss://"];

/// The address of a Redis. It has no `Debug`: it may hold a password.
#[derive(Clone)]
pub(crate) struct RedisUrl(pub(crate) String);

impl RedisUrl {
    /// Host and port, without what is secret.
    pub(crate) fn address(&self) -> &str {
        let RedisUrl(url) = self;
        let behind = url.rsplit_once('@').map_or(url.as_str(), |(_, behind)| behind);
        REDIS_SCHEMES.iter().find_map(|scheme| behind.strip_prefix(scheme)).unwrap_or(behind)
    }

    /// Whether it is reached by TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.starts_with(REDIS_SCHEMES[1])
    }

    /// Whether it names a database other than the first.
    pub(crate) fn has_database(&self) -> bool {
        self.address().split_once('/').is_some_and(|(_, database)| !matches!(database, "" | "0"))
    }
}

/// The classes that a store in Redis can give in this version.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RedisDurability {
    /// Its append-only file is synced before it answers.
    Fsync,
    /// The same, and replicas have acknowledged it.
    Replicated,
}
