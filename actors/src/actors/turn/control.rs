//! The control lane and the WMS's answers: reports, cancellations, waves taken or refused.

use std::collections::BTreeMap;

use super::Turn;
use crate::actors::book::OpenOrder;
use crate::actors::wms_link::Answer;
use crate::domain::cancellation;
use crate::domain::command::{CancellationCommand, Command};
use crate::domain::confirmation::{Confirmation, ReleaseReport, Report, Unbookable};
use crate::domain::fact::{CancellationFact, Fact, LineUnits, OrderFact};
use crate::domain::ids::{ClientNo, ReleaseId, TransactionId, WaveId};
use crate::domain::order::Booking;
use crate::domain::sscc::Sscc;
use crate::ports::store::{DeadKind, DeadLetter, Lane, LaneEntry, LaneItem, StoredTransaction, StoredWave};
use crate::ports::wms::{CancelReply, ReleaseKnown, Taken, WaveAnswer};

/// A report, and the entry of the control lane that brought it; `None`: the WMS was asked.
type Heard = (Option<u64>, Confirmation);

/// Facts, and the reports that could not be booked.
type Booked = (Vec<OrderFact>, Vec<(usize, Unbookable)>);

impl Turn<'_> {
    /// Takes in what an entry is about and the book does not hold: an order that is still in the
    /// work lane or done, or a manifest that has departed. False when it cannot be folded.
    pub(crate) fn visit(&mut self, stored: &StoredTransaction) -> bool {
        if self.book.order(stored.id).is_some() {
            return true;
        }
        match OpenOrder::fold(stored) {
            Ok(Some(order)) => {
                self.visiting.entry(stored.id).or_insert(order);
            }
            Ok(None) => self.visit_other(stored),
            Err(why) => {
                self.unreadable.insert(stored.id, why.to_string());
                return false;
            }
        }
        true
    }

    /// Books what the WMS answered to our calls.
    pub(crate) fn answers(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            match answer {
                Answer::Wave { wave, answer } => self.wave_answered(wave, answer),
                Answer::Cancel { release, request, reply } => match reply {
                    CancelReply::Cancelled => self.cancel_answered(release, request, true),
                    CancelReply::TooLate => self.cancel_answered(release, request, false),
                    // The control lane brings the answer.
                    CancelReply::Pending => {}
                },
                Answer::Release { release, known } => self.release_known(release, known),
                Answer::Unreadable { wave, of } => self.unreadable_parts(wave, of),
            }
            self.site.put_down();
        }
    }

    fn cancel_answered(&mut self, release: ReleaseId, request: TransactionId, cancelled: bool) {
        self.touch(release.order);
        let Some(open) = self.order(release.order) else { return };
        let facts = open.order.cancel_answered(release.n, Some(request), cancelled);
        self.record(release.order, facts);
    }

    fn wave_answered(&mut self, wave: WaveId, answer: WaveAnswer) {
        let Some(releases) = self.book.wave_answered(wave) else { return };
        self.writes.answered.push(wave);
        for release in &releases {
            self.heard(release.order);
        }
        match answer {
            WaveAnswer::Decided(results) => {
                for (release, taken) in results {
                    match taken {
                        Taken::Taken => {}
                        // Only what was in this wave: a WMS that invents ids is not believed.
                        Taken::Rejected { code } if releases.contains(&release) => {
                            self.rejected(release, &code);
                        }
                        Taken::Rejected { .. } => {}
                    }
                }
            }
            WaveAnswer::Refused => self.bisect(releases),
        }
    }

    /// Books what the WMS said when it was asked for a silent release; one that it does not know
    /// goes again, in a new wave under its old id.
    fn release_known(&mut self, release: ReleaseId, known: ReleaseKnown) {
        if self.order(release.order).is_none() {
            // It was open when we asked and has ended since, by a report that overtook the answer:
            // whatever is said of it was booked, and is no report about an unknown release.
            return;
        }
        match known {
            ReleaseKnown::Known(steps) => {
                let report = |step| {
                    let report = Report::Release { release, step };
                    (None, Confirmation { confirmation_id: "asked".to_owned(), at: self.now, report })
                };
                let reports = steps.into_iter().map(report).collect();
                self.reports(release, reports);
            }
            ReleaseKnown::Unknown => {
                let open = self.book.order(release.order);
                let unsettled = open.is_some_and(|o| o.order.unsettled().any(|(n, _)| n == release.n));
                if unsettled && !self.book.is_unanswered(release) {
                    let id = self.site.node.new_id(self.site.partition());
                    self.book.wave_out(id, vec![release]);
                    self.writes.waves.push(StoredWave { id, releases: vec![release] });
                }
            }
        }
    }

    /// The WMS was heard about an order: if it was given up for its silence, it goes on.
    fn heard(&mut self, order: TransactionId) {
        if let Some(open) = self.order(order) {
            let facts = open.order.heard_again();
            self.record(order, facts);
        }
    }

    /// A refused wave goes again in halves until the bad order is alone.
    fn bisect(&mut self, releases: Vec<ReleaseId>) {
        match releases.as_slice() {
            // Nothing of it is open any more: half of nothing would go for ever.
            [] => return,
            [release] => return self.rejected(*release, "wave_refused"),
            _ => {}
        }
        let (left, right) = releases.split_at(releases.len() / 2);
        for half in [left, right] {
            let id = self.site.node.new_id(self.site.partition());
            self.book.wave_out(id, half.to_vec());
            self.writes.waves.push(StoredWave { id, releases: half.to_vec() });
        }
    }

    fn rejected(&mut self, release: ReleaseId, code: &str) {
        self.touch(release.order);
        let Some(open) = self.order(release.order) else { return };
        let facts = open.order.rejected_by_wms(release.n);
        if facts.is_empty() {
            return;
        }
        self.record(release.order, facts);
        if self.order(release.order).is_some_and(|o| o.order.is_failed()) {
            let reason = format!("the WMS rejected release {release}: {code}");
            self.bury_order(release.order, reason);
        }
    }

    /// Works the control lane in its order. Reports about one release that arrived together are
    /// booked together; a cancellation comes after what stands before it and before what follows.
    pub(crate) fn control(&mut self, entries: Vec<LaneEntry>) {
        let mut reports: BTreeMap<ReleaseId, Vec<Heard>> = BTreeMap::new();
        for entry in entries {
            self.site.put_down();
            self.writes.taken.push((entry.lane, entry.n));
            match entry.item {
                LaneItem::Report(confirmation) => match &confirmation.report {
                    Report::Release { release, .. } => {
                        reports.entry(*release).or_default().push((Some(entry.n), *confirmation))
                    }
                    Report::Departed { manifest } => {
                        let manifest = *manifest;
                        self.departed(manifest, &(Some(entry.n), *confirmation));
                    }
                },
                LaneItem::Instruction(asked, letter) => {
                    // It decides about the order as it is after what was reported before.
                    let before = std::mem::take(&mut reports);
                    before.into_iter().for_each(|(release, reports)| self.reports(release, reports));
                    self.instructed(asked, letter.as_deref());
                }
                LaneItem::Transaction(stored) => {
                    if let Command::Cancellation(command) = &stored.command {
                        let order = command.order;
                        let before =
                            reports.extract_if(.., |release, _| release.order == order).collect::<Vec<_>>();
                        before.into_iter().for_each(|(release, reports)| self.reports(release, reports));
                        self.cancellation(&stored, command);
                    }
                }
                LaneItem::Undecodable(id, reason) => self.bury_entry((entry.lane, entry.n), id, reason),
            }
        }
        for (release, reports) in reports {
            self.reports(release, reports);
        }
        self.site.put_down();
    }

    fn reports(&mut self, release: ReleaseId, reports: Vec<Heard>) {
        if let Some(why) = self.unworkable(release.order) {
            return reports.iter().for_each(|r| self.bury_report(r, why.clone()));
        }
        self.touch(release.order);
        self.heard(release.order);
        let mut serials = std::mem::take(&mut self.serials);
        let booked = self.book_reports(release, &reports, &mut serials);
        self.serials = serials;
        let (facts, refused) = match booked {
            Ok(booked) => booked,
            Err(why) => return reports.iter().for_each(|r| self.unbookable(r, why)),
        };
        let missing = facts.iter().any(|f| matches!(f, OrderFact::Missing { .. }));
        // What the WMS has decided it also says to whoever asks again.
        self.owing.insert(release.order);
        self.record(release.order, facts);
        if missing {
            self.wanting.insert(release.order);
        }
        for (i, why) in refused {
            self.unbookable(&reports[i], why);
        }
    }

    /// The facts that reports about one release mean, and which of them cannot be true.
    fn book_reports(
        &self,
        release: ReleaseId,
        reports: &[Heard],
        serials: &mut Vec<Sscc>,
    ) -> Result<Booked, Unbookable> {
        let open = self.order(release.order).ok_or(Unbookable::UnknownRelease)?;
        let mut booking = Booking::new(&open.order, release.n)?;
        let mut refused = Vec::new();
        for (i, (_, report)) in reports.iter().enumerate() {
            let Report::Release { step, .. } = &report.report else { continue };
            if let Err(why) = booking.add(step) {
                refused.push((i, why));
            }
        }
        let carrier = self.site.carrier(&open.order.service_level);
        let mut next = || serials.pop().expect("the Manifester gave a serial for every carton of the turn");
        Ok((booking.facts(carrier, &mut next), refused))
    }

    pub(super) fn unbookable(&mut self, report: &Heard, why: Unbookable) {
        self.bury_report(report, why.to_string());
    }

    fn bury_report(&mut self, (n, report): &Heard, reason: String) {
        let entry = n.map(|n| (Lane::Control, n));
        self.bury(DeadKind::Confirmation, Some(report.about()), reason, format!("{report:?}"), entry);
    }

    /// An order is a dead letter: its facts say so already.
    pub(super) fn bury_order(&mut self, id: TransactionId, reason: String) {
        self.bury(DeadKind::Order, Some(id), reason, String::new(), None);
    }

    /// An entry of a lane cannot be worked; it keeps its bytes.
    pub(super) fn bury_entry(&mut self, entry: (Lane, u64), id: Option<TransactionId>, reason: String) {
        let kind = match entry.0 {
            Lane::Control | Lane::Stock => DeadKind::Confirmation,
            Lane::Work => DeadKind::Order,
        };
        self.bury(kind, id, reason, format!("entry {} of the {:?} lane", entry.1, entry.0), Some(entry));
    }

    /// Keeps something aside that cannot be worked, so that it blocks nothing.
    pub(super) fn bury(
        &mut self,
        kind: DeadKind,
        id: Option<TransactionId>,
        reason: String,
        detail: String,
        entry: Option<(Lane, u64)>,
    ) {
        let correlation = id.and_then(|id| self.order(id)).map(|o| o.correlation.to_string());
        tracing::warn!(
            warehouse = %self.site.warehouse.code,
            kind = ?kind,
            transaction_id = id.map(tracing::field::display),
            correlation_id = correlation,
            reason,
            detail,
            "kept aside as a dead letter"
        );
        self.writes.dead.push(DeadLetter { kind, id, reason, detail, at: self.now, entry });
    }

    /// Decides a request to cancel, or asks the WMS to.
    fn cancellation(&mut self, request: &StoredTransaction, command: &CancellationCommand) {
        if request.version() > 1 {
            return;
        }
        self.touch(command.order);
        let facts = match self.order(command.order) {
            Some(open) => open.order.cancel(request.id, command.lines.as_deref()),
            // Not in hand and not in the work lane: it is done.
            None => Vec::new(),
        };
        let asked = facts.iter().any(|f| matches!(f, OrderFact::CancelAsked { .. }));
        let cancelled = facts.iter().find_map(|f| match f {
            OrderFact::Cancelled { units, .. } => Some(units.clone()),
            _ => None,
        });
        self.record(command.order, facts);
        if !asked {
            self.decide_request(request.id, request.client, cancelled.unwrap_or_default());
        }
    }

    /// A cancellation is applied if anything was cancelled, and rejected if nothing.
    pub(super) fn decide_request(&mut self, request: TransactionId, client: ClientNo, lines: LineUnits) {
        let fact = match lines.is_empty() {
            true => CancellationFact::Rejected,
            false => CancellationFact::Applied { lines },
        };
        debug_assert!(cancellation::state_after(&fact).is_final());
        self.note(request, client, 1, vec![Fact::Cancellation(fact)]);
        self.writes.ended.push((request, self.now));
    }
}

/// The transaction that an entry of the control lane is about: it must be in hand or visit.
pub(crate) fn subject(entry: &LaneEntry) -> Option<TransactionId> {
    match &entry.item {
        LaneItem::Transaction(stored) => match &stored.command {
            Command::Cancellation(command) => Some(command.order),
            Command::Order(_) | Command::Move(_) | Command::Manifest(_) => None,
        },
        LaneItem::Report(report) => Some(report.about()),
        LaneItem::Instruction(_, letter) => letter.as_ref().and_then(|letter| letter.id),
        LaneItem::Undecodable(..) => None,
    }
}

/// What an operator wants back in memory.
pub(crate) fn returning(entry: &LaneEntry) -> Option<TransactionId> {
    match &entry.item {
        LaneItem::Instruction(..) => subject(entry),
        LaneItem::Transaction(_) | LaneItem::Report(_) | LaneItem::Undecodable(..) => None,
    }
}

/// How many cartons a report could need codes for.
pub(crate) fn cartons_in(entry: &LaneEntry) -> usize {
    match &entry.item {
        LaneItem::Report(report) => match &report.report {
            Report::Release { release: _, step } => cartons_of(step),
            Report::Departed { .. } => 0,
        },
        LaneItem::Transaction(_) | LaneItem::Instruction(..) | LaneItem::Undecodable(..) => 0,
    }
}

/// How many cartons an answer of the WMS could need codes for.
pub(crate) fn cartons_of_answer(answer: &Answer) -> usize {
    match answer {
        Answer::Release { release: _, known: ReleaseKnown::Known(steps) } => {
            steps.iter().map(cartons_of).sum()
        }
        Answer::Release { release: _, known: ReleaseKnown::Unknown }
        | Answer::Wave { .. }
        | Answer::Cancel { .. }
        | Answer::Unreadable { .. } => 0,
    }
}

fn cartons_of(step: &ReleaseReport) -> usize {
    match step {
        // One more for what is packed without a carton.
        ReleaseReport::Packed { lines: _, cartons } => cartons.len() + 1,
        ReleaseReport::Shipped(_) => 1,
        ReleaseReport::Picking
        | ReleaseReport::Picked(_)
        | ReleaseReport::ShortPick(_)
        | ReleaseReport::Damaged(_)
        | ReleaseReport::Rejected { .. }
        | ReleaseReport::Cancelled
        | ReleaseReport::CancelRefused => 0,
    }
}
