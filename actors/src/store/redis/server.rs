//! What a Redis must be for a 202 to be true: its version, its settings. It must never change them.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use uuid::Uuid;

use super::link::one;
use super::replicas::{Replication, Wait};
use super::replies::bytes;

/// What a Redis must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Take its durability for given.
    pub(super) assume_durability: bool,
    /// A node of a cluster, or none.
    pub(super) is_cluster: bool,
    /// Replicas that must have each write; `None`: its own disk is enough.
    pub(super) replication: Option<Replication>,
}

/// What a Redis was found to be.
pub(super) struct Met {
    /// Which run of which Redis.
    pub(super) run: String,
    /// How its replicas are waited for.
    pub(super) wait: Option<Wait>,
}

/// Why a Redis is not used.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// It could not be asked.
    #[error("redis cannot be asked what it is")]
    Unread(#[source] Arc<RedisError>),
    /// Scripts use what older ones do not have.
    #[error("redis is version {0}; 7.0 is the first that is supported")]
    Old(String),
    /// Nothing can be written there.
    #[error("redis is a replica; store.redis.urls must lead to the primary")]
    Replica,
    /// It is part of a cluster, and no cluster is expected.
    #[error("redis is a node of a cluster; say so with --set store.redis.cluster=true")]
    OfCluster,
    /// A cluster is expected, and it is none.
    #[error("redis is not a node of a cluster, but store.redis.cluster is true")]
    NoCluster,
    /// An acknowledged write would not be on disk.
    #[error(
        "redis has {setting} {found}, but what a 202 promises needs {needed}; set it (CONFIG SET {setting} \
         {needed}, and in redis.conf), or take the risk with --set store.redis.assume_durability=true"
    )]
    Weak {
        /// The setting.
        setting: &'static str,
        /// As it is.
        found: String,
        /// As it must be.
        needed: &'static str,
    },
    /// Too few replicas have what was written.
    #[error(
        "{found} of {needed} replicas acknowledged within {within:?} what redis has, but durability \
         \"replicated\" needs them; start them (replicaof, in redis.conf), or wait for fewer with \
         --set store.redis.replicas=N"
    )]
    Alone {
        /// That did.
        found: u64,
        /// That must.
        needed: u32,
        /// How long they were waited for.
        within: Duration,
    },
    /// Redis does not tell its settings.
    #[error(
        "redis does not tell its settings (CONFIG GET is refused), so its durability is not known; if it has \
         appendonly yes, appendfsync always and maxmemory-policy noeviction, say so with \
         --set store.redis.assume_durability=true"
    )]
    Silent(#[source] Arc<RedisError>),
    /// It may not have all that was accepted.
    #[error(
        "redis began anew or another one took over; what was accepted in the last minutes is being put back \
         before anything else"
    )]
    Behind,
    /// It is empty, or somebody else's.
    #[error(
        "redis does not hold the store {expected} ({}); bring its data back and it goes on by itself, or, if \
         what it held may be lost, restart this server, which then begins anew",
        found_in(.found)
    )]
    Another {
        /// The store that this process serves.
        expected: Uuid,
        /// The one that is there.
        found: Option<Uuid>,
    },
}

fn found_in(found: &Option<Uuid>) -> String {
    found.map_or_else(
        || "it holds none: was it restarted without its data?".to_owned(),
        |id| format!("it holds {id}"),
    )
}

/// Settings that each class takes.
const NEEDED: [(&str, &str); 3] =
    [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")];

/// Looks whether Redis is what is wanted and can give what is promised, and answers which run of it it is.
///
/// # Errors
/// See [`Doubt`].
pub(super) async fn check_settings(
    connection: &mut MultiplexedConnection,
    wanted: &Wanted,
) -> Result<Met, Doubt> {
    let info = info(connection).await.map_err(|e| Doubt::Unread(Arc::new(e)))?;
    let version = value_of(&info, "redis_version").unwrap_or("unknown");
    if parts(version) < (7, 0) {
        return Err(Doubt::Old(version.to_owned()));
    }
    match (value_of(&info, "redis_mode") == Some("cluster"), wanted.is_cluster) {
        (true, false) => return Err(Doubt::OfCluster),
        (false, true) => return Err(Doubt::NoCluster),
        (true, true) | (false, false) => {}
    }
    if value_of(&info, "role") != Some("master") {
        return Err(Doubt::Replica);
    }
    let wait = wanted.replication.map(|of| Wait::of(of, parts(version)));
    let met = Met { run: run_in(&info), wait };
    if wanted.assume_durability {
        return Ok(met);
    }
    for (setting, needed) in NEEDED {
        let found = one(connection, "CONFIG", &["GET", setting]).await.map_err(|e| {
            if e.is_io_error() { Doubt::Unread(Arc::new(e)) } else { Doubt::Silent(Arc::new(e)) }
        })?;
        let found = found.into_iter().nth(1).and_then(bytes).unwrap_or_default();
        if found != needed.as_bytes() {
            let found = String::from_utf8_lossy(&found).into_owned();
            return Err(Doubt::Weak { setting, found, needed });
        }
    }
    Ok(met)
}

/// What Redis says of itself.
async fn info(connection: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let mut ask = redis::pipe();
    ask.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let said = ask.query_async::<Vec<Value>>(connection).await?;
    let said: Vec<u8> = said.into_iter().filter_map(bytes).flatten().collect();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Which run of which Redis a connection leads to now; of a replica, none that was ever used.
///
/// # Errors
/// When it does not answer.
pub(super) async fn run_of(connection: &mut MultiplexedConnection) -> Result<String, RedisError> {
    Ok(run_in(&info(connection).await?))
}

/// Where the replication id stands in what names a run.
pub(super) const REPLICATION_AT: usize = 1;

/// Where that of the primary stands whose replica it was.
pub(super) const BEFORE_AT: usize = 2;

/// What names one run of one Redis as a primary: a restart and another primary have another run id, and
/// one that was a replica in between has another replication id (as has one that gets its first replica,
/// which costs nothing but looking).
fn run_in(info: &str) -> String {
    let of = |name| value_of(info, name).unwrap_or_default();
    format!("{}/{}/{}/{}", of("run_id"), of("master_replid"), of("master_replid2"), of("role"))
}

fn value_of<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    let value = |line: &'i str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).map(str::trim)
}

/// The first two numbers of a version.
fn parts(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_from_what_redis_says_of_itself() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:c0ffee\r\n\
                    # Replication\r\nrole:master\r\nmaster_replid:ab\r\nmaster_replid2:00\r\n";
        assert_eq!(value_of(info, "redis_version").map(parts), Some((7, 0)));
        assert_eq!(run_in(info), "c0ffee/ab/00/master");
        assert_ne!(run_in(info), run_in(&info.replace("replid:ab", "replid:cd")), "it was a replica since");
        assert_eq!((value_of(info, "redis"), parts("unknown")), (None, (0, 0)));
    }
}
