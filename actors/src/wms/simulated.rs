//! A WMS in the process: picks, packs and ships after settable times, and fails at settable rates.
//!
//! What happens to a release, and when, is a pure function of (seed, release, time of its wave), so
//! it keeps nothing: after a restart the open releases are presented again and the simulation goes
//! on; what was booked already is a repeat. It reports by the same door as any WMS.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::confirmation::{Confirmation, PackedCarton, ReleaseReport, Report};
use crate::domain::fact::LineUnits;
use crate::domain::ids::{LineNo, PartitionId, ReleaseId, TransactionId};
use crate::domain::time::Timestamp;
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::wms::{CancelReply, ManifestOut, Presented, Sink, Taken, Wave, WaveAnswer, Wms, WmsError};

/// Reports sent in one call.
const REPORTS_MAX: usize = 500;
/// The pause after the control lane took no reports.
const PAUSE: Duration = Duration::from_millis(100);

/// How the warehouse behaves. Rates are from 0.0 to 1.0.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From the wave to the beginning of the pick, give or take a quarter.
    pub pick: Duration,
    /// From there to the packed carton, give or take a quarter.
    pub pack: Duration,
    /// From the closed manifest to its departure.
    pub depart: Duration,
    /// The share of releases whose first line misses one unit.
    pub short_pick_rate: f64,
    /// The share of releases that it refuses.
    pub reject_rate: f64,
    /// The share of waves that it never answers.
    pub silent_rate: f64,
    /// The share of reports that it sends twice.
    pub repeat_rate: f64,
    /// Makes two warehouses, or two runs, differ.
    pub seed: u64,
}

/// The simulated WMS of one warehouse.
pub struct Simulated(Arc<Floor>);

struct Floor {
    partition: PartitionId,
    settings: Settings,
    clock: Arc<dyn Clock>,
    sink: Sink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Reports to make, by time, then in order of their making.
    agenda: BTreeMap<(Timestamp, u64), Confirmation>,
    /// What is on the floor, and until when it can be cancelled.
    working: BTreeMap<ReleaseId, Timestamp>,
    loading: BTreeSet<TransactionId>,
    made: u64,
    running: bool,
}

impl State {
    /// Takes lines (`None`: all) out of what will be reported about a release.
    fn drop_lines(&mut self, release: ReleaseId, lines: Option<&[LineNo]>) {
        let dropped = |line: LineNo| lines.is_none_or(|lines| lines.contains(&line));
        let mut left = false;
        self.agenda.retain(|_, confirmation| {
            let Report::Release { release: of, step } = &mut confirmation.report else { return true };
            if *of != release {
                return true;
            }
            match step {
                ReleaseReport::Packed { lines: _, cartons } => {
                    cartons.iter_mut().for_each(|c| c.lines.retain(|(line, _)| !dropped(*line)));
                    cartons.retain(|c| !c.lines.is_empty());
                    left |= !cartons.is_empty();
                    !cartons.is_empty()
                }
                ReleaseReport::ShortPick(units) => {
                    units.retain(|(line, _)| !dropped(*line));
                    left |= !units.is_empty();
                    !units.is_empty()
                }
                ReleaseReport::Picking
                | ReleaseReport::Picked(_)
                | ReleaseReport::Damaged(_)
                | ReleaseReport::Rejected { .. }
                | ReleaseReport::Cancelled
                | ReleaseReport::CancelRefused
                | ReleaseReport::Shipped(_) => lines.is_some(),
            }
        });
        if !left {
            self.working.remove(&release);
            self.agenda
                .retain(|_, c| !matches!(&c.report, Report::Release { release: of, .. } if *of == release));
        }
    }
}

impl Simulated {
    /// The WMS of `partition`, reporting to `sink`.
    #[must_use]
    pub fn new(partition: PartitionId, settings: Settings, clock: Arc<dyn Clock>, sink: Sink) -> Simulated {
        Simulated(Arc::new(Floor { partition, settings, clock, sink, state: Mutex::default() }))
    }
}

impl Floor {
    /// 64 bits that belong to these two numbers and the seed, always the same.
    fn draw(&self, id: TransactionId, salt: u64) -> u64 {
        let (high, low) = id.0.as_u64_pair();
        // SplitMix64 (Steele, Lea, Flood 2014) over the id, the salt and the seed.
        let mut z =
            high ^ low.rotate_left(32) ^ self.settings.seed ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn chance(&self, rate: f64, id: TransactionId, salt: u64) -> bool {
        // 53 bits fill a float exactly.
        ((self.draw(id, salt) >> 11) as f64) < rate * (1u64 << 53) as f64
    }

    /// Three quarters to five quarters of a time.
    fn about(&self, time: Duration, id: TransactionId, salt: u64) -> Duration {
        let permille = 750 + self.draw(id, salt) % 501;
        Duration::from_millis(
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_mul(permille) / 1_000,
        )
    }

    fn work(
        &self,
        state: &mut State,
        release: ReleaseId,
        released_at: Timestamp,
        lines: &LineUnits,
        known: &LineUnits,
    ) {
        let salt = u64::from(release.n) << 8;
        let picks = released_at.after(self.about(self.settings.pick, release.order, salt | 1));
        let packs = picks.after(self.about(self.settings.pack, release.order, salt | 2));
        if state.working.insert(release, picks).is_some() {
            return;
        }
        self.report(state, picks, release, ReleaseReport::Picking);
        let mut missing = known.clone();
        if missing.is_empty() && self.chance(self.settings.short_pick_rate, release.order, salt | 3) {
            missing.extend(lines.first().map(|(line, _)| (*line, 1)));
        }
        let short = |line: LineNo| missing.iter().find(|(l, _)| *l == line).map_or(0, |(_, q)| *q);
        let mut lines: LineUnits =
            lines.iter().map(|(line, q)| (*line, q.saturating_sub(short(*line)))).collect();
        lines.retain(|(_, quantity)| *quantity > 0);
        if !missing.is_empty() {
            self.report(state, packs, release, ReleaseReport::ShortPick(missing));
        }
        if !lines.is_empty() {
            let carton = PackedCarton {
                carton_id: format!("{release}/1"),
                tracking_number: Some(format!("1Z{:016X}", self.draw(release.order, salt | 4))),
                weight_g: Some(
                    lines.iter().map(|(_, q)| q.saturating_mul(250)).fold(100, u32::saturating_add),
                ),
                lines,
            };
            self.report(
                state,
                packs,
                release,
                ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton] },
            );
        }
    }

    fn report(&self, state: &mut State, at: Timestamp, release: ReleaseId, step: ReleaseReport) {
        self.enter(state, at, Report::Release { release, step }, release.order);
    }

    fn enter(&self, state: &mut State, at: Timestamp, report: Report, id: TransactionId) {
        state.made += 1;
        let twice = self.chance(self.settings.repeat_rate, id, state.made << 16);
        let confirmation = Confirmation { confirmation_id: format!("{id}-{}", state.made), at, report };
        if twice {
            state.agenda.insert((at.after(PAUSE), state.made), confirmation.clone());
            state.made += 1;
        }
        state.agenda.insert((at, state.made), confirmation);
    }

    /// Sees to it that somebody keeps the agenda.
    fn wake(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(keep_agenda(self.clone()));
        }
    }

    /// Takes what is due; `None` ends the keeper, for there is nothing left.
    fn due(&self) -> Option<(Vec<Confirmation>, Timestamp)> {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let mut due = Vec::new();
        while due.len() < REPORTS_MAX {
            match state.agenda.first_key_value() {
                Some((&(at, _), _)) if at <= now => due.extend(state.agenda.pop_first().map(|(_, c)| c)),
                Some(_) => break,
                None => break,
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
                Report::Release {
                    release,
                    step: ReleaseReport::Packed { .. } | ReleaseReport::ShortPick(_),
                } => {
                    state.working.remove(release);
                }
                Report::Release { .. } => {}
                Report::Departed { manifest } => {
                    state.loading.remove(manifest);
                }
            }
        }
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
    }
}

impl Wms for Simulated {
    fn wave(&self, wave: Wave) -> BoxFuture<Result<WaveAnswer, WmsError>> {
        let floor = self.0.clone();
        Box::pin(async move {
            if floor.chance(floor.settings.silent_rate, wave.id, 5) {
                std::future::pending::<()>().await;
            }
            let mut results = Vec::with_capacity(wave.orders.len());
            let mut state = floor.state.lock();
            for order in &wave.orders {
                let lines: LineUnits =
                    order.lines.iter().map(|(line, _, quantity)| (*line, *quantity)).collect();
                if floor.chance(
                    floor.settings.reject_rate,
                    order.release.order,
                    u64::from(order.release.n) << 8 | 6,
                ) {
                    results.push((order.release, Taken::Rejected { code: "simulated".to_owned() }));
                    continue;
                }
                floor.work(&mut state, order.release, wave.released_at, &lines, &LineUnits::new());
                results.push((order.release, Taken::Taken));
            }
            floor.wake(&mut state);
            Ok(WaveAnswer::Decided(results))
        })
    }

    fn cancel(
        &self,
        release: ReleaseId,
        lines: Option<Vec<LineNo>>,
    ) -> BoxFuture<Result<CancelReply, WmsError>> {
        let floor = self.0.clone();
        Box::pin(async move {
            let mut state = floor.state.lock();
            let now = floor.clock.now();
            let picks = state.working.get(&release).copied();
            if picks.is_none_or(|picks| picks <= now) {
                return Ok(CancelReply::TooLate);
            }
            state.drop_lines(release, lines.as_deref());
            Ok(CancelReply::Cancelled)
        })
    }

    fn manifest(&self, manifest: ManifestOut) -> BoxFuture<Result<(), WmsError>> {
        let floor = self.0.clone();
        Box::pin(async move {
            let mut state = floor.state.lock();
            if state.loading.insert(manifest.id) {
                let at = manifest.closed_at.after(floor.settings.depart);
                floor.enter(&mut state, at, Report::Departed { manifest: manifest.id }, manifest.id);
                floor.wake(&mut state);
            }
            Ok(())
        })
    }

    fn present(&self, releases: Vec<Presented>) {
        let mut state = self.0.state.lock();
        for Presented { release, released_at, lines, missing } in releases {
            self.0.work(&mut state, release, released_at, &lines, &missing);
        }
        self.0.wake(&mut state);
    }
}
