//! What every store must do, as claims that are run over each backend. It must never look at
//! rows: what is not seen through the trait is no claim.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::command::{
    Allocation, CancellationCommand, Change, Command, Kind, ManifestCommand, MoveCommand, OrderCommand,
    OrderLine, Priority, ShipTo,
};
use crate::domain::confirmation::{Confirmation, ReleaseReport, Report};
use crate::domain::estimate::Estimate;
use crate::domain::fact::{Accepted, Fact, ManifestFact, MoveFact, OrderFact, Recorded, Units};
use crate::domain::ids::{ClientNo, PartitionId, ReleaseId, Sku, TraceContext, TransactionId};
use crate::domain::promise::{Promise, ToldEstimate};
use crate::domain::stock::Position;
use crate::domain::time::Timestamp;
use crate::ports::announcement::{Announcement, StockChange};
use crate::ports::store::{
    CommitError, DeadKind, DeadLetter, FeedBounds, Fence, GatherLimits, IdempotencyKey, Instruction, Kept,
    Lane, LaneItem, Lookup, ManifestCarton, NewCommand, NewEstimate, NewFacts, Points, RegisterError,
    Registration, Settled, SharedStore, StoredWave, TurnCommit, Verdict,
};
use crate::ports::trouble::{Span, Thing, Trouble};
use crate::store::digest;
pub(super) use crate::store::endpoints_tests::{
    a_deleted_endpoint_is_gone_at_once_and_its_rows_by_and_by, an_endpoint_begins_at_the_end_of_its_feed,
    an_endpoint_rests_until_its_next_record_or_until_it_is_enabled, attempts_are_remembered_up_to_a_number,
    changes_of_an_endpoint_are_seen_and_numbered, dead_deliveries_are_paged_revived_and_given_up,
    deliveries_are_recorded_by_the_last_epoch_only, endpoints_are_kept_whole_and_each_client_has_its_own,
    replays_wait_for_the_actor_up_to_a_number,
    what_is_skipped_is_known_until_a_record_says_that_it_was_looked_through,
    what_stands_about_deliveries_is_read_endpoint_by_endpoint,
};

/// A store under test and what keeps it alive.
pub(super) struct Subject {
    pub(super) store: SharedStore,
    /// Held until the test is over: a temporary directory.
    pub(super) _keep: Box<dyn std::any::Any>,
}

/// Runs every claim over the stores that `$make` begins; a backend joins by one line. `together` is for
/// one that takes long to begin: there it is begun once, and emptied between two claims.
macro_rules! contract {
    (together $backend:ident, $make:expr) => {
        mod $backend {
            use crate::store::contract as claims;
            contract!(@claims together $make);
        }
    };
    ($backend:ident, $make:expr) => {
        mod $backend {
            use crate::store::contract as claims;
            contract!(@claims each $make);
        }
    };
    (@claims $way:ident $make:expr) => {
            contract!(@$way $make,
                a_new_command_is_found_again_whole
                a_repeat_is_a_replay_also_within_a_batch
                a_reference_with_other_content_is_a_conflict
                references_of_other_kinds_and_clients_do_not_meet
                a_key_with_other_content_is_reused_and_judged_before_the_reference
                a_replay_under_a_new_key_claims_that_key
                keys_of_different_calls_do_not_meet
                the_longest_references_are_told_apart
                the_backlog_counts_the_work_lane_only_and_replays_pass
                lanes_are_gathered_in_order_and_stay_until_taken
                a_commit_with_a_void_fence_writes_nothing
                a_load_sees_all_that_was_written_before_the_take
                feeds_have_no_holes_and_the_house_has_none
                old_events_are_evicted_in_steps_and_their_numbers_are_never_given_again
                a_transactions_events_are_found_without_its_feed
                what_changed_in_stock_is_untold_until_its_feed_is_told
                what_was_told_of_an_estimate_stands_with_its_order_and_in_its_feed
                orders_are_paged_by_id
                positions_are_paged_by_sku
                long_commands_facts_and_reports_come_back_whole
                waves_stand_until_they_are_answered
                cartons_keep_their_order
                what_ended_becomes_a_tombstone_and_then_nothing
                a_partition_is_for_ever_and_clients_keep_their_numbers
                filled_lanes_and_deadlines_wake_partitions
                serials_are_never_handed_out_twice
                dead_letters_are_kept_in_order_and_paged
                a_redriven_letter_goes_back_as_it_came
                what_was_said_about_an_order_goes_on_with_it
                an_order_has_one_letter_and_none_once_it_goes_on
                a_pause_needs_no_owner_and_outlasts_turns
                starts_are_counted_until_a_turn_says_otherwise
                a_scan_finds_every_transaction_once
                endpoints_are_kept_whole_and_each_client_has_its_own
                changes_of_an_endpoint_are_seen_and_numbered
                an_endpoint_begins_at_the_end_of_its_feed
                deliveries_are_recorded_by_the_last_epoch_only
                attempts_are_remembered_up_to_a_number
                an_endpoint_rests_until_its_next_record_or_until_it_is_enabled
                what_is_skipped_is_known_until_a_record_says_that_it_was_looked_through
                what_stands_about_deliveries_is_read_endpoint_by_endpoint
                dead_deliveries_are_paged_revived_and_given_up
                replays_wait_for_the_actor_up_to_a_number
                a_deleted_endpoint_is_gone_at_once_and_its_rows_by_and_by
            );
    };
    (@together $make:expr, $($claim:ident)+) => {
        #[tokio::test] async fn every_claim_of_the_contract_holds() {
            let mut make = $make;
            $(
                println!(stringify!($claim));
                let subject: claims::Subject = make();
                claims::$claim(&subject.store).await;
            )+
        }
    };
    (@each $make:expr, $($claim:ident)+) => {
        $(#[tokio::test] async fn $claim() {
            let subject: claims::Subject = $make;
            claims::$claim(&subject.store).await;
        })+
    };
}

contract!(
    memory,
    claims::Subject { store: std::sync::Arc::new(crate::store::MemoryStore::new()), _keep: Box::new(()) }
);

contract!(embedded, crate::store::embedded::tests::subject());

contract!(redis, crate::store::redis::tests::subject());

contract!(together redis_cluster, crate::store::redis::cluster_tests::subjects());

pub(super) const CLIENT: ClientNo = ClientNo(1);
pub(super) const HERE: PartitionId = PartitionId(7);
const ALL: GatherLimits = GatherLimits { control: 100, stock: 100, work: 100 };

pub(super) fn id(n: u64) -> TransactionId {
    TransactionId::new(Timestamp(1_000 + i64::try_from(n).unwrap()), HERE, n)
}

fn sku(name: &str) -> Sku {
    name.parse().unwrap()
}

pub(super) fn accepted(at: i64) -> Recorded {
    let trace = TraceContext { trace_id: 1, parent_id: 2, flags: 1, state: None };
    let accepted = Accepted { correlation: "call-1".parse().unwrap(), trace };
    Recorded { at: Timestamp(at), fact: Fact::Accepted(accepted) }
}

fn fact(at: i64, fact: OrderFact) -> Recorded {
    Recorded { at: Timestamp(at), fact: Fact::Order(fact) }
}

fn address() -> ShipTo {
    ShipTo {
        name: "Ada".into(),
        company: None,
        lines: vec!["1 Dock Road".into()],
        city: "Leeds".into(),
        region: None,
        postal_code: Some("LS1".into()),
        country: "GB".into(),
        phone: None,
        email: None,
    }
}

fn order_of(reference: &str, lines: Vec<OrderLine>) -> Command {
    Command::Order(OrderCommand {
        reference: reference.parse().unwrap(),
        warehouse: None,
        service_level: "standard".into(),
        allocation: Allocation::ShipComplete,
        priority: Priority::default(),
        not_before: None,
        requested_ship_by: None,
        lines,
        metadata: std::collections::BTreeMap::new(),
    })
}

pub(super) fn order(n: u64, reference: &str, quantity: u32) -> NewCommand {
    let lines = vec![OrderLine { line: 1, sku: sku("A"), quantity }];
    with_address(new(n, order_of(reference, lines)))
}

fn with_address(mut new: NewCommand) -> NewCommand {
    new.ship_to = Some(address());
    new.digest = digest(&new.command, new.ship_to.as_ref());
    new
}

fn new(n: u64, command: Command) -> NewCommand {
    NewCommand {
        id: id(n),
        client: CLIENT,
        key: None,
        digest: digest(&command, None),
        command,
        ship_to: None,
        accepted: accepted(1_000 + i64::try_from(n).unwrap()),
        backlog_max: 1_000,
    }
}

pub(super) fn receipt(n: u64, reference: &str, quantity: u32) -> NewCommand {
    new(
        n,
        Command::Move(MoveCommand {
            reference: reference.parse().unwrap(),
            warehouse: "W".into(),
            sku: sku("A"),
            change: Change::Receipt { quantity },
        }),
    )
}

fn cancellation(n: u64, of: TransactionId) -> NewCommand {
    let reference = format!("cancel:{of}").parse().unwrap();
    new(n, Command::Cancellation(CancellationCommand { reference, order: of, lines: None }))
}

fn keyed(mut new: NewCommand, call: Kind, key: &str) -> NewCommand {
    new.key = Some(IdempotencyKey { call, key: key.into() });
    new
}

fn report(n: u32) -> Confirmation {
    Confirmation {
        confirmation_id: format!("c{n}"),
        at: Timestamp(5),
        report: Report::Release { release: ReleaseId { order: id(1), n: 1 }, step: ReleaseReport::Picking },
    }
}

pub(super) async fn accept(store: &SharedStore, batch: Vec<NewCommand>) -> Vec<Verdict> {
    store.accept(batch).await.wait().await.unwrap()
}

pub(super) async fn take(store: &SharedStore, nonce: u64) -> Fence {
    store.take(HERE, nonce).await.unwrap().wait().await.unwrap()
}

pub(super) async fn commit(store: &SharedStore, fence: Fence, turn: TurnCommit) -> Result<(), CommitError> {
    store.commit(fence, turn).await?.wait().await
}

async fn live(store: &SharedStore, id: TransactionId) -> crate::ports::store::StoredTransaction {
    match store.transaction(id).await.unwrap() {
        Some(Lookup::Live(stored)) => Arc::unwrap_or_clone(stored),
        other => panic!("{id} should be live, is {other:?}"),
    }
}

fn facts(id: TransactionId, first_version: u32, facts: Vec<Recorded>) -> NewFacts {
    NewFacts { id, client: CLIENT, first_version, facts }
}

pub(super) async fn a_new_command_is_found_again_whole(store: &SharedStore) {
    let new = keyed(order(1, "r1", 3), Kind::Order, "k1");
    assert_eq!(accept(store, vec![new.clone()]).await, [Verdict::New]);
    let stored = live(store, new.id).await;
    assert_eq!((stored.id, stored.client, stored.digest), (new.id, CLIENT, new.digest));
    assert_eq!((stored.command, stored.facts), (new.command, vec![new.accepted]));
    assert_eq!(store.ship_to(new.id).await.unwrap(), Some(address()));
    assert_eq!(store.transaction(id(2)).await.unwrap(), None);
    let found = store.claimed(CLIENT, Kind::Order, "r1".parse().unwrap()).await.unwrap();
    assert_eq!(found, Some(new.id));
}

pub(super) async fn a_repeat_is_a_replay_also_within_a_batch(store: &SharedStore) {
    let batch = vec![order(1, "r1", 3), order(2, "r1", 3), order(3, "r1", 4)];
    let same = [Verdict::New, Verdict::Replay(id(1)), Verdict::ReferenceConflict(id(1))];
    assert_eq!(accept(store, batch).await, same);
    assert_eq!(accept(store, vec![order(4, "r1", 3)]).await, [Verdict::Replay(id(1))]);
    assert_eq!(store.scan(None, 10).await.unwrap().len(), 1);
    assert_eq!(store.feed(CLIENT, 0, 10).await.unwrap().len(), 1);
}

pub(super) async fn a_reference_with_other_content_is_a_conflict(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 3)]).await;
    let mut moved_house = order(2, "r1", 3);
    moved_house.ship_to.as_mut().unwrap().city = "York".into();
    moved_house.digest = digest(&moved_house.command, moved_house.ship_to.as_ref());
    let verdicts = accept(store, vec![order(3, "r1", 4), moved_house]).await;
    assert_eq!(verdicts, [Verdict::ReferenceConflict(id(1)); 2]);
}

pub(super) async fn references_of_other_kinds_and_clients_do_not_meet(store: &SharedStore) {
    let other = NewCommand { client: ClientNo(2), ..order(3, "r1", 9) };
    let verdicts = accept(store, vec![order(1, "r1", 3), receipt(2, "r1", 5), other]).await;
    assert_eq!(verdicts, [Verdict::New; 3]);
    let found = store.claimed(CLIENT, Kind::Move, "r1".parse().unwrap()).await.unwrap();
    assert_eq!(found, Some(id(2)));
}

pub(super) async fn a_key_with_other_content_is_reused_and_judged_before_the_reference(store: &SharedStore) {
    accept(store, vec![keyed(order(1, "r1", 3), Kind::Order, "k1"), order(2, "r2", 3)]).await;
    // The reference alone would be a replay of the second, or free.
    let verdicts = accept(
        store,
        vec![
            keyed(order(3, "r2", 3), Kind::Order, "k1"),
            keyed(order(4, "r3", 3), Kind::Order, "k1"),
            keyed(order(5, "r1", 3), Kind::Order, "k1"),
            keyed(order(6, "r1", 4), Kind::Order, "k2"),
        ],
    )
    .await;
    let conflict = Verdict::ReferenceConflict(id(1));
    assert_eq!(verdicts, [Verdict::KeyReused, Verdict::KeyReused, Verdict::Replay(id(1)), conflict]);
}

pub(super) async fn a_replay_under_a_new_key_claims_that_key(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 3)]).await;
    let replay = accept(store, vec![keyed(order(2, "r1", 3), Kind::Order, "k1")]).await;
    assert_eq!(replay, [Verdict::Replay(id(1))]);
    let reused = accept(store, vec![keyed(order(3, "r9", 3), Kind::Order, "k1")]).await;
    assert_eq!(reused, [Verdict::KeyReused]);
}

pub(super) async fn keys_of_different_calls_do_not_meet(store: &SharedStore) {
    let batch = vec![keyed(order(1, "r", 3), Kind::Order, "k"), keyed(receipt(2, "r", 3), Kind::Move, "k")];
    assert_eq!(accept(store, batch).await, [Verdict::New; 2]);
}

pub(super) async fn the_longest_references_are_told_apart(store: &SharedStore) {
    let long = |end: &str| format!("{}{end}", "📦".repeat(127));
    let batch = vec![order(1, &long("a"), 1), order(2, &long("📦"), 1), order(3, &long("🚚"), 1)];
    assert_eq!(accept(store, batch).await, [Verdict::New; 3]);
    let found = store.claimed(CLIENT, Kind::Order, long("🚚").parse().unwrap()).await.unwrap();
    assert_eq!(found, Some(id(3)));
    assert_eq!(accept(store, vec![order(4, &long("📦"), 1)]).await, [Verdict::Replay(id(2))]);
}

pub(super) async fn the_backlog_counts_the_work_lane_only_and_replays_pass(store: &SharedStore) {
    let limited = |new: NewCommand| NewCommand { backlog_max: 2, ..new };
    let batch = vec![
        receipt(1, "m1", 1),
        receipt(2, "m2", 1),
        limited(order(3, "r3", 1)),
        limited(order(4, "r4", 1)),
        limited(order(5, "r5", 1)),
        limited(order(6, "r3", 1)),
        limited(receipt(7, "m7", 1)),
        limited(cancellation(8, id(3))),
    ];
    let verdicts = accept(store, batch).await;
    assert_eq!(verdicts[2..6], [Verdict::New, Verdict::New, Verdict::BacklogFull, Verdict::Replay(id(3))]);
    assert_eq!(verdicts[6..], [Verdict::New, Verdict::New]);
    assert_eq!(store.transaction(id(5)).await.unwrap(), None);
    // A pull makes room.
    let fence = take(store, 1).await;
    let taken = vec![(Lane::Work, 1)];
    commit(store, fence, TurnCommit { taken, ..TurnCommit::default() }).await.unwrap();
    assert_eq!(accept(store, vec![limited(order(9, "r5", 1))]).await, [Verdict::New]);
}

pub(super) async fn lanes_are_gathered_in_order_and_stay_until_taken(store: &SharedStore) {
    let batch = vec![order(1, "r1", 1), receipt(2, "m2", 1), order(3, "r3", 1), cancellation(4, id(1))];
    accept(store, batch).await;
    store.append_reports(HERE, vec![report(1), report(2)]).await.unwrap().wait().await.unwrap();
    let fence = take(store, 1).await;
    let gathered = store.gather(fence, ALL).await.unwrap();
    let seen: Vec<_> = gathered.entries.iter().map(|e| (e.lane, e.n)).collect();
    let control = [(Lane::Control, 1), (Lane::Control, 2), (Lane::Control, 3)];
    assert_eq!(seen, [&control[..], &[(Lane::Stock, 1), (Lane::Work, 1), (Lane::Work, 2)]].concat());
    assert!(matches!(&gathered.entries[0].item, LaneItem::Transaction(t) if t.id == id(4)));
    assert!(matches!(&gathered.entries[2].item, LaneItem::Report(r) if r.confirmation_id == "c2"));
    assert_eq!((gathered.backlog, gathered.next), (2, None));
    let one = store.gather(fence, GatherLimits { work: 1, ..ALL }).await.unwrap();
    assert_eq!((one.entries.len(), one.backlog, one.next), (5, 2, Some(Timestamp(1_003))));

    let taken = vec![(Lane::Control, 2), (Lane::Work, 1)];
    commit(store, fence, TurnCommit { taken, ..TurnCommit::default() }).await.unwrap();
    let limits = GatherLimits { control: 2, stock: 0, work: 0 };
    let gathered = store.gather(fence, limits).await.unwrap();
    let seen: Vec<_> = gathered.entries.iter().map(|e| (e.lane, e.n)).collect();
    assert_eq!(seen, [(Lane::Control, 1), (Lane::Control, 3)]);
    assert_eq!((gathered.backlog, gathered.next), (1, Some(Timestamp(1_003))));
}

pub(super) async fn a_commit_with_a_void_fence_writes_nothing(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 1)]).await;
    let first = take(store, 11).await;
    let second = take(store, 22).await;
    assert!((1..second.epoch).contains(&first.epoch) && second.nonce == 22, "{first:?} {second:?}");
    let turn = || TurnCommit {
        taken: vec![(Lane::Work, 1)],
        facts: vec![facts(id(1), 2, vec![fact(5, OrderFact::Backordered)])],
        ..TurnCommit::default()
    };
    for void in [first, Fence { nonce: 23, ..second }, Fence { epoch: second.epoch + 1, ..second }] {
        assert!(matches!(commit(store, void, turn()).await, Err(CommitError::Conflict)), "{void:?}");
    }
    assert_eq!(live(store, id(1)).await.version(), 1);
    commit(store, second, turn()).await.unwrap();
    assert_eq!(live(store, id(1)).await.version(), 2);
}

pub(super) async fn a_load_sees_all_that_was_written_before_the_take(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 1), order(2, "r2", 1), order(3, "r3", 1)]).await;
    let before = take(store, 1).await;
    let position = Position { on_hand: 9, reserved: 1, known: true, ..Position::default() };
    let turn = TurnCommit {
        taken: vec![(Lane::Work, 1), (Lane::Work, 2)],
        facts: vec![facts(id(1), 2, vec![fact(5, OrderFact::Allocated { units: Units::Whole })])],
        positions: vec![((CLIENT, sku("A")), position)],
        opened: vec![id(1), id(2)],
        closed: vec![id(2)],
        ..TurnCommit::default()
    };
    commit(store, before, turn).await.unwrap();
    let image = store.load(take(store, 2).await).await.unwrap();
    assert_eq!(image.positions, [((CLIENT, sku("A")), position)]);
    // The third is still in its lane, the second is done.
    let open: Vec<_> = image.open.iter().map(|t| (t.id, t.version())).collect();
    assert_eq!(open, [(id(1), 2)]);
    let elsewhere = store.take(PartitionId(8), 1).await.unwrap().wait().await.unwrap();
    let image = store.load(elsewhere).await.unwrap();
    assert!(image.open.is_empty() && image.positions.is_empty());
}

pub(super) async fn feeds_have_no_holes_and_the_house_has_none(store: &SharedStore) {
    let other = NewCommand { client: ClientNo(2), ..order(2, "r2", 1) };
    let full = NewCommand { backlog_max: 0, ..order(3, "r3", 1) };
    accept(store, vec![order(1, "r1", 1), other, full, order(1, "r1", 1)]).await;
    let fence = take(store, 1).await;
    let allocated = OrderFact::Allocated { units: Units::Whole };
    let manifest = id(50);
    let closed = Recorded { at: Timestamp(9), fact: Fact::Manifest(ManifestFact::Closed { cartons: 1 }) };
    let turn = TurnCommit {
        created: vec![(manifest, manifest_command())],
        facts: vec![
            facts(id(1), 2, vec![fact(5, OrderFact::Backordered), fact(5, allocated)]),
            NewFacts {
                id: manifest,
                client: ClientNo::HOUSE,
                first_version: 1,
                facts: vec![accepted(9), closed],
            },
        ],
        ..TurnCommit::default()
    };
    commit(store, fence, turn).await.unwrap();
    let feed = store.feed(CLIENT, 0, 10).await.unwrap();
    let seen: Vec<_> = feed.iter().map(|e| (e.sequence, e.id, e.version)).collect();
    assert_eq!(seen, [(1, id(1), 1), (2, id(1), 2), (3, id(1), 3)]);
    assert_eq!(store.feed(CLIENT, 1, 1).await.unwrap(), feed[1..2]);
    assert_eq!(store.feed(CLIENT, 3, 10).await.unwrap(), []);
    assert_eq!(store.feed(ClientNo(2), 0, 10).await.unwrap().len(), 1);
    assert_eq!(store.feed(ClientNo::HOUSE, 0, 10).await.unwrap(), []);
    assert_eq!(live(store, manifest).await.client, ClientNo::HOUSE);
}

pub(super) async fn old_events_are_evicted_in_steps_and_their_numbers_are_never_given_again(
    store: &SharedStore,
) {
    let bounds = |first, next| FeedBounds { first, next };
    assert_eq!(store.feed_bounds(CLIENT).await.unwrap(), bounds(1, 1));
    accept(store, vec![order(1, "r1", 1), order(2, "r2", 1)]).await;
    let other = NewCommand { client: ClientNo(2), ..order(3, "r3", 1) };
    accept(store, vec![other]).await;
    let fence = take(store, 1).await;
    let late = facts(id(1), 2, vec![fact(9_000, OrderFact::Backordered)]);
    commit(store, fence, TurnCommit { facts: vec![late], ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.feed_bounds(CLIENT).await.unwrap(), bounds(1, 4));

    let age = Duration::from_millis(1_000);
    // Accepted at 1,001 and 1,002: not past their age yet.
    assert_eq!(store.sweep_feeds(Timestamp(2_001), age, 10).await.unwrap(), 0);
    assert_eq!(store.sweep_feeds(Timestamp(5_000), age, 1).await.unwrap(), 1);
    assert_eq!(store.feed_bounds(CLIENT).await.unwrap(), bounds(2, 4));
    assert_eq!(store.sweep_feeds(Timestamp(5_000), age, 10).await.unwrap(), 2);
    assert_eq!(store.feed_bounds(CLIENT).await.unwrap(), bounds(3, 4));
    let kept: Vec<_> = store.feed(CLIENT, 0, 10).await.unwrap().iter().map(|e| e.sequence).collect();
    assert_eq!(kept, [3]);
    assert_eq!(store.sweep_feeds(Timestamp(20_000), age, 10).await.unwrap(), 1);
    assert_eq!(store.feed_bounds(CLIENT).await.unwrap(), bounds(4, 4));
    assert_eq!(store.feed_bounds(ClientNo(2)).await.unwrap(), bounds(2, 2));

    accept(store, vec![order(4, "r4", 1)]).await;
    let feed = store.feed(CLIENT, 0, 10).await.unwrap();
    assert_eq!(feed.iter().map(|e| (e.sequence, e.id)).collect::<Vec<_>>(), [(4, id(4))]);
}

pub(super) async fn a_transactions_events_are_found_without_its_feed(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 1), order(2, "r2", 1)]).await;
    let fence = take(store, 1).await;
    let manifest = id(50);
    let turn = TurnCommit {
        created: vec![(manifest, manifest_command())],
        facts: vec![
            facts(id(2), 2, vec![fact(5, OrderFact::Backordered)]),
            facts(id(1), 2, vec![fact(5, OrderFact::Backordered)]),
            NewFacts { id: manifest, client: ClientNo::HOUSE, first_version: 1, facts: vec![accepted(9)] },
        ],
        ..TurnCommit::default()
    };
    commit(store, fence, turn).await.unwrap();
    assert_eq!(store.sequences(id(1)).await.unwrap(), [Some(1), Some(4)]);
    assert_eq!(store.sequences(id(2)).await.unwrap(), [Some(2), Some(3)]);
    assert_eq!(store.sequences(manifest).await.unwrap(), [None]);
    assert_eq!(store.sequences(id(99)).await.unwrap(), []);
}

pub(super) async fn what_changed_in_stock_is_untold_until_its_feed_is_told(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 1)]).await;
    let fence = take(store, 1).await;
    let (a, b, waiting) = ((CLIENT, sku("A")), (CLIENT, sku("B")), (CLIENT, sku("C")));
    let at = |n: i64| Position { on_hand: n, known: true, ..Position::default() };
    let unknown = Position { backordered: 1, ..Position::default() };
    let positions = vec![(a.clone(), at(1)), (b.clone(), at(2)), (waiting, unknown)];
    commit(store, fence, TurnCommit { positions, ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.load(fence).await.unwrap().untold, [a.clone(), b.clone()]);

    // Told as the turn leaves it.
    let turn = TurnCommit {
        facts: vec![facts(id(1), 2, vec![fact(5, OrderFact::Backordered)])],
        positions: vec![(a.clone(), at(7))],
        told: vec![(a.clone(), Timestamp(2_000)), (b.clone(), Timestamp(2_000))],
        ..TurnCommit::default()
    };
    commit(store, fence, turn).await.unwrap();
    let image = store.load(fence).await.unwrap();
    assert_eq!((image.untold, &image.positions[0]), (vec![], &(a.clone(), at(7))));
    let feed = store.feed(CLIENT, 2, 9).await.unwrap();
    let entry = |sku| StockChange::entry_id(Timestamp(2_000), HERE, sku);
    let told: Vec<_> = feed.iter().map(|e| (e.sequence, e.id, e.version)).collect();
    assert_eq!(told, [(3, entry(&a.1), 0), (4, entry(&b.1), 0)]);
    for (told, (sku, position)) in feed.iter().zip([(a.1.clone(), at(7)), (b.1, at(2))]) {
        let said = store.announcement(CLIENT, told.sequence).await.unwrap();
        assert_eq!(said, Some(Announcement::Stock(StockChange { id: told.id, sku, position })));
    }
    assert_eq!(store.announcement(CLIENT, 2).await.unwrap(), None, "it is a version");

    // A later change is another event of the same subject.
    let positions = vec![(a.clone(), at(8))];
    commit(store, fence, TurnCommit { positions, ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.load(fence).await.unwrap().untold, std::slice::from_ref(&a));
    let told = vec![(a, Timestamp(3_000))];
    commit(store, fence, TurnCommit { told, ..TurnCommit::default() }).await.unwrap();
    let later = store.feed(CLIENT, 4, 9).await.unwrap();
    assert_eq!((later[0].subject(), later.len()), (feed[0].subject(), 1));
    assert!(feed[0].subject() != feed[1].subject() && later[0].id != feed[0].id);

    // What they say goes with them.
    let age = Duration::from_millis(1_000);
    assert_eq!(store.sweep_feeds(Timestamp(3_500), age, 9).await.unwrap(), 4);
    assert_eq!(store.announcement(CLIENT, 4).await.unwrap(), None);
    assert!(store.announcement(CLIENT, 5).await.unwrap().is_some());
}

fn manifest_command() -> Command {
    Command::Manifest(ManifestCommand {
        reference: "W-1".parse().unwrap(),
        carrier: "ups".into(),
        service_level: "standard".into(),
    })
}

pub(super) async fn what_was_told_of_an_estimate_stands_with_its_order_and_in_its_feed(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 1), order(2, "r2", 1)]).await;
    let fence = take(store, 1).await;
    let times = |ms| Estimate { position: 3, shipped_p50: Timestamp(ms), shipped_p90: Timestamp(ms + 1) };
    let new = |n, version, at| NewEstimate {
        id: id(n),
        client: CLIENT,
        version,
        at: Timestamp(at),
        estimate: times(at + 50),
    };
    // Behind the facts of its turn.
    let turn = TurnCommit {
        opened: vec![id(1), id(2)],
        facts: vec![facts(id(1), 2, vec![fact(2_000, OrderFact::Backordered)])],
        estimates: vec![new(1, 2, 2_000), new(2, 1, 2_000)],
        ..TurnCommit::default()
    };
    commit(store, fence, turn).await.unwrap();
    let again = TurnCommit { estimates: vec![new(1, 2, 9_000)], ..TurnCommit::default() };
    commit(store, fence, again).await.unwrap();
    let feed = store.feed(CLIENT, 2, 9).await.unwrap();
    let seen: Vec<_> = feed.iter().map(|e| (e.sequence, e.id, e.points())).collect();
    let (version, estimate) = (Points::Version, Points::Estimate);
    assert_eq!(
        seen,
        [(3, id(1), version(2)), (4, id(1), estimate(2)), (5, id(2), estimate(1)), (6, id(1), estimate(2))]
    );
    let told = |sequence, version, at| ToldEstimate {
        sequence,
        version,
        at: Timestamp(at),
        estimate: times(at + 50),
    };
    assert_eq!(store.estimates(id(1)).await.unwrap(), [told(4, 2, 2_000), told(6, 2, 9_000)]);
    assert_eq!(store.estimates(id(2)).await.unwrap(), [told(5, 1, 2_000)]);
    assert_eq!(store.estimates(id(99)).await.unwrap(), []);
    assert_eq!(store.sequences(id(1)).await.unwrap(), [Some(1), Some(3)], "they are no versions");
    assert_eq!(live(store, id(1)).await.version(), 2);
    // The next owner knows what was told last, and how often.
    let last = |at, times| Promise { p90: Timestamp(at + 51), at: Timestamp(at), times };
    let promises = store.load(take(store, 2).await).await.unwrap().promises;
    assert_eq!(promises, [(id(1), last(9_000, 2)), (id(2), last(2_000, 1))]);

    // One is as old as the telling, and not as its order or the fact beside it.
    let age = Duration::from_millis(1_000);
    assert_eq!(store.sweep_feeds(Timestamp(3_001), age, 9).await.unwrap(), 5);
    assert_eq!(store.feed_bounds(CLIENT).await.unwrap(), FeedBounds { first: 6, next: 7 });
    assert_eq!(store.estimates(id(1)).await.unwrap().len(), 2, "they are kept with their order");
    let fence = take(store, 3).await;
    let ended =
        TurnCommit { closed: vec![id(1)], ended: vec![(id(1), Timestamp(9_500))], ..TurnCommit::default() };
    commit(store, fence, ended).await.unwrap();
    assert_eq!(store.sweep(Timestamp(11_000), age, 9).await.unwrap(), 1);
    assert_eq!(store.estimates(id(1)).await.unwrap(), []);
}

pub(super) async fn orders_are_paged_by_id(store: &SharedStore) {
    let mut batch: Vec<_> = (1..=5).map(|n| order(n, &format!("r{n}"), 1)).collect();
    batch.push(receipt(6, "m", 1));
    batch.push(NewCommand { client: ClientNo(2), ..order(7, "r7", 1) });
    accept(store, batch).await;
    assert_eq!(store.orders_of(CLIENT, None, 2).await.unwrap(), [id(1), id(2)]);
    assert_eq!(store.orders_of(CLIENT, Some(id(2)), 10).await.unwrap(), [id(3), id(4), id(5)]);
    assert_eq!(store.orders_of(CLIENT, Some(id(5)), 10).await.unwrap(), []);
}

pub(super) async fn positions_are_paged_by_sku(store: &SharedStore) {
    let fence = take(store, 1).await;
    let at = |n: i64| Position { on_hand: n, known: true, ..Position::default() };
    let put = |client, name: &str, n| ((client, sku(name)), at(n));
    // "A" and "AB": a SKU that begins another one is its own.
    let positions =
        vec![put(CLIENT, "B", 3), put(CLIENT, "A", 1), put(CLIENT, "AB", 2), put(ClientNo(2), "A", 9)];
    commit(store, fence, TurnCommit { positions, ..TurnCommit::default() }).await.unwrap();
    let page = store.positions(HERE, CLIENT, None, 2).await.unwrap();
    assert_eq!(page, [(sku("A"), at(1)), (sku("AB"), at(2))]);
    let rest = store.positions(HERE, CLIENT, Some(sku("AB")), 10).await.unwrap();
    assert_eq!(rest, [(sku("B"), at(3))]);
    assert_eq!(store.position(HERE, ClientNo(2), sku("A")).await.unwrap(), Some(at(9)));
    assert_eq!(store.position(HERE, ClientNo(3), sku("A")).await.unwrap(), None);
}

pub(super) async fn long_commands_facts_and_reports_come_back_whole(store: &SharedStore) {
    let lines = (1..=500).map(|n| OrderLine { line: n, sku: sku(&format!("SKU-{n:05}")), quantity: n });
    let long = with_address(new(1, order_of("long", lines.collect())));
    accept(store, vec![long.clone(), order(2, "r2", 1)]).await;
    let units = (1..=500).map(|n| (n, n)).collect();
    let report = Confirmation {
        confirmation_id: "c".into(),
        at: Timestamp(1),
        report: Report::Release {
            release: ReleaseId { order: long.id, n: 1 },
            step: ReleaseReport::Picked(units),
        },
    };
    store.append_reports(HERE, vec![report.clone()]).await.unwrap().wait().await.unwrap();
    let fence = take(store, 1).await;
    let units = (1..=500).map(|n| (n, 1_000_000)).collect();
    let long_fact = fact(5, OrderFact::Allocated { units: Units::Lines(units) });
    let facts = vec![facts(long.id, 2, vec![long_fact.clone(), fact(6, OrderFact::Backordered)])];
    commit(store, fence, TurnCommit { facts, ..TurnCommit::default() }).await.unwrap();
    let stored = live(store, long.id).await;
    assert_eq!(stored.command, long.command);
    assert_eq!(stored.facts, [long.accepted.clone(), long_fact, fact(6, OrderFact::Backordered)]);
    let gathered = store.gather(fence, ALL).await.unwrap();
    assert!(matches!(&gathered.entries[0].item, LaneItem::Report(r) if **r == report));
    assert_eq!(accept(store, vec![NewCommand { id: id(3), ..long }]).await, [Verdict::Replay(id(1))]);
    let taken = vec![(Lane::Control, 1)];
    commit(store, fence, TurnCommit { taken, ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.gather(fence, ALL).await.unwrap().entries.len(), 2);
}

pub(super) async fn waves_stand_until_they_are_answered(store: &SharedStore) {
    let fence = take(store, 1).await;
    let wave = |n: u64, releases: u16| StoredWave {
        id: id(n),
        releases: (1..=releases).map(|r| ReleaseId { order: id(u64::from(r)), n: r }).collect(),
    };
    let waves = vec![wave(1, 300), wave(2, 1)];
    commit(store, fence, TurnCommit { waves: waves.clone(), ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.load(fence).await.unwrap().waves, waves);
    let answered = vec![id(1)];
    commit(store, fence, TurnCommit { answered, ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.load(fence).await.unwrap().waves, waves[1..]);
}

pub(super) async fn cartons_keep_their_order(store: &SharedStore) {
    let fence = take(store, 1).await;
    let carton = |n: u16| ManifestCarton {
        sscc: "106141412345678908".parse().unwrap(),
        carton_id: n.is_multiple_of(2).then(|| format!("box {n}")),
        release: ReleaseId { order: id(1), n },
    };
    let cartons: Vec<_> = (1..=300).rev().map(carton).collect();
    let turn = TurnCommit { cartons: vec![(id(9), cartons.clone())], ..TurnCommit::default() };
    commit(store, fence, turn).await.unwrap();
    assert_eq!(store.cartons(id(9)).await.unwrap(), cartons);
    assert_eq!(store.cartons(id(8)).await.unwrap(), []);
}

pub(super) async fn what_ended_becomes_a_tombstone_and_then_nothing(store: &SharedStore) {
    let first = keyed(order(1, "r1", 1), Kind::Order, "k1");
    accept(store, vec![first.clone(), order(2, "r2", 1)]).await;
    let fence = take(store, 1).await;
    let turn = TurnCommit {
        ended: vec![(id(1), Timestamp(10_000)), (id(2), Timestamp(50_000))],
        ..TurnCommit::default()
    };
    commit(store, fence, turn).await.unwrap();
    let hour = Duration::from_secs(3_600);
    let ms = |s: i64| Timestamp(s);
    assert_eq!(store.sweep(ms(3_610_000), hour, 10).await.unwrap(), 0);
    assert_eq!(store.sweep(ms(3_610_001), hour, 10).await.unwrap(), 1);
    let Some(Lookup::Expired(tombstone)) = store.transaction(id(1)).await.unwrap() else {
        panic!("the first should be a tombstone");
    };
    assert_eq!((tombstone.digest, tombstone.kind), (first.digest, Kind::Order));
    assert_eq!((tombstone.client, tombstone.accepted_at), (CLIENT, Timestamp(1_001)));
    assert_eq!((tombstone.reference.as_str(), tombstone.correlation.as_str()), ("r1", "call-1"));
    assert_eq!(store.ship_to(id(1)).await.unwrap(), None);
    assert_eq!(store.orders_of(CLIENT, None, 10).await.unwrap(), [id(2)]);
    let scanned: Vec<_> = store.scan(None, 1).await.unwrap().iter().map(|t| t.id).collect();
    assert_eq!(scanned, [id(2)]);

    let again = |n, reference, key| keyed(order(n, reference, 1), Kind::Order, key);
    let verdicts = accept(store, vec![again(3, "r1", "k1"), again(4, "r1", "k4"), order(5, "r1", 2)]).await;
    let replay = Verdict::Replay(id(1));
    assert_eq!(verdicts, [replay, replay, Verdict::ReferenceConflict(id(1))]);

    assert_eq!(store.sweep(ms(7_210_001), hour, 10).await.unwrap(), 2);
    assert_eq!(store.transaction(id(1)).await.unwrap(), None);
    assert!(matches!(store.transaction(id(2)).await.unwrap(), Some(Lookup::Expired(_))));
    // Reference and keys are free again, each for itself.
    let verdicts = accept(store, vec![again(6, "r6", "k1"), again(7, "r7", "k4"), order(8, "r1", 2)]).await;
    assert_eq!(verdicts, [Verdict::New; 3]);
}

pub(super) async fn a_partition_is_for_ever_and_clients_keep_their_numbers(store: &SharedStore) {
    let names = |warehouses: &[(&str, u16)], clients: &[&str]| Registration {
        warehouses: warehouses.iter().map(|(c, p)| ((*c).to_owned(), PartitionId(*p))).collect(),
        clients: clients.iter().map(|c| (*c).to_owned()).collect(),
    };
    let met = store.register(names(&[("LDS", 1)], &["zed", "abel"])).await.unwrap();
    let number = |met: &crate::ports::store::Registered, name: &str| {
        met.clients.iter().find(|(n, _)| n == name).map(|(_, n)| *n)
    };
    assert_eq!((number(&met, "zed"), number(&met, "abel")), (Some(ClientNo(1)), Some(ClientNo(2))));
    let met = store.register(names(&[("LDS", 1), ("YRK", 2)], &["bob", "zed"])).await.unwrap();
    assert_eq!((number(&met, "zed"), number(&met, "abel")), (Some(ClientNo(1)), Some(ClientNo(2))));
    assert_eq!(number(&met, "bob"), Some(ClientNo(3)));
    let changed = store.register(names(&[("YRK", 3)], &["new"])).await;
    assert!(
        matches!(changed, Err(RegisterError::PartitionChanged { stored: 2, configured: 3, .. })),
        "{changed:?}"
    );
    assert_eq!(store.register(Registration::default()).await.unwrap(), met);
}

pub(super) async fn filled_lanes_and_deadlines_wake_partitions(store: &SharedStore) {
    assert_eq!(store.wake_ups().await.unwrap(), []);
    accept(store, vec![order(1, "r1", 1)]).await;
    assert_eq!(store.wake_ups().await.unwrap(), [(HERE, Timestamp(0))]);
    let fence = take(store, 1).await;
    let turn = |taken: Vec<(Lane, u64)>, at| TurnCommit { taken, wake_at: at, ..TurnCommit::default() };
    commit(store, fence, turn(vec![(Lane::Work, 1)], Timestamp(77))).await.unwrap();
    assert_eq!(store.wake_ups().await.unwrap(), [(HERE, Timestamp(77))]);
    commit(store, fence, turn(vec![], Timestamp::NEVER)).await.unwrap();
    assert_eq!(store.wake_ups().await.unwrap(), []);
    store.append_reports(HERE, vec![report(1)]).await.unwrap().wait().await.unwrap();
    assert_eq!(store.wake_ups().await.unwrap(), [(HERE, Timestamp(0))]);
}

pub(super) async fn serials_are_never_handed_out_twice(store: &SharedStore) {
    let lease = async |count| store.lease_serials(count).await.unwrap().wait().await.unwrap();
    let (first, second, third) = (lease(1_000).await, lease(1).await, lease(5).await);
    assert_eq!((second - first, third - second), (1_000, 1));
}

pub(super) async fn dead_letters_are_kept_in_order_and_paged(store: &SharedStore) {
    let fence = take(store, 1).await;
    let letter = |kind, detail: &str| DeadLetter {
        kind,
        id: Some(id(detail.len() as u64)),
        reason: "refused".into(),
        detail: detail.into(),
        at: Timestamp(5),
        entry: None,
    };
    let long = letter(DeadKind::Order, &"x".repeat(5_000));
    let (second, third) = (letter(DeadKind::Confirmation, "2"), letter(DeadKind::Order, "33"));
    let dead = vec![long.clone(), second.clone()];
    commit(store, fence, TurnCommit { dead, ..TurnCommit::default() }).await.unwrap();
    let dead = vec![third.clone()];
    commit(store, fence, TurnCommit { dead, ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.dead_letters(HERE, 0, 2).await.unwrap(), [(1, Ok(long)), (2, Ok(second))]);
    assert_eq!(store.dead_letters(HERE, 2, 2).await.unwrap(), [(3, Ok(third))]);
    assert_eq!(store.dead_letters(HERE, 3, 2).await.unwrap(), []);
    assert_eq!(store.dead_letters(PartitionId(8), 0, 2).await.unwrap(), []);
}

fn letter(kind: DeadKind, of: TransactionId, entry: Option<(Lane, u64)>) -> DeadLetter {
    let (reason, detail) = ("it cannot be worked".to_owned(), String::new());
    DeadLetter { kind, id: Some(of), reason, detail, at: Timestamp(5), entry }
}

pub(super) async fn a_redriven_letter_goes_back_as_it_came(store: &SharedStore) {
    let fence = take(store, 1).await;
    let report = report(1);
    store.append_reports(HERE, vec![report.clone()]).await.unwrap().wait().await.unwrap();
    accept(store, vec![order(2, "r2", 1)]).await;
    let dead = vec![
        letter(DeadKind::Confirmation, id(1), Some((Lane::Control, 1))),
        letter(DeadKind::Order, id(2), Some((Lane::Work, 1))),
    ];
    let taken = vec![(Lane::Control, 1), (Lane::Work, 1)];
    commit(store, fence, TurnCommit { taken, dead: dead.clone(), ..TurnCommit::default() }).await.unwrap();
    assert!(store.gather(fence, ALL).await.unwrap().entries.is_empty());
    assert_eq!(store.dead_letter(HERE, 2).await.unwrap(), Some(Kept::Open(dead[1].clone())));

    store.instruct(HERE, Instruction::Redrive(1)).await.unwrap().wait().await.unwrap();
    store.instruct(HERE, Instruction::GiveUp(9)).await.unwrap().wait().await.unwrap();
    let gathered = store.gather(fence, ALL).await.unwrap().entries;
    let asked = |e: &crate::ports::store::LaneEntry| match &e.item {
        LaneItem::Instruction(asked, letter) => (*asked, letter.as_deref().cloned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(&gathered[0]), (Instruction::Redrive(1), Some(dead[0].clone())));
    assert_eq!(asked(&gathered[1]), (Instruction::GiveUp(9), None));

    let settled = vec![(1, Settled::Redriven), (2, Settled::Redriven), (9, Settled::GivenUp)];
    let taken = gathered.iter().map(|e| (e.lane, e.n)).collect();
    commit(store, fence, TurnCommit { taken, settled, ..TurnCommit::default() }).await.unwrap();
    let again = store.gather(fence, ALL).await.unwrap();
    assert!(matches!(&again.entries[0].item, LaneItem::Report(r) if **r == report));
    assert!(matches!(&again.entries[1].item, LaneItem::Transaction(t) if t.id == id(2)));
    assert_eq!((again.entries.len(), again.backlog), (2, 1));
    assert_eq!(store.dead_letters(HERE, 0, 9).await.unwrap(), []);
    assert_eq!(store.dead_letter(HERE, 1).await.unwrap(), Some(Kept::Settled(Settled::Redriven)));
    assert_eq!(store.dead_letter(HERE, 9).await.unwrap(), None);
    assert_eq!(store.dead_letters_total(HERE).await.unwrap(), 2, "what was ever kept");
}

pub(super) async fn what_was_said_about_an_order_goes_on_with_it(store: &SharedStore) {
    let fence = take(store, 1).await;
    let reports = vec![report(1), report(2), report(3)];
    store.append_reports(HERE, reports).await.unwrap().wait().await.unwrap();
    let said = |n, of| letter(DeadKind::Confirmation, id(of), Some((Lane::Control, n)));
    let dead = vec![said(1, 1), said(2, 2), letter(DeadKind::Order, id(1), None), said(3, 1)];
    let taken = (1..=3).map(|n| (Lane::Control, n)).collect();
    commit(store, fence, TurnCommit { taken, dead, ..TurnCommit::default() }).await.unwrap();
    let settled = vec![(3, Settled::Redriven)];
    commit(store, fence, TurnCommit { settled, ..TurnCommit::default() }).await.unwrap();
    let left: Vec<_> = store
        .dead_letters(HERE, 0, 9)
        .await
        .unwrap()
        .into_iter()
        .map(|(n, letter)| (n, letter.unwrap().id))
        .collect();
    assert_eq!(left, [(2, Some(id(2)))]);
    let again = store.gather(fence, ALL).await.unwrap().entries;
    let names: Vec<_> = again
        .iter()
        .map(|e| match &e.item {
            LaneItem::Report(report) => report.confirmation_id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["c1", "c3"]);
}

pub(super) async fn an_order_has_one_letter_and_none_once_it_goes_on(store: &SharedStore) {
    let fence = take(store, 1).await;
    let of = letter(DeadKind::Order, id(1), None);
    let about = letter(DeadKind::Confirmation, id(1), None);
    for dead in [vec![of.clone(), about.clone()], vec![of.clone()]] {
        commit(store, fence, TurnCommit { dead, ..TurnCommit::default() }).await.unwrap();
    }
    assert_eq!(store.dead_letters(HERE, 0, 9).await.unwrap(), [(2, Ok(about.clone())), (3, Ok(of))]);
    assert_eq!(store.dead_letter(HERE, 1).await.unwrap(), Some(Kept::Settled(Settled::Passed)));
    let relieved = vec![id(1), id(8)];
    commit(store, fence, TurnCommit { relieved, ..TurnCommit::default() }).await.unwrap();
    assert_eq!(store.dead_letters(HERE, 0, 9).await.unwrap(), [(2, Ok(about))]);
}

pub(super) async fn a_pause_needs_no_owner_and_outlasts_turns(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 1), receipt(2, "m2", 1)]).await;
    let fence = take(store, 1).await;
    let pause = async |paused| store.set_paused(HERE, paused).await.unwrap().wait().await.unwrap();
    pause(true).await;
    assert_eq!(store.paused().await.unwrap(), [HERE]);
    let gathered = store.gather(fence, ALL).await.unwrap();
    let lanes: Vec<_> = gathered.entries.iter().map(|e| e.lane).collect();
    assert_eq!((gathered.paused, lanes, gathered.backlog), (true, vec![Lane::Stock], 1));
    // A turn that was gathered before the pause ends after it, and the next owner comes.
    commit(store, fence, TurnCommit { wake_at: Timestamp(9), ..TurnCommit::default() }).await.unwrap();
    let fence = take(store, 2).await;
    assert!(store.gather(fence, ALL).await.unwrap().paused);
    pause(false).await;
    pause(false).await;
    assert_eq!(store.gather(fence, ALL).await.unwrap().entries.len(), 2);
    assert_eq!(store.paused().await.unwrap(), []);
}

pub(super) async fn starts_are_counted_until_a_turn_says_otherwise(store: &SharedStore) {
    let trouble = async |fence| store.load(fence).await.unwrap().trouble;
    take(store, 1).await;
    let fence = take(store, 2).await;
    assert_eq!(trouble(fence).await.starts, 2);
    let marked = trouble(fence).await.with(Span::alone(Thing::Work(4)));
    let turn = TurnCommit { trouble: Some(marked), ..TurnCommit::default() };
    commit(store, fence, turn).await.unwrap();
    commit(store, fence, TurnCommit::default()).await.unwrap();
    let fence = take(store, 3).await;
    let found = trouble(fence).await;
    assert_eq!((found.starts, found.deaths_over(Thing::Work(4))), (3, 1));
    let turn = TurnCommit { trouble: Some(Trouble::default()), ..TurnCommit::default() };
    commit(store, fence, turn).await.unwrap();
    assert_eq!(trouble(take(store, 4).await).await, Trouble { starts: 1, ..Trouble::default() });
}

pub(super) async fn a_scan_finds_every_transaction_once(store: &SharedStore) {
    let mut batch: Vec<_> = (1..=7).map(|n| order(n, &format!("r{n}"), 1)).collect();
    batch[2] = keyed(receipt(3, "m", 1), Kind::Move, "k");
    accept(store, batch).await;
    let fence = take(store, 1).await;
    let applied = Recorded { at: Timestamp(5), fact: Fact::Move(MoveFact::Applied) };
    let turn = TurnCommit { facts: vec![facts(id(3), 2, vec![applied])], ..TurnCommit::default() };
    commit(store, fence, turn).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.iter().map(|t| (t.id, t.version())));
    }
    let expected: Vec<_> = (1..=7).map(|n| (id(n), if n == 3 { 2 } else { 1 })).collect();
    assert_eq!(seen, expected);
}
