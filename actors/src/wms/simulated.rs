//! A simulated WMS: picks, packs and ships after settable times, and fails at settable rates.
//!
//! What happens to a release, and when, is decided in `character.rs` from a seed
//! alone, so in the process it keeps nothing: after a restart the open releases are presented again
//! and the simulation goes on; what was booked already is a repeat. `wavegate wms` puts a ledger
//! and a wire around this same floor. It reports by the same door as any WMS.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::character::Plan;
use crate::domain::confirmation::{Confirmation, ReleaseReport, Report};
use crate::domain::fact::LineUnits;
use crate::domain::ids::{LineNo, PartitionId, ReleaseId, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::wms::{
    CancelReply, ManifestOut, Presented, ReleaseKnown, Sink, Taken, Wave, WaveAnswer, Wms, WmsError,
};

pub use super::character::Settings;

/// Reports sent in one call.
const REPORTS_MAX: usize = 500;
/// The pause after the control lane took no reports.
const PAUSE: Duration = Duration::from_millis(100);
/// Answers to cancellations that are remembered, for a caller whom none reached. The oldest go
/// first; those are long decided.
const ANSWERS_MAX: usize = 10_000;

/// The simulated WMS of one warehouse.
#[derive(Clone)]
pub struct Simulated(Arc<Floor>);

struct Floor {
    partition: PartitionId,
    settings: Settings,
    clock: Arc<dyn Clock>,
    sink: Sink,
    died: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Reports to make, by time, then in order of their making.
    agenda: BTreeMap<(Timestamp, u64), Confirmation>,
    working: BTreeMap<ReleaseId, Work>,
    /// Taken and told to forget.
    forgotten: BTreeSet<ReleaseId>,
    loading: BTreeSet<TransactionId>,
    /// What was answered: a repeated question gets the same answer.
    answers: BTreeMap<(ReleaseId, Option<Vec<LineNo>>), CancelReply>,
    /// Reports put on the agenda, reports made, calls heard.
    planned: u64,
    made: u64,
    calls: u64,
    running: bool,
}

/// A release on the floor.
struct Work {
    released_at: Timestamp,
    /// It can be cancelled until then.
    picks: Timestamp,
    lines: LineUnits,
    known: LineUnits,
}

impl State {
    fn strike(&mut self, release: ReleaseId) -> Option<Work> {
        let of =
            |c: &Confirmation| matches!(&c.report, Report::Release { release: of, .. } if *of == release);
        self.agenda.retain(|_, confirmation| !of(confirmation));
        self.working.remove(&release)
    }

    /// Whether a cancellation has taken this line out of the release.
    fn is_cancelled(&self, release: ReleaseId, line: LineNo) -> bool {
        let asked = self.answers.range((release, None)..).take_while(|((of, _), _)| *of == release);
        asked
            .filter(|(_, reply)| **reply == CancelReply::Cancelled)
            .any(|((_, lines), _)| lines.as_ref().is_none_or(|lines| lines.contains(&line)))
    }
}

impl Simulated {
    /// The WMS of `partition`, reporting to `sink`.
    #[must_use]
    pub fn new(partition: PartitionId, settings: Settings, clock: Arc<dyn Clock>, sink: Sink) -> Simulated {
        let died = CancellationToken::new();
        Simulated(Arc::new(Floor { partition, settings, clock, sink, died, state: Mutex::default() }))
    }

    /// Cancelled when it has died of [`Settings::die_after`].
    #[must_use]
    pub fn died(&self) -> CancellationToken {
        self.0.died.clone()
    }

    /// Hears a call about `id` and says how long to wait with the answer. Does not resolve when
    /// it is deaf to the call, or dead.
    pub async fn hear(&self, id: TransactionId) -> Duration {
        let n = {
            let mut state = self.0.state.lock();
            state.calls += 1;
            state.calls
        };
        if !self.0.settings.hears(id, n) || self.0.died.is_cancelled() {
            std::future::pending::<()>().await;
        }
        self.0.settings.dawdles(id, n)
    }

    /// Takes the releases of a wave, or refuses it as a whole. One that is on the floor is not
    /// worked again. Must be called within a Tokio runtime.
    #[must_use]
    pub fn take(&self, released_at: Timestamp, orders: &[(ReleaseId, LineUnits)]) -> WaveAnswer {
        let floor = &self.0;
        if orders.iter().any(|(release, _)| floor.settings.refuses_wave_of(*release)) {
            return WaveAnswer::Refused;
        }
        let mut results = Vec::with_capacity(orders.len());
        let mut state = floor.state.lock();
        for (release, lines) in orders {
            if floor.settings.rejects(*release) {
                results.push((*release, Taken::Rejected { code: "simulated".to_owned() }));
                continue;
            }
            floor.work(&mut state, *release, released_at, lines.clone(), LineUnits::new());
            results.push((*release, Taken::Taken));
        }
        floor.wake(&mut state);
        WaveAnswer::Decided(results)
    }

    /// Whether it forgets a release that it took with the wave of this time.
    #[must_use]
    pub fn forgets(&self, release: ReleaseId, released_at: Timestamp) -> bool {
        self.0.settings.forgets(release, released_at)
    }

    /// Cancels a release, or some of its lines, while its pick has not begun.
    #[must_use]
    pub fn stop(&self, release: ReleaseId, lines: Option<Vec<LineNo>>) -> CancelReply {
        let mut state = self.0.state.lock();
        let question = (release, lines);
        if let Some(reply) = state.answers.get(&question) {
            return *reply;
        }
        let now = self.0.clock.now();
        let begun = state.working.get(&release).is_none_or(|work| work.picks <= now);
        let reply = if begun { CancelReply::TooLate } else { CancelReply::Cancelled };
        if !begun && let Some(Work { released_at, lines, known, .. }) = state.strike(release) {
            let asked = |line: LineNo| question.1.as_ref().is_none_or(|asked| asked.contains(&line));
            let left = lines.into_iter().filter(|(line, _)| !asked(*line)).collect();
            self.0.work(&mut state, release, released_at, left, known);
            self.0.wake(&mut state);
        }
        state.answers.insert(question, reply);
        if state.answers.len() > ANSWERS_MAX {
            state.answers.pop_first();
        }
        reply
    }

    /// Loads a truck, once. Must be called within a Tokio runtime.
    pub fn load(&self, manifest: TransactionId, closed_at: Timestamp) {
        let floor = &self.0;
        let mut state = floor.state.lock();
        if state.loading.insert(manifest) {
            let at = closed_at.after(floor.settings.depart);
            let confirmation_id = format!("{manifest}.shipped");
            floor.enter(
                &mut state,
                Confirmation { confirmation_id, at, report: Report::Departed { manifest } },
                manifest,
            );
            floor.wake(&mut state);
        }
    }
}

impl Simulated {
    /// Goes on with the releases that were open and the trucks that were loaded before a start.
    /// Must be called within a Tokio runtime.
    pub fn resume(&self, releases: Vec<Presented>, loading: Vec<(TransactionId, Timestamp)>) {
        self.present(releases);
        for (manifest, loaded_at) in loading {
            self.load(manifest, loaded_at);
        }
    }
}

impl Floor {
    fn work(
        &self,
        state: &mut State,
        release: ReleaseId,
        released_at: Timestamp,
        mut lines: LineUnits,
        known: LineUnits,
    ) {
        lines.retain(|(line, _)| !state.is_cancelled(release, *line));
        if lines.is_empty() || state.working.contains_key(&release) {
            return;
        }
        if self.settings.forgets(release, released_at) {
            state.forgotten.insert(release);
            return;
        }
        state.forgotten.remove(&release);
        let Plan { picks, packs, short, damaged, carton } =
            self.settings.plan(release, released_at, &lines, &known);
        state.working.insert(release, Work { released_at, picks, lines, known });
        self.report(state, picks, release, "picking", ReleaseReport::Picking);
        if !short.is_empty() {
            self.report(state, packs, release, "short_pick", ReleaseReport::ShortPick(short));
        }
        if !damaged.is_empty() {
            self.report(state, packs, release, "damaged", ReleaseReport::Damaged(damaged));
        }
        if let Some(carton) = carton {
            self.report(
                state,
                packs,
                release,
                "packed",
                ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton] },
            );
        }
    }

    /// A step is reported under one name however often: a repeat is seen to be one.
    fn report(&self, state: &mut State, at: Timestamp, release: ReleaseId, name: &str, step: ReleaseReport) {
        let confirmation_id = format!("{release}.{name}");
        let report = Report::Release { release, step };
        self.enter(state, Confirmation { confirmation_id, at, report }, release.order);
    }

    fn enter(&self, state: &mut State, confirmation: Confirmation, id: TransactionId) {
        state.planned += 1;
        let at = confirmation.at.after(self.settings.holds_back(id, state.planned));
        if self.settings.repeats(id, state.planned) {
            state.agenda.insert((at.after(PAUSE), state.planned), confirmation.clone());
            state.planned += 1;
        }
        state.agenda.insert((at, state.planned), confirmation);
    }

    /// Sees to it that somebody keeps the agenda.
    fn wake(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(keep_agenda(self.clone()));
        }
    }

    /// Reports that it makes at once: before its death no more than are left to it.
    fn reports_max(&self, made: u64) -> usize {
        match self.settings.die_after {
            0 => REPORTS_MAX,
            after => REPORTS_MAX.min(usize::try_from(after.saturating_sub(made)).unwrap_or(usize::MAX)),
        }
    }

    /// Takes what is due; `None` ends the keeper, for there is nothing left.
    fn due(&self) -> Option<(Vec<Confirmation>, Timestamp)> {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let max = self.reports_max(state.made);
        let mut due = Vec::new();
        while due.len() < max {
            match state.agenda.first_key_value() {
                Some((&(at, _), _)) if at <= now => due.extend(state.agenda.pop_first().map(|(_, c)| c)),
                Some(_) | None => break,
            }
        }
        let next = state.agenda.first_key_value().map(|(&(at, _), _)| at);
        if due.is_empty() && next.is_none() {
            state.running = false;
            return None;
        }
        Some((due, next.unwrap_or(now)))
    }

    /// What was reported to its end is no longer on the floor.
    fn reported(&self, reports: &[Confirmation]) {
        let mut state = self.state.lock();
        for report in reports {
            match &report.report {
                Report::Release { release, step } => {
                    if ends_work(step) {
                        state.working.remove(release);
                    }
                }
                Report::Departed { manifest } => {
                    state.loading.remove(manifest);
                }
            }
        }
        state.made += reports.len() as u64;
        if self.settings.die_after > 0 && state.made >= self.settings.die_after {
            tracing::warn!(reports = state.made, "the simulated WMS dies, as wms.die_after tells it to");
            self.died.cancel();
        }
    }
}

/// From packing on a release is done with, whatever is found missing in the same moment.
fn ends_work(step: &ReleaseReport) -> bool {
    match step {
        ReleaseReport::Packed { .. } | ReleaseReport::ShortPick(_) | ReleaseReport::Damaged(_) => true,
        ReleaseReport::Picking
        | ReleaseReport::Picked(_)
        | ReleaseReport::Rejected { .. }
        | ReleaseReport::Cancelled
        | ReleaseReport::CancelRefused
        | ReleaseReport::Shipped(_) => false,
    }
}

async fn keep_agenda(floor: Arc<Floor>) {
    while let Some((due, next)) = floor.due() {
        if due.is_empty() {
            let pause = next.since(floor.clock.now()).max(Duration::from_millis(1));
            tokio::time::sleep(pause).await;
            continue;
        }
        while let Err(why) = floor.sink.confirm(floor.partition, due.clone()).await {
            tracing::warn!(partition = floor.partition.0, %why, "reports were not taken and are made again");
            tokio::time::sleep(PAUSE).await;
        }
        floor.reported(&due);
        if floor.died.is_cancelled() {
            return;
        }
    }
}

impl Wms for Simulated {
    fn wave(&self, wave: Wave) -> BoxFuture<Result<WaveAnswer, WmsError>> {
        let wms = self.clone();
        Box::pin(async move {
            let late = wms.hear(wave.id).await;
            let units = |lines: &[(LineNo, _, u32)]| lines.iter().map(|(line, _, q)| (*line, *q)).collect();
            let orders: Vec<_> = wave.orders.iter().map(|o| (o.release, units(&o.lines))).collect();
            let answer = wms.take(wave.released_at, &orders);
            tokio::time::sleep(late).await;
            Ok(answer)
        })
    }

    fn cancel(
        &self,
        release: ReleaseId,
        lines: Option<Vec<LineNo>>,
    ) -> BoxFuture<Result<CancelReply, WmsError>> {
        let wms = self.clone();
        Box::pin(async move {
            let late = wms.hear(release.order).await;
            let reply = wms.stop(release, lines);
            tokio::time::sleep(late).await;
            Ok(reply)
        })
    }

    fn manifest(&self, manifest: ManifestOut) -> BoxFuture<Result<(), WmsError>> {
        let wms = self.clone();
        Box::pin(async move {
            let late = wms.hear(manifest.id).await;
            wms.load(manifest.id, manifest.closed_at);
            tokio::time::sleep(late).await;
            Ok(())
        })
    }

    fn release(&self, release: ReleaseId) -> BoxFuture<Result<Option<ReleaseKnown>, WmsError>> {
        let state = self.0.state.lock();
        let known = match (state.forgotten.contains(&release), state.working.contains_key(&release)) {
            (true, _) => Some(ReleaseKnown::Unknown),
            (false, true) => Some(ReleaseKnown::Known(Vec::new())),
            // What was done and reported to its end is not kept.
            (false, false) => None,
        };
        Box::pin(std::future::ready(Ok(known)))
    }

    fn present(&self, releases: Vec<Presented>) {
        let mut state = self.0.state.lock();
        for Presented { release, released_at, lines, missing } in releases {
            self.0.work(&mut state, release, released_at, lines, missing);
        }
        self.0.wake(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const ORIGIN: Timestamp = Timestamp(1_000_000);
    /// Longer than anything but a late answer takes here.
    const SOON: Duration = Duration::from_secs(10);

    /// Follows Tokio's paused time.
    struct TestClock(Instant);

    impl Clock for TestClock {
        fn now(&self) -> Timestamp {
            ORIGIN.after(self.0.elapsed())
        }
    }

    /// Keeps what was reported, by name.
    #[derive(Default)]
    struct Reported(Mutex<Vec<String>>);

    impl crate::ports::wms::ConfirmationSink for Reported {
        fn confirm(&self, _: PartitionId, reports: Vec<Confirmation>) -> BoxFuture<Result<(), WmsError>> {
            self.0.lock().extend(reports.into_iter().map(|c| c.confirmation_id));
            Box::pin(std::future::ready(Ok(())))
        }
    }

    impl Reported {
        fn of(&self, release: ReleaseId) -> Vec<String> {
            let prefix = format!("{release}.");
            self.0.lock().iter().filter_map(|id| id.strip_prefix(&prefix).map(str::to_owned)).collect()
        }
    }

    fn house(change: impl FnOnce(&mut Settings)) -> (Simulated, Arc<Reported>) {
        let second = Duration::from_secs(1);
        let mut settings = Settings { pick: second, pack: second, depart: second, ..Settings::default() };
        change(&mut settings);
        let reported = Arc::new(Reported::default());
        let clock = Arc::new(TestClock(Instant::now()));
        (Simulated::new(PartitionId(1), settings, clock, reported.clone()), reported)
    }

    fn release(random: u64) -> ReleaseId {
        ReleaseId { order: TransactionId::new(ORIGIN, PartitionId(1), random), n: 1 }
    }

    fn units(lines: &[(LineNo, u32)]) -> LineUnits {
        LineUnits::from_slice(lines)
    }

    fn manifest() -> ManifestOut {
        ManifestOut {
            id: TransactionId::new(ORIGIN, PartitionId(1), 99),
            carrier: "ups".to_owned(),
            service_level: "ground".to_owned(),
            closed_at: ORIGIN,
            cartons: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_that_is_sent_again_is_worked_once() {
        let (wms, reported) = house(|_| {});
        for _ in 0..3 {
            let answer = wms.take(ORIGIN, &[(release(1), units(&[(1, 2)]))]);
            assert_eq!(answer, WaveAnswer::Decided(vec![(release(1), Taken::Taken)]));
        }
        tokio::time::sleep(SOON).await;
        assert_eq!(reported.of(release(1)), ["picking", "packed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancellation_whose_answer_was_lost_is_answered_as_before_and_keeps_a_wave_out() {
        let (wms, reported) = house(|_| {});
        let lines = units(&[(1, 2), (2, 2)]);
        let _ = wms.take(ORIGIN, &[(release(1), lines.clone()), (release(2), lines.clone())]);
        for _ in 0..2 {
            assert_eq!(wms.stop(release(1), None), CancelReply::Cancelled);
            assert_eq!(wms.stop(release(2), Some(vec![1])), CancelReply::Cancelled);
        }
        let _ = wms.take(ORIGIN, &[(release(1), lines.clone()), (release(2), lines)]);
        tokio::time::sleep(SOON).await;
        assert_eq!(reported.of(release(1)), Vec::<String>::new());
        assert_eq!(reported.of(release(2)), ["picking", "packed"]);
        assert_eq!(wms.stop(release(2), None), CancelReply::TooLate);
        assert_eq!(wms.stop(release(2), Some(vec![1])), CancelReply::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_comes_after_the_deed_and_no_answer_means_no_deed() {
        let (late, reported) = house(|s| s.late_rate = 1.0);
        assert!(timeout(Duration::from_secs(15), late.manifest(manifest())).await.is_err());
        assert_eq!(reported.0.lock().len(), 1, "it was loaded and has left");
        assert!(timeout(Settings::TOO_LATE * 2, late.manifest(manifest())).await.is_ok());
        let (deaf, reported) = house(|s| s.silent_rate = 1.0);
        assert!(timeout(Duration::from_secs(600), deaf.manifest(manifest())).await.is_err());
        assert!(reported.0.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_is_unknown_until_it_comes_in_a_later_wave() {
        let (wms, reported) = house(|s| s.forget_rate = 0.5);
        let of = |n| (release(n), units(&[(1, 1)]));
        let forgotten = (0..100).find(|n| wms.forgets(release(*n), ORIGIN)).expect("half of them");
        let later = (1..100).map(|s| ORIGIN.after(Duration::from_secs(s)));
        let later = later.into_iter().find(|t| !wms.forgets(release(forgotten), *t)).expect("half of them");
        let _ = wms.take(ORIGIN, &[of(forgotten)]);
        tokio::time::sleep(SOON).await;
        assert!(reported.0.lock().is_empty());
        assert_eq!(wms.release(release(forgotten)).await, Ok(Some(ReleaseKnown::Unknown)));
        let _ = wms.take(later, &[of(forgotten)]);
        assert_eq!(wms.release(release(forgotten)).await, Ok(Some(ReleaseKnown::Known(Vec::new()))));
        tokio::time::sleep(SOON * 20).await;
        assert_eq!(reported.of(release(forgotten)), ["picking", "packed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn reports_come_twice_and_overtake_each_other() {
        let (wms, reported) = house(|s| (s.repeat_rate, s.reorder_rate) = (0.5, 0.5));
        let orders: Vec<_> = (0..50).map(|n| (release(n), units(&[(1, 1)]))).collect();
        let _ = wms.take(ORIGIN, &orders);
        tokio::time::sleep(SOON).await;
        let all: Vec<Vec<String>> = (0..50).map(|n| reported.of(release(n))).collect();
        assert!(all.iter().all(|r| r.iter().any(|s| s == "picking") && r.iter().any(|s| s == "packed")));
        assert!(all.iter().any(|r| r.len() > 2), "none came twice");
        assert!(all.iter().any(|r| r[0] == "packed"), "none was overtaken");
    }

    #[tokio::test(start_paused = true)]
    async fn it_dies_after_as_many_reports_as_it_was_told() {
        let (wms, reported) = house(|s| s.die_after = 3);
        let orders: Vec<_> = (0..5).map(|n| (release(n), units(&[(1, 1)]))).collect();
        let _ = wms.take(ORIGIN, &orders);
        tokio::time::sleep(SOON).await;
        assert_eq!(reported.0.lock().len(), 3);
        assert!(wms.died().is_cancelled());
        assert!(timeout(SOON, wms.hear(release(1).order)).await.is_err(), "the dead do not answer");
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_order_makes_it_refuse_the_wave_and_only_that() {
        let (wms, _) = house(|s| s.refuse_rate = 0.1);
        let answers: Vec<_> = (0..100).map(|n| wms.take(ORIGIN, &[(release(n), units(&[(1, 1)]))])).collect();
        let bad = answers.iter().position(|a| *a == WaveAnswer::Refused).expect("one of ten") as u64;
        let good = answers.iter().position(|a| *a != WaveAnswer::Refused).expect("nine of ten") as u64;
        let both = [(release(good), units(&[(1, 1)])), (release(bad), units(&[(1, 1)]))];
        assert_eq!(wms.take(ORIGIN, &both), WaveAnswer::Refused);
    }
}
