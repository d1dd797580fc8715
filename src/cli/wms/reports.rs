//! The way back: what the floor has done is written into the ledger, then reported to Wavegate in
//! batches until it answers 202.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use wavegate_engine::domain::confirmation::Confirmation;
use wavegate_engine::domain::ids::PartitionId;
use wavegate_engine::ports::BoxFuture;
use wavegate_engine::ports::wms::{ConfirmationSink, WmsError};
use wavegate_engine::wire::wms::ConfirmationMessage;

use super::books::Trail;
use super::desk::{Records, now};
use super::ledger::Entry;
use crate::cli::api::Api;
use crate::cli::with_causes;

/// The pause after the first report that was not taken; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause, whatever is asked for: Wavegate may be back, and orders wait.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Confirmations in one call, to begin with; halved when it is told that they are too large.
const BATCH_MAX: usize = 500;

/// Reports for one warehouse.
pub(super) struct Reports {
    path: String,
    api: Api,
    records: Arc<Records>,
}

impl Reports {
    pub(super) fn new(warehouse: &str, api: Api, records: Arc<Records>) -> Self {
        Reports { path: format!("/v1/warehouses/{warehouse}/confirmations"), api, records }
    }

    /// Reports until each is taken, and writes that down. Never gives up: what was done was done.
    pub(super) async fn send(&self, messages: &[ConfirmationMessage]) {
        let (mut left, mut max) = (messages, BATCH_MAX);
        let mut pause = PAUSE_FIRST;
        let mut attempts = 0_u32;
        while !left.is_empty() {
            let batch = &left[..left.len().min(max)];
            attempts += 1;
            let asked = match self.call(batch).await {
                Ok(()) => {
                    self.taken(batch, attempts);
                    left = &left[batch.len()..];
                    (pause, attempts) = (PAUSE_FIRST, 0);
                    continue;
                }
                Err(Untaken::TooLarge) if batch.len() > 1 => {
                    max = batch.len() / 2;
                    continue;
                }
                Err(Untaken::TooLarge) => {
                    tracing::error!(attempts, "a single report is too large for Wavegate");
                    None
                }
                Err(Untaken::Later { why, asked }) => {
                    tracing::warn!(reports = batch.len(), attempts, %why, "reports were not taken and are made again");
                    asked
                }
            };
            // Half to all of the pause, so that many warehouses do not come back together.
            let wait = asked.unwrap_or(pause).min(PAUSE_MAX).mul_f64(rand::rng().random_range(0.5..=1.0));
            tokio::time::sleep(asked.map_or(wait, |asked| wait.max(asked.min(PAUSE_MAX)))).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    async fn call(&self, batch: &[ConfirmationMessage]) -> Result<(), Untaken> {
        let later = |why: String| Untaken::Later { why, asked: None };
        let body = serde_json::to_string(batch).map_err(|e| later(e.to_string()))?;
        let Trail { correlation_id, traceparent } = self.trail(batch);
        let headers = [("x-correlation-id", correlation_id), ("traceparent", traceparent)];
        let answer =
            self.api.post_with(&self.path, body, &headers).await.map_err(|e| later(with_causes(&e)))?;
        match answer.status {
            202 => Ok(()),
            413 => Err(Untaken::TooLarge),
            status => Err(Untaken::Later {
                why: format!("{status}: {}", answer.problem()),
                asked: answer.retry_after,
            }),
        }
    }

    /// A batch about one order carries that order's trail; a mixed one has no single origin.
    fn trail(&self, batch: &[ConfirmationMessage]) -> Trail {
        self.records.read(|books| {
            let mut trails = batch.iter().map(|c| books.trail(c));
            let first = trails.next().unwrap_or_default();
            if trails.all(|t| t == first) { first } else { Trail::default() }
        })
    }

    fn taken(&self, batch: &[ConfirmationMessage], attempts: u32) {
        let confirmations = batch.iter().map(|c| c.confirmation_id.clone()).collect();
        // Not waited for: when this line is lost they are reported once more, which is harmless.
        let ((), _) =
            self.records.write(|_, entries| entries.push(Entry::Reported { at: now(), confirmations }));
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        batch.iter().for_each(|c| *kinds.entry(&c.kind).or_default() += 1);
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        let trail = self.trail(batch);
        tracing::info!(
            reports = batch.len(),
            kinds = kinds.join(", "),
            attempts,
            correlation_id = trail.correlation_id,
            traceparent = trail.traceparent,
            "reported"
        );
        if tracing::enabled!(tracing::Level::DEBUG) {
            for c in batch {
                let Trail { correlation_id, traceparent } = self.records.read(|books| books.trail(c));
                let (release_id, manifest_id) = (&c.release_id, &c.manifest_id);
                tracing::debug!(
                    kind = c.kind,
                    release_id,
                    manifest_id,
                    correlation_id,
                    traceparent,
                    "reported one"
                );
            }
        }
    }
}

enum Untaken {
    TooLarge,
    Later { why: String, asked: Option<Duration> },
}

/// The floor's sink: what it reports has been done, which is written down first.
pub(super) struct Post(pub(super) Arc<Reports>);

impl ConfirmationSink for Post {
    fn confirm(&self, _: PartitionId, reports: Vec<Confirmation>) -> BoxFuture<Result<(), WmsError>> {
        let to = self.0.clone();
        Box::pin(async move {
            let messages: Vec<ConfirmationMessage> = reports.iter().map(ConfirmationMessage::from).collect();
            let ((), durable) = to.records.write(|books, entries| {
                let mut seen = BTreeSet::new();
                for confirmation in &messages {
                    if books.is_done(confirmation) || !seen.insert(&confirmation.confirmation_id) {
                        continue;
                    }
                    let shipped = confirmation.manifest_id.as_ref().map(|id| books.cargo(id));
                    entries.push(Entry::Done {
                        confirmation: confirmation.clone(),
                        shipped: shipped.unwrap_or_default(),
                    });
                }
            });
            durable.wait().await;
            to.send(&messages).await;
            Ok(())
        })
    }
}
