//! Rounds of something, repeated when others used the machine meanwhile.

use super::machine::{self, Watch};
use super::statistics::Series;
use super::{Bench, Error};

/// Rounds of something, and how many of them others spoiled.
pub(super) struct Rounds<T> {
    pub(super) all: Vec<T>,
    pub(super) spoiled: usize,
}

impl<T> Rounds<T> {
    pub(super) fn series(&self, value: impl Fn(&T) -> f64) -> Series {
        self.all.iter().map(value).collect()
    }
}

/// The number of a round.
#[derive(Clone, Copy)]
pub(super) struct Turn(usize);

impl Turn {
    /// Runs each of these, in every second round the last one first: what drifts within a round is to
    /// nobody's advantage.
    pub(super) async fn each<W: Copy, T, const N: usize>(
        self,
        all: [W; N],
        mut run: impl AsyncFnMut(W) -> Result<T, Error>,
    ) -> Result<[T; N], Error> {
        let mut order: [usize; N] = std::array::from_fn(|n| n);
        if !self.0.is_multiple_of(2) {
            order.reverse();
        }
        let mut done = [const { None }; N];
        for n in order {
            done[n] = Some(run(all[n]).await?);
        }
        Ok(done.map(|run| run.expect("each was run")))
    }
}

/// Which rounds count. One that others spoiled is repeated, but in all no more than twice the rounds are
/// run: on a machine that is never quiet something must be said too.
struct Counted {
    repeats: usize,
    spoiled: usize,
}

impl Counted {
    fn new(rounds: usize, noisy: bool) -> Counted {
        Counted { repeats: if noisy { 0 } else { rounds }, spoiled: 0 }
    }

    fn counts(&mut self, spoiled: bool) -> bool {
        if spoiled && self.repeats > 0 {
            self.repeats -= 1;
            return false;
        }
        self.spoiled += usize::from(spoiled);
        true
    }
}

impl Bench<'_> {
    /// Runs a round again and again, as often as was asked for.
    pub(super) async fn rounds<T>(
        &self,
        name: &str,
        round: impl AsyncFnMut(Turn) -> Result<T, Error>,
    ) -> Result<Rounds<T>, Error> {
        self.many_rounds(self.options.pairs, name, round).await
    }

    /// Runs `count` rounds of something.
    pub(super) async fn many_rounds<T>(
        &self,
        count: usize,
        name: &str,
        mut round: impl AsyncFnMut(Turn) -> Result<T, Error>,
    ) -> Result<Rounds<T>, Error> {
        let mut counted = Counted::new(count, self.options.noisy);
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            if !self.options.noisy {
                self.quiet(name).await;
            }
            self.tell(&format!("{name}: round {} of {count}", all.len() + 1));
            let watch = Watch::begin();
            let measured = round(Turn(all.len())).await?;
            let others = watch.others();
            let spoiled = machine::is_spoiled(others);
            if spoiled {
                let share = others * 100.0;
                self.tell(&format!("{name}: other work took {share:.0} % of the machine meanwhile"));
            }
            if counted.counts(spoiled) {
                all.push(measured);
            }
        }
        Ok(Rounds { all, spoiled: counted.spoiled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoiled_round_is_repeated_and_on_a_machine_that_is_never_quiet_not_for_ever() {
        let count = |spoiled: &[bool], noisy| {
            let mut counted = Counted::new(3, noisy);
            let counts = spoiled.iter().filter(|spoiled| counted.counts(**spoiled)).count();
            (counts, counted.spoiled)
        };
        assert_eq!(count(&[false, true, false, true, false], false), (3, 0));
        assert_eq!(count(&[true; 6], false), (3, 3));
        assert_eq!(count(&[true, false, true], true), (3, 2));
    }

    #[tokio::test]
    async fn every_second_round_runs_the_last_one_first_and_each_keeps_its_place() {
        for (turn, wanted) in [(0, ['a', 'b', 'c']), (1, ['c', 'b', 'a']), (2, ['a', 'b', 'c'])] {
            let mut ran = Vec::new();
            let each = Turn(turn).each(['a', 'b', 'c'], async |name| {
                ran.push(name);
                Ok(name.to_ascii_uppercase())
            });
            assert_eq!(each.await.unwrap(), ['A', 'B', 'C']);
            assert_eq!(ran, wanted);
        }
    }
}
