//! The world's WMS: it outlives the node, repeats and delays what it says, and keeps its own books.
//!
//! It honours release ids, as the contract asks of every WMS; what it picked is compared with what
//! the engine believes.

use futures_util::FutureExt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::World;
use crate::domain::command::Command;
use crate::domain::confirmation::{Confirmation, PackedCarton, ReleaseReport, Report};
use crate::domain::fact::{Fact, LineUnits, OrderFact};
use crate::domain::ids::{LineNo, PartitionId, ReleaseId, TransactionId, WaveId};
use crate::domain::invariants::Violation;
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::store::{Lookup, Store};
use crate::ports::wms::{CancelReply, ManifestOut, Sink, Taken, Wave, WaveAnswer, Wms, WmsError};

/// The WMS of all warehouses.
pub(crate) struct WorldWms {
    world: Arc<World>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    releases: BTreeMap<ReleaseId, Work>,
    manifests: BTreeSet<TransactionId>,
    /// Those of them whose departure the engine has not taken in.
    loading: BTreeSet<TransactionId>,
    refused: BTreeSet<WaveId>,
    /// What was answered: a repeated question gets the same answer.
    cancellations: BTreeMap<(ReleaseId, Option<Vec<LineNo>>), CancelReply>,
}

impl Books {
    fn cancel(&mut self, release: ReleaseId, lines: Option<Vec<LineNo>>) -> CancelReply {
        if let Some(reply) = self.cancellations.get(&(release, lines.clone())) {
            return *reply;
        }
        let reply = match self.releases.get_mut(&release) {
            Some(work) if work.step == Step::Taken => {
                let dropped = |line: &LineNo| lines.as_ref().is_none_or(|l| l.contains(line));
                work.lines.retain(|(line, _)| !dropped(line));
                if work.lines.is_empty() {
                    work.step = Step::Cancelled;
                }
                CancelReply::Cancelled
            }
            Some(_) | None => CancelReply::TooLate,
        };
        self.cancellations.insert((release, lines), reply);
        reply
    }
}

#[derive(Clone)]
struct Work {
    /// As the wave asked.
    asked: LineUnits,
    /// As they are worked: less what was cancelled.
    lines: LineUnits,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Rejected,
    Taken,
    Picking,
    Done,
    /// Done, and the engine has taken it in: only a repeat could say it again.
    Told,
    Cancelled,
}

/// The face that one warehouse of one life of the node sees.
struct Face {
    wms: Arc<WorldWms>,
    partition: PartitionId,
    sink: Sink,
}

impl WorldWms {
    pub(crate) fn new(world: Arc<World>) -> WorldWms {
        WorldWms { world, books: Mutex::default() }
    }

    pub(crate) fn of(self: &Arc<Self>, partition: PartitionId, sink: Sink) -> Arc<dyn Wms> {
        let face = Arc::new(Face { wms: self.clone(), partition, sink });
        face.resume();
        Arc::new(Shared(face))
    }

    fn call(&self) -> (Duration, bool, bool) {
        let rate = self.world.profile.wms_faults;
        (self.world.pause(30), self.world.strikes(rate), self.world.strikes(rate))
    }
}

impl Face {
    /// Goes on with what was taken before the node's death: the floor does not stop for it.
    fn resume(self: &Arc<Self>) {
        let open: Vec<ReleaseId> = {
            let books = self.wms.books.lock();
            let of_here = books.releases.iter().filter(|(id, _)| id.order.home() == self.partition);
            let goes_on = |step| match step {
                Step::Taken | Step::Picking | Step::Done => true,
                Step::Told => self.wms.world.strikes(self.wms.world.profile.repeats),
                Step::Rejected | Step::Cancelled => false,
            };
            of_here.filter(|(_, w)| goes_on(w.step)).map(|(id, _)| *id).collect()
        };
        for release in open {
            tokio::task::spawn_local(self.clone().work(release));
        }
        let manifests: Vec<_> =
            self.wms.books.lock().loading.iter().filter(|m| m.home() == self.partition).copied().collect();
        for manifest in manifests {
            tokio::task::spawn_local(self.clone().depart(manifest));
        }
    }

    async fn work(self: Arc<Self>, release: ReleaseId) {
        let world = &self.wms.world;
        tokio::time::sleep(world.pause(600)).await;
        let Some(lines) = self.advance(release, Step::Picking) else { return };
        self.say(release, ReleaseReport::Picking).await;
        tokio::time::sleep(world.pause(200)).await;
        let short = self.short(release);
        if self.advance(release, Step::Done).is_none() {
            return;
        }
        let mut picked = lines;
        let mut reports = Vec::new();
        if short && let Some((line, quantity)) = picked.first_mut() {
            *quantity -= 1;
            reports.push(ReleaseReport::ShortPick(LineUnits::from_slice(&[(*line, 1)])));
        }
        picked.retain(|(_, q)| *q > 0);
        if !picked.is_empty() {
            let carton_id = format!("{release}-c");
            let carton = PackedCarton { carton_id, tracking_number: None, weight_g: None, lines: picked };
            reports.push(ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton] });
        }
        // Reordering is harmless: quantities are cumulative.
        if world.chance.below(2) == 0 {
            reports.reverse();
        }
        for report in reports {
            self.say(release, report).await;
        }
        self.advance(release, Step::Told);
    }

    /// Whether a release is short is decided once, by its own bits.
    fn short(&self, release: ReleaseId) -> bool {
        let (_, low) = release.order.0.as_u64_pair();
        low.wrapping_mul(u64::from(release.n)) % 1_000 < self.wms.world.profile.shorts
    }

    fn advance(&self, release: ReleaseId, to: Step) -> Option<LineUnits> {
        let mut books = self.wms.books.lock();
        let work = books.releases.get_mut(&release)?;
        if work.step == Step::Cancelled || work.step == Step::Rejected {
            return None;
        }
        // Only a done release can be told, and neither is undone.
        if work.step != Step::Told && (work.step != Step::Done || to == Step::Told) {
            work.step = to;
        }
        Some(work.lines.clone())
    }

    async fn say(&self, release: ReleaseId, step: ReleaseReport) {
        self.report(Report::Release { release, step }).await;
    }

    /// Reports until it is taken, and now and then once more.
    async fn report(&self, report: Report) {
        let world = &self.wms.world;
        let confirmation = Confirmation {
            confirmation_id: format!("{report:?}").chars().take(60).collect(),
            at: world.clock.now(),
            report,
        };
        let again = world.strikes(world.profile.repeats);
        for _ in 0..=usize::from(again) {
            while self.sink.confirm(self.partition, vec![confirmation.clone()]).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(world.pause(300)).await;
        }
    }

    /// Says by the control lane what it decided about a cancellation.
    async fn answer_later(self: Arc<Self>, release: ReleaseId, reply: CancelReply) {
        tokio::time::sleep(self.wms.world.pause(500)).await;
        let step = match reply {
            CancelReply::Cancelled => ReleaseReport::Cancelled,
            CancelReply::TooLate => ReleaseReport::CancelRefused,
            CancelReply::Pending => return,
        };
        self.say(release, step).await;
    }

    async fn depart(self: Arc<Self>, manifest: TransactionId) {
        tokio::time::sleep(self.wms.world.pause(2_000)).await;
        self.report(Report::Departed { manifest }).await;
        self.wms.books.lock().loading.remove(&manifest);
    }

    /// No effect before its commit: what we are asked must be on the disk already.
    fn must_be_committed(&self, id: TransactionId, what: &str, is_it: impl Fn(&OrderFact) -> bool) {
        let world = &self.wms.world;
        let stored = world.disk.transaction(id).now_or_never();
        let committed = match stored {
            Some(Ok(Some(Lookup::Live(stored)))) => match stored.command {
                Command::Manifest(_) => true,
                Command::Order(_) | Command::Move(_) | Command::Cancellation(_) => {
                    stored.facts.iter().any(|f| matches!(&f.fact, Fact::Order(fact) if is_it(fact)))
                }
            },
            _ => false,
        };
        if !committed {
            let found = format!("the WMS was asked for {what} of {id} before it was committed");
            world.observer.violated(Violation { id: "INV-2", found });
        }
    }

    /// Whether it will have none of a wave: only where it has taken nothing of it yet.
    fn refuses(&self, wave: &Wave) -> bool {
        let world = &self.wms.world;
        let mut books = self.wms.books.lock();
        let refused = books.refused.contains(&wave.id)
            || (wave.orders.len() > 1
                && !wave.orders.iter().any(|o| books.releases.contains_key(&o.release))
                && world.strikes(world.profile.refusals));
        if refused {
            books.refused.insert(wave.id);
        }
        refused
    }

    fn take(self: &Arc<Self>, wave: &Wave) -> Vec<(ReleaseId, Taken)> {
        let world = &self.wms.world;
        let mut results = Vec::new();
        for order in &wave.orders {
            let n = order.release.n;
            let is_it = |f: &OrderFact| matches!(f, OrderFact::Released { n: of, .. } if *of == n);
            self.must_be_committed(order.release.order, "a release", is_it);
            let lines: LineUnits = order.lines.iter().map(|(line, _, q)| (*line, *q)).collect();
            let mut books = self.wms.books.lock();
            let known = books.releases.get(&order.release).cloned();
            let work = known.clone().unwrap_or_else(|| {
                let step = if world.strikes(world.profile.rejects) { Step::Rejected } else { Step::Taken };
                Work { asked: lines.clone(), lines: lines.clone(), step }
            });
            if work.asked != lines {
                let found = format!("release {} was sent again with other content", order.release);
                world.observer.violated(Violation { id: "INV-2", found });
            }
            books.releases.insert(order.release, work.clone());
            drop(books);
            let rejected = work.step == Step::Rejected;
            let taken = if rejected { Taken::Rejected { code: "world".to_owned() } } else { Taken::Taken };
            results.push((order.release, taken));
            if known.is_none() && !rejected {
                tokio::task::spawn_local(self.clone().work(order.release));
            }
        }
        results
    }
}

/// A face in an `Arc`, so that its calls outlive the borrow.
struct Shared(Arc<Face>);

impl Wms for Shared {
    fn wave(&self, wave: Wave) -> BoxFuture<Result<WaveAnswer, WmsError>> {
        let (face, (pause, silent, answer_lost)) = (self.0.clone(), self.0.wms.call());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            if silent {
                return Err(WmsError::Unavailable("the world says no".to_owned()));
            }
            if face.refuses(&wave) {
                return if answer_lost { Err(WmsError::Silent) } else { Ok(WaveAnswer::Refused) };
            }
            let results = face.take(&wave);
            if answer_lost { Err(WmsError::Silent) } else { Ok(WaveAnswer::Decided(results)) }
        })
    }

    fn cancel(
        &self,
        release: ReleaseId,
        lines: Option<Vec<LineNo>>,
    ) -> BoxFuture<Result<CancelReply, WmsError>> {
        let (face, (pause, silent, answer_lost)) = (self.0.clone(), self.0.wms.call());
        let later = self.0.wms.world.strikes(self.0.wms.world.profile.pendings);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            if silent {
                return Err(WmsError::Silent);
            }
            let is_it = |f: &OrderFact| matches!(f, OrderFact::CancelAsked { .. });
            face.must_be_committed(release.order, "a cancellation", is_it);
            let known = face.wms.books.lock().cancellations.contains_key(&(release, lines.clone()));
            let reply = face.wms.books.lock().cancel(release, lines);
            if !known && later {
                tokio::task::spawn_local(face.answer_later(release, reply));
                return Ok(CancelReply::Pending);
            }
            if answer_lost { Err(WmsError::Silent) } else { Ok(reply) }
        })
    }

    fn manifest(&self, manifest: ManifestOut) -> BoxFuture<Result<(), WmsError>> {
        let (face, (pause, silent, answer_lost)) = (self.0.clone(), self.0.wms.call());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            if silent {
                return Err(WmsError::Silent);
            }
            face.must_be_committed(manifest.id, "a manifest", |_| false);
            if face.wms.books.lock().manifests.insert(manifest.id) {
                face.wms.books.lock().loading.insert(manifest.id);
                tokio::task::spawn_local(face.clone().depart(manifest.id));
            }
            if answer_lost { Err(WmsError::Silent) } else { Ok(()) }
        })
    }
}
