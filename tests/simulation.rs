//! The whole engine over the seeded world: one seed, one history. `SIM_SEED=n` replays one;
//! `SIM_SEEDS=n` runs more.

use wavegate_engine::sim::{Outcome, Profile, run};

/// Seeds run by default: a couple of minutes at most on two slow cores.
const SEEDS: u64 = 300;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

fn assert_well(seed: u64, outcome: &Outcome) {
    if !outcome.violations.is_empty() && std::env::var_os("SIM_SEED").is_some() {
        for line in &outcome.trace {
            eprintln!("{line}");
        }
    }
    assert!(outcome.violations.is_empty(), "replay with SIM_SEED={seed}: {:#?}", outcome.violations);
}

#[test]
fn in_a_calm_world_every_order_ships_or_ends_by_its_own_rule() {
    let mut shipped = 0;
    for seed in seeds().into_iter().take(20) {
        let outcome = run(seed, Profile::calm());
        assert_well(seed, &outcome);
        shipped += outcome.shipped;
    }
    assert!(shipped > 0, "a world in which nothing ships proves nothing");
}

#[test]
fn no_sequence_of_commands_reports_and_crashes_breaks_an_invariant() {
    let (mut shipped, mut panics, mut acknowledged) = (0, 0, 0);
    for seed in seeds() {
        let outcome = run(seed, Profile::harsh());
        assert_well(seed, &outcome);
        shipped += outcome.shipped;
        panics += outcome.panics;
        acknowledged += outcome.acknowledged;
    }
    eprintln!("{acknowledged} acknowledged, {shipped} shipped, {panics} panics survived");
    if std::env::var_os("SIM_SEED").is_none() {
        assert!(shipped > 0 && panics > 0, "a world in which nothing happens proves nothing");
    }
}

#[test]
fn the_same_seed_replays_to_the_same_trace() {
    for seed in [3, 17] {
        let (first, second) = (run(seed, Profile::harsh()), run(seed, Profile::harsh()));
        assert!(!first.trace.is_empty());
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}
