//! How hard a world is, and what became of it.

use std::collections::BTreeMap;

use crate::domain::invariants::Violation;
use crate::ports::faults::FaultPoint;
use crate::sim::planted::Planted;

/// How hard a world is. Rates are in a thousand unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Steps of the workload: orders, moves, cancellations, repeats, bursts.
    pub steps: usize,
    /// Warehouses, at most four.
    pub warehouses: u16,
    /// Orders that a work lane takes.
    pub backlog_max: u64,
    /// Steps after which minutes pass, so that timeouts, sleep and sweeps are lived through.
    pub lulls: u64,
    /// Steps at which the wall clock steps, by minutes or hours, either way.
    pub clock_steps: u64,
    /// Steps at which a second node starts beside the first and takes what it can.
    pub rivals: u64,
    /// True when nodes know of each other and share the warehouses; the second one is no rival then.
    pub shared: bool,
    /// Renewals of a lease at which those of all other nodes end.
    pub leases: u64,
    /// Words between nodes that are lost.
    pub words_lost: u64,
    /// Store calls that are refused.
    pub refused: u64,
    /// Store writes that are applied and then answered as unknown.
    pub applied_unknown: u64,
    /// Store writes that are not applied and answered as unknown.
    pub lost_unknown: u64,
    /// Store calls that take seconds.
    pub stalls: u64,
    /// Panics, in ten thousand visits of a fault point.
    pub panics: u64,
    /// Orders whose working panics while faults last, now and then: three times, and they are kept aside.
    pub poisons: u64,
    /// Panics at the given visits of fault points in the first warehouse (or outside of any).
    pub panics_at: Vec<(FaultPoint, u32)>,
    /// Ends of the whole node before its last life: between two writes of the store, at any moment,
    /// or by an orderly shutdown.
    pub deaths: usize,
    /// True when the node dies once more after the last word, and the next must come to rest by
    /// what the store says alone.
    pub last_words: bool,
    /// WMS calls that fail, are answered late, or are answered twice.
    pub wms_faults: u64,
    /// Calls of the WMS, and attempts of a webhook, with which a silence of up to minutes begins.
    pub silences: u64,
    /// Reports that are repeated.
    pub repeats: u64,
    /// Releases with a short pick.
    pub shorts: u64,
    /// Releases that the WMS rejects.
    pub rejects: u64,
    /// Releases that it takes and refuses later, by a report.
    pub late_rejects: u64,
    /// Releases that it takes and forgets.
    pub forgets: u64,
    /// Waves that it refuses as a whole.
    pub refusals: u64,
    /// Cancellations that it decides later, through the control lane.
    pub pendings: u64,
    /// True when clients have webhook endpoints.
    pub webhooks: bool,
    /// Attempts of a webhook that go wrong.
    pub receiver_faults: u64,
    /// A bug that the world plants, to see that it is found.
    pub planted: Option<Planted>,
    /// True to keep every line of the trace and not only its digest.
    pub traced: bool,
}

impl Profile {
    /// A world in which nothing fails.
    #[must_use]
    pub fn calm() -> Profile {
        Profile {
            steps: 60,
            warehouses: 2,
            backlog_max: 12,
            lulls: 0,
            clock_steps: 0,
            rivals: 0,
            shared: false,
            leases: 0,
            words_lost: 0,
            refused: 0,
            applied_unknown: 0,
            lost_unknown: 0,
            stalls: 0,
            panics: 0,
            poisons: 0,
            panics_at: Vec::new(),
            deaths: 0,
            last_words: false,
            wms_faults: 0,
            silences: 0,
            repeats: 0,
            shorts: 0,
            rejects: 0,
            late_rejects: 0,
            forgets: 0,
            refusals: 0,
            pendings: 0,
            webhooks: false,
            receiver_faults: 0,
            planted: None,
            traced: false,
        }
    }

    /// A world in which everything fails now and then.
    #[must_use]
    pub fn harsh() -> Profile {
        Profile {
            lulls: 40,
            clock_steps: 30,
            rivals: 20,
            leases: 10,
            words_lost: 100,
            refused: 20,
            applied_unknown: 15,
            lost_unknown: 15,
            stalls: 3,
            panics: 60,
            poisons: 10,
            deaths: 3,
            last_words: true,
            wms_faults: 100,
            silences: 10,
            repeats: 150,
            shorts: 80,
            rejects: 20,
            late_rejects: 15,
            forgets: 20,
            refusals: 30,
            pendings: 300,
            webhooks: true,
            receiver_faults: 200,
            ..Profile::calm()
        }
    }

    /// The harsh world of a seed: one to three warehouses, every second one without rivals, for
    /// what only a stale owner may do is a violation there, every fourth one with nodes that share, now and then a long one, and every fifth
    /// with webhooks, for signing and rendering again make a world twice as long.
    #[must_use]
    pub fn of_seed(seed: u64) -> Profile {
        let harsh = Profile::harsh();
        Profile {
            steps: if seed % 16 == 7 { 3 * harsh.steps } else { harsh.steps },
            warehouses: 1 + (seed % 3) as u16,
            rivals: match seed % 4 {
                0 => harsh.rivals,
                // Nodes that share come and go more often than rivals.
                2 => 3 * harsh.rivals,
                _ => 0,
            },
            shared: seed % 4 == 2,
            webhooks: seed.is_multiple_of(5),
            ..harsh
        }
    }
}

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What must never be; empty when all is well.
    pub violations: Vec<Violation>,
    /// Every event of the world, in order, when the profile asks for it.
    pub trace: Vec<String>,
    /// A digest of the trace: the same for the same seed and profile.
    pub digest: u64,
    /// Times that each partition was taken by an owner.
    pub taken: BTreeMap<u16, usize>,
    /// What happened, by name, so that a test can see that a world was not an empty one.
    pub seen: BTreeMap<&'static str, usize>,
}

impl Outcome {
    /// How often something happened.
    #[must_use]
    pub fn count(&self, what: &str) -> usize {
        self.seen.get(what).copied().unwrap_or(0)
    }
}
