//! What a turn makes of orders that kill, that have no end, and of what was put away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::aside::Conviction;
use super::{Decided, Scope, Turn, wave_out};
use crate::actors::bell::Bell;
use crate::actors::book::{Book, OpenOrder, Waits};
use crate::actors::desk::Desk;
use crate::actors::events::EventCache;
use crate::actors::options::{Rules, Snapshot, WarehouseOptions, Warehouses};
use crate::actors::site::{Node, Site};
use crate::actors::tallies::Tallies;
use crate::actors::vitals::Vitals;
use crate::actors::waiters::Waiters;
use crate::actors::webhooks::Hooks;
use crate::actors::wms_link::Answer;
use crate::domain::command::{Allocation, Command, ManifestCommand, OrderCommand, OrderLine, Priority};
use crate::domain::confirmation::{Confirmation, ReleaseReport, Report};
use crate::domain::estimate::PaceReport;
use crate::domain::fact::{
    Accepted, CancelCause, Carton, ExceptionCode, Fact, FailedCause, LineUnits, ManifestFact, OrderFact,
    Recorded, Units,
};
use crate::domain::ids::{ClientNo, LineNo, PartitionId, ReleaseId, TraceContext, TransactionId};
use crate::domain::sscc::Sscc;
use crate::domain::time::Timestamp;
use crate::ports::BoxFuture;
use crate::ports::clock::SystemClock;
use crate::ports::entropy::SystemEntropy;
use crate::ports::faults::NoFaults;
use crate::ports::store::{
    DeadKind, DeadLetter, Instruction, Lane, LaneEntry, LaneItem, PartitionImage, Settled, StoredTransaction,
};
use crate::ports::trouble::{DEATHS_MAX, UNTOUCHABLE};
use crate::ports::wms::{CancelReply, ManifestOut, Wave, WaveAnswer, Wms, WmsError};
use crate::store::MemoryStore;

const HERE: PartitionId = PartitionId(1);
const NOW: Timestamp = Timestamp(1_000);

/// A WMS that nobody may call: a turn only decides.
struct Unasked;

impl Wms for Unasked {
    fn wave(&self, _: Wave) -> BoxFuture<Result<WaveAnswer, WmsError>> {
        unreachable!("a turn calls nobody")
    }

    fn cancel(&self, _: ReleaseId, _: Option<Vec<LineNo>>) -> BoxFuture<Result<CancelReply, WmsError>> {
        unreachable!("a turn calls nobody")
    }

    fn manifest(&self, _: ManifestOut) -> BoxFuture<Result<(), WmsError>> {
        unreachable!("a turn calls nobody")
    }
}

/// The site of a tree that nobody runs.
pub(crate) fn site() -> Site {
    let warehouse = WarehouseOptions {
        code: "ATL1".into(),
        partition: HERE,
        timezone: chrono_tz::UTC,
        backlog_max: 10,
        services: vec!["ground".into()],
        cut_offs: BTreeMap::new(),
        carriers: BTreeMap::new(),
        credits: 10,
        wave_max: 10,
    };
    let rules = Rules {
        backorder_max_wait: Duration::from_secs(60),
        wms_give_up_after: Duration::from_secs(60),
        wms_silent_after: Duration::from_secs(60),
        manifest_close_every: Duration::from_secs(1),
        manifest_cartons_max: 200,
        sscc_prefix: "0614141".parse().unwrap(),
        outcomes_min: 30,
        retention: Duration::from_secs(60),
        events_retention: Duration::from_secs(60),
        waiters_max: 1,
        stream_backlog_max: 1 << 20,
        webhook_schedule: crate::domain::endpoint::Schedule::new(vec![]),
    };
    let node = Node {
        ownership: super::super::ownership::Ownership::new(None),
        feed_epoch: 0,
        store: Arc::new(MemoryStore::new()),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        faults: Arc::new(NoFaults),
        rules: rules.clone(),
        warehouses: Warehouses::new(vec![warehouse.clone()]),
        clients: std::collections::HashMap::new(),
        client_names: BTreeMap::new(),
        desks: BTreeMap::new(),
        waiters: Waiters::new(1),
        bell: Bell::default(),
        events: EventCache::new(),
        hooks: Hooks::new(Arc::new(crate::ports::webhook::NoCourier), rules.webhook_schedule.clone()),
        ending: std::sync::atomic::AtomicBool::new(false),
        tallies: Tallies::new(),
        house: Vitals::new(),
        feed_hub: Vitals::new(),
        ingestion: parking_lot::RwLock::default(),
    };
    Site {
        node: Arc::new(node),
        warehouse: Arc::new(warehouse),
        desk: Arc::new(Desk::new(HERE)),
        wms: Arc::new(Unasked),
        token: tokio_util::sync::CancellationToken::new(),
        in_hand: Arc::default(),
    }
}

fn book() -> Book {
    let waits = Waits {
        backorder_max: Duration::from_secs(60),
        give_up_after: Duration::from_secs(60),
        silent_after: Duration::from_secs(60),
    };
    Book::restore(&PartitionImage::default(), waits).0
}

fn id(n: u64) -> TransactionId {
    TransactionId::new(NOW, HERE, n)
}

fn recorded(fact: Fact) -> Recorded {
    Recorded { at: NOW, fact }
}

fn accepted() -> Recorded {
    let trace = TraceContext { trace_id: 1, parent_id: 2, flags: 0, state: None };
    recorded(Fact::Accepted(Accepted { correlation: "call-1".parse().unwrap(), trace }))
}

/// An accepted order of two units, part by part, and what happened to it since.
pub(crate) fn stored(n: u64, facts: Vec<OrderFact>) -> StoredTransaction {
    let command = OrderCommand {
        reference: format!("o{n}").parse().unwrap(),
        warehouse: None,
        service_level: "ground".into(),
        allocation: Allocation::ShipPartial,
        priority: Priority::default(),
        not_before: None,
        requested_ship_by: None,
        lines: vec![OrderLine { line: 1, sku: "A".parse().unwrap(), quantity: 2 }],
        metadata: BTreeMap::new(),
    };
    let facts = facts.into_iter().map(|fact| recorded(Fact::Order(fact)));
    StoredTransaction {
        id: id(n),
        client: ClientNo(1),
        digest: [0; 32],
        command: Command::Order(command),
        facts: [accepted()].into_iter().chain(facts).collect(),
    }
}

fn one_unit() -> Units {
    Units::Lines([(1, 1)].into_iter().collect())
}

fn open(book: &mut Book, stored: &StoredTransaction) {
    book.insert(OpenOrder::fold(stored).unwrap().unwrap());
}

fn turn(site: &Site, book: &mut Book, work: impl FnOnce(&mut Turn<'_>)) -> Decided {
    let mut turn = Turn::new(site, NOW, Scope::Full, book, Vec::new());
    work(&mut turn);
    turn.finish()
}

fn facts_of(decided: &Decided) -> Vec<Fact> {
    decided.writes.facts.iter().flat_map(|f| f.facts.iter().map(|r| r.fact.clone())).collect()
}

fn asked(asked: Instruction, letter: &DeadLetter) -> LaneEntry {
    LaneEntry {
        lane: Lane::Control,
        n: 1,
        item: LaneItem::Instruction(asked, Some(Box::new(letter.clone()))),
    }
}

#[test]
fn an_order_with_as_many_facts_as_it_may_have_is_kept_aside_for_good() {
    let (site, mut book) = (site(), book());
    let wave = id(90);
    let mut long = OpenOrder::fold(&stored(
        1,
        vec![
            OrderFact::Allocated { units: Units::Whole },
            OrderFact::Released { n: 1, wave, units: Units::Whole },
        ],
    ))
    .unwrap()
    .unwrap();
    long.version = super::FACTS_MAX - 1;
    book.insert(long);
    let release = ReleaseId { order: id(1), n: 1 };
    let report = |n, step| {
        let report = Report::Release { release, step };
        let confirmation = Confirmation { confirmation_id: "c".into(), at: NOW, report };
        LaneEntry { lane: Lane::Control, n, item: LaneItem::Report(Box::new(confirmation)) }
    };
    let last = turn(&site, &mut book, |t| t.control(vec![report(1, ReleaseReport::Picking)]));
    let kinds = facts_of(&last);
    assert!(matches!(
        kinds.as_slice(),
        [
            Fact::Order(OrderFact::Picking { .. }),
            Fact::Order(OrderFact::Exception { code: ExceptionCode::CrashedPipeline, .. }),
            Fact::Order(OrderFact::Failed { cause: FailedCause::TooLong, .. })
        ]
    ));
    let letter = last.writes.dead[0].clone();
    assert_eq!((letter.kind, letter.id), (DeadKind::Order, Some(id(1))));

    // What is reported now is kept aside with its bytes, and there is no going on.
    let picked = ReleaseReport::Picked([(1, 2)].into_iter().collect());
    let after = turn(&site, &mut book, |t| t.control(vec![report(2, picked)]));
    assert!(after.writes.facts.is_empty());
    assert_eq!(after.writes.dead[0].entry, Some((Lane::Control, 2)));
    let redriven = turn(&site, &mut book, |t| t.control(vec![asked(Instruction::Redrive(1), &letter)]));
    assert!(redriven.writes.settled.is_empty() && redriven.writes.facts.is_empty());
    let ended = turn(&site, &mut book, |t| t.control(vec![asked(Instruction::GiveUp(1), &letter)]));
    assert_eq!(ended.writes.settled, [(1, Settled::GivenUp)]);
    assert_eq!((ended.writes.closed, book.orders().count()), (vec![id(1)], 0));
}

#[test]
fn the_last_number_of_a_release_is_not_passed() {
    let (site, mut book) = (site(), book());
    let wave = id(90);
    let facts = vec![
        OrderFact::Allocated { units: one_unit() },
        OrderFact::Released { n: u16::MAX, wave, units: Units::Whole },
        OrderFact::Allocated { units: one_unit() },
    ];
    open(&mut book, &stored(1, facts));
    assert_eq!(book.ready_len(), 1);
    let decided = turn(&site, &mut book, |t| t.release(vec![vec![id(1)]]));
    assert!(decided.writes.waves.is_empty());
    assert!(matches!(
        facts_of(&decided).last(),
        Some(Fact::Order(OrderFact::Failed { cause: FailedCause::TooLong, release: None }))
    ));
    assert_eq!(book.ready_len(), 0);
}

#[test]
fn an_entry_that_kills_becomes_a_failed_order_and_what_kills_even_so_goes_aside_as_it_is() {
    let (site, mut book) = (site(), book());
    let entry =
        || LaneEntry { lane: Lane::Work, n: 7, item: LaneItem::Transaction(Box::new(stored(1, Vec::new()))) };
    let convict = |deaths| move |t: &mut Turn<'_>| t.convict(Conviction::Entry(Box::new(entry())), deaths);
    let raw = turn(&site, &mut book, convict(UNTOUCHABLE));
    assert!(raw.writes.facts.is_empty() && raw.writes.opened.is_empty() && book.orders().count() == 0);
    assert_eq!((raw.writes.taken, raw.writes.dead[0].entry), (vec![(Lane::Work, 7)], Some((Lane::Work, 7))));

    let failed = turn(&site, &mut book, convict(DEATHS_MAX));
    assert!(matches!(
        facts_of(&failed).as_slice(),
        [
            Fact::Order(OrderFact::Exception { .. }),
            Fact::Order(OrderFact::Failed { cause: FailedCause::Crashed, release: None })
        ]
    ));
    let letter = &failed.writes.dead[0];
    assert_eq!((letter.kind, letter.id, letter.entry), (DeadKind::Order, Some(id(1)), None));
    assert_eq!((&failed.writes.opened, &failed.writes.taken), (&vec![id(1)], &vec![(Lane::Work, 7)]));
    // In hand, and nobody will look at it: no deadline, no wave, no rank.
    assert!(book.order(id(1)).is_some_and(|o| o.order.is_aside()));
    assert_eq!(book.next_deadline(), Timestamp::NEVER);
    let redriven = turn(&site, &mut book, |t| t.control(vec![asked(Instruction::Redrive(1), letter)]));
    assert_eq!(facts_of(&redriven), [Fact::Order(OrderFact::Redriven)]);
    assert!(book.next_deadline() <= NOW, "it wants its stock");
}

#[test]
fn a_redriven_order_is_sent_to_the_wms_again_and_a_given_up_one_is_called_back() {
    let (site, mut book) = (site(), book());
    let (shared, answered) = (id(90), id(91));
    let released = |wave| {
        vec![
            OrderFact::Allocated { units: Units::Whole },
            OrderFact::Released { n: 1, wave, units: Units::Whole },
        ]
    };
    for (n, wave) in [(1, shared), (2, shared), (3, answered)] {
        open(&mut book, &stored(n, released(wave)));
    }
    let release = |n| ReleaseId { order: id(n), n: 1 };
    book.wave_out(shared, vec![release(1), release(2)]);
    let convict = |n| move |t: &mut Turn<'_>| t.convict(Conviction::Open(id(n)), DEATHS_MAX);
    let mut letters = BTreeMap::new();
    for n in 1..=3 {
        let failed = turn(&site, &mut book, convict(n));
        letters.insert(n, failed.writes.dead[0].clone());
    }
    let instruct =
        |book: &mut Book, what, n: u64| turn(&site, book, |t| t.control(vec![asked(what, &letters[&n])]));
    let third = instruct(&mut book, Instruction::Redrive(3), 3);
    assert_eq!(third.writes.waves.len(), 1, "its wave may have been answered without it");
    assert_eq!(third.writes.waves[0].releases, [release(3)]);
    let first = instruct(&mut book, Instruction::GiveUp(1), 1);
    assert_eq!((first.resend.into_iter().collect::<Vec<_>>(), first.dropped), (vec![shared], vec![]));
    assert!(first.writes.answered.is_empty(), "the wave goes on without it");
    let second = instruct(&mut book, Instruction::GiveUp(2), 2);
    assert_eq!((second.writes.answered, second.dropped), (vec![shared], vec![shared]));
    assert_eq!(book.orders().map(|o| o.order.id).collect::<Vec<_>>(), [id(3)]);
}

/// An order of one line with all its units in a carton, on `manifest` if that is given.
fn packed(n: u64, manifest: Option<TransactionId>) -> StoredTransaction {
    let sscc = Sscc::build("0614141".parse().unwrap(), n);
    let carton = Carton {
        sscc,
        carton_id: None,
        tracking_number: None,
        weight_g: None,
        lines: LineUnits::from_slice(&[(1, 2)]),
    };
    let packed =
        OrderFact::Packed { n: 1, picked: Units::Whole, cartons: vec![carton], carrier: "ups".into() };
    let released = [
        OrderFact::Allocated { units: Units::Whole },
        OrderFact::Released { n: 1, wave: id(91), units: Units::Whole },
        packed,
    ];
    let manifested =
        manifest.map(|manifest| OrderFact::Manifested { manifest, cartons: std::iter::once(sscc).collect() });
    stored(n, released.into_iter().chain(manifested).collect())
}

#[test]
fn an_order_that_was_put_away_unread_owes_on_its_return_what_it_owed_before() {
    let (site, mut book) = (site(), book());
    let order = packed(1, None);
    let away = turn(&site, &mut book, |t| t.put_away(id(1), "it kills".into()));
    let back = turn(&site, &mut book, |t| {
        t.visit(&order);
        t.control(vec![asked(Instruction::Redrive(1), &away.writes.dead[0])]);
    });
    assert_eq!(facts_of(&back), [], "nothing happened to it");
    assert!(back.touched.contains(&id(1)), "its carton is to be loaded");
}

#[test]
fn what_left_while_its_order_was_put_away_is_booked_on_its_return() {
    let shipped = vec![Fact::Order(OrderFact::Shipped { manifest: id(5) })];
    for (departed, expected) in [(true, shipped), (false, Vec::new())] {
        let (site, mut book) = (site(), book());
        let order = packed(1, Some(id(5)));
        let mut manifest = closed_manifest(5);
        let image = PartitionImage { open: vec![manifest.clone()], ..PartitionImage::default() };
        if departed {
            manifest.facts.push(recorded(Fact::Manifest(ManifestFact::Departed)));
        } else {
            book.manifests = Book::restore(&image, Waits::default()).0.manifests;
        }
        let away = turn(&site, &mut book, |t| t.put_away(id(1), "it kills".into()));
        let back = turn(&site, &mut book, |t| {
            t.visit(&order);
            t.visit(&manifest);
            t.control(vec![asked(Instruction::Redrive(1), &away.writes.dead[0])]);
        });
        assert_eq!(facts_of(&back), expected);
        assert_eq!(back.writes.settled, [(1, Settled::Redriven)]);
        assert_eq!(book.order(id(1)).is_none(), departed, "what has left is done");
        let waits = book.manifests.get(&id(5)).map(|m| m.orders.clone()).unwrap_or_default();
        assert_eq!(waits.contains(&id(1)), !departed, "the departure is to find it");
    }
}

#[test]
fn a_departure_that_is_reported_while_its_manifest_is_put_away_is_kept_for_later() {
    let (site, mut book) = (site(), book());
    let manifest = closed_manifest(5);
    let image = PartitionImage { open: vec![manifest.clone()], ..PartitionImage::default() };
    book.manifests = Book::restore(&image, Waits::default()).0.manifests;
    let away = turn(&site, &mut book, |t| t.convict(Conviction::Open(id(5)), DEATHS_MAX));
    let said = || LaneEntry {
        lane: Lane::Control,
        n: 7,
        item: LaneItem::Report(Box::new(Confirmation {
            confirmation_id: "gone".into(),
            at: NOW,
            report: Report::Departed { manifest: id(5) },
        })),
    };
    let early = turn(&site, &mut book, |t| {
        t.visit(&manifest);
        t.control(vec![said()]);
    });
    let letter = &early.writes.dead[0];
    assert_eq!((letter.kind, letter.entry), (DeadKind::Confirmation, Some((Lane::Control, 7))));
    // Once the manifest is back the report can be worked again, and books what it says.
    turn(&site, &mut book, |t| {
        t.visit(&manifest);
        t.control(vec![asked(Instruction::Redrive(1), &away.writes.dead[0])]);
    });
    let left = turn(&site, &mut book, |t| t.control(vec![said()]));
    assert_eq!(facts_of(&left), [Fact::Manifest(ManifestFact::Departed)]);
    assert_eq!(left.writes.dead, []);
}

fn closed_manifest(n: u64) -> StoredTransaction {
    let command = ManifestCommand {
        reference: format!("m{n}").parse().unwrap(),
        carrier: "ups".into(),
        service_level: "ground".into(),
    };
    StoredTransaction {
        id: id(n),
        client: ClientNo::HOUSE,
        digest: [0; 32],
        command: Command::Manifest(command),
        facts: vec![accepted(), recorded(Fact::Manifest(ManifestFact::Closed { cartons: 1 }))],
    }
}

#[test]
fn a_manifest_and_a_wave_that_kill_are_put_away_and_the_manifest_can_be_loaded_again() {
    let (site, mut book) = (site(), book());
    let manifest = closed_manifest(5);
    let image = PartitionImage { open: vec![manifest.clone()], ..PartitionImage::default() };
    book.manifests = Book::restore(&image, Waits::default()).0.manifests;
    let away = turn(&site, &mut book, |t| t.convict(Conviction::Open(id(5)), DEATHS_MAX));
    assert_eq!((&away.writes.closed, book.manifests.len()), (&vec![id(5)], 0));
    let letter = &away.writes.dead[0];
    let back = turn(&site, &mut book, |t| {
        t.visit(&manifest);
        t.control(vec![asked(Instruction::Redrive(1), letter)]);
    });
    assert_eq!((back.writes.opened, back.reload, book.manifests.len()), (vec![id(5)], vec![id(5)], 1));

    book.wave_out(id(90), vec![ReleaseId { order: id(1), n: 1 }]);
    let wave = turn(&site, &mut book, |t| t.convict(Conviction::Wave(id(90)), DEATHS_MAX));
    assert_eq!((wave.writes.answered, wave.dropped), (vec![id(90)], vec![id(90)]));
    assert_eq!(wave.writes.dead[0].kind, DeadKind::Wave);
    assert!(book.waves().is_empty());
}

#[test]
fn what_cannot_be_folded_keeps_nobody_else_from_the_book() {
    // A unit is picked of a release that there never was.
    let broken = stored(1, vec![OrderFact::Picking { n: 4, picked: [(1, 1)].into_iter().collect() }]);
    let mut headless = stored(2, Vec::new());
    headless.facts.clear();
    let unreadable = vec![(id(4), "format 99".to_owned())];
    let open = vec![broken, headless, stored(3, Vec::new())];
    let (book, aside) =
        Book::restore(&PartitionImage { open, unreadable, ..PartitionImage::default() }, Waits::default());
    assert_eq!(book.orders().map(|o| o.order.id).collect::<Vec<_>>(), [id(3)]);
    let named: Vec<_> = aside.transactions.iter().map(|(id, _)| *id).collect();
    assert_eq!(named, [id(4), id(1), id(2)]);
    assert!(aside.transactions[1].1.contains("a fact names a release of its order"), "{aside:?}");
}

#[test]
fn an_estimate_is_told_beside_the_version_that_its_own_turn_makes_and_of_nothing_that_it_ends() {
    let (site, mut book) = (site(), book());
    let pace = PaceReport { orders_per_s: Some(1.0), calibrated: true, ..PaceReport::default() };
    site.desk.publish(Snapshot { unreleased: 60, pace, ..Snapshot::default() }, NOW, NOW);
    for n in 1..=3 {
        open(&mut book, &stored(n, vec![OrderFact::Allocated { units: Units::Whole }]));
    }
    let changed =
        OrderFact::Exception { code: ExceptionCode::CutOffMissed, lines: [1].into_iter().collect() };
    let all = [(1, 2)].into_iter().collect();
    let ended = OrderFact::Cancelled { cause: CancelCause::Missing, release: None, units: all };
    let decided = turn(&site, &mut book, |turn| {
        turn.record(id(2), vec![changed]);
        turn.record(id(3), vec![ended]);
    });
    let told: Vec<_> = decided.writes.estimates.iter().map(|new| (new.id, new.client, new.version)).collect();
    assert_eq!(told, [(id(1), ClientNo(1), 2), (id(2), ClientNo(1), 3)]);
    assert!(decided.writes.estimates.iter().all(|new| new.estimate.shipped_p90 == Timestamp(NOW.0 + 60_000)));
    // Turns that work one thing alone tell nothing.
    open(&mut book, &stored(4, vec![OrderFact::Allocated { units: Units::Whole }]));
    book.promises = Default::default();
    let alone = Turn::new(&site, NOW, Scope::Entries, &mut book, Vec::new()).finish();
    assert_eq!(alone.writes.estimates, []);
}

#[test]
fn an_order_that_cannot_be_sent_goes_aside_once_and_its_wave_goes_without_it() {
    let (site, mut book) = (site(), book());
    let wave = id(90);
    for n in [1, 2] {
        let facts = vec![
            OrderFact::Allocated { units: Units::Whole },
            OrderFact::Released { n: 1, wave, units: Units::Whole },
        ];
        open(&mut book, &stored(n, facts));
    }
    let releases = [1, 2].map(|n| ReleaseId { order: id(n), n: 1 });
    book.wave_out(wave, releases.to_vec());
    let unreadable = || {
        let of = vec![(id(1), "the address of it: format 99".to_owned())];
        vec![Answer::Unreadable { wave: Some(wave), of }]
    };
    let first = turn(&site, &mut book, |t| t.answers(unreadable()));
    assert!(matches!(
        facts_of(&first).as_slice(),
        [
            Fact::Order(OrderFact::Exception { .. }),
            Fact::Order(OrderFact::Failed { cause: FailedCause::Unreadable, release: None })
        ]
    ));
    let letter = &first.writes.dead[0];
    assert_eq!((letter.id, letter.reason.as_str()), (Some(id(1)), "the address of it: format 99"));
    // Nothing is said of the wave's answer: a tree that dies here finds it again, and sends what is left.
    assert!(first.writes.answered.is_empty() && first.resend.contains(&wave));
    let sent: Vec<_> =
        wave_out(&site, &book, wave, &releases).orders.into_iter().map(|o| o.release).collect();
    assert_eq!(sent, [releases[1]]);
    let again = turn(&site, &mut book, |t| t.answers(unreadable()));
    assert!(again.writes.is_empty() && again.resend.contains(&wave));
}
