//! What a run has shown: each check with its target, as a table, as JSON, and beside an earlier
//! run's.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::statistics::Series;

/// A change of a check's value by more than this is no accident, as a share.
const CHANGE_MAX: f64 = 0.10;

/// Everything that a run has shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// Rounds of each measure.
    pub(crate) rounds: usize,
    /// Length of one run in seconds.
    pub(crate) seconds: f64,
    /// What was measured, by name.
    pub(crate) measured: Vec<Measured>,
    /// What was to be shown.
    pub(crate) checks: Vec<Check>,
}

/// A value as measured in every round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// What it is.
    pub(crate) name: String,
    /// Of the values.
    pub(crate) unit: String,
    /// Every round's.
    pub(crate) values: Series,
}

/// Which side of the target is good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtLeast(bound) => value >= bound,
            Target::AtMost(bound) => value <= bound,
        }
    }
}

/// Something to be shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    /// Its name in baselines.
    pub(crate) id: String,
    /// What is claimed.
    pub(crate) claim: String,
    /// Of the value; empty for a ratio.
    pub(crate) unit: String,
    /// Every round's.
    pub(crate) values: Series,
    /// Their median: what is held against the target.
    pub(crate) value: f64,
    /// What it must be.
    pub(crate) target: Target,
    /// Whether it is.
    pub(crate) met: bool,
    /// Rounds that other work on the machine spoiled, and that were kept all the same.
    pub(crate) spoiled: usize,
}

impl Check {
    /// Holds the median against a target.
    pub(super) fn new(id: &str, claim: &str, unit: &str, values: Series, target: Target) -> Check {
        let value = values.median();
        let (id, claim, unit) = (id.to_owned(), claim.to_owned(), unit.to_owned());
        Check { id, claim, unit, met: target.is_met(value), value, values, target, spoiled: 0 }
    }

    /// Says that this many of its rounds were spoiled.
    pub(super) fn spoiled(self, spoiled: usize) -> Check {
        Check { spoiled, ..self }
    }

    /// Whether it is worse than `before` by more than chance explains.
    fn is_lost(&self, before: &Check) -> bool {
        match self.target {
            Target::AtLeast(_) => self.value < before.value * (1.0 - CHANGE_MAX),
            Target::AtMost(_) => self.value > before.value * (1.0 + CHANGE_MAX),
        }
    }
}

impl Report {
    /// Adds what was measured under a name.
    pub(super) fn measure(&mut self, name: &str, unit: &str, values: Series) {
        self.measured.push(Measured { name: name.to_owned(), unit: unit.to_owned(), values });
    }

    /// The checks that missed their targets.
    pub(crate) fn missed(&self) -> Vec<&str> {
        self.checks.iter().filter(|c| !c.met).map(|c| c.id.as_str()).collect()
    }

    /// The checks that are worse than in an earlier report, with both values.
    pub(crate) fn lost_since(&self, before: &Report) -> Vec<String> {
        let pairs = self.checks.iter().filter_map(|check| {
            let earlier = before.checks.iter().find(|b| b.id == check.id)?;
            check.is_lost(earlier).then(|| {
                format!("{}: {} before, {} now", check.id, number(earlier.value), number(check.value))
            })
        });
        pairs.collect()
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.machine.line());
        for Measured { name, unit, values } in &self.measured {
            let (low, high) = values.range();
            let range = format!("{} to {}", number(low), number(high));
            line(&mut text, &format!("{name:<58} {:>9} {unit:<9} {range}", number(values.median())));
        }
        text.push('\n');
        for check in &self.checks {
            let mark = if check.met { "ok  " } else { "MISS" };
            let (low, high) = check.values.range();
            let range = format!("{} to {}", number(low), number(high));
            let value = format!("{} {}", number(check.value), check.unit);
            let target = format!("{:<10}", target(check.target));
            line(
                &mut text,
                &format!("{mark} {:<22} {value:>10}  {target} {range:<17} {}", check.id, check.claim),
            );
            if check.spoiled > 0 {
                line(&mut text, &spoiled(check));
            }
        }
        text
    }

    /// For a document.
    pub(crate) fn markdown(&self) -> String {
        let mut text = "| what | measured | rounds | target |\n|---|---|---|---|\n".to_owned();
        for check in &self.checks {
            let (low, high) = check.values.range();
            let unit = if check.unit.is_empty() { String::new() } else { format!(" {}", check.unit) };
            let missed = if check.met { "" } else { ", missed" };
            line(
                &mut text,
                &format!(
                    "| {} | **{}**{unit} | {} to {} | {}{missed} |",
                    check.claim,
                    number(check.value),
                    number(low),
                    number(high),
                    target(check.target)
                ),
            );
        }
        for Measured { name, unit, values } in &self.measured {
            let (low, high) = values.range();
            let range = format!("{} to {}", number(low), number(high));
            line(&mut text, &format!("| {name} | {} {unit} | {range} | |", number(values.median())));
        }
        line(&mut text, &format!("\nMedians of {} rounds: {}.", self.rounds, self.machine.line()));
        text
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{}", line.trim_end()).ok();
}

fn spoiled(check: &Check) -> String {
    format!("     other work on the machine spoiled {} of its {} rounds", check.spoiled, check.values.0.len())
}

fn target(target: Target) -> String {
    match target {
        Target::AtLeast(bound) => format!("≥ {}", number(bound)),
        Target::AtMost(bound) => format!("≤ {}", number(bound)),
    }
}

/// As many digits as mean something: whole numbers from a hundred on.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "–".into();
    }
    let size = value.abs();
    let text = if size >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(w, r)| (w, r));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, value: f64, target: Target) -> Check {
        Check::new(id, "a claim", "", Series(vec![value]), target)
    }

    fn report(checks: Vec<Check>) -> Report {
        Report { rounds: 1, checks, ..Report::default() }
    }

    #[test]
    fn a_target_is_met_at_its_bound_and_never_by_nothing() {
        assert!(check("a", 0.7, Target::AtLeast(0.7)).met && check("a", 1.6, Target::AtMost(1.6)).met);
        assert!(!check("a", 0.69, Target::AtLeast(0.7)).met && !check("a", 1.61, Target::AtMost(1.6)).met);
        assert!(!Check::new("a", "", "", Series::default(), Target::AtMost(1.0)).met);
    }

    #[test]
    fn a_tenth_less_than_before_is_a_loss_on_either_side() {
        let before = report(vec![
            check("rate", 1.0, Target::AtLeast(0.5)),
            check("cpu", 1.0, Target::AtMost(2.0)),
            check("gone", 1.0, Target::AtMost(2.0)),
        ]);
        let with = |rate, cpu| {
            report(vec![check("rate", rate, Target::AtLeast(0.5)), check("cpu", cpu, Target::AtMost(2.0))])
        };
        assert!(with(0.91, 1.09).lost_since(&before).is_empty());
        assert!(with(5.0, 0.1).lost_since(&before).is_empty(), "better is no loss");
        let lost = with(0.89, 1.11).lost_since(&before);
        assert_eq!(lost, ["rate: 1.00 before, 0.89 now", "cpu: 1.00 before, 1.11 now"]);
    }

    #[test]
    fn both_tables_show_value_target_and_a_miss() {
        let mut shown = report(vec![
            check("accept.paused", 0.5, Target::AtLeast(0.7)).spoiled(1),
            check("pipeline.orders", 12_345.0, Target::AtLeast(3_000.0)),
        ]);
        shown.measure("accepted", "/s", Series(vec![1.0, 3.0]));
        let (text, markdown) = (shown.text(), shown.markdown());
        assert!(text.contains("MISS accept.paused") && text.contains("12,345") && text.contains("≥ 0.70"));
        assert!(text.contains("spoiled 1 of its 1 rounds"), "{text}");
        assert!(markdown.contains("| a claim | **0.50** | 0.50 to 0.50 | ≥ 0.70, missed |"), "{markdown}");
        assert!(markdown.contains("| accepted | 2.00 /s | 1.00 to 3.00 | |"), "{markdown}");
        assert_eq!(shown.missed(), ["accept.paused"]);
    }

    #[test]
    fn a_report_is_read_back_from_its_json() {
        let shown = report(vec![check("a", 0.5, Target::AtLeast(0.7))]);
        let read: Report = serde_json::from_str(&serde_json::to_string(&shown).unwrap()).unwrap();
        assert_eq!(read.checks[0].target, Target::AtLeast(0.7));
        assert!(!read.checks[0].met);
    }

    #[test]
    fn numbers_are_grouped_and_short() {
        let shown = [0.123, 99.994, 100.4, 1_234_567.0, f64::NAN].map(number);
        assert_eq!(shown, ["0.12", "99.99", "100", "1,234,567", "–"]);
    }
}
