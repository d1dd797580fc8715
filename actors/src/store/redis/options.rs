//! How Redis is used, and why it cannot be. It must never show an address with its password.

use std::path::PathBuf;
use std::sync::Arc;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisError,
    TlsCertificates,
};

use super::members::MemberOptions;
use super::receipts::ReceiptOptions;
use super::replicas::Replication;
use super::server::{Doubt, Wanted};
use super::shared::Shared;

/// How Redis is used.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/database]`, or `rediss://` for TLS; in a cluster of some of its
    /// nodes. They may hold a password: they are never shown.
    pub urls: Vec<String>,
    /// For `rediss://`.
    pub tls: TlsOptions,
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

/// Who is trusted, and who this is. The files are read once.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificates in PEM, of whom Redis' must be signed by; `None`: those of the machine.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate and its key, in PEM, where Redis asks for them.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why a Redis could not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an address of a Redis.
    #[error("the address of redis cannot be used")]
    Address(#[source] RedisError),
    /// A file of a certificate or a key.
    #[error("{} cannot be read", .path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
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
    /// For one Redis, in clear, with durability `fsync`, by somebody who accepts and works nothing.
    #[must_use]
    pub fn at(url: String) -> RedisOptions {
        RedisOptions {
            urls: vec![url],
            tls: TlsOptions::default(),
            is_cluster: false,
            replication: None,
            assume_durability: false,
            receipts: None,
            member: None,
        }
    }

    /// What all connections share.
    ///
    /// # Errors
    /// [`OpenError::Address`] and [`OpenError::Addresses`].
    pub(super) fn shared(&self) -> Result<Shared, OpenError> {
        let certificates = self.tls.read()?;
        let seed = |url: &String| seed(url, certificates.as_ref()).map_err(OpenError::Address);
        let seeds: Vec<ConnectionInfo> = self.urls.iter().map(seed).collect::<Result<_, _>>()?;
        if seeds.is_empty() || seeds.len() > 1 && !self.is_cluster {
            return Err(OpenError::Addresses(seeds.len()));
        }
        let RedisOptions { is_cluster, replication, assume_durability, .. } = *self;
        let wanted = Wanted { assume_durability, is_cluster, replication };
        Ok(Shared::new(seeds, wanted))
    }
}

fn seed(url: &str, certificates: Option<&TlsCertificates>) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    match (info.addr(), certificates) {
        (ConnectionAddr::TcpTls { .. }, Some(certificates)) => {
            Ok(Client::build_with_tls(info, certificates.clone())?.get_connection_info().clone())
        }
        _ => Ok(info),
    }
}

impl TlsOptions {
    /// What the files hold; `None` when nothing is said.
    fn read(&self) -> Result<Option<TlsCertificates>, OpenError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| OpenError::Certificate { path: path.clone(), source })
        };
        let root_cert = self.ca_file.as_ref().map(read).transpose()?;
        let client_tls = match &self.client {
            Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
            None => None,
        };
        let is_said = root_cert.is_some() || client_tls.is_some();
        Ok(is_said.then_some(TlsCertificates { client_tls, root_cert }))
    }
}
