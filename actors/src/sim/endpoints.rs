//! Webhook endpoints in the seeded world: the failing store hands them through with its delays and
//! refusals.

use super::store::FaultyStore;
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::ClientNo;
use crate::ports::BoxFuture;
use crate::ports::endpoints::{
    Attempt, Changed, DeadDelivery, Deliveries, DeliveryRecord, DeliveryRows, EndpointChange, EndpointStore,
    Replay, StoredEndpoint,
};
use crate::ports::store::{CommitError, ReadError, Written};

use super::disk::at_once;
use super::inbox::feed_end;
use super::{Planted, World};

impl World {
    fn create_endpoint(
        &self,
        endpoint: StoredEndpoint,
        max: usize,
    ) -> Result<Option<StoredEndpoint>, CommitError> {
        let made = at_once(self.disk.create_endpoint(endpoint, max))?.reply;
        if let Some(made) = &made {
            self.receivers.created(self, made);
        }
        Ok(made)
    }

    fn change_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Changed, CommitError> {
        let became = at_once(self.disk.change_endpoint(client, id, change.clone()))?.reply;
        self.receivers.changed(self, id, &change, &became);
        Ok(became)
    }

    fn record(
        &self,
        client: ClientNo,
        id: EndpointId,
        mut record: DeliveryRecord,
    ) -> Result<(), CommitError> {
        if self.plants(Planted::CursorAhead, 300) {
            record.pending.clear();
        }
        if self.plants(Planted::DoneBeforeSent, 300) {
            record.cursor = feed_end(self, client);
        }
        at_once(self.disk.record(client, id, record.clone()))?;
        if let Some((_, at)) = record.disabled {
            self.observer.noticed(self, client, at);
        }
        self.receivers.recorded(self, id, &record);
        Ok(())
    }
}

impl EndpointStore for FaultyStore {
    fn create_endpoint(
        &self,
        endpoint: StoredEndpoint,
        max: usize,
    ) -> BoxFuture<Result<Written<Option<StoredEndpoint>>, CommitError>> {
        self.write(move |w| w.create_endpoint(endpoint, max))
    }

    fn change_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> BoxFuture<Result<Written<Changed>, CommitError>> {
        self.write(move |w| w.change_endpoint(client, id, change))
    }

    fn endpoints(&self) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>> {
        self.read(|w| w.disk.endpoints())
    }

    fn endpoints_of(&self, client: ClientNo) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>> {
        self.read(move |w| w.disk.endpoints_of(client))
    }

    fn endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<StoredEndpoint>, ReadError>> {
        self.read(move |w| w.disk.endpoint(client, id))
    }

    fn take_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Written<u64>, CommitError>> {
        self.write(move |w| at_once(w.disk.take_endpoint(client, id)).map(|written| written.reply))
    }

    fn deliveries(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<Deliveries>, ReadError>> {
        self.read(move |w| w.disk.deliveries(client, id))
    }

    fn record(
        &self,
        client: ClientNo,
        id: EndpointId,
        record: DeliveryRecord,
    ) -> BoxFuture<Result<(), CommitError>> {
        let write = self.write(move |w| w.record(client, id, record));
        Box::pin(async move { write.await?.wait().await })
    }

    fn replays(&self, id: EndpointId) -> BoxFuture<Result<Vec<Replay>, ReadError>> {
        self.read(move |w| w.disk.replays(id))
    }

    fn attempts(&self, id: EndpointId) -> BoxFuture<Result<Vec<(u64, Attempt)>, ReadError>> {
        self.read(move |w| w.disk.attempts(id))
    }

    fn dead_deliveries(
        &self,
        after: Option<(EndpointId, u64)>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DeadDelivery>, ReadError>> {
        self.read(move |w| w.disk.dead_deliveries(after, limit))
    }

    fn dead_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Option<DeadDelivery>, ReadError>> {
        self.read(move |w| w.disk.dead_delivery(id, sequence))
    }

    fn give_up_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Written<bool>, CommitError>> {
        self.write(move |w| at_once(w.disk.give_up_delivery(id, sequence)).map(|written| written.reply))
    }

    fn damaged_endpoints(&self) -> BoxFuture<Result<Vec<(EndpointId, String)>, ReadError>> {
        self.read(move |w| w.disk.damaged_endpoints())
    }

    fn delivery_rows(&self, after: Option<EndpointId>) -> BoxFuture<Result<Option<DeliveryRows>, ReadError>> {
        self.read(move |w| w.disk.delivery_rows(after))
    }

    fn purge_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        let write = self.write(move |w| at_once(w.disk.purge_endpoint(client, id, limit)));
        Box::pin(async move { write.await?.wait().await })
    }
}
