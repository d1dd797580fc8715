//! When an endpoint is left alone as a whole: because it asked for it (`Retry-After`), or because its
//! deliveries fail one after the other (its breaker). Pure: no clock, no IO.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::endpoint::Schedule;
use crate::domain::time::Timestamp;
use crate::ports::endpoints::{Open, Rest};

/// Both reasons.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// It asked to be left alone until then.
    asked: Option<Timestamp>,
    breaker: Breaker,
}

/// The breaker of an endpoint: after ten failures in a row over different events it lets one try
/// through at a time.
#[derive(Debug, Default)]
struct Breaker {
    /// Events that failed since the last success, up to [`Breaker::FAILURES`]. In no record: after a
    /// death as many may fail again before it opens.
    failing: BTreeSet<u64>,
    open: Option<Open>,
    /// The event that is being tried while it is open.
    trying: Option<u64>,
}

impl Breaker {
    /// Failures in a row over different events.
    const FAILURES: usize = 10;

    fn failed(&mut self, sequence: u64, schedule: &Schedule, now: Timestamp) {
        let last = match self.open {
            Some(open) if self.trying == Some(sequence) => Some(open.pause),
            // It began before the breaker opened.
            Some(_) => return,
            None => {
                self.failing.insert(sequence);
                if self.failing.len() < Self::FAILURES {
                    return;
                }
                None
            }
        };
        let pause = schedule.breaker_pause(last);
        (self.open, self.trying) = (Some(Open { until: now.after(pause), pause }), None);
    }
}

impl Pauses {
    /// As the store knows them.
    pub(super) fn new(rest: Rest) -> Pauses {
        Pauses { asked: rest.asked, breaker: Breaker { open: rest.open, ..Breaker::default() } }
    }

    /// As the store is to know them.
    pub(super) fn rest(&self) -> Rest {
        Rest { asked: self.asked, open: self.breaker.open }
    }

    /// True while one try at a time is let through.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.open.is_some()
    }

    /// When an attempt that is due at `at` may begin; `None` while that depends on the outcome of
    /// another.
    pub(super) fn may_begin_at(&self, at: Timestamp) -> Option<Timestamp> {
        let at = self.asked.map_or(at, |asked| at.max(asked));
        match self.breaker.open {
            None => Some(at),
            Some(_) if self.breaker.trying.is_some() => None,
            Some(open) => Some(at.max(open.until)),
        }
    }

    /// An attempt begins.
    pub(super) fn began(&mut self, sequence: u64) {
        // What it had asked for is over.
        self.asked = None;
        if self.is_open() {
            self.breaker.trying = Some(sequence);
        }
    }

    /// An attempt has succeeded. What another's answer asked for stands: the consumer knows what it
    /// wants better than one event does.
    pub(super) fn succeeded(&mut self) {
        self.breaker = Breaker::default();
    }

    /// An attempt has failed. A shorter wish does not take back a longer one.
    pub(super) fn failed(
        &mut self,
        sequence: u64,
        retry_after: Option<Duration>,
        schedule: &Schedule,
        now: Timestamp,
    ) {
        if let Some(asked) = retry_after {
            self.asked = self.asked.max(Some(now.after(Schedule::granted(asked))));
        }
        self.breaker.failed(sequence, schedule, now);
    }

    /// An attempt has come to no outcome.
    pub(super) fn withdrawn(&mut self, sequence: u64) {
        if self.breaker.trying == Some(sequence) {
            self.breaker.trying = None;
        }
    }
}
