//! What is done while a store is open whether anybody asks for anything or not.

use std::sync::Arc;
use std::time::Duration;

use super::link::{self, Standing};
use super::{Inner, recover};

/// How often Redis is looked at, and what nobody reads is relayed.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How often old receipts are looked for: as often as a file of them ends.
const DROP_EVERY: Duration = Duration::from_secs(60);

/// Makes each run of Redis fit for use and drops old receipts, until the store is dropped.
pub(super) async fn keep_settled(inner: Arc<Inner>) {
    loop {
        let behind = inner.writes.shared.behind.notified();
        if tokio::time::timeout(DROP_EVERY, behind).await.is_err() {
            inner.receipts.drop_old().await;
            continue;
        }
        while let Err(e) = recover::settle(&inner).await {
            tracing::warn!(
                error = link::with_causes(&e),
                "what was accepted is not put back yet; it is tried again"
            );
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

/// Looks at Redis and relays what nobody has asked for, until the store is dropped.
pub(super) async fn watch(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        for link in [&inner.writes, &inner.reads] {
            // What it found stands in `standing`, and in the log.
            let _found = link.look().await;
        }
        if *inner.writes.shared.standing.lock() == Standing::Well
            && let Err(e) = inner.relay.settle(&inner.reads, &inner.writes).await
        {
            tracing::warn!(error = link::with_causes(&e), "feeds cannot be written; it is tried again");
        }
    }
}
