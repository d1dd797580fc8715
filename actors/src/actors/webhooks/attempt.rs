//! One attempt: from an event to what came of posting it. It decides nothing about the next one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::actors::events::{self, Event};
use crate::actors::site::Node;
use crate::domain::endpoint::{ContentType, EndpointId, Include};
use crate::domain::ids::{TraceContext, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{Attempt, AttemptOutcome, StoredEndpoint};
use crate::ports::store::{FeedEntry, Points, ReadError};
use crate::ports::webhook::{Answer, Parcel, PostError};
use crate::wire::event;
use crate::wire::signature;

/// What is posted.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) event_type: String,
    pub(super) transaction: Option<TransactionId>,
    pub(super) correlation: String,
    /// Of the call that the event goes back to.
    pub(super) trace: Option<TraceContext>,
    pub(super) body: Bytes,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempted {
    pub(super) attempt: Attempt,
    pub(super) answer: Result<Answer, PostError>,
}

impl From<&Event> for Message {
    fn from(event: &Event) -> Message {
        Message {
            id: event.id.clone(),
            event_type: event.event_type.to_string(),
            // An event about an endpoint or a position has no transaction.
            transaction: (event.version > 0).then_some(event.transaction),
            correlation: event.correlation.to_string(),
            trace: event.traceparent.parse().ok(),
            body: event.body.clone(),
        }
    }
}

/// The message about an entry of the feed, with what the endpoint asks to see. `None`: it can never
/// be rendered.
pub(super) async fn message(
    node: &Node,
    endpoint: &StoredEndpoint,
    entry: FeedEntry,
) -> Result<Option<Message>, ReadError> {
    let Include { metadata, ship_to } = endpoint.settings.include;
    if (!metadata && !ship_to) || entry.points() == Points::Announcement {
        let event = events::event(node, endpoint.client, entry).await?;
        return Ok(event.map(|event| Message::from(&*event)));
    }
    let ship_to = match ship_to {
        true => match node.store.ship_to(entry.id).await {
            Ok(ship_to) => ship_to,
            // It would be as unreadable the next time.
            Err(ReadError::Corrupt { .. }) => return Ok(None),
            Err(e @ ReadError::Unavailable(_)) => return Err(e),
        },
        false => None,
    };
    let include = |_: &_| event::Include { metadata, ship_to };
    let event = events::event_with(node, endpoint.client, entry, include).await?;
    Ok(event.map(|event| Message::from(&event)))
}

/// Posts a message once; `attempt` counts from 1.
pub(super) async fn post(
    node: Arc<Node>,
    endpoint: Arc<StoredEndpoint>,
    message: Message,
    attempt: u16,
) -> Attempted {
    let at = node.now();
    let began = Instant::now();
    let parcel = parcel(&node, &endpoint, &message, at);
    let answer = node.hooks.courier.post(parcel).await;
    let took = began.elapsed();
    let outcome = outcome(&answer);
    node.hooks.attempted(outcome, took);
    let attempt = Attempt {
        webhook_id: message.id,
        event_type: message.event_type,
        transaction_id: message.transaction,
        attempt,
        at,
        status: answer.as_ref().ok().map(|answer| answer.status),
        duration_ms: milliseconds(took),
        outcome,
    };
    tell(endpoint.id, &attempt, &answer, &message.correlation, message.trace.as_ref());
    Attempted { attempt, answer }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn parcel(node: &Node, endpoint: &StoredEndpoint, message: &Message, at: Timestamp) -> Parcel {
    let seconds = at.0.div_euclid(1_000);
    let signatures: Vec<String> = endpoint
        .secrets
        .valid_at(at)
        .map(|secret| signature::sign(secret, &message.id, seconds, &message.body))
        .collect();
    let mut headers = vec![
        ("webhook-id", message.id.clone()),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", signatures.join(" ")),
        ("x-correlation-id", message.correlation.clone()),
    ];
    if let Some(trace) = &message.trace {
        // The attempt is a span of its own within the call's trace.
        let span = TraceContext { parent_id: node.entropy.next() | 1, ..trace.clone() };
        headers.push(("traceparent", span.traceparent()));
    }
    let content_type = match endpoint.settings.content_type {
        ContentType::Json => "application/json",
        ContentType::CloudEvents => "application/cloudevents+json",
    };
    Parcel { url: endpoint.settings.url.clone(), content_type, headers, body: message.body.clone() }
}

fn outcome(answer: &Result<Answer, PostError>) -> AttemptOutcome {
    match answer {
        Ok(Answer { status: 200..=299, .. }) => AttemptOutcome::Delivered,
        Ok(Answer { status: 300..=399, .. }) => AttemptOutcome::Redirected,
        Ok(_) => AttemptOutcome::Refused,
        Err(PostError::Forbidden) => AttemptOutcome::AddressForbidden,
        Err(PostError::Silent) => AttemptOutcome::TimedOut,
        Err(PostError::Unreachable(_)) => AttemptOutcome::Unreachable,
    }
}

/// One line for each attempt; the address stays out of it, for a client may have put a secret there.
fn tell(
    endpoint: EndpointId,
    attempt: &Attempt,
    answer: &Result<Answer, PostError>,
    correlation_id: &str,
    trace: Option<&TraceContext>,
) {
    let Attempt { webhook_id, event_type, attempt: n, status, duration_ms, outcome, .. } = attempt;
    let (trace_id, outcome) = (trace.map(TraceContext::trace_id_hex), outcome.as_str());
    match answer {
        Ok(Answer { status: 200..=299, .. }) => tracing::debug!(
            %endpoint, webhook_id, event_type, attempt = n, status, duration_ms, correlation_id, trace_id, outcome,
            "webhook attempt"
        ),
        Ok(_) => tracing::warn!(
            %endpoint, webhook_id, event_type, attempt = n, status, duration_ms, correlation_id, trace_id, outcome,
            "webhook attempt"
        ),
        Err(why) => tracing::warn!(
            %endpoint, webhook_id, event_type, attempt = n, duration_ms, correlation_id, trace_id, outcome, %why,
            "webhook attempt"
        ),
    }
}
