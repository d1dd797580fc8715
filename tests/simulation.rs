//! The whole engine over the seeded world: one seed, one history. `SIM_SEED=n` replays one;
//! `SIM_SEEDS=n` runs more.

use wavegate_engine::ports::faults::FaultPoint;
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
fn a_node_that_starts_again_finishes_what_little_there_is_without_a_word_from_anybody() {
    for seed in seeds().into_iter().take(100) {
        assert_well(
            seed,
            &run(seed, Profile { steps: 4, warehouses: 1, last_words: true, ..Profile::calm() }),
        );
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

/// How often the tree of a warehouse was begun.
fn begun(outcome: &Outcome, partition: u16) -> usize {
    let take = format!("take PartitionId({partition})");
    outcome.trace.iter().filter(|line| **line == take).count()
}

#[test]
fn a_panic_in_any_actor_brings_its_tree_back_and_its_neighbours_do_not_notice() {
    for point in FaultPoint::ALL {
        for visit in [1, 2, 7] {
            let outcome = run(5, Profile { panic_at: Some((point, visit)), ..Profile::calm() });
            assert_well(5, &outcome);
            assert!(outcome.shipped > 0, "{point:?}: orders go on");
            // The House and the Warehouse begin once in a calm world: later visits never come.
            let struck = outcome.panics == 1;
            assert!(struck || visit > 1, "{point:?} was never visited");
            let (own, neighbour) = (begun(&outcome, 1), begun(&outcome, 2));
            match point {
                FaultPoint::Ingestion => assert_eq!((own, neighbour), (1, 1), "{point:?}"),
                // The root takes every tree with it.
                FaultPoint::House => assert!(own >= 1 && neighbour >= 1),
                // It dies before it takes the partition, and comes back to take it once.
                FaultPoint::Warehouse => assert_eq!((own, neighbour), (1, 1), "{point:?}"),
                FaultPoint::PipelineGathered
                | FaultPoint::PipelineDurable
                | FaultPoint::Inventory
                | FaultPoint::WmsLink
                | FaultPoint::Manifester => {
                    assert_eq!((own, neighbour), (1 + usize::from(struck), 1), "{point:?} at visit {visit}");
                }
            }
        }
    }
}
