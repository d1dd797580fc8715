//! How a simulated warehouse behaves: what becomes of a release, and when.
//!
//! Everything about a release is a pure function of (seed, release, time of its wave), so that a
//! warehouse which is asked twice, or started again, does the same. No state, no clock, no IO.

use std::time::Duration;

use crate::domain::confirmation::PackedCarton;
use crate::domain::fact::LineUnits;
use crate::domain::ids::{LineNo, Quantity, ReleaseId, TransactionId};
use crate::domain::time::Timestamp;

/// What is drawn; each draw of one id has a salt of its own.
const PICK: u64 = 1;
const PACK: u64 = 2;
const SHORT: u64 = 3;
const TRACKING: u64 = 4;
const SILENT: u64 = 5;
const REJECT: u64 = 6;
const REFUSE: u64 = 7;
const DAMAGE: u64 = 8;
const FORGET: u64 = 9;
const LATE: u64 = 10;
const REPEAT: u64 = 11;
const REORDER: u64 = 12;
const HELD: u64 = 13;

/// How the warehouse behaves. Rates are from 0.0 to 1.0.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// From the wave to the beginning of the pick, give or take a quarter.
    pub pick: Duration,
    /// From there to the packed carton, give or take a quarter.
    pub pack: Duration,
    /// From the closed manifest to its departure.
    pub depart: Duration,
    /// The share of lines that miss one unit.
    pub short_pick_rate: f64,
    /// The share of lines of which one unit is found damaged.
    pub damage_rate: f64,
    /// The share of releases that it refuses.
    pub reject_rate: f64,
    /// The share of releases for whose sake it refuses the whole wave.
    pub refuse_rate: f64,
    /// The share of releases that it takes and forgets at once; in a later wave it is drawn anew.
    pub forget_rate: f64,
    /// The share of calls that it does not answer, nor act upon.
    pub silent_rate: f64,
    /// The share of calls that it acts upon and answers only after [`Settings::TOO_LATE`].
    pub late_rate: f64,
    /// The share of reports that it sends twice.
    pub repeat_rate: f64,
    /// The share of reports that it holds back, so that later ones overtake them.
    pub reorder_rate: f64,
    /// Reports after which it dies: it answers and reports nothing any more. 0: it does not.
    pub die_after: u64,
    /// Makes two warehouses, or two runs, differ.
    pub seed: u64,
}

/// What becomes of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The pick begins; from then on it cannot be cancelled.
    pub(super) picks: Timestamp,
    /// Everything is picked, or missing, and packed.
    pub(super) packs: Timestamp,
    /// Not found.
    pub(super) short: LineUnits,
    /// Found damaged.
    pub(super) damaged: LineUnits,
    /// The rest.
    pub(super) carton: Option<PackedCarton>,
}

impl Settings {
    /// When an answer is late: longer than any caller waits for it.
    pub const TOO_LATE: Duration = Duration::from_secs(20);
    /// How long a report is held back beyond the time of packing.
    const HOLD: Duration = Duration::from_secs(1);

    /// What becomes of these lines of a release; `known` is what it already reported as missing.
    ///
    /// Each line is drawn for itself: what becomes of it does not depend on the others, of which
    /// a cancellation may have taken some away.
    pub(super) fn plan(
        &self,
        release: ReleaseId,
        released_at: Timestamp,
        lines: &LineUnits,
        known: &LineUnits,
    ) -> Plan {
        let picks = released_at.after(self.about(self.pick, release, PICK));
        let packs = picks.after(self.about(self.pack, release, PACK));
        let one = |rate, line, salt, left: Quantity| {
            Quantity::from(left > 0 && self.of_line(rate, release, line, salt))
        };
        let mut short: LineUnits =
            lines.iter().map(|&(line, q)| (line, one(self.short_pick_rate, line, SHORT, q))).collect();
        let mut damaged: LineUnits = lines
            .iter()
            .map(|&(line, q)| (line, one(self.damage_rate, line, DAMAGE, q - units(&short, line))))
            .collect();
        // Other rates were in force when it reported: what it said then stands, and is all.
        let drawn = |line: LineNo| units(&short, line) + units(&damaged, line);
        let stands = known.iter().any(|&(line, q)| q > drawn(line));
        let missing: LineUnits =
            lines.iter().map(|&(l, _)| (l, if stands { units(known, l) } else { drawn(l) })).collect();
        if stands {
            short.clear();
            damaged.clear();
        }
        let mut packed: LineUnits =
            lines.iter().map(|&(line, q)| (line, q.saturating_sub(units(&missing, line)))).collect();
        for list in [&mut short, &mut damaged, &mut packed] {
            list.retain(|(_, quantity)| *quantity > 0);
        }
        let carton = (!packed.is_empty()).then(|| self.carton(release, packed));
        Plan { picks, packs, short, damaged, carton }
    }

    /// Whether it refuses the release.
    pub(super) fn rejects(&self, release: ReleaseId) -> bool {
        self.chance(self.reject_rate, release.order, salt(release, REJECT))
    }

    /// Whether it refuses a whole wave because this release is in it.
    pub(super) fn refuses_wave_of(&self, release: ReleaseId) -> bool {
        self.chance(self.refuse_rate, release.order, salt(release, REFUSE))
    }

    /// Whether it forgets the release that came with this wave.
    pub(super) fn forgets(&self, release: ReleaseId, released_at: Timestamp) -> bool {
        let wave = released_at.0.unsigned_abs() << 24;
        self.chance(self.forget_rate, release.order, wave ^ salt(release, FORGET))
    }

    /// Whether it hears the `n`th call, which is about `id`.
    pub(super) fn hears(&self, id: TransactionId, n: u64) -> bool {
        !self.chance(self.silent_rate, id, n << 8 | SILENT)
    }

    /// How long it waits with the answer to the `n`th call.
    pub(super) fn dawdles(&self, id: TransactionId, n: u64) -> Duration {
        let late = self.chance(self.late_rate, id, n << 8 | LATE);
        if late { Settings::TOO_LATE } else { Duration::ZERO }
    }

    /// Whether it sends its `n`th report, which is about `id`, twice.
    pub(super) fn repeats(&self, id: TransactionId, n: u64) -> bool {
        self.chance(self.repeat_rate, id, n << 8 | REPEAT)
    }

    /// How long it holds back its `n`th report, which is about `id`.
    pub(super) fn holds_back(&self, id: TransactionId, n: u64) -> Duration {
        if !self.chance(self.reorder_rate, id, n << 8 | REORDER) {
            return Duration::ZERO;
        }
        self.spread(self.pack.saturating_add(Settings::HOLD), id, n << 8 | HELD)
    }

    fn carton(&self, release: ReleaseId, lines: LineUnits) -> PackedCarton {
        let grams = lines.iter().map(|(_, q)| q.saturating_mul(250)).fold(100, u32::saturating_add);
        PackedCarton {
            carton_id: format!("{release}/1"),
            tracking_number: Some(format!("1Z{:016X}", self.draw(release.order, salt(release, TRACKING)))),
            weight_g: Some(grams),
            lines,
        }
    }

    /// 64 bits that belong to these two numbers and the seed, always the same.
    fn draw(&self, id: TransactionId, salt: u64) -> u64 {
        let (high, low) = id.0.as_u64_pair();
        // SplitMix64 (Steele, Lea, Flood 2014) over the id, the salt and the seed.
        let mut z = high ^ low.rotate_left(32) ^ self.seed ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn chance(&self, rate: f64, id: TransactionId, salt: u64) -> bool {
        // 53 bits fill a float exactly.
        ((self.draw(id, salt) >> 11) as f64) < rate * (1u64 << 53) as f64
    }

    fn of_line(&self, rate: f64, release: ReleaseId, line: LineNo, what: u64) -> bool {
        self.chance(rate, release.order, u64::from(line) << 32 ^ salt(release, what))
    }

    fn about(&self, time: Duration, release: ReleaseId, what: u64) -> Duration {
        self.spread(time, release.order, salt(release, what))
    }

    /// Three quarters to five quarters of a time.
    fn spread(&self, time: Duration, id: TransactionId, salt: u64) -> Duration {
        let permille = 750 + self.draw(id, salt) % 501;
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(ms.saturating_mul(permille) / 1_000)
    }
}

/// Separates the releases of one order, and what is drawn about each.
fn salt(release: ReleaseId, what: u64) -> u64 {
    u64::from(release.n) << 8 | what
}

fn units(of: &LineUnits, line: LineNo) -> Quantity {
    of.iter().find(|(l, _)| *l == line).map_or(0, |(_, q)| *q)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::PartitionId;

    fn release(random: u64) -> ReleaseId {
        ReleaseId { order: TransactionId::new(Timestamp(1_000), PartitionId(1), random), n: 1 }
    }

    fn harsh() -> Settings {
        Settings { short_pick_rate: 0.5, damage_rate: 0.5, ..Settings::default() }
    }

    fn lines(lines: &[(LineNo, Quantity)]) -> LineUnits {
        LineUnits::from_slice(lines)
    }

    #[test]
    fn every_unit_is_packed_or_missing_and_none_twice() {
        let asked = lines(&[(1, 1), (2, 2), (3, 40)]);
        for random in 0..500 {
            let plan = harsh().plan(release(random), Timestamp(0), &asked, &LineUnits::new());
            let packed = plan.carton.map(|c| c.lines).unwrap_or_default();
            for &(line, q) in &asked {
                let all = units(&plan.short, line) + units(&plan.damaged, line) + units(&packed, line);
                assert_eq!(all, q, "line {line} of {random}");
            }
        }
    }

    #[test]
    fn what_becomes_of_a_line_does_not_depend_on_the_others() {
        for random in 0..200 {
            let of = |asked: &[(LineNo, Quantity)]| {
                harsh().plan(release(random), Timestamp(0), &lines(asked), &LineUnits::new())
            };
            let (both, alone) = (of(&[(1, 3), (2, 3)]), of(&[(2, 3)]));
            assert_eq!(units(&both.short, 2), units(&alone.short, 2));
            assert_eq!(units(&both.damaged, 2), units(&alone.damaged, 2));
        }
    }

    #[test]
    fn what_was_reported_under_other_rates_stands() {
        let known = lines(&[(1, 2)]);
        let plan = Settings::default().plan(release(1), Timestamp(0), &lines(&[(1, 3), (2, 1)]), &known);
        assert!(plan.short.is_empty() && plan.damaged.is_empty());
        assert_eq!(plan.carton.unwrap().lines, lines(&[(1, 1), (2, 1)]));
    }

    #[test]
    fn a_forgotten_release_is_drawn_anew_with_each_wave() {
        let forgetful = Settings { forget_rate: 0.5, ..Settings::default() };
        let forgets = |ms| forgetful.forgets(release(1), Timestamp(ms));
        assert!((0..64).any(forgets) && !(0..64).all(forgets));
        assert_eq!(forgets(7), forgets(7));
    }

    #[test]
    fn rates_are_shares() {
        let settings = Settings { reject_rate: 0.25, ..Settings::default() };
        let rejected = (0..4_000).filter(|n| settings.rejects(release(*n))).count();
        assert!((850..1_150).contains(&rejected), "{rejected}");
    }
}
