//! The desk of `wavegate wms`: answers calls from the books, or has the floor decide and writes it
//! down first. The floor is the very simulation that runs inside the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use wavegate_engine::domain::fact::LineUnits;
use wavegate_engine::domain::ids::{LineNo, ReleaseId, TransactionId};
use wavegate_engine::ports::clock::{Clock, SystemClock};
use wavegate_engine::ports::wms::{CancelReply, Taken as Decision, WaveAnswer};
use wavegate_engine::wire::time::WireTime;
use wavegate_engine::wire::wms::{
    CancellationMessage, CancellationResult, ManifestMessage, ReleaseStateMessage, Taken, WaveMessage,
    WaveResult,
};
use wavegate_engine::wms::simulated::Simulated;

use super::books::{Books, Trail};
use super::ledger::{Durable, Entry, Ledger};

/// The books and the file that keeps them.
pub(super) struct Records {
    books: Mutex<Books>,
    ledger: Ledger,
}

impl Records {
    pub(super) fn new(ledger: Ledger, books: Books) -> Self {
        Records { books: Mutex::new(books), ledger }
    }

    /// Looks something up.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.books.lock())
    }

    /// Decides by the books and writes down what was decided, in the order of the decisions.
    /// Whoever acts on the decision waits until it is durable, also when there was nothing new to
    /// write: what it rests on may still be on its way to the disk.
    pub(super) fn write<T>(&self, decide: impl FnOnce(&Books, &mut Vec<Entry>) -> T) -> (T, Durable) {
        let mut books = self.books.lock();
        let mut entries = Vec::new();
        let decided = decide(&books, &mut entries);
        entries.iter().for_each(|entry| books.apply(entry));
        (decided, self.ledger.append(&entries))
    }
}

/// See the module's description.
pub(super) struct Desk {
    pub(super) warehouse: String,
    pub(super) records: Arc<Records>,
    pub(super) floor: Simulated,
}

/// A call that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is wrong and stays so.
    Wrong(String),
    /// It went to the wrong door. Not the orders' fault, so they must not be rejected for it.
    Misdirected(String),
}

/// How one wave went, for the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WaveCounts {
    pub(super) taken: usize,
    pub(super) rejected: usize,
    pub(super) forgotten: usize,
    /// Answered as before.
    pub(super) known: usize,
}

impl Desk {
    /// Hears a call about `id`, or not; how long to wait with the answer.
    pub(super) async fn hear(&self, id: &str) -> Result<Duration, Refusal> {
        // A cancellation is about an order, whose id its release's begins with.
        let id = id.split('.').next().unwrap_or(id);
        let id = id.parse::<TransactionId>().map_err(|e| Refusal::Wrong(format!("{id:?}: {e}")))?;
        Ok(self.floor.hear(id).await)
    }

    /// Takes a wave; a release that is known is answered as before and not worked again.
    pub(super) async fn wave(&self, wave: &WaveMessage) -> Result<(Vec<WaveResult>, WaveCounts), Refusal> {
        if wave.warehouse != self.warehouse {
            let found = format!("this is warehouse {}, the wave is for {}", self.warehouse, wave.warehouse);
            return Err(Refusal::Misdirected(found));
        }
        let mut orders = Vec::with_capacity(wave.orders.len());
        for order in &wave.orders {
            let release = order.release_id.parse::<ReleaseId>();
            let release = release.map_err(|e| Refusal::Wrong(format!("{:?}: {e}", order.release_id)))?;
            orders.push((release, order.lines.iter().map(|l| (l.line, l.quantity)).collect::<LineUnits>()));
        }
        let (answer, durable) =
            self.records.write(|books, entries| self.decide(wave, orders, books, entries));
        durable.wait().await;
        answer
    }

    fn decide(
        &self,
        wave: &WaveMessage,
        mut orders: Vec<(ReleaseId, LineUnits)>,
        books: &Books,
        entries: &mut Vec<Entry>,
    ) -> Result<(Vec<WaveResult>, WaveCounts), Refusal> {
        let mut seen = BTreeSet::new();
        orders.retain(|(release, _)| books.answer(&release.to_string()).is_none() && seen.insert(*release));
        // The floor begins when the wave arrives: one that was long on its way is not worked in the
        // past. The ledger keeps the time, so the floor does the same after a restart.
        let at = now();
        let decisions = match self.floor.take(at.0, &orders) {
            WaveAnswer::Decided(decisions) => decisions,
            WaveAnswer::Refused => return Err(Refusal::Wrong("an order in it cannot be worked".to_owned())),
        };
        let mut counts = WaveCounts { known: wave.orders.len() - decisions.len(), ..WaveCounts::default() };
        let mut fresh = BTreeMap::new();
        for (release, decision) in decisions {
            let release_id = release.to_string();
            let Some(order) = wave.orders.iter().find(|o| o.release_id == release_id) else { continue };
            let wave_id = wave.wave_id.clone();
            fresh.insert(release_id.clone(), decision.clone());
            entries.push(match decision {
                Decision::Taken if self.floor.forgets(release, at.0) => {
                    counts.forgotten += 1;
                    Entry::Forgotten { at, wave_id, release_id }
                }
                Decision::Taken => {
                    counts.taken += 1;
                    Entry::Taken { at, wave_id, release: Box::new(order.into()) }
                }
                Decision::Rejected { code } => {
                    counts.rejected += 1;
                    Entry::Rejected { at, wave_id, release_id, code }
                }
            });
        }
        let results = wave.orders.iter().map(|order| {
            let rejected = match (books.answer(&order.release_id), fresh.get(&order.release_id)) {
                (Some(before), _) => before.err(),
                (None, Some(Decision::Rejected { code })) => Some(code.clone()),
                (None, Some(Decision::Taken) | None) => None,
            };
            let result = if rejected.is_some() { Taken::Rejected } else { Taken::Taken };
            WaveResult { release_id: order.release_id.clone(), result, code: rejected }
        });
        Ok((results.collect(), counts))
    }

    /// Decides a cancellation, or answers it as before; true when it was known.
    pub(super) async fn cancel(
        &self,
        message: &CancellationMessage,
    ) -> Result<(CancellationResult, bool), Refusal> {
        let release = message.release_id.parse::<ReleaseId>();
        let release = release.map_err(|e| Refusal::Wrong(format!("{:?}: {e}", message.release_id)))?;
        // The same lines in another order are the same question.
        let lines: Option<Vec<LineNo>> =
            message.lines.as_ref().map(|l| l.iter().copied().collect::<BTreeSet<_>>().into_iter().collect());
        let (answer, durable) = self.records.write(|books, entries| {
            if let Some(before) = books.cancellation(&message.release_id, &lines) {
                return (before, true);
            }
            let result = match self.floor.stop(release, lines.clone()) {
                CancelReply::Cancelled => CancellationResult::Cancelled,
                CancelReply::TooLate => CancellationResult::TooLate,
                CancelReply::Pending => CancellationResult::Pending,
            };
            let release_id = message.release_id.clone();
            entries.push(Entry::Cancellation { at: now(), release_id, lines, result });
            (result, false)
        });
        durable.wait().await;
        Ok(answer)
    }

    /// Loads a truck, once; true when it was loaded before.
    pub(super) async fn manifest(&self, message: &ManifestMessage, trail: &Trail) -> Result<bool, Refusal> {
        let manifest = message.manifest_id.parse::<TransactionId>();
        let manifest = manifest.map_err(|e| Refusal::Wrong(format!("{:?}: {e}", message.manifest_id)))?;
        let (known, durable) = self.records.write(|books, entries| {
            if books.is_loaded(&message.manifest_id) {
                return true;
            }
            let at = now();
            entries.push(Entry::Loaded {
                at,
                manifest_id: message.manifest_id.clone(),
                carrier: message.carrier.clone(),
                service_level: message.service_level.clone(),
                correlation_id: trail.correlation_id.clone(),
                traceparent: trail.traceparent.clone(),
                contents: message.contents.clone(),
            });
            self.floor.load(manifest, at.0);
            false
        });
        durable.wait().await;
        Ok(known)
    }

    /// What is known of a release, once that is durable.
    pub(super) async fn release(&self, release_id: &str) -> ReleaseStateMessage {
        let (state, durable) = self.records.write(|books, _| books.state(release_id));
        durable.wait().await;
        state
    }
}

/// The time, as it stands in the ledger.
pub(super) fn now() -> WireTime {
    WireTime(SystemClock.now())
}
