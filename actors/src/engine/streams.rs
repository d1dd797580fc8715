//! The door to the feeds: pages of rendered events, and the bell that says there are more.

use std::sync::Arc;

use super::Handle;
pub use crate::actors::bell::Listener;
use crate::actors::events::{self, Event};
use crate::domain::ids::ClientNo;
use crate::ports::store::ReadError;

impl Handle {
    /// A client's events after a sequence, rendered, of at most `limit` entries of its feed; and the
    /// sequence of the last of these entries, which is further than the last event where one could not
    /// be rendered.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(
        &self,
        client: ClientNo,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, u64), ReadError> {
        let entries = self.store().feed(client, after, limit).await?;
        let last = entries.last().map_or(after, |entry| entry.sequence);
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            found.extend(events::event(&self.0.node, client, entry).await?);
        }
        Ok((found, last))
    }

    /// Listens to a feed: it is rung when the feed has grown. Listen first, then read.
    #[must_use]
    pub fn listen(&self, client: ClientNo) -> Listener {
        self.0.node.bell.listen(client)
    }
}
