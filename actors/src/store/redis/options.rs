//! How Redis is used, and why it cannot be. It must never show an address with its password.

use std::path::PathBuf;
use std::sync::Arc;

use redis::{ConnectionInfo, IntoConnectionInfo as _, RedisError};

use super::members::MemberOptions;
use super::receipts::ReceiptOptions;
use super::replicas::Replication;
use super::server::{Doubt, Wanted};
use super::shared::Shared;

/// How Redis is used.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/database]`, in a cluster of some of its nodes. They may hold
    /// a password: they are never shown.
    pub urls: Vec<String>,
    /// Redis is a cluster.
    pub is_cluster: bool,
    /// Replicas that must have each write before it counts; `None`: the disk of Redis is enough.
    pub replication: Option<Replication>,
    /// Use a Redis whose settings cannot be read, or do not give the durability, and answer for it.
    pub assume_durability: bool,
    /// The log of what was accepted lately; `None` for who accepts nothing.
    pub receipts: Option<ReceiptOptions>,
    /// As which node; `None` for who works nothing. A node has receipts: its id stands beside them.
    pub member: Option<MemberOptions>,
}

/// Why a Redis could not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an address of a Redis.
    #[error("the address of redis cannot be used")]
    Address(#[source] RedisError),
    /// No address, or several of what is no cluster.
    #[error("redis has {0} addresses; one is needed, or some of a cluster")]
    Addresses(usize),
    /// It does not answer.
    #[error("redis at {address} does not answer")]
    Apart {
        /// Where it was sought.
        address: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It cannot keep what a 202 promises.
    #[error("redis at {address} cannot be used")]
    Unfit {
        /// Where it is.
        address: String,
        /// Why not.
        #[source]
        source: Arc<Doubt>,
    },
    /// The log of receipts cannot be kept.
    #[error(
        "the receipts in {} cannot be kept; choose a directory of this process alone with \
         --set store.redis.receipts_dir=DIR",
        .dir.display()
    )]
    Receipts {
        /// Its directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It was written by another release.
    #[error("the store in redis has layout {found}, this release reads {supported}")]
    WrongFormat {
        /// Its layout.
        found: u32,
        /// The layout that this release writes.
        supported: u32,
    },
}

impl RedisOptions {
    /// What all connections share.
    ///
    /// # Errors
    /// [`OpenError::Address`] and [`OpenError::Addresses`].
    pub(super) fn shared(&self) -> Result<Shared, OpenError> {
        let seeds = self.urls.iter().map(|url| url.as_str().into_connection_info());
        let seeds: Vec<ConnectionInfo> = seeds.collect::<Result<_, _>>().map_err(OpenError::Address)?;
        if seeds.is_empty() || seeds.len() > 1 && !self.is_cluster {
            return Err(OpenError::Addresses(seeds.len()));
        }
        let RedisOptions { is_cluster, replication, assume_durability, .. } = *self;
        let wanted = Wanted { assume_durability, is_cluster, replication };
        Ok(Shared::new(seeds, wanted))
    }
}
