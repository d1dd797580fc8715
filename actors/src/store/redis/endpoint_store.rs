//! The [`EndpointStore`] that actors see. An endpoint lies in the shard of its client's feed, so that
//! what is said in the feed about it is written with it.

use std::sync::Arc;

use super::overlay::Fetch;
use super::place::{SHARDS, Slot};
use super::replies::{number, pairs};
use super::store::flat;
use super::transact::{self, Plan};
use super::{Inner, RedisStore};
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::ClientNo;
use crate::ports::BoxFuture;
use crate::ports::endpoints::{
    Attempt, Changed, DeadDelivery, Deliveries, DeliveryRecord, DeliveryRows, EndpointChange, EndpointStore,
    Replay, StoredEndpoint,
};
use crate::ports::store::{CommitError, ReadError, Written};
use crate::store::keys::{self, Key, Table};
use crate::store::rows::{self, ReadRows, RowError, Write};

fn itself(client: ClientNo, id: EndpointId) -> Fetch {
    Fetch::Row(Table::Endpoints, keys::chunk(&keys::endpoint(client, id), 0))
}

/// Every row of every endpoint of a shard, but for its deliveries.
fn all() -> Fetch {
    Fetch::All(Table::Endpoints, Key::new())
}

fn counter(client: ClientNo) -> Fetch {
    Fetch::Row(Table::Counters, keys::feed_counter(client))
}

fn progress(id: EndpointId) -> Fetch {
    Fetch::Row(Table::Deliveries, keys::progress(id))
}

impl Inner {
    async fn write_shard<T>(
        &self,
        client: ClientNo,
        ahead: Vec<Fetch>,
        operation: impl FnMut(&mut Write<'_>) -> Result<T, RowError>,
    ) -> Result<T, CommitError> {
        let plan = Plan::open(Slot::of_client(client), ahead);
        transact::write(&self.writes, &plan, self.hasher, operation).await
    }

    async fn read_shard<T>(
        &self,
        client: ClientNo,
        ahead: Vec<Fetch>,
        operation: impl FnMut(&dyn ReadRows) -> Result<T, RowError>,
    ) -> Result<T, ReadError> {
        transact::read(&self.reads, Slot::of_client(client), ahead, operation).await
    }

    /// Whose an endpoint is, as far as it was noted.
    async fn client_of(&self, id: EndpointId) -> Result<Option<ClientNo>, ReadError> {
        let mut ask = redis::pipe();
        ask.cmd("HGET").arg(Slot::Meta.key("hooks")).arg(id.0.as_bytes());
        let found = self.reads.ask(&ask).await?.into_iter().next().and_then(number);
        Ok(found.and_then(|n| u32::try_from(n).ok()).map(ClientNo))
    }

    /// All endpoints that were noted, by id.
    async fn noted_endpoints(&self) -> Result<Vec<(EndpointId, ClientNo)>, ReadError> {
        let mut ask = redis::pipe();
        ask.cmd("HGETALL").arg(Slot::Meta.key("hooks"));
        let noted = self.reads.ask(&ask).await?.into_iter().next().map(pairs).unwrap_or_default();
        let read = |(id, client): (Vec<u8>, Vec<u8>)| {
            let client = std::str::from_utf8(&client).ok()?.parse().ok()?;
            Some((EndpointId(keys::id_at(&id, 0)?.0), ClientNo(client)))
        };
        let mut all: Vec<_> = noted.into_iter().filter_map(read).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Takes note of every endpoint again: a cluster may have lost the note and not what it is about.
    pub(super) async fn note_endpoints(&self) -> Result<(), ReadError> {
        let mut notes = redis::pipe();
        for shard in (0..SHARDS).map(Slot::Shard) {
            for found in transact::read(&self.writes, shard, vec![all()], rows::endpoints).await? {
                notes.cmd("HSET").arg(Slot::Meta.key("hooks")).arg(found.id.0.as_bytes()).arg(found.client.0);
            }
        }
        self.writes.write(&notes).await?;
        Ok(())
    }

    async fn create_endpoint(
        &self,
        endpoint: &StoredEndpoint,
        max: usize,
    ) -> Result<Result<Option<StoredEndpoint>, CommitError>, CommitError> {
        // It begins behind all that was written before it.
        self.relay.settle(&self.writes).await?;
        let mut note = redis::pipe();
        note.cmd("HSET").arg(Slot::Meta.key("hooks")).arg(endpoint.id.0.as_bytes()).arg(endpoint.client.0);
        self.writes.write(&note).await?;
        let ahead = vec![all(), counter(endpoint.client)];
        self.write_shard(endpoint.client, ahead, |w| rows::create_endpoint(w, endpoint, max)).await
    }

    async fn change_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: &EndpointChange,
    ) -> Result<Result<Changed, CommitError>, CommitError> {
        let mut ahead = vec![all()];
        match change {
            EndpointChange::Enable { .. } => {
                self.relay.settle(&self.writes).await?;
                ahead.extend([counter(client), progress(id)]);
            }
            EndpointChange::Replay(_) => ahead.push(Fetch::All(Table::Deliveries, keys::replays_of(id))),
            EndpointChange::Settings { .. } | EndpointChange::Rotate { .. } | EndpointChange::Delete => {}
        }
        self.write_shard(client, ahead, |w| rows::change_endpoint(w, client, id, change)).await
    }

    async fn record(
        &self,
        client: ClientNo,
        id: EndpointId,
        record: &DeliveryRecord,
    ) -> Result<Result<(), CommitError>, CommitError> {
        let mut ahead = vec![itself(client, id), progress(id)];
        if !record.replays.is_empty() {
            ahead.push(Fetch::All(Table::Deliveries, keys::replays_of(id)));
        }
        if record.disabled.is_some() {
            self.relay.settle(&self.writes).await?;
            ahead.extend([all(), counter(client)]);
        }
        self.write_shard(client, ahead, |w| rows::record(w, client, id, record)).await
    }

    async fn purge_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        limit: usize,
    ) -> Result<usize, CommitError> {
        let of = keys::of_endpoint(id);
        let ahead =
            vec![all(), Fetch::All(Table::Deliveries, of.clone()), Fetch::All(Table::DeadDeliveries, of)];
        let purge = |w: &mut Write<'_>| {
            let dropped = rows::purge_endpoint(w, client, id, limit)?;
            let left = w.rows.get(Table::Endpoints, &keys::chunk(&keys::endpoint(client, id), 0))?;
            Ok((dropped, left.is_none()))
        };
        let (dropped, is_gone) = self.write_shard(client, ahead, purge).await?;
        if is_gone {
            let mut forget = redis::pipe();
            forget.cmd("HDEL").arg(Slot::Meta.key("hooks")).arg(id.0.as_bytes());
            self.writes.write(&forget).await?;
        }
        Ok(dropped)
    }

    /// Endpoints that have a note: what it is about goes before it.
    async fn delivery_rows(&self, after: Option<EndpointId>) -> Result<Option<DeliveryRows>, ReadError> {
        for (id, client) in self.noted_endpoints().await? {
            if after.is_some_and(|after| id <= after) {
                continue;
            }
            let of = keys::of_endpoint(id);
            let ahead =
                vec![Fetch::All(Table::Deliveries, of.clone()), Fetch::All(Table::DeadDeliveries, of)];
            let found = self.read_shard(client, ahead, |r| rows::delivery_rows_of(r, id)).await?;
            if found.count() > 0 {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn dead_deliveries(
        &self,
        after: Option<(EndpointId, u64)>,
        limit: usize,
    ) -> Result<Vec<DeadDelivery>, ReadError> {
        let mut found = Vec::new();
        for (id, client) in self.noted_endpoints().await? {
            let after = after.filter(|(first, _)| *first >= id);
            if after.is_some_and(|(first, _)| first > id) {
                continue;
            }
            if found.len() >= limit {
                break;
            }
            let left = limit - found.len();
            let ahead = vec![Fetch::All(Table::DeadDeliveries, keys::of_endpoint(id))];
            let of_one = self.read_shard(client, ahead, |r| rows::dead_deliveries_of(r, id, after, left));
            found.extend(of_one.await?);
        }
        Ok(found)
    }
}

impl EndpointStore for RedisStore {
    fn create_endpoint(
        &self,
        endpoint: StoredEndpoint,
        max: usize,
    ) -> BoxFuture<Result<Written<Option<StoredEndpoint>>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(flat(async move { inner.create_endpoint(&endpoint, max).await }))
    }

    fn change_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> BoxFuture<Result<Written<Changed>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(flat(async move { inner.change_endpoint(client, id, &change).await }))
    }

    fn endpoints(&self) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move {
            let mut found = Vec::new();
            for shard in (0..SHARDS).map(Slot::Shard) {
                found.extend(transact::read(&inner.reads, shard, vec![all()], rows::endpoints).await?);
            }
            found.sort_by_key(|endpoint| (endpoint.client, endpoint.id));
            Ok(found)
        })
    }

    fn endpoints_of(&self, client: ClientNo) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(
            async move { inner.read_shard(client, vec![all()], |r| rows::endpoints_of(r, client)).await },
        )
    }

    fn endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<StoredEndpoint>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![itself(client, id)];
        self.reading(async move { inner.read_shard(client, ahead, |r| rows::endpoint(r, client, id)).await })
    }

    fn take_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Written<u64>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![itself(client, id), progress(id)];
        self.writing(flat(async move {
            inner.write_shard(client, ahead, |w| rows::take_endpoint(w, client, id)).await
        }))
    }

    fn deliveries(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<Deliveries>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let parts = [keys::pending_of(id), keys::replays_of(id)];
        let mut ahead = vec![itself(client, id), progress(id)];
        ahead.extend(parts.map(|part| Fetch::All(Table::Deliveries, part)));
        self.reading(
            async move { inner.read_shard(client, ahead, |r| rows::deliveries(r, client, id)).await },
        )
    }

    fn record(
        &self,
        client: ClientNo,
        id: EndpointId,
        record: DeliveryRecord,
    ) -> BoxFuture<Result<(), CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(async move { inner.record(client, id, &record).await.flatten() })
    }

    fn replays(&self, id: EndpointId) -> BoxFuture<Result<Vec<Replay>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::All(Table::Deliveries, keys::replays_of(id))];
        self.reading(async move {
            let Some(client) = inner.client_of(id).await? else { return Ok(Vec::new()) };
            inner.read_shard(client, ahead, |r| rows::replays(r, id)).await
        })
    }

    fn attempts(&self, id: EndpointId) -> BoxFuture<Result<Vec<(u64, Attempt)>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::All(Table::Deliveries, keys::attempts_of(id))];
        self.reading(async move {
            let Some(client) = inner.client_of(id).await? else { return Ok(Vec::new()) };
            inner.read_shard(client, ahead, |r| rows::attempts(r, id)).await
        })
    }

    fn dead_deliveries(
        &self,
        after: Option<(EndpointId, u64)>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DeadDelivery>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.dead_deliveries(after, limit).await })
    }

    fn dead_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Option<DeadDelivery>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        let ahead = vec![Fetch::Row(Table::DeadDeliveries, keys::dead_delivery(id, sequence))];
        self.reading(async move {
            let Some(client) = inner.client_of(id).await? else { return Ok(None) };
            inner.read_shard(client, ahead, |r| rows::dead_delivery(r, id, sequence)).await
        })
    }

    fn give_up_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Written<bool>, CommitError>> {
        let inner = Arc::clone(&self.inner);
        // Read first: whether there was one is what is asked.
        let ahead = vec![Fetch::Row(Table::DeadDeliveries, keys::dead_delivery(id, sequence))];
        self.writing(async move {
            let client = inner.client_of(id).await.map_err(|e| CommitError::Unavailable(Arc::new(e)))?;
            let Some(client) = client else { return Ok(Written::durably(false)) };
            let given_up = inner.write_shard(client, ahead, |w| rows::give_up_delivery(w, id, sequence));
            given_up.await.map(Written::durably)
        })
    }

    fn purge_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        let inner = Arc::clone(&self.inner);
        self.writing(async move { inner.purge_endpoint(client, id, limit).await })
    }

    fn damaged_endpoints(&self) -> BoxFuture<Result<Vec<(EndpointId, String)>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move {
            let mut found = Vec::new();
            for shard in (0..SHARDS).map(Slot::Shard) {
                found
                    .extend(transact::read(&inner.reads, shard, vec![all()], rows::damaged_endpoints).await?);
            }
            Ok(found)
        })
    }

    fn delivery_rows(&self, after: Option<EndpointId>) -> BoxFuture<Result<Option<DeliveryRows>, ReadError>> {
        let inner = Arc::clone(&self.inner);
        self.reading(async move { inner.delivery_rows(after).await })
    }
}
