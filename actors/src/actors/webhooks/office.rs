//! What clients and operators ask of webhook endpoints. Every wish is durable before it is answered;
//! the actors are only told to look.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Message;
use super::endpoint::Ping;
use crate::actors::gate::AskError;
use crate::actors::site::Node;
use crate::domain::endpoint::{EndpointId, EndpointSettings, Secret, Secrets};
use crate::domain::ids::{ClientNo, CorrelationId, PartitionId, TraceContext, TransactionId};
use crate::domain::spread::Charge;
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{Changed, EndpointChange, Replay, Standing, StoredEndpoint, Which};
use crate::ports::membership::Word;
use crate::ports::store::{CommitError, ReadError};
use crate::wire::endpoints::ping;

/// Endpoints of one client: shops have a few, and each is an actor.
const ENDPOINTS_MAX: usize = 50;
/// Changes of one endpoint that met another change this often are given up.
const TRIES_MAX: usize = 8;
/// A node that has not answered by then is asked again by whoever wishes something of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Why a wish is not granted.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    /// There is no such endpoint.
    #[error("there is no such endpoint")]
    Absent,
    /// Its address is not one of the public internet.
    #[error("deliveries may not go to this address")]
    AddressForbidden,
    /// The client has as many endpoints as it may.
    #[error("a client may have {ENDPOINTS_MAX} endpoints")]
    TooMany,
    /// It has as many replays waiting as it may.
    #[error("as many replays wait as may")]
    ReplaysFull,
    /// It is disabled.
    #[error("the endpoint is disabled; enable it first")]
    Disabled,
    /// Too much is asked of it at once.
    #[error("too much is asked of the endpoint at once")]
    Busy,
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not known to be durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// An endpoint to be made.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Whose feed it gets.
    pub client: ClientNo,
    /// What its client asks for.
    pub settings: EndpointSettings,
}

/// The door to webhook endpoints; for reads see the store.
#[derive(Clone)]
pub struct Office(Arc<Node>);

impl Office {
    pub(crate) fn new(node: Arc<Node>) -> Office {
        Office(node)
    }

    /// Makes an endpoint, enabled; it gets what happens from here on.
    ///
    /// # Errors
    /// When its address is forbidden, its client has too many, or it is not known to be durable.
    pub async fn create(&self, new: NewEndpoint) -> Result<StoredEndpoint, OfficeError> {
        let node = &self.0;
        self.judge(&new.settings.url).await?;
        let now = node.now();
        let endpoint = StoredEndpoint {
            id: EndpointId::new(now, node.entropy.next()),
            client: new.client,
            settings: new.settings,
            secrets: Secrets::new(self.secret()),
            standing: Standing::Enabled,
            created_at: now,
            revision: 1,
        };
        let made = node.store.create_endpoint(endpoint, ENDPOINTS_MAX).await?.wait().await?;
        let made = made.ok_or(OfficeError::TooMany)?;
        node.endpoints_changed();
        Ok(made)
    }

    async fn judge(&self, url: &str) -> Result<(), OfficeError> {
        let judged = self.0.hooks.courier.judge(url.to_owned()).await;
        judged.map_err(|_| OfficeError::AddressForbidden)
    }

    fn secret(&self) -> Secret {
        Secret::random(std::array::from_fn(|_| self.0.entropy.next()))
    }

    /// Changes an endpoint's settings by `patch`, which may be called again on newer ones.
    ///
    /// # Errors
    /// When there is none, its new address is forbidden, or the change is not known to be durable.
    pub async fn patch(
        &self,
        client: ClientNo,
        id: EndpointId,
        patch: impl Fn(&mut EndpointSettings),
    ) -> Result<StoredEndpoint, OfficeError> {
        for _ in 0..TRIES_MAX {
            let endpoint = self.0.store.endpoint(client, id).await?.ok_or(OfficeError::Absent)?;
            let mut settings = endpoint.settings.clone();
            patch(&mut settings);
            if settings.url != endpoint.settings.url {
                self.judge(&settings.url).await?;
            }
            let change = EndpointChange::Settings { settings, revision: endpoint.revision };
            match self.change(client, id, change).await {
                Ok(None) => {}
                Ok(Some(endpoint)) => return Ok(endpoint),
                Err(why) => return Err(why),
            }
        }
        Err(OfficeError::Busy)
    }

    /// `None` when the endpoint is of another revision by now.
    async fn change(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Option<StoredEndpoint>, OfficeError> {
        let changed = self.0.store.change_endpoint(client, id, change).await?.wait().await?;
        self.0.endpoints_changed();
        match changed {
            Changed::To(endpoint) => Ok(Some(*endpoint)),
            Changed::Moved => Ok(None),
            Changed::Absent => Err(OfficeError::Absent),
            Changed::TooMany => Err(OfficeError::ReplaysFull),
            Changed::Disabled => Err(OfficeError::Disabled),
        }
    }

    async fn change_any(
        &self,
        client: ClientNo,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<StoredEndpoint, OfficeError> {
        self.change(client, id, change).await?.ok_or(OfficeError::Busy)
    }

    /// Gives an endpoint a new secret; the one before it signs too for `grace`. Answers the endpoint
    /// and when the old secret ends.
    ///
    /// # Errors
    /// When there is none, or the change is not known to be durable.
    pub async fn rotate(
        &self,
        client: ClientNo,
        id: EndpointId,
        grace: Duration,
    ) -> Result<(StoredEndpoint, Timestamp), OfficeError> {
        let now = self.0.now();
        let until = now.after(grace);
        let change = EndpointChange::Rotate { next: self.secret(), until, now };
        Ok((self.change_any(client, id, change).await?, until))
    }

    /// Has deliveries go on.
    ///
    /// # Errors
    /// When there is none, or the change is not known to be durable.
    pub async fn enable(&self, client: ClientNo, id: EndpointId) -> Result<StoredEndpoint, OfficeError> {
        self.change_any(client, id, EndpointChange::Enable { now: self.0.now() }).await
    }

    /// Deletes an endpoint, and with it what was to be delivered.
    ///
    /// # Errors
    /// When there is none, or the change is not known to be durable.
    pub async fn delete(&self, client: ClientNo, id: EndpointId) -> Result<(), OfficeError> {
        self.change_any(client, id, EndpointChange::Delete).await.map(|_| ())
    }

    /// Has the events of a time delivered again, of these types, or of the endpoint's own.
    ///
    /// # Errors
    /// When there is no such endpoint, it is disabled, or the wish is not known to be durable.
    pub async fn replay(
        &self,
        client: ClientNo,
        id: EndpointId,
        (since, until): (Timestamp, Timestamp),
        types: Vec<String>,
    ) -> Result<(), OfficeError> {
        self.wish(client, id, Which::Span { since, until, types }).await
    }

    /// Has a delivery that is kept aside tried again.
    ///
    /// # Errors
    /// When there is none, its endpoint is disabled, or the wish is not known to be durable.
    pub async fn redrive(&self, id: EndpointId, sequence: u64) -> Result<(), OfficeError> {
        let dead = self.0.store.dead_delivery(id, sequence).await?.ok_or(OfficeError::Absent)?;
        self.wish(dead.client, id, Which::One(sequence)).await
    }

    async fn wish(&self, client: ClientNo, id: EndpointId, which: Which) -> Result<(), OfficeError> {
        let own = TransactionId::new(self.0.now(), PartitionId(0), self.0.entropy.next()).0;
        let change = EndpointChange::Replay(Replay { id: own, which, cursor: 0 });
        self.change_any(client, id, change).await.map(|_| ())
    }

    /// Gives up a delivery that is kept aside.
    ///
    /// # Errors
    /// When there is none, or its end is not known to be durable.
    pub async fn give_up(&self, id: EndpointId, sequence: u64) -> Result<(), OfficeError> {
        let given_up = self.0.store.give_up_delivery(id, sequence).await?.wait().await?;
        if given_up { Ok(()) } else { Err(OfficeError::Absent) }
    }

    /// Has a test event posted once, now, whatever is due; its attempt is in the log.
    ///
    /// # Errors
    /// When there is no such endpoint, it is disabled, or too many pings wait.
    pub async fn ping(
        &self,
        client: ClientNo,
        id: EndpointId,
        correlation: &CorrelationId,
        trace: &TraceContext,
    ) -> Result<(), OfficeError> {
        let node = &self.0;
        let endpoint = node.store.endpoint(client, id).await?.ok_or(OfficeError::Absent)?;
        if endpoint.standing != Standing::Enabled {
            return Err(OfficeError::Disabled);
        }
        if node.ownership.is_elsewhere(Charge::endpoints_of(client)) {
            return self.ping_there(id, correlation, trace).await;
        }
        ping_here(node, id, correlation, trace).await
    }

    /// Has the node do it that has the endpoint's actor.
    async fn ping_there(
        &self,
        endpoint: EndpointId,
        correlation: &CorrelationId,
        trace: &TraceContext,
    ) -> Result<(), OfficeError> {
        let wish = self.0.entropy.next();
        let (correlation, traceparent) = (correlation.to_string(), trace.traceparent());
        let answered = self.0.ownership.wish(wish, Word::Ping { endpoint, wish, correlation, traceparent });
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false) | Err(_)) | Err(_) => Err(OfficeError::Busy),
        }
    }
}

/// Posts a test event by the endpoint's actor on this node.
///
/// # Errors
/// When there is none now, or too many pings wait.
pub(crate) async fn ping_here(
    node: &Node,
    id: EndpointId,
    correlation: &CorrelationId,
    trace: &TraceContext,
) -> Result<(), OfficeError> {
    // Between a start and another an endpoint has no door.
    let door = node.hooks.known(id).and_then(|hook| hook.door()).ok_or(OfficeError::Busy)?;
    let own = format!("{id}.ping.{:016x}", node.entropy.next());
    let message = Message {
        body: ping(&own, id, node.now(), correlation, trace).into(),
        id: own,
        event_type: "wavegate.endpoint.ping".to_owned(),
        transaction: None,
        correlation: correlation.to_string(),
        trace: Some(trace.clone()),
    };
    match door.ask(Ping(Box::new(message))).await {
        Ok(()) => Ok(()),
        Err(AskError::Refused | AskError::Gone) => Err(OfficeError::Busy),
    }
}
