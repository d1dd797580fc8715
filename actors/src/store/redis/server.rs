//! What a Redis must be for a 202 to be true: its version, its settings. It must never change them.

use std::sync::Arc;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

use super::link::one;
use super::replies::bytes;

/// Why a Redis is not used.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// It could not be asked.
    #[error("redis cannot be asked what it is")]
    Unread(#[source] Arc<RedisError>),
    /// Scripts use what older ones do not have.
    #[error("redis is version {0}; 7.0 is the first that is supported")]
    Old(String),
    /// An acknowledged write would not be on disk.
    #[error(
        "redis has {setting} {found}, but durability \"fsync\" needs {needed}; set it (CONFIG SET {setting} \
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

/// Settings that `fsync` takes.
const NEEDED: [(&str, &str); 3] =
    [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")];

/// Looks whether Redis can give what is promised, and answers the id of its run.
///
/// # Errors
/// See [`Doubt`].
pub(super) async fn check_settings(
    connection: &mut MultiplexedConnection,
    assume_durability: bool,
) -> Result<String, Doubt> {
    let info = one(connection, "INFO", &["server"]).await.map_err(|e| Doubt::Unread(Arc::new(e)))?;
    let info = info.into_iter().next().and_then(bytes).unwrap_or_default();
    let info = String::from_utf8_lossy(&info);
    let (version, run) = (version(&info), run_id(&info));
    if major(&version) < 7 {
        return Err(Doubt::Old(version));
    }
    if assume_durability {
        return Ok(run);
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
    Ok(run)
}

/// What names one run of one Redis, in what `INFO server` says: a restart and another primary have
/// others.
pub(super) fn run_id(info: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    line.unwrap_or_default().trim().to_owned()
}

fn version(info: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    line.unwrap_or("unknown").trim().to_owned()
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_redis_says_of_itself() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:c0ffee\r\nredis_mode:standalone\r\n";
        let version = version(info);
        assert_eq!((version.as_str(), major(&version)), ("7.0.15", 7));
        assert_eq!(run_id(info), "c0ffee");
        assert_eq!(major("unknown"), 0);
    }
}
