//! The books of `wavegate wms`: the fold of its ledger. What was asked for, what was answered, what
//! was done and what of it Wavegate knows. No IO, no clock: the same lines make the same books.

use std::collections::{BTreeMap, BTreeSet};

use wavegate_engine::domain::fact::LineUnits;
use wavegate_engine::domain::ids::{LineNo, Quantity, ReleaseId, TransactionId};
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::ports::wms::Presented;
use wavegate_engine::wire::wms::{
    CancellationResult, CartonMessage, ConfirmationMessage, ContentMessage, ReleaseStateMessage, UnitsMessage,
};

use super::ledger::{Entry, ShippedUnits, TakenRelease};

/// See the module's description.
#[derive(Default)]
pub(super) struct Books {
    releases: BTreeMap<String, Release>,
    cancellations: BTreeMap<(String, Option<Vec<LineNo>>), CancellationResult>,
    manifests: BTreeMap<String, Manifest>,
    /// What was done and Wavegate does not know yet.
    unreported: BTreeMap<String, ConfirmationMessage>,
}

/// A release that was taken or rejected.
struct Release {
    /// When, or the code of the rejection.
    taken: Result<(TakenRelease, Timestamp), String>,
    cancelled: BTreeSet<LineNo>,
    /// In order of their making.
    done: Vec<ConfirmationMessage>,
    /// The cartons that left, and their units.
    gone: BTreeSet<String>,
    shipped: BTreeMap<LineNo, Quantity>,
}

struct Manifest {
    loaded_at: Timestamp,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    contents: Vec<ContentMessage>,
    departed: bool,
}

/// How a call is followed: the correlation id and the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    pub(super) correlation_id: Option<String>,
    pub(super) traceparent: Option<String>,
}

/// Counts for the first lines on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) releases: usize,
    pub(super) open: usize,
    pub(super) unreported: usize,
    pub(super) shipped: u64,
}

impl Books {
    /// Turns the page. Entries are facts: none is refused.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Opened { .. } => {}
            Entry::Taken { at, release, .. } => {
                let taken = Ok((release.as_ref().clone(), at.0));
                self.releases.insert(release.release_id.clone(), Release::new(taken));
            }
            Entry::Rejected { release_id, code, .. } => {
                self.releases.insert(release_id.clone(), Release::new(Err(code.clone())));
            }
            Entry::Forgotten { release_id, .. } => {
                self.releases.remove(release_id);
            }
            Entry::Cancellation { release_id, lines, result, .. } => self.cancel(release_id, lines, *result),
            Entry::Loaded { at, manifest_id, correlation_id, traceparent, contents, .. } => {
                let manifest = Manifest {
                    loaded_at: at.0,
                    correlation_id: correlation_id.clone(),
                    traceparent: traceparent.clone(),
                    contents: contents.clone(),
                    departed: false,
                };
                self.manifests.insert(manifest_id.clone(), manifest);
            }
            Entry::Done { confirmation, shipped } => self.did(confirmation, shipped),
            Entry::Reported { confirmations, .. } => {
                for id in confirmations {
                    self.unreported.remove(id);
                }
            }
        }
    }

    fn cancel(&mut self, release_id: &str, lines: &Option<Vec<LineNo>>, result: CancellationResult) {
        self.cancellations.insert((release_id.to_owned(), lines.clone()), result);
        let Some(release) = self.releases.get_mut(release_id) else { return };
        if result == CancellationResult::Cancelled {
            let asked = |line: &LineNo| lines.as_ref().is_none_or(|lines| lines.contains(line));
            let lines: Vec<LineNo> = release.asked().map(|(line, _, _)| line).filter(asked).collect();
            release.cancelled.extend(lines);
        }
    }

    fn did(&mut self, confirmation: &ConfirmationMessage, shipped: &[ShippedUnits]) {
        let manifest = confirmation.manifest_id.as_ref().and_then(|id| self.manifests.get_mut(id));
        if let Some(manifest) = manifest {
            manifest.departed = true;
            for content in &manifest.contents {
                if let (Some(release), Some(carton)) =
                    (self.releases.get_mut(&content.release_id), &content.carton_id)
                {
                    release.gone.insert(carton.clone());
                }
            }
        }
        for units in shipped {
            if let Some(release) = self.releases.get_mut(&units.release_id) {
                *release.shipped.entry(units.line).or_default() += units.quantity;
            }
        }
        if let Some(release) = confirmation.release_id.as_ref().and_then(|id| self.releases.get_mut(id)) {
            release.done.push(confirmation.clone());
        }
        self.unreported.insert(confirmation.confirmation_id.clone(), confirmation.clone());
    }

    /// What was answered about a release: `Err` is the code of its rejection.
    pub(super) fn answer(&self, release_id: &str) -> Option<Result<(), String>> {
        let release = self.releases.get(release_id)?;
        Some(release.taken.as_ref().map(|_| ()).map_err(Clone::clone))
    }

    /// What was answered to the same question.
    pub(super) fn cancellation(
        &self,
        release_id: &str,
        lines: &Option<Vec<LineNo>>,
    ) -> Option<CancellationResult> {
        self.cancellations.get(&(release_id.to_owned(), lines.clone())).copied()
    }

    /// Whether the truck was loaded before.
    pub(super) fn is_loaded(&self, manifest_id: &str) -> bool {
        self.manifests.contains_key(manifest_id)
    }

    /// Whether this was done already: it is reported once more then, not done.
    pub(super) fn is_done(&self, confirmation: &ConfirmationMessage) -> bool {
        let of_manifest = confirmation.manifest_id.as_ref().and_then(|id| self.manifests.get(id));
        if let Some(manifest) = of_manifest {
            return manifest.departed;
        }
        let release = confirmation.release_id.as_ref().and_then(|id| self.releases.get(id));
        release.is_some_and(|r| r.done.iter().any(|c| c.confirmation_id == confirmation.confirmation_id))
    }

    /// What is on a truck: the units of each carton that has not left before.
    pub(super) fn cargo(&self, manifest_id: &str) -> Vec<ShippedUnits> {
        let mut cargo = Vec::new();
        let mut on_it = BTreeSet::new();
        for content in self.manifests.get(manifest_id).into_iter().flat_map(|m| &m.contents) {
            let (Some(release), Some(id)) = (self.releases.get(&content.release_id), &content.carton_id)
            else {
                continue;
            };
            if release.gone.contains(id) || !on_it.insert(id) {
                continue;
            }
            let carton = release.cartons().find(|c| c.carton_id == *id);
            for units in carton.into_iter().flat_map(|c| &c.lines) {
                cargo.push(ShippedUnits {
                    release_id: content.release_id.clone(),
                    line: units.line,
                    sku: release.sku(units.line).to_owned(),
                    quantity: units.quantity,
                });
            }
        }
        cargo
    }

    /// How a report is followed back to the call that it goes back to.
    pub(super) fn trail(&self, confirmation: &ConfirmationMessage) -> Trail {
        if let Some(manifest) = confirmation.manifest_id.as_ref().and_then(|id| self.manifests.get(id)) {
            let (correlation_id, traceparent) = (&manifest.correlation_id, &manifest.traceparent);
            return Trail { correlation_id: correlation_id.clone(), traceparent: traceparent.clone() };
        }
        confirmation.release_id.as_ref().map(|id| self.trail_of(id)).unwrap_or_default()
    }

    /// How a release is followed back to the call that it goes back to.
    pub(super) fn trail_of(&self, release_id: &str) -> Trail {
        match self.releases.get(release_id).map(|r| &r.taken) {
            Some(Ok((taken, _))) => Trail {
                correlation_id: Some(taken.correlation_id.clone()),
                traceparent: Some(taken.traceparent.clone()),
            },
            Some(Err(_)) | None => Trail::default(),
        }
    }

    /// Releases to go on with, as the floor takes them after a start.
    pub(super) fn open(&self) -> Vec<Presented> {
        let open = self.releases.iter().filter(|(_, r)| !r.is_settled());
        open.filter_map(|(id, release)| {
            let (_, taken_at) = release.taken.as_ref().ok()?;
            let lines = release.asked().filter(|(line, _, _)| !release.cancelled.contains(line));
            let missing = release.asked().map(|(line, _, _)| (line, release.missing(line)));
            Some(Presented {
                release: id.parse::<ReleaseId>().ok()?,
                released_at: *taken_at,
                lines: lines.map(|(line, _, q)| (line, q)).collect(),
                missing: missing.filter(|(_, q)| *q > 0).collect::<LineUnits>(),
            })
        })
        .collect()
    }

    /// Trucks that were loaded and have not left, and when they were.
    pub(super) fn loading(&self) -> Vec<(TransactionId, Timestamp)> {
        let loading = self.manifests.iter().filter(|(_, m)| !m.departed);
        loading.filter_map(|(id, m)| Some((id.parse().ok()?, m.loaded_at))).collect()
    }

    /// What was done and Wavegate may not know.
    pub(super) fn unreported(&self) -> Vec<ConfirmationMessage> {
        self.unreported.values().cloned().collect()
    }

    /// What is known of a release, as the protocol says it.
    pub(super) fn state(&self, release_id: &str) -> ReleaseStateMessage {
        let say = |state: &str, lines, cartons| ReleaseStateMessage {
            release_id: release_id.to_owned(),
            state: state.to_owned(),
            lines,
            cartons,
        };
        let Some(release) = self.releases.get(release_id) else { return say("unknown", vec![], vec![]) };
        if release.taken.is_err() {
            return say("rejected", vec![], vec![]);
        }
        let cartons: Vec<CartonMessage> = release.cartons().cloned().collect();
        if !release.shipped.is_empty() {
            let lines = release.shipped.iter().map(|(&line, &quantity)| UnitsMessage { line, quantity });
            return say("shipped", lines.collect(), cartons);
        }
        match release.done.last() {
            Some(last) => say(&last.kind, last.lines.clone(), cartons),
            None if release.asked().all(|(line, _, _)| release.cancelled.contains(&line)) => {
                say("cancelled", vec![], vec![])
            }
            None => say("taken", vec![], vec![]),
        }
    }

    /// Counts them.
    pub(super) fn totals(&self) -> Totals {
        let shipped = self.releases.values().flat_map(|r| r.shipped.values());
        Totals {
            releases: self.releases.len(),
            open: self.releases.values().filter(|r| !r.is_settled()).count(),
            unreported: self.unreported.len(),
            shipped: shipped.map(|q| u64::from(*q)).sum(),
        }
    }
}

impl Release {
    fn new(taken: Result<(TakenRelease, Timestamp), String>) -> Self {
        Release {
            taken,
            cancelled: BTreeSet::new(),
            done: Vec::new(),
            gone: BTreeSet::new(),
            shipped: BTreeMap::new(),
        }
    }

    fn asked(&self) -> impl Iterator<Item = (LineNo, &str, Quantity)> {
        let lines = self.taken.iter().flat_map(|(taken, _)| &taken.lines);
        lines.map(|l| (l.line, l.sku.as_str(), l.quantity))
    }

    fn sku(&self, line: LineNo) -> &str {
        self.asked().find(|(l, _, _)| *l == line).map_or("", |(_, sku, _)| sku)
    }

    fn cartons(&self) -> impl Iterator<Item = &CartonMessage> {
        self.done.iter().flat_map(|c| &c.cartons)
    }

    fn missing(&self, line: LineNo) -> Quantity {
        let missing = self.done.iter().filter(|c| matches!(c.kind.as_str(), "short_pick" | "damaged"));
        missing.flat_map(|c| &c.lines).filter(|u| u.line == line).map(|u| u.quantity).sum()
    }

    fn packed(&self, line: LineNo) -> Quantity {
        let units = self.cartons().flat_map(|c| &c.lines);
        units.filter(|u| u.line == line).map(|u| u.quantity).sum()
    }

    /// Every unit is packed, missing or cancelled.
    fn is_settled(&self) -> bool {
        self.asked()
            .all(|(line, _, q)| self.cancelled.contains(&line) || self.packed(line) + self.missing(line) >= q)
    }
}
