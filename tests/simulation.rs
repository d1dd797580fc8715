//! The whole engine over the seeded world: one seed, one history.
//!
//! `SIM_SEED=n` replays a seed to the same trace and prints it when something is wrong.
//! `SIM_SEEDS=n cargo test --release --test simulation -- --ignored` runs n seeds on all cores,
//! from `SIM_FROM` on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use wavegate_engine::ports::faults::FaultPoint;
use wavegate_engine::sim::{Outcome, Planted, Profile, run};

/// Within this many seeds each planted bug is found.
const FOUND_WITHIN: u64 = 100;
/// Failures that a long run prints.
const FAILURES_MAX: usize = 20;
/// What must have happened in every hundred harsh worlds, beside a panic at every fault point: one in which it did not proves nothing.
const MUST_HAPPEN: [&str; 64] = [
    "acknowledged",
    "applied",
    "assignments",
    "attempts gone",
    "attempts led elsewhere",
    "attempts not reached",
    "attempts refused",
    "attempts taken and denied",
    "attempts taken for the last time",
    "attempts that hang",
    "attempts too many",
    "attempts well",
    "attempts with a lost answer",
    "cancellations decided later",
    "cancelled",
    "clock steps",
    "clocks that drift",
    "damaged picks",
    "deaths at a write",
    "deliveries",
    "deliveries kept aside",
    "deliveries redriven",
    "deliveries repeated",
    "endpoints deleted",
    "endpoints disabled",
    "endpoints enabled again",
    "estimates told",
    "failed",
    "given up",
    "kept aside for deaths",
    "leases lost",
    "nodes asleep",
    "nodes drained",
    "nodes judged",
    "owners overtaken",
    "panics",
    "panics over an order",
    "pauses",
    "pings",
    "readers cut",
    "reads refused",
    "receivers silent",
    "redriven",
    "refused by a full lane",
    "rejected",
    "releases forgotten",
    "releases rejected",
    "releases rejected late",
    "replays",
    "reports out of order",
    "reports repeated",
    "rivals",
    "shipped",
    "short picks",
    "shutdowns",
    "silences",
    "stale commits",
    "stock told",
    "store stalls",
    "waves refused",
    "words lost",
    "writes applied and unknown",
    "writes lost and unknown",
    "writes refused",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// The seeds of a test: its own, or the one to replay.
fn seeds(own: Range<u64>) -> Vec<u64> {
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => own.collect(),
    }
}

/// Runs a world that must come to rest with nothing wrong.
fn assert_well(seed: u64, profile: Profile) -> Outcome {
    let outcome = run(seed, profile.clone());
    if !outcome.violations.is_empty() {
        if number("SIM_SEED").is_some() {
            let traced = run(seed, Profile { traced: true, ..profile });
            traced.trace.iter().for_each(|line| eprintln!("{line}"));
        }
        panic!("replay with SIM_SEED={seed}: {:#?}", outcome.violations);
    }
    outcome
}

fn add(total: &mut BTreeMap<&'static str, usize>, outcome: &Outcome) {
    for (what, n) in &outcome.seen {
        *total.entry(what).or_default() += n;
    }
}

fn harsh(range: Range<u64>) {
    let first = range.start == 0;
    if number("SIM_SEED").is_some() && !first {
        return;
    }
    let mut seen = BTreeMap::new();
    for seed in seeds(range) {
        add(&mut seen, &assert_well(seed, Profile::of_seed(seed)));
    }
    eprintln!("{seen:?}");
    if number("SIM_SEED").is_none() {
        let points = FaultPoint::ALL.map(FaultPoint::as_str);
        let all = MUST_HAPPEN.iter().chain(&points);
        let missing: Vec<_> = all.filter(|what| !seen.contains_key(**what)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

/// The runner gives each of these a core.
mod no_sequence_of_commands_reports_clocks_and_crashes_breaks_an_invariant {
    macro_rules! ranges {
        ($($name:ident: $range:expr,)*) => { $(#[test] fn $name() { super::harsh($range) })* };
    }
    ranges! {
        seeds_from_0: 0..100,
        seeds_from_100: 100..200,
        seeds_from_200: 200..300,
        seeds_from_300: 300..400,
        seeds_from_400: 400..500,
        seeds_from_500: 500..600,
    }
}

#[test]
fn in_a_calm_world_every_order_ships_or_ends_by_its_own_rule() {
    let mut shipped = 0;
    for seed in seeds(0..20) {
        let outcome = assert_well(seed, Profile { webhooks: true, ..Profile::calm() });
        assert_eq!((outcome.count("panics"), outcome.count("failed")), (0, 0));
        shipped += outcome.count("shipped");
    }
    assert!(shipped > 0, "a world in which nothing ships proves nothing");
}

#[test]
fn a_node_that_starts_again_finishes_what_little_there_is_without_a_word_from_anybody() {
    for seed in seeds(0..100) {
        assert_well(seed, Profile { steps: 4, warehouses: 1, last_words: true, ..Profile::calm() });
    }
}

#[test]
fn the_same_seed_replays_to_the_same_trace_alone_and_beside_other_worlds() {
    let traced = |seed| run(seed, Profile { traced: true, ..Profile::of_seed(seed) });
    // With nodes that share and sleep among them, and with webhooks.
    let seeds = [3, 6, 17, 30, 42, 62, 70, 99];
    assert!(seeds.iter().any(|seed| Profile::of_seed(*seed).shared && Profile::of_seed(*seed).webhooks));
    let alone = seeds.map(traced);
    let together = std::thread::scope(|threads| {
        seeds.map(|seed| threads.spawn(move || traced(seed))).map(|t| t.join().expect("a world runs"))
    });
    for (seed, (alone, together)) in seeds.iter().zip(alone.iter().zip(&together)) {
        assert!(alone.trace.len() > 100, "seed {seed}");
        let differs = alone.trace.iter().zip(&together.trace).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(alone.digest, together.digest, "seed {seed}");
        let untraced = run(*seed, Profile::of_seed(*seed));
        assert_eq!(alone.digest, untraced.digest, "seed {seed}: looking at a world changes it");
    }
    assert_ne!(alone[0].digest, alone[1].digest);
}

/// How often the tree of a warehouse was begun.
fn begun(outcome: &Outcome, partition: u16) -> usize {
    outcome.taken.get(&partition).copied().unwrap_or(0)
}

/// Seeds among which one has what leads to a point.
const LEADS_WITHIN: u64 = 20;

/// A world that is calm but for what it takes to come to a point, and a panic there.
fn that_comes_to(point: FaultPoint, visit: u32) -> Profile {
    let at = vec![(point, visit)];
    let calm = Profile { panics_at: at.clone(), ..Profile::calm() };
    match point {
        FaultPoint::House
        | FaultPoint::HouseLooks
        | FaultPoint::Ingestion
        | FaultPoint::Warehouse
        | FaultPoint::WarehouseTaken
        | FaultPoint::PipelineGathered
        | FaultPoint::PipelineDurable
        | FaultPoint::Inventory
        | FaultPoint::WmsLink
        | FaultPoint::WmsLinkCollects
        | FaultPoint::WmsLinkPerforms
        | FaultPoint::WmsLinkAnswered
        | FaultPoint::Manifester
        | FaultPoint::ManifesterLoads
        | FaultPoint::FeedHub
        | FaultPoint::FeedHubReads => calm,
        FaultPoint::HouseAgrees | FaultPoint::HouseHears => Profile { shared: true, rivals: 100, ..calm },
        FaultPoint::HouseTreeDown | FaultPoint::WarehouseChildDown => {
            Profile { panics_at: [vec![(FaultPoint::Inventory, 1)], at].concat(), ..calm }
        }
        FaultPoint::HouseDrains => Profile { deaths: 3, ..calm },
        FaultPoint::NotifierEnds | FaultPoint::EndpointFinishes => {
            Profile { deaths: 3, webhooks: true, ..calm }
        }
        FaultPoint::NotifierLooks
        | FaultPoint::NotifierAgrees
        | FaultPoint::EndpointBegins
        | FaultPoint::EndpointRefreshed
        | FaultPoint::Endpoint
        | FaultPoint::EndpointAnswered
        | FaultPoint::EndpointRecorded => Profile { webhooks: true, ..calm },
        FaultPoint::NotifierChildDown => Profile {
            panics_at: [vec![(FaultPoint::EndpointAnswered, 1)], at].concat(),
            webhooks: true,
            ..calm
        },
    }
}

#[test]
fn a_panic_in_any_actor_brings_its_tree_back_and_its_neighbours_do_not_notice() {
    for point in FaultPoint::ALL {
        // Some are come to once in a calm world: a later visit never comes.
        for visit in [1, 4] {
            let mut struck = false;
            for seed in 5..5 + LEADS_WITHIN {
                let outcome = assert_well(seed, that_comes_to(point, visit));
                assert!(outcome.count("shipped") > 0, "{point:?}: orders go on");
                struck = outcome.count(point.as_str()) == 1;
                assert_begun(point, visit, struck, &outcome);
                if struck || visit > 1 {
                    break;
                }
            }
            assert!(struck || visit > 1, "{point:?} was never visited");
        }
    }
}

/// How often the tree of the first warehouse, where a panic struck, and its neighbour's were begun.
fn assert_begun(point: FaultPoint, visit: u32, struck: bool, outcome: &Outcome) {
    let (own, neighbour) = (begun(outcome, 1), begun(outcome, 2));
    match point {
        // The root takes every tree with it.
        FaultPoint::House
        | FaultPoint::HouseLooks
        | FaultPoint::HouseAgrees
        | FaultPoint::HouseHears
        | FaultPoint::HouseTreeDown
        // The node has ended before.
        | FaultPoint::HouseDrains
        | FaultPoint::NotifierEnds
        | FaultPoint::EndpointFinishes => assert!(own >= 1 && neighbour >= 1, "{point:?}"),
        // No tree is theirs.
        FaultPoint::Ingestion
        | FaultPoint::FeedHub
        | FaultPoint::FeedHubReads
        | FaultPoint::NotifierLooks
        | FaultPoint::NotifierAgrees
        | FaultPoint::NotifierChildDown
        | FaultPoint::EndpointBegins
        | FaultPoint::EndpointRefreshed
        | FaultPoint::Endpoint
        | FaultPoint::EndpointAnswered
        | FaultPoint::EndpointRecorded
        // It dies before it takes the partition, and comes back to take it once.
        | FaultPoint::Warehouse => assert_eq!((own, neighbour), (1, 1), "{point:?} at visit {visit}"),
        // Its tree was dead already.
        FaultPoint::WarehouseChildDown => {
            assert_eq!((own, neighbour), (2, 1), "{point:?} at visit {visit}");
        }
        FaultPoint::WarehouseTaken
        | FaultPoint::PipelineGathered
        | FaultPoint::PipelineDurable
        | FaultPoint::Inventory
        | FaultPoint::WmsLink
        | FaultPoint::WmsLinkCollects
        | FaultPoint::WmsLinkPerforms
        | FaultPoint::WmsLinkAnswered
        | FaultPoint::Manifester
        | FaultPoint::ManifesterLoads => {
            assert_eq!((own, neighbour), (1 + usize::from(struck), 1), "{point:?} at visit {visit}");
        }
    }
}

/// The simulator is itself tested: what it is to find is planted, and it finds it and says what it is.
#[test]
fn each_planted_bug_is_found_within_a_hundred_seeds() {
    for planted in Planted::ALL {
        let found = (0..FOUND_WITHIN).find_map(|seed| {
            let outcome = run(seed, Profile { planted: Some(planted), ..Profile::harsh() });
            // A bug may show first by what follows from it; some seed must say what it is.
            let first = outcome.violations.first().filter(|first| first.id == planted.breaks());
            first.map(|first| (seed, first.clone()))
        });
        let (seed, first) = found.unwrap_or_else(|| panic!("{planted:?} is not found"));
        eprintln!("{planted:?} is found by seed {seed}: {first}");
    }
}

#[test]
#[ignore = "runs SIM_SEEDS seeds on all cores, for as long as that takes"]
fn as_many_seeds_as_are_asked_for() {
    let from = number("SIM_FROM").unwrap_or(0);
    let until = from + number("SIM_SEEDS").unwrap_or(1_000);
    let next = AtomicU64::new(from);
    let (seen, failures) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= until || failures.lock().expect("no world panics").len() >= FAILURES_MAX {
                        return;
                    }
                    let outcome = run(seed, Profile::of_seed(seed));
                    add(&mut seen.lock().expect("no world panics"), &outcome);
                    if let Some(first) = outcome.violations.first() {
                        eprintln!("SIM_SEED={seed}: {first}");
                        failures.lock().expect("no world panics").push(seed);
                    }
                    if (seed + 1).is_multiple_of(1_000) {
                        eprintln!("{} seeds are begun", seed + 1 - from);
                    }
                }
            });
        }
    });
    eprintln!("{:?}", seen.lock().expect("no world panics"));
    let failures = failures.into_inner().expect("no world panics");
    assert!(failures.is_empty(), "replay with SIM_SEED=: {failures:?}");
}
