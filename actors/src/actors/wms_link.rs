//! The link to one warehouse's WMS: plans waves, makes the calls that are owed, keeps the answers
//! for the next turn. It holds nothing that a restart could not find in the folds again.

use actix::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::gate::Gated;
use super::report::Observed;
use super::site::Site;
use super::tripwire::{Stop, Tripwire};
use crate::domain::ids::{LineNo, ReleaseId, TransactionId, WaveId};
use crate::domain::order::CancelQuestion;
use crate::ports::faults::FaultPoint;
use crate::ports::store::{ReadError, SharedStore};
use crate::ports::wms::{CancelReply, ManifestOut, ReleaseKnown, Wave, WaveAnswer, Wms, WmsError};

/// A WMS that has not answered by then is taken to be silent; the call is made again.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The pause after the first failed call; doubles up to [`PAUSE_MAX`], with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// A dead WMS is tried about twice a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Calls under way at a time: enough to hide a WMS's latency, few enough not to flood it.
const CALLS_MAX: usize = 4;

/// Takes the answers that came since the last turn.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Answer>")]
pub(crate) struct Collect;

/// Asks how the orders that could go are to go: first in rank first, as many as credits allow.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Vec<TransactionId>>")]
pub(crate) struct Plan(pub(crate) Vec<TransactionId>);

/// What is owed to the WMS. Idempotent: what is under way is not begun twice.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub(crate) struct Perform {
    pub(crate) waves: Vec<Wave>,
    pub(crate) questions: Vec<CancelQuestion>,
    pub(crate) manifests: Vec<ManifestOut>,
    /// Releases that have been silent for too long.
    pub(crate) silent: Vec<ReleaseId>,
    /// Waves that are not to be sent any more; one under way cannot be called back.
    pub(crate) dropped: Vec<WaveId>,
}

impl Perform {
    pub(crate) fn is_empty(&self) -> bool {
        let Perform { waves, questions, manifests, silent, dropped } = self;
        let nothing_to_ask = questions.is_empty() && silent.is_empty() && dropped.is_empty();
        nothing_to_ask && waves.is_empty() && manifests.is_empty()
    }
}

/// An answer of the WMS, or what kept it from being asked, that a turn must decide about.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Wave {
        wave: WaveId,
        answer: WaveAnswer,
    },
    Cancel {
        release: ReleaseId,
        request: TransactionId,
        reply: CancelReply,
    },
    Release {
        release: ReleaseId,
        known: ReleaseKnown,
    },
    /// Bytes of these orders, or of this manifest, are not what was written, and why: the WMS was not
    /// asked. The wave goes again without them.
    Unreadable {
        wave: Option<WaveId>,
        of: Vec<(TransactionId, String)>,
    },
}

/// One call to make until it is answered.
#[derive(Clone, Debug)]
enum Call {
    Wave(Wave),
    Cancel { release: ReleaseId, request: TransactionId, lines: Option<Vec<LineNo>> },
    Manifest(ManifestOut),
    Release(ReleaseId),
}

/// Names a call: calls of one name are one call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CallId {
    // Cancellations first: they race with the picker.
    Cancel(ReleaseId, TransactionId),
    Wave(WaveId),
    Manifest(TransactionId),
    Release(ReleaseId),
}

/// The actor.
pub(crate) struct WmsLink {
    site: Site,
    /// Calls to make, in order of their names.
    waiting: BTreeMap<CallId, Call>,
    under_way: BTreeMap<CallId, Call>,
    answers: Vec<Answer>,
    /// The call that failed since the last answer: the next attempt is another's.
    failed: Option<CallId>,
    failures: u32,
    paused: bool,
    _tripwire: Tripwire,
}

impl WmsLink {
    pub(crate) fn new(site: Site, tripwire: Tripwire) -> WmsLink {
        WmsLink {
            site,
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            answers: Vec::new(),
            failed: None,
            failures: 0,
            paused: false,
            _tripwire: tripwire,
        }
    }

    fn owe(&mut self, id: CallId, call: Call) {
        if !self.under_way.contains_key(&id) {
            self.waiting.insert(id, call);
        }
    }

    fn begin_calls(&mut self, ctx: &mut Context<Self>) {
        // While the WMS does not answer, one call at a time finds out whether it does again.
        let max = if self.failures > 0 { 1 } else { CALLS_MAX };
        while !self.paused && self.under_way.len() < max && !self.site.token.is_cancelled() {
            let Some((id, call)) = next(&mut self.waiting, self.failed.as_ref()) else { return };
            self.under_way.insert(id.clone(), call.clone());
            let work = make(self.site.wms.clone(), self.site.node.store.clone(), call);
            let answer = async move {
                tokio::time::timeout(ANSWER_WITHIN, work).await.unwrap_or(Err(WmsError::Silent))
            };
            ctx.spawn(answer.into_actor(self).map(move |answer, link, ctx| link.answered(id, answer, ctx)));
        }
    }

    fn answered(&mut self, id: CallId, answer: Result<Option<Answer>, WmsError>, ctx: &mut Context<Self>) {
        self.site.strike(FaultPoint::WmsLinkAnswered);
        let call = self.under_way.remove(&id);
        match answer {
            Ok(answer) => {
                // What cannot be read says nothing about the WMS.
                if !matches!(answer, Some(Answer::Unreadable { .. })) {
                    self.failures = 0;
                }
                if let Some(Answer::Cancel { reply: CancelReply::Pending, .. }) = answer {
                    self.wait_for_decision(id, call, ctx);
                }
                self.failed = None;
                if let Some(answer) = answer {
                    self.answers.push(answer);
                    self.site.desk.nudge();
                }
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(warehouse = %self.site.warehouse.code, call = ?id, %why, failures = self.failures, "a call to the WMS failed and will be made again");
                self.waiting.extend(call.map(|call| (id.clone(), call)));
                self.failed = Some(id);
                self.pause(ctx);
            }
        }
        self.begin_calls(ctx);
        self.show();
    }

    fn show(&self) {
        self.site.desk.vitals().wms_link.show(Observed::WmsLink {
            waiting: self.waiting.len(),
            under_way: self.under_way.len(),
            failures: self.failures,
            paused: self.paused,
        });
    }

    /// The WMS will decide a cancellation later and say so by the control lane. When it says nothing
    /// it is asked again: a repeated question is answered as since decided.
    fn wait_for_decision(&mut self, id: CallId, call: Option<Call>, ctx: &mut Context<Self>) {
        ctx.run_later(self.site.node.rules.wms_silent_after, move |link, ctx| {
            if let Some(call) = call {
                link.owe(id, call);
                link.begin_calls(ctx);
            }
        });
    }

    fn pause(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.paused, true) {
            return;
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.saturating_sub(1).min(10)).min(PAUSE_MAX);
        // Half to all of the pause, so that warehouses of one dead WMS do not come in step.
        let half = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX) / 2;
        let pause = Duration::from_millis(half + self.site.node.entropy.below(half + 1));
        ctx.run_later(pause, |link, ctx| {
            link.paused = false;
            link.begin_calls(ctx);
            link.show();
        });
    }
}

/// Takes the next call: the first, or the one behind what failed last, so that a call which always
/// fails does not hold up the others.
fn next<T>(waiting: &mut BTreeMap<CallId, T>, failed: Option<&CallId>) -> Option<(CallId, T)> {
    let behind = failed.and_then(|failed| {
        let mut others = waiting.range((Bound::Excluded(failed), Bound::Unbounded));
        others.next().map(|(id, _)| id.clone())
    });
    match behind {
        Some(id) => waiting.remove_entry(&id),
        None => waiting.pop_first(),
    }
}

/// Makes one call; an answer that decides nothing for a turn is `None`.
async fn make(
    wms: std::sync::Arc<dyn Wms>,
    store: SharedStore,
    call: Call,
) -> Result<Option<Answer>, WmsError> {
    match call {
        Call::Wave(mut wave) => {
            let mut unreadable = Vec::new();
            for order in &mut wave.orders {
                // A wave without addresses would be worked wrongly: it waits until the store has them.
                match readable(store.ship_to(order.release.order).await)? {
                    Ok(ship_to) => order.ship_to = ship_to,
                    Err(why) => unreadable.push((order.release.order, why)),
                }
            }
            if !unreadable.is_empty() {
                return Ok(Some(Answer::Unreadable { wave: Some(wave.id), of: unreadable }));
            }
            for order in &wave.orders {
                tracing::debug!(release = %order.release, correlation_id = %order.correlation, trace_id = order.trace.trace_id_hex(), "sent to the WMS");
            }
            let id = wave.id;
            Ok(Some(Answer::Wave { wave: id, answer: wms.wave(wave).await? }))
        }
        Call::Cancel { release, request, lines } => {
            let reply = wms.cancel(release, lines).await?;
            Ok(Some(Answer::Cancel { release, request, reply }))
        }
        Call::Manifest(mut manifest) => {
            // Not from the folds of its orders: one of them may be kept aside unread.
            match readable(store.cartons(manifest.id).await)? {
                Ok(cartons) => manifest.cartons = cartons,
                Err(why) => {
                    return Ok(Some(Answer::Unreadable { wave: None, of: vec![(manifest.id, why)] }));
                }
            }
            wms.manifest(manifest).await.map(|()| None)
        }
        Call::Release(release) => {
            Ok(wms.release(release).await?.map(|known| Answer::Release { release, known }))
        }
    }
}

/// What was read, or why its bytes never will be; a store that does not answer now is tried again.
fn readable<T>(read: Result<T, ReadError>) -> Result<Result<T, String>, WmsError> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(ReadError::Corrupt { what, source }) => Ok(Err(format!("{what}: {source}"))),
        Err(e @ ReadError::Unavailable(_)) => Err(WmsError::Unavailable(e.to_string())),
    }
}

impl Actor for WmsLink {
    type Context = Context<Self>;
}

impl Handler<Stop> for WmsLink {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Gated<Collect>> for WmsLink {
    type Result = MessageResult<Gated<Collect>>;

    fn handle(&mut self, _: Gated<Collect>, _: &mut Self::Context) -> Self::Result {
        let _handling = self.site.desk.vitals().wms_link.handle();
        self.site.strike(FaultPoint::WmsLinkCollects);
        self.show();
        MessageResult(std::mem::take(&mut self.answers))
    }
}

impl Handler<Gated<Plan>> for WmsLink {
    type Result = MessageResult<Gated<Plan>>;

    fn handle(&mut self, gated: Gated<Plan>, _: &mut Self::Context) -> Self::Result {
        let _handling = self.site.desk.vitals().wms_link.handle();
        self.site.strike(FaultPoint::WmsLink);
        let waves = gated.message.0.chunks(self.site.warehouse.wave_max.max(1)).map(<[_]>::to_vec).collect();
        MessageResult(waves)
    }
}

impl Handler<Gated<Perform>> for WmsLink {
    type Result = MessageResult<Gated<Perform>>;

    fn handle(&mut self, gated: Gated<Perform>, ctx: &mut Self::Context) -> Self::Result {
        let _handling = self.site.desk.vitals().wms_link.handle();
        self.site.strike(FaultPoint::WmsLinkPerforms);
        let Perform { waves, questions, manifests, silent, dropped } = gated.message;
        for wave in dropped {
            self.waiting.remove(&CallId::Wave(wave));
        }
        for wave in waves {
            self.owe(CallId::Wave(wave.id), Call::Wave(wave));
        }
        for CancelQuestion { request, release, lines } in questions {
            let lines = lines.map(|lines| lines.to_vec());
            self.owe(CallId::Cancel(release, request), Call::Cancel { release, request, lines });
        }
        for manifest in manifests {
            self.owe(CallId::Manifest(manifest.id), Call::Manifest(manifest));
        }
        for release in silent {
            self.owe(CallId::Release(release), Call::Release(release));
        }
        self.begin_calls(ctx);
        self.show();
        MessageResult(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PartitionId;
    use crate::domain::time::Timestamp;

    #[test]
    fn a_call_that_always_fails_does_not_hold_up_the_others() {
        let wave = |n| CallId::Wave(TransactionId::new(Timestamp(1), PartitionId(1), n));
        let mut waiting: BTreeMap<CallId, ()> = (1..=3).map(|n| (wave(n), ())).collect();
        let (mut failed, mut made) = (None, Vec::new());
        for _ in 0..5 {
            let Some((id, ())) = next(&mut waiting, failed.as_ref()) else { break };
            made.push(id.clone());
            if id == wave(1) {
                waiting.insert(id.clone(), ());
                failed = Some(id);
            } else {
                failed = None;
            }
        }
        assert_eq!(made, [wave(1), wave(2), wave(1), wave(3), wave(1)]);
    }
}
