//! The floor of the world's WMS: works what was taken, and reports late, twice and in any order.

use std::sync::Arc;
use std::time::Duration;

use super::books::Step;
use super::wms::WorldWms;
use crate::domain::confirmation::{Confirmation, PackedCarton, ReleaseReport, Report};
use crate::domain::fact::LineUnits;
use crate::domain::ids::{PartitionId, ReleaseId, TransactionId};
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::wms::{CancelReply, ReleaseKnown};

/// How long it waits before it reports again what was not taken in.
const AGAIN: Duration = Duration::from_millis(50);

impl WorldWms {
    /// Goes on with what was taken before the node's death: the floor does not stop for it.
    pub(crate) fn resume(self: &Arc<Self>) {
        let world = &self.world;
        let goes_on = |step| match step {
            Step::Taken | Step::Picking | Step::Done => true,
            Step::Told => world.strikes(world.profile.repeats),
            Step::Rejected | Step::Cancelled => false,
        };
        let (open, loading): (Vec<ReleaseId>, Vec<TransactionId>) = {
            let books = self.books.lock();
            let open = books.releases.iter().filter(|(_, w)| goes_on(w.step)).map(|(id, _)| *id).collect();
            (open, books.loading.iter().copied().collect())
        };
        for release in open {
            tokio::task::spawn_local(self.clone().work(release));
        }
        for manifest in loading {
            tokio::task::spawn_local(self.clone().depart(manifest));
        }
    }

    /// Works a release from where it is.
    pub(crate) async fn work(self: Arc<Self>, release: ReleaseId) {
        let world = &self.world;
        tokio::time::sleep(world.pause(600)).await;
        if self.draw(release, 3) < world.profile.late_rejects && self.reject_late(release) {
            world.observer.saw("releases rejected late");
            return self.say(release, ReleaseReport::Rejected { code: "world".to_owned() }).await;
        }
        let advance = |to| self.books.lock().advance(release, to);
        let Some(lines) = advance(Step::Picking) else { return };
        self.say(release, ReleaseReport::Picking).await;
        tokio::time::sleep(world.pause(200)).await;
        if advance(Step::Done).is_none() {
            return;
        }
        let mut reports = self.outcome(release, lines);
        self.books.lock().pack(world, release, &reports);
        // Reordering is harmless: quantities are cumulative.
        if world.chance.below(2) == 0 {
            if reports.len() > 1 {
                world.observer.saw("reports out of order");
            }
            reports.reverse();
        }
        for report in reports {
            match report {
                ReleaseReport::ShortPick(_) => world.observer.saw("short picks"),
                ReleaseReport::Damaged(_) => world.observer.saw("damaged picks"),
                ReleaseReport::Picking
                | ReleaseReport::Picked(_)
                | ReleaseReport::Shipped(_)
                | ReleaseReport::Packed { .. }
                | ReleaseReport::Cancelled
                | ReleaseReport::CancelRefused
                | ReleaseReport::Rejected { .. } => {}
            }
            self.say(release, report).await;
        }
        advance(Step::Told);
    }

    /// What is reported of a release that is done.
    fn outcome(&self, release: ReleaseId, mut picked: LineUnits) -> Vec<ReleaseReport> {
        let mut reports = Vec::new();
        let short = self.draw(release, 1) < self.world.profile.shorts;
        if short && let Some((line, quantity)) = picked.first_mut() {
            *quantity -= 1;
            let missing = LineUnits::from_slice(&[(*line, 1)]);
            reports.push(match self.draw(release, 2) % 2 {
                0 => ReleaseReport::ShortPick(missing),
                _ => ReleaseReport::Damaged(missing),
            });
        }
        picked.retain(|(_, q)| *q > 0);
        if !picked.is_empty() {
            let carton_id = format!("{release}-c");
            let carton = PackedCarton { carton_id, tracking_number: None, weight_g: None, lines: picked };
            reports.push(ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton] });
        }
        reports
    }

    /// A number below a thousand that belongs to the release: what becomes of it is decided once.
    fn draw(&self, release: ReleaseId, salt: u64) -> u64 {
        let (_, low) = release.order.0.as_u64_pair();
        let mixed = (low ^ salt << 40 ^ u64::from(release.n) << 50).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) % 1_000
    }

    /// Refuses a release that was taken and not begun; true when it is refused now or was before.
    fn reject_late(&self, release: ReleaseId) -> bool {
        match self.books.lock().releases.get_mut(&release) {
            Some(work) if work.step == Step::Taken => {
                work.step = Step::Rejected;
                true
            }
            Some(work) => work.step == Step::Rejected,
            None => false,
        }
    }

    /// What it knows of a release when it is asked.
    pub(crate) fn known(&self, release: ReleaseId) -> ReleaseKnown {
        let work = self.books.lock().releases.get(&release).cloned();
        let Some(work) = work else { return ReleaseKnown::Unknown };
        ReleaseKnown::Known(match work.step {
            Step::Taken => Vec::new(),
            Step::Picking => vec![ReleaseReport::Picking],
            Step::Done | Step::Told => self.outcome(release, work.lines),
            Step::Cancelled => vec![ReleaseReport::Cancelled],
            Step::Rejected => vec![ReleaseReport::Rejected { code: "world".to_owned() }],
        })
    }

    async fn say(&self, release: ReleaseId, step: ReleaseReport) {
        self.report(release.order.home(), Report::Release { release, step }).await;
    }

    /// Reports until it is taken in, and now and then once more.
    async fn report(&self, home: PartitionId, report: Report) {
        let world = &self.world;
        let confirmation = Confirmation {
            confirmation_id: format!("{report:?}").chars().take(60).collect(),
            at: world.clock.now(),
            report,
        };
        let again = world.strikes(world.profile.repeats);
        if again {
            world.observer.saw("reports repeated");
        }
        for _ in 0..=usize::from(again) {
            while !self.confirmed(home, &confirmation).await {
                tokio::time::sleep(AGAIN).await;
            }
            tokio::time::sleep(world.pause(300)).await;
        }
    }

    async fn confirmed(&self, home: PartitionId, confirmation: &Confirmation) -> bool {
        if self.is_silent() {
            return false;
        }
        let Some(door) = self.door() else { return false };
        // A door whose node dies over a report is never heard of again.
        let answer = door.confirm(home, vec![confirmation.clone()]);
        tokio::time::timeout(Duration::from_secs(30), answer).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Says by the control lane what it decided about a cancellation.
    pub(crate) async fn answer_later(self: Arc<Self>, release: ReleaseId, reply: CancelReply) {
        tokio::time::sleep(self.world.pause(500)).await;
        let step = match reply {
            CancelReply::Cancelled => ReleaseReport::Cancelled,
            CancelReply::TooLate => ReleaseReport::CancelRefused,
            CancelReply::Pending => return,
        };
        self.say(release, step).await;
    }

    /// Loads a truck and reports that it left.
    pub(crate) async fn depart(self: Arc<Self>, manifest: TransactionId) {
        tokio::time::sleep(self.world.pause(2_000)).await;
        self.books.lock().depart(&self.world, manifest);
        self.report(manifest.home(), Report::Departed { manifest }).await;
        self.books.lock().loading.remove(&manifest);
    }
}
