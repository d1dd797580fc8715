//! Webhook endpoints in the seeded world: the failing store hands them through with its delays and
//! refusals.

use super::store::FaultyStore;
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::ClientNo;
use crate::ports::BoxFuture;
use crate::ports::endpoints::{
    Attempt, Changed, DeadDelivery, Deliveries, DeliveryRecord, EndpointChange, EndpointStore, Replay,
    StoredEndpoint,
};
use crate::ports::store::{CommitError, ReadError, Written};

use super::disk::at_once;

impl EndpointStore for FaultyStore {
    fn create_endpoint(
        &self,
        endpoint: StoredEndpoint,
        max: usize,
    ) -> BoxFuture<Result<Written<Option<StoredEndpoint>>, CommitError>> {
        self.write(move |w| at_once(w.disk.create_endpoint(endpoint, max)).map(|written| written.reply))
    }

    fn change_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> BoxFuture<Result<Written<Changed>, CommitError>> {
        self.write(move |w| at_once(w.disk.change_endpoint(client, id, change)).map(|written| written.reply))
    }

    fn endpoints(&self) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>> {
        // Asked at every start and now and then; no world has one yet.
        self.world.disk.endpoints()
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
        let write = self.write(move |w| at_once(w.disk.record(client, id, record)));
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
