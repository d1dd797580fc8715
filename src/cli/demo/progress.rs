//! The demonstration's progress on standard error, and its numbers in words.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::cli::tell;

/// Without a terminal the counts are told this often.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// The order in which states are shown: the way of an order.
const STATES: [&str; 9] = [
    "accepted",
    "backordered",
    "allocated",
    "released",
    "picking",
    "packed",
    "manifested",
    "shipped",
    "failed",
];

/// Shows how far the orders are.
pub(super) struct Progress {
    count: usize,
    bar: Option<ProgressBar>,
    told: Mutex<Instant>,
}

impl Progress {
    /// For `count` orders.
    pub(super) fn new(count: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let length = u64::try_from(count).unwrap_or(u64::MAX);
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress { count, bar, told: Mutex::new(Instant::now()) }
    }

    /// Shows the open orders by state, and how many were accepted.
    pub(super) fn show(&self, accepted: usize, states: &BTreeMap<String, usize>) {
        let known = STATES.iter().map(|s| (*s, states.get(*s).copied().unwrap_or(0)));
        let shown: Vec<_> =
            known.filter(|(_, n)| *n > 0).map(|(s, n)| format!("{s} {}", grouped(n))).collect();
        let text = shown.join(" · ");
        match &self.bar {
            Some(bar) => {
                let shipped = states.get("shipped").copied().unwrap_or(0);
                bar.set_position(u64::try_from(shipped).unwrap_or(u64::MAX));
                bar.set_message(text);
            }
            None => {
                let mut told = self.told.lock();
                if told.elapsed() >= TELL_EVERY {
                    *told = Instant::now();
                    tell(&format!("{} of {} in: {text}\n", grouped(accepted), grouped(self.count)));
                }
            }
        }
    }

    /// Tells something between two looks.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(text)),
            None => tell(text),
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `p50 1.2 ms  p99 8.0 ms` of the durations; sorts them.
pub(super) fn percentiles(durations: &mut [Duration]) -> String {
    durations.sort_unstable();
    let at =
        |percent: usize| durations.get((durations.len() * percent / 100).min(durations.len().max(1) - 1));
    match (at(50), at(99)) {
        (Some(p50), Some(p99)) => format!("p50 {}, p99 {}", short(*p50), short(*p99)),
        (None, _) | (_, None) => "none".into(),
    }
}

fn short(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_percentiles_are_of_the_sorted() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let mut durations: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(&mut durations), "p50 51.0 ms, p99 100.0 ms");
        assert_eq!(percentiles(&mut []), "none");
    }
}
