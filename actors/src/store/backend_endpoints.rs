//! From a backend that holds ordered rows to the [`EndpointStore`] that actors see, as
//! [`super::backend`] for the rest of the store.

use super::backend::{Backend, Reader, flat};
use super::rows;
use crate::domain::endpoint::EndpointId;
use crate::domain::ids::ClientNo;
use crate::ports::BoxFuture;
use crate::ports::endpoints::{
    Attempt, Changed, DeadDelivery, Deliveries, DeliveryRecord, DeliveryRows, EndpointChange, EndpointStore,
    Replay, StoredEndpoint,
};
use crate::ports::store::{CommitError, ReadError, Written};

impl<B: Backend> EndpointStore for B {
    fn create_endpoint(
        &self,
        endpoint: StoredEndpoint,
        max: usize,
    ) -> BoxFuture<Result<Written<Option<StoredEndpoint>>, CommitError>> {
        flat(self.write(1, move |w| rows::create_endpoint(w, &endpoint, max)))
    }

    fn change_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> BoxFuture<Result<Written<Changed>, CommitError>> {
        flat(self.write(1, move |w| rows::change_endpoint(w, client, id, &change)))
    }

    fn endpoints(&self) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>> {
        self.read_apart(Reader::Owner, rows::endpoints)
    }

    fn endpoints_of(&self, client: ClientNo) -> BoxFuture<Result<Vec<StoredEndpoint>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::endpoints_of(r, client))
    }

    fn endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<StoredEndpoint>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::endpoint(r, client, id))
    }

    fn take_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Written<u64>, CommitError>> {
        flat(self.write(1, move |w| rows::take_endpoint(w, client, id)))
    }

    fn deliveries(
        &self,
        client: ClientNo,
        id: EndpointId,
    ) -> BoxFuture<Result<Option<Deliveries>, ReadError>> {
        self.read_apart(Reader::Owner, move |r| rows::deliveries(r, client, id))
    }

    fn record(
        &self,
        client: ClientNo,
        id: EndpointId,
        record: DeliveryRecord,
    ) -> BoxFuture<Result<(), CommitError>> {
        let items = 1 + record.pending.len() + record.attempts.len() + record.dead.len();
        let write = self.write(items, move |w| rows::record(w, client, id, &record));
        Box::pin(async move { write.await.flatten() })
    }

    fn replays(&self, id: EndpointId) -> BoxFuture<Result<Vec<Replay>, ReadError>> {
        self.read_apart(Reader::Owner, move |r| rows::replays(r, id))
    }

    fn attempts(&self, id: EndpointId) -> BoxFuture<Result<Vec<(u64, Attempt)>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::attempts(r, id))
    }

    fn dead_deliveries(
        &self,
        after: Option<(EndpointId, u64)>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DeadDelivery>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::dead_deliveries(r, after, limit))
    }

    fn dead_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Option<DeadDelivery>, ReadError>> {
        self.read_apart(Reader::Caller, move |r| rows::dead_delivery(r, id, sequence))
    }

    fn give_up_delivery(
        &self,
        id: EndpointId,
        sequence: u64,
    ) -> BoxFuture<Result<Written<bool>, CommitError>> {
        let write = self.write(1, move |w| rows::give_up_delivery(w, id, sequence));
        Box::pin(async move { write.await.map(Written::durably) })
    }

    fn purge_endpoint(
        &self,
        client: ClientNo,
        id: EndpointId,
        limit: usize,
    ) -> BoxFuture<Result<usize, CommitError>> {
        self.write(limit, move |w| rows::purge_endpoint(w, client, id, limit))
    }

    fn damaged_endpoints(&self) -> BoxFuture<Result<Vec<(EndpointId, String)>, ReadError>> {
        self.read_apart(Reader::Owner, rows::damaged_endpoints)
    }

    fn delivery_rows(&self, after: Option<EndpointId>) -> BoxFuture<Result<Option<DeliveryRows>, ReadError>> {
        self.read_apart(Reader::Owner, move |r| rows::delivery_rows(r, after))
    }
}
