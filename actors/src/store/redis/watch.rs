//! What is done while a store is open whether anybody asks for anything or not.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, link};

/// How often Redis is looked at, and what nobody reads is relayed.
pub(super) const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Looks at Redis and relays what nobody has asked for, until the store is dropped.
pub(super) async fn watch(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        for link in [&inner.writes, &inner.reads] {
            // What it found stands in `standing`, and in the log.
            let _found = link.look().await;
        }
        if inner.writes.shared.is_well()
            && let Err(e) = inner.relay.settle(&inner.writes).await
        {
            tracing::warn!(error = link::with_causes(&e), "feeds cannot be written; it is tried again");
        }
    }
}
