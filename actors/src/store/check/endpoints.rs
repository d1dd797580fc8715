//! The check of webhook endpoints: every row can be read, belongs to an endpoint, and points at an event
//! that is, or once was, in its client's feed.

use std::collections::BTreeMap;

use crate::domain::ids::ClientNo;
use crate::domain::invariants::Violation;
use crate::ports::endpoints::{DeliveryRows, Standing, StoredEndpoint};
use crate::ports::store::{FeedBounds, FeedEntry, Lookup, ReadError, Store};

/// Looks over all endpoints. All that is wrong with one is INV-5: whoever follows the feed is not given
/// it, or is given what it does not say.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn check(store: &dyn Store) -> Result<Vec<Violation>, ReadError> {
    let mut check = Check { store, bounds: BTreeMap::new(), found: Vec::new() };
    check.run().await?;
    Ok(check.found.into_iter().map(|found| Violation { id: "INV-5", found }).collect())
}

struct Check<'s> {
    store: &'s dyn Store,
    /// What each client's feed keeps.
    bounds: BTreeMap<ClientNo, FeedBounds>,
    found: Vec<String>,
}

impl Check<'_> {
    async fn run(&mut self) -> Result<(), ReadError> {
        let mut endpoints: BTreeMap<_, Option<StoredEndpoint>> = BTreeMap::new();
        for (id, why) in self.store.damaged_endpoints().await? {
            self.found.push(format!("endpoint {id} cannot be read: {why}"));
            endpoints.insert(id, None);
        }
        endpoints.extend(self.store.endpoints().await?.into_iter().map(|e| (e.id, Some(e))));
        let mut after = None;
        while let Some(rows) = self.store.delivery_rows(after).await? {
            let id = rows.endpoint;
            after = Some(id);
            let damaged = rows.damaged.iter().map(|what| format!("of endpoint {id} cannot be read: {what}"));
            self.found.extend(damaged);
            match endpoints.remove(&id) {
                Some(Some(endpoint)) => self.endpoint(&endpoint, &rows).await?,
                // It is said already.
                Some(None) => {}
                None => self.found.push(format!(
                    "{} rows are left of endpoint {id}, which is not there: {} wait, {} are kept aside, {} attempts",
                    rows.count(),
                    rows.pending.len(),
                    rows.dead.len(),
                    rows.attempts.len()
                )),
            }
        }
        for endpoint in endpoints.into_values().flatten() {
            let rows = DeliveryRows { endpoint: endpoint.id, ..DeliveryRows::default() };
            self.endpoint(&endpoint, &rows).await?;
        }
        Ok(())
    }

    async fn endpoint(&mut self, endpoint: &StoredEndpoint, rows: &DeliveryRows) -> Result<(), ReadError> {
        let (id, client) = (endpoint.id, endpoint.client);
        match endpoint.standing {
            Standing::Enabled | Standing::Disabled(_) => {}
            // What is left of it goes when a server runs.
            Standing::Deleted => return Ok(()),
        }
        let bounds = match self.bounds.get(&client) {
            Some(bounds) => *bounds,
            None => {
                let bounds = self.store.feed_bounds(client).await?;
                *self.bounds.entry(client).or_insert(bounds)
            }
        };
        match rows.progress {
            // An actor that finds no progress takes its endpoint for one that was deleted.
            None => self.found.push(format!("endpoint {id} has no progress and gets nothing")),
            Some((cursor, _)) if cursor >= bounds.next => {
                let end = bounds.next - 1;
                self.found.push(format!("endpoint {id} has come to {cursor} of a feed that ends at {end}"));
            }
            Some((_, next)) => {
                let last = rows.attempts.last().copied().unwrap_or(0);
                if last >= next {
                    self.found.push(format!("attempt {last} of endpoint {id} is numbered {next} again"));
                }
            }
        }
        let waiting = rows.pending.iter().map(|entry| ("waits", entry));
        for (how, entry) in waiting.chain(rows.dead.iter().map(|entry| ("is kept aside", entry))) {
            if let Some(why) = self.points_nowhere(client, bounds, entry).await? {
                let n = entry.sequence;
                self.found.push(format!("of endpoint {id} event {n} {how}, but {why}"));
            }
        }
        Ok(())
    }

    /// Why an entry is none of the feed's. One that was evicted is compared with its transaction, while
    /// that is there.
    async fn points_nowhere(
        &self,
        client: ClientNo,
        FeedBounds { first, next }: FeedBounds,
        entry: &FeedEntry,
    ) -> Result<Option<String>, ReadError> {
        let FeedEntry { sequence, id, version } = *entry;
        if sequence == 0 || sequence >= next {
            return Ok(Some(format!("the feed of {client:?} has no such number")));
        }
        let is_kept = sequence >= first;
        if is_kept && self.store.feed(client, sequence - 1, 1).await?.first() != Some(entry) {
            return Ok(Some(format!("in the feed of {client:?} it is not version {version} of {id}")));
        }
        if version == 0 {
            return Ok(None);
        }
        Ok(match self.store.transaction(id).await? {
            Some(Lookup::Live(stored)) if stored.version() < version => {
                Some(format!("{id} has no version {version}"))
            }
            Some(Lookup::Live(_) | Lookup::Expired(_)) => None,
            None if is_kept => Some(format!("{id} is not there")),
            None => None,
        })
    }
}
