//! One of every stored value, as this and every later release must read it.
//!
//! `golden_v1.txt` is only ever appended to. A line that no longer decodes to its value here, or
//! is no longer what that value is written as, means that stores in the field break.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use super::*;
use crate::domain::command::{
    AdjustmentReason, Allocation, CancellationCommand, Change, ManifestCommand, MoveCommand, OrderCommand,
    OrderLine, Priority,
};
use crate::domain::confirmation::{Confirmation, PackedCarton, ReleaseReport, Report};
use crate::domain::endpoint::{
    ContentType, DeliveryMode, DisabledReason, EndpointId, EndpointSettings, Fortune, Include, Secret,
    Secrets,
};
use crate::domain::estimate::Estimate;
use crate::domain::fact::{
    Accepted, CancelCause, CancellationFact, Carton, ExceptionCode, Fact, FailedCause, LineUnits,
    ManifestFact, MissingCause, MoveFact, OrderFact, Recorded, RefusedCause, Units,
};
use crate::domain::ids::{PartitionId, ReleaseId, TraceContext};
use crate::domain::promise::ToldEstimate;
use crate::domain::spread::{Charge, Homes, NodeId};
use crate::domain::sscc::Sscc;
use crate::domain::stock::Position;
use crate::ports::announcement::StockChange;
use crate::ports::endpoints::{
    Attempt, AttemptOutcome, DeadDelivery, Notice, Open, PendingDelivery, Replay, Rest, Skipped, Standing,
    StoredEndpoint, Which,
};
use crate::ports::store::{
    DeadKind, DeadLetter, FeedEntry, IdempotencyKey, Instruction, Lane, ManifestCarton, NewCommand, Points,
    Settled,
};
use crate::ports::trouble::{Span, Thing, Trouble};

const GOLDEN: &str = include_str!("golden_v1.txt");

/// Compares stored bytes with their value and writes it again.
type Again = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A value's name and what it is written as.
struct Sample {
    name: String,
    bytes: Vec<u8>,
    again: Again,
}

fn sample<T: PartialEq + Debug + 'static>(
    name: &str,
    value: T,
    encode: impl Fn(&T) -> Vec<u8> + 'static,
    decode: impl Fn(&[u8]) -> Decoded<T> + 'static,
) -> Sample {
    let bytes = encode(&value);
    let claim = name.to_owned();
    let again = Box::new(move |stored: &[u8]| {
        let back = decode(stored).unwrap_or_else(|e| panic!("{claim}: {e}"));
        assert_eq!(back, value, "{claim}");
        encode(&back)
    });
    Sample { name: name.to_owned(), bytes, again }
}

fn id(n: u64) -> TransactionId {
    TransactionId::new(Timestamp(1_764_000_000_000), PartitionId(0x0123), n)
}

fn units() -> LineUnits {
    [(1, 2), (30, 1_000_000)].into_iter().collect()
}

fn sscc() -> Sscc {
    "106141412345678908".parse().unwrap()
}

fn order_facts() -> Vec<(&'static str, OrderFact)> {
    use OrderFact as F;
    let carton = Carton {
        sscc: sscc(),
        carton_id: Some("box-1".into()),
        tracking_number: Some("1Z".into()),
        weight_g: Some(1_200),
        lines: units(),
    };
    let bare = Carton { carton_id: None, tracking_number: None, weight_g: None, ..carton.clone() };
    let request = id(9);
    let cause = CancelCause::Request(request);
    let exception = |code| F::Exception { code, lines: [1, 2].into_iter().collect() };
    vec![
        ("allocated", F::Allocated { units: Units::Whole }),
        ("allocated_lines", F::Allocated { units: Units::Lines(units()) }),
        ("backordered", F::Backordered),
        ("released", F::Released { n: 1, wave: id(2), units: Units::Whole }),
        ("picking", F::Picking { n: 1, picked: units() }),
        (
            "packed",
            F::Packed { n: 1, picked: Units::Whole, cartons: vec![carton, bare], carrier: "ups".into() },
        ),
        ("missing_short", F::Missing { n: 1, cause: MissingCause::ShortPick, units: units() }),
        ("missing_damaged", F::Missing { n: 1, cause: MissingCause::Damaged, units: units() }),
        ("manifested", F::Manifested { manifest: id(3), cartons: [sscc()].into_iter().collect() }),
        ("shipped", F::Shipped { manifest: id(3) }),
        ("cancel_asked", F::CancelAsked { request, releases: [1, 2].into_iter().collect(), lines: None }),
        (
            "cancel_asked_lines",
            F::CancelAsked {
                request,
                releases: [1].into_iter().collect(),
                lines: Some([4].into_iter().collect()),
            },
        ),
        ("cancel_withdrawn", F::CancelWithdrawn { request, n: 1 }),
        ("cancelled", F::Cancelled { cause, release: Some(1), units: units() }),
        ("cancelled_missing", F::Cancelled { cause: CancelCause::Missing, release: None, units: units() }),
        ("refused", F::Refused { cause: RefusedCause::InsufficientStock, units: Units::Whole }),
        ("refused_expired", F::Refused { cause: RefusedCause::BackorderExpired, units: Units::Whole }),
        ("exception_insufficient_stock", exception(ExceptionCode::InsufficientStock)),
        ("exception_unknown_sku", exception(ExceptionCode::UnknownSku)),
        ("exception_cut_off_missed", exception(ExceptionCode::CutOffMissed)),
        ("exception_wms_rejected", exception(ExceptionCode::WmsRejected)),
        ("exception_backorder_expired", exception(ExceptionCode::BackorderExpired)),
        ("failed", F::Failed { cause: FailedCause::WmsRejected, release: Some(1) }),
        ("exception_wms_unreachable", exception(ExceptionCode::WmsUnreachable)),
        ("failed_unreachable", F::Failed { cause: FailedCause::WmsUnreachable, release: None }),
        ("redriven", F::Redriven),
        ("shipped_alone", F::ShippedAlone { n: 2, cartons: [sscc()].into_iter().collect() }),
        ("exception_crashed_pipeline", exception(ExceptionCode::CrashedPipeline)),
        ("failed_crashed", F::Failed { cause: FailedCause::Crashed, release: None }),
        ("failed_too_long", F::Failed { cause: FailedCause::TooLong, release: None }),
        ("failed_unreadable", F::Failed { cause: FailedCause::Unreadable, release: None }),
        ("given_up", F::GivenUp),
    ]
}

/// Does nothing but fail to compile when a variant is added: then a line is due above.
fn every_variant_has_a_line(fact: &OrderFact) {
    match fact {
        OrderFact::Allocated { .. }
        | OrderFact::Backordered
        | OrderFact::Released { .. }
        | OrderFact::Picking { .. }
        | OrderFact::Packed { .. }
        | OrderFact::Missing { .. }
        | OrderFact::Manifested { .. }
        | OrderFact::Shipped { .. }
        | OrderFact::CancelAsked { .. }
        | OrderFact::CancelWithdrawn { .. }
        | OrderFact::Cancelled { .. }
        | OrderFact::Refused { .. }
        | OrderFact::Exception { .. }
        | OrderFact::Failed { .. }
        | OrderFact::Redriven
        | OrderFact::GivenUp
        | OrderFact::ShippedAlone { .. } => {}
    }
}

fn facts() -> Vec<Sample> {
    let trace = |state: Option<&str>| TraceContext {
        trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        parent_id: 0xb7ad_6b71_6920_3331,
        flags: 1,
        state: state.map(str::to_owned),
    };
    let accepted =
        |state| Fact::Accepted(Accepted { correlation: "call-1".parse().unwrap(), trace: trace(state) });
    let mut facts = vec![
        ("accepted".to_owned(), accepted(None)),
        ("accepted_tracestate".to_owned(), accepted(Some("vendor=1"))),
        ("move.applied".to_owned(), Fact::Move(MoveFact::Applied)),
        ("move.rejected".to_owned(), Fact::Move(MoveFact::Rejected)),
        ("move.replenished".to_owned(), Fact::Move(MoveFact::Replenished { cleared: 3 })),
        ("move.counted".to_owned(), Fact::Move(MoveFact::Counted { delta: -2, cleared: 1 })),
        ("cancellation.applied".to_owned(), Fact::Cancellation(CancellationFact::Applied { lines: units() })),
        ("cancellation.rejected".to_owned(), Fact::Cancellation(CancellationFact::Rejected)),
        ("manifest.closed".to_owned(), Fact::Manifest(ManifestFact::Closed { cartons: 200 })),
        ("manifest.departed".to_owned(), Fact::Manifest(ManifestFact::Departed)),
    ];
    for (name, fact) in order_facts() {
        every_variant_has_a_line(&fact);
        facts.push((format!("order.{name}"), Fact::Order(fact)));
    }
    let at = Timestamp(1_764_000_000_123);
    let all = facts.into_iter();
    let mut samples: Vec<Sample> = all
        .map(|(name, fact)| sample(&format!("fact.{name}"), Recorded { at, fact }, encode_fact, decode_fact))
        .collect();
    let numbered = (Some(300), Recorded { at, fact: Fact::Order(OrderFact::Backordered) });
    let encode =
        |(n, recorded): &(Option<u64>, Recorded)| encode_numbered_fact(n.unwrap_or_default(), recorded);
    samples.push(sample("numbered_fact", numbered, encode, decode_numbered_fact));
    samples
}

fn order_command(full: bool) -> OrderCommand {
    OrderCommand {
        reference: "PO-1".parse().unwrap(),
        warehouse: full.then(|| "LDS".to_owned()),
        service_level: "standard".into(),
        allocation: if full { Allocation::FillOrKill } else { Allocation::ShipComplete },
        priority: if full { Priority(1) } else { Priority::default() },
        not_before: full.then_some(Timestamp(1)),
        requested_ship_by: full.then_some(Timestamp(2)),
        lines: vec![OrderLine { line: 1, sku: "SKU-1".parse().unwrap(), quantity: 3 }],
        metadata: full.then(|| ("k".to_owned(), "v".to_owned())).into_iter().collect(),
    }
}

fn partial_order() -> OrderCommand {
    OrderCommand { allocation: Allocation::ShipPartial, ..order_command(false) }
}

fn ship_to(full: bool) -> ShipTo {
    let some = |text: &str| full.then(|| text.to_owned());
    ShipTo {
        name: "Ada".into(),
        company: some("Acme"),
        lines: vec!["1 Dock Road".into()],
        city: "Leeds".into(),
        region: some("Yorkshire"),
        postal_code: some("LS1"),
        country: "GB".into(),
        phone: some("+44"),
        email: some("ada@example.com"),
    }
}

fn commands() -> Vec<Sample> {
    let receipt = MoveCommand {
        reference: "ASN-1".parse().unwrap(),
        warehouse: "LDS".into(),
        sku: "SKU-1".parse().unwrap(),
        change: Change::Receipt { quantity: 100 },
    };
    let adjustment = Change::Adjustment { delta: -3, reason: AdjustmentReason::Damaged };
    let cancellation = |lines| CancellationCommand { reference: "C-1".parse().unwrap(), order: id(1), lines };
    let manifest = ManifestCommand {
        reference: "LDS-1".parse().unwrap(),
        carrier: "ups".into(),
        service_level: "standard".into(),
    };
    let commands = [
        ("order", Command::Order(order_command(false))),
        ("order_full", Command::Order(order_command(true))),
        ("order_partial", Command::Order(partial_order())),
        ("move", Command::Move(receipt.clone())),
        ("move_adjustment", Command::Move(MoveCommand { change: adjustment, ..receipt.clone() })),
        ("move_count", Command::Move(MoveCommand { change: Change::Count { counted: 7 }, ..receipt })),
        ("cancellation", Command::Cancellation(cancellation(None))),
        ("cancellation_lines", Command::Cancellation(cancellation(Some(vec![1])))),
        ("manifest", Command::Manifest(manifest)),
    ];
    let head = CommandHead { client: ClientNo(5), digest: [0xAB; 32] };
    let encode = |(head, command): &(CommandHead, Command)| encode_command(head, command);
    let stored =
        |(name, command)| sample(&format!("command.{name}"), (head, command), encode, decode_command);
    commands.into_iter().map(stored).collect()
}

fn reports() -> Vec<Sample> {
    let carton = PackedCarton {
        carton_id: "box-1".into(),
        tracking_number: Some("1Z".into()),
        weight_g: Some(1_200),
        lines: units(),
    };
    let steps = [
        ("picking", ReleaseReport::Picking),
        ("picked", ReleaseReport::Picked(units())),
        ("packed", ReleaseReport::Packed { lines: units(), cartons: vec![carton] }),
        ("shipped", ReleaseReport::Shipped(units())),
        ("short_pick", ReleaseReport::ShortPick(units())),
        ("damaged", ReleaseReport::Damaged(units())),
        ("rejected", ReleaseReport::Rejected { code: "unknown_address".into() }),
        ("cancelled", ReleaseReport::Cancelled),
        ("cancel_refused", ReleaseReport::CancelRefused),
    ];
    let release = ReleaseId { order: id(1), n: 1 };
    let reports = steps.map(|(name, step)| (name, Report::Release { release, step }));
    let departed = ("departed", Report::Departed { manifest: id(3) });
    let stored = |(name, report)| {
        let report = Confirmation { confirmation_id: "c1".into(), at: Timestamp(1), report };
        let encode = |item: &StoredItem| match item {
            StoredItem::Report(report) => encode_lane_report(report),
            StoredItem::Transaction(id) => encode_lane_transaction(*id),
            StoredItem::Instruction(asked) => encode_lane_instruction(*asked),
        };
        sample(&format!("report.{name}"), StoredItem::Report(report), encode, decode_lane)
    };
    reports.into_iter().chain([departed]).map(stored).collect()
}

fn records() -> Vec<Sample> {
    let tombstone = |kind: Kind| Tombstone {
        id: id(1),
        client: ClientNo(5),
        digest: [0xAB; 32],
        kind,
        reference: "PO-1".parse().unwrap(),
        accepted_at: Timestamp(1),
        correlation: "call-1".parse().unwrap(),
    };
    let buried = |name: &str, kind| {
        let encode = |(tombstone, ended): &(Tombstone, Timestamp)| encode_tombstone(tombstone, *ended);
        let decode = |bytes: &[u8]| decode_tombstone(id(1), bytes);
        sample(&format!("tombstone.{name}"), (tombstone(kind), Timestamp(2)), encode, decode)
    };
    let dead = |name: &str, kind, id| {
        let (reason, detail) = ("refused".to_owned(), "as it was".to_owned());
        let entry = (name == "entry").then_some((Lane::Work, 7));
        let bytes = if entry.is_some() { vec![1, 2, 3] } else { Vec::new() };
        let letter = DeadLetter { kind, id, reason, detail, at: Timestamp(1), entry };
        let encode = |(letter, bytes): &(DeadLetter, Vec<u8>)| encode_dead(letter, bytes);
        sample(&format!("dead.{name}"), (letter, bytes), encode, decode_dead)
    };
    let instruction = |name: &str, asked| {
        let decode = |bytes: &[u8]| match decode_lane(bytes)? {
            StoredItem::Instruction(asked) => Ok(asked),
            StoredItem::Transaction(_) | StoredItem::Report(_) => Err(FormatError::Short),
        };
        sample(&format!("lane_instruction.{name}"), asked, |asked| encode_lane_instruction(*asked), decode)
    };
    let carton = |carton_id: Option<&str>| ManifestCarton {
        sscc: sscc(),
        carton_id: carton_id.map(str::to_owned),
        release: ReleaseId { order: id(1), n: 1 },
    };
    let position = Position {
        on_hand: 1 << 48,
        reserved: 2,
        suspect: 3,
        in_transit: 4,
        shortfall: 5,
        backordered: 6,
        known: true,
    };
    let row = PartitionRow { epoch: 3, nonce: u64::MAX, ..PartitionRow::default() };
    let every_suspect = [
        Thing::Fold(id(1)),
        Thing::Open(id(1)),
        Thing::Wave(id(2)),
        Thing::Control(1),
        Thing::Stock(2),
        Thing::Work(3),
    ];
    let change = StockChange { id: id(1), sku: "TSHIRT-BLK-M".parse().unwrap(), position };
    let times = Estimate { position: 7, shipped_p50: Timestamp(5_000), shipped_p90: Timestamp(i64::MAX) };
    let told = ToldEstimate { sequence: u64::MAX, version: 3, at: Timestamp(1_000), estimate: times };
    let trouble = Trouble {
        starts: 2,
        in_hand: Some(Span { first: Thing::Work(3), last: Thing::Work(9) }),
        deaths: every_suspect.map(|suspect| (Span::alone(suspect), 1)).to_vec(),
    };
    let troubled = PartitionRow { paused: true, trouble, ..row.clone() };
    vec![
        sample("ship_to", ship_to(false), encode_ship_to, decode_ship_to),
        sample("ship_to_full", ship_to(true), encode_ship_to, decode_ship_to),
        buried("order", Kind::Order),
        buried("move", Kind::Move),
        buried("cancellation", Kind::Cancellation),
        buried("manifest", Kind::Manifest),
        sample("claim", id(1), |id| encode_claim(*id), decode_claim),
        sample("held_claim", (id(1), [9; 32]), |(id, d)| encode_held_claim(*id, d), decode_held_claim),
        sample("logged_claim", ([7; 16], id(1)), |(c, id)| encode_logged_claim(*c, *id), decode_logged_claim),
        sample("secret", [9; 16], |s| encode_secret(*s), decode_secret),
        sample("mark", (), |()| encode_mark(), |bytes| body(Record::Mark, bytes).map(|_| ())),
        sample("feed", (id(1), 7), |(id, version)| encode_feed(*id, *version), decode_feed),
        sample(
            "lane_transaction",
            id(1),
            |id| encode_lane_transaction(*id),
            |bytes| match decode_lane(bytes)? {
                StoredItem::Transaction(id) => Ok(id),
                StoredItem::Report(_) | StoredItem::Instruction(_) => Err(FormatError::Short),
            },
        ),
        sample("position", position, encode_position, decode_position),
        sample("position_untold", position, encode_untold_position, decode_position),
        sample("feed_stock", change, encode_stock_change, decode_stock_change),
        sample(
            "feed_estimate",
            (id(1), Points::Estimate(7).number()),
            |(id, number)| encode_feed(*id, *number),
            decode_feed,
        ),
        sample("estimates", vec![told], |told| encode_estimates(told), decode_estimates),
        sample("wave", vec![ReleaseId { order: id(1), n: 1 }], |w| encode_wave(w), decode_wave),
        sample("carton", carton(None), encode_carton, decode_carton),
        sample("carton_named", carton(Some("box-1")), encode_carton, decode_carton),
        dead("order", DeadKind::Order, Some(id(1))),
        dead("confirmation", DeadKind::Confirmation, None),
        dead("wave", DeadKind::Wave, Some(id(2))),
        dead("stock", DeadKind::Stock, None),
        dead("entry", DeadKind::Order, Some(id(1))),
        instruction("redrive", Instruction::Redrive(7)),
        instruction("give_up", Instruction::GiveUp(7)),
        sample("settled.redriven", Settled::Redriven, |s| encode_settled(*s), decode_settled),
        sample("settled.given_up", Settled::GivenUp, |s| encode_settled(*s), decode_settled),
        sample("settled.passed", Settled::Passed, |s| encode_settled(*s), decode_settled),
        sample("partition", row, encode_partition, decode_partition),
        sample("partition_troubled", troubled, encode_partition, decode_partition),
        sample("counter", Counter { next: 9, count: 4 }, |c| encode_counter(*c), decode_counter),
        sample("number", 77, |n| encode_number(*n), decode_number),
        sample("store", (Uuid::from_u128(1), 1), |(id, n)| encode_store(*id, *n), decode_store),
    ]
}

fn hooks() -> Vec<Sample> {
    let hook = EndpointId(Uuid::from_u128(7));
    let entry = |sequence| FeedEntry { sequence, id: id(1), version: 7 };
    let endpoint = |name: &str, standing| {
        let full = standing == Standing::Enabled;
        let settings = EndpointSettings {
            url: "https://shop.example/hooks".to_owned(),
            types: vec!["wavegate.order.*".to_owned()],
            description: if full { "a shop".to_owned() } else { String::new() },
            delivery: if full { DeliveryMode::Every } else { DeliveryMode::Latest },
            content_type: if full { ContentType::CloudEvents } else { ContentType::Json },
            include: Include { metadata: full, ship_to: full },
        };
        let mut secrets = Secrets::new(Secret::random([1; 4]));
        if full {
            secrets.rotate(Secret::random([2; 4]), Timestamp(9), Timestamp(1));
        }
        let client = ClientNo(5);
        let value = StoredEndpoint {
            id: hook,
            client,
            settings,
            secrets,
            standing,
            created_at: Timestamp(1),
            revision: 3,
        };
        let decode = move |bytes: &[u8]| decode_endpoint(client, hook, bytes);
        sample(&format!("endpoint.{name}"), value, encode_endpoint, decode)
    };
    let attempt = |outcome: AttemptOutcome| {
        let attempt = Attempt {
            webhook_id: "a.1".to_owned(),
            event_type: "wavegate.order.shipped".to_owned(),
            transaction_id: Some(id(1)),
            attempt: 2,
            at: Timestamp(1),
            status: (outcome == AttemptOutcome::Delivered).then_some(204),
            duration_ms: 12,
            outcome,
        };
        sample(&format!("attempt.{}", outcome.as_str()), attempt, encode_attempt, decode_attempt)
    };
    let replay = |name: &str, which| {
        let replay = Replay { id: Uuid::from_u128(9), which, cursor: 4 };
        sample(&format!("replay.{name}"), replay, encode_replay, |b| decode_replay(Uuid::from_u128(9), b))
    };
    let fortune = Fortune { success_at: Timestamp(1), hopeless: 2 };
    let progress =
        Progress { epoch: 3, cursor: 400, fortune, next_attempt: 77, rest: Rest::default(), skipped: None };
    let skipped = Progress { skipped: Some(Skipped { after: 300, to: 400 }), ..progress };
    let asked = Progress { rest: Rest { asked: Some(Timestamp(7)), open: None }, ..progress };
    let open = Open { until: Timestamp(8), pause: Duration::from_secs(300) };
    let open = Progress { rest: Rest { asked: None, open: Some(open) }, ..progress };
    let pending = PendingDelivery { entry: entry(9), attempts: 3, next_at: Timestamp(5) };
    let dead = DeadDelivery {
        endpoint: hook,
        client: ClientNo(5),
        entry: entry(9),
        attempts: 11,
        reason: "it answered 500".to_owned(),
        at: Timestamp(6),
    };
    let settings = EndpointSettings {
        url: "https://shop.example/hooks".to_owned(),
        types: vec!["wavegate.*".to_owned()],
        description: String::new(),
        delivery: DeliveryMode::Latest,
        content_type: ContentType::Json,
        include: Include::default(),
    };
    let (created_at, at) = (Timestamp(1), Timestamp(6));
    let notice = Notice { endpoint: hook, reason: DisabledReason::Failing, settings, created_at, at };
    let span = Which::Span { since: Timestamp(1), until: Timestamp(2), types: vec!["wavegate.*".to_owned()] };
    let mut samples = vec![
        endpoint("enabled", Standing::Enabled),
        endpoint("gone", Standing::Disabled(DisabledReason::Gone)),
        endpoint("asked", Standing::Disabled(DisabledReason::Asked)),
        endpoint("failing", Standing::Disabled(DisabledReason::Failing)),
        endpoint("deleted", Standing::Deleted),
        sample("progress", progress, encode_progress, decode_progress),
        sample("progress_asked", asked, encode_progress, decode_progress),
        sample("progress_skipped", skipped, encode_progress, decode_progress),
        sample("progress_open", open, encode_progress, decode_progress),
        sample("pending", pending, encode_pending, |bytes| decode_pending(9, bytes)),
        sample("dead_delivery", dead, encode_dead_delivery, move |b| decode_dead_delivery(hook, 9, b)),
        sample("notice", notice, encode_notice, decode_notice),
        replay("one", Which::One(9)),
        replay("span", span),
    ];
    samples.extend(AttemptOutcome::ALL.map(attempt));
    samples
}

fn assignment() -> Sample {
    let node = |n| NodeId(Uuid::from_u128(n));
    let homes = Homes::from([
        (Charge::Warehouse(PartitionId(1)), node(7)),
        (Charge::Warehouse(PartitionId(300)), node(8)),
        (Charge::Endpoints(0), node(8)),
        (Charge::Endpoints(15), node(7)),
    ]);
    sample("homes", homes, encode_homes, decode_homes)
}

fn receipts() -> Vec<Sample> {
    let receipt = |name: &str, full: bool| {
        let trace = TraceContext { trace_id: 1, parent_id: 2, flags: 1, state: None };
        let accepted = Accepted { correlation: "call-1".parse().unwrap(), trace };
        let key = IdempotencyKey { call: Kind::Order, key: "k-1".to_owned() };
        let new = NewCommand {
            id: id(2),
            client: ClientNo(5),
            key: full.then_some(key),
            command: Command::Order(order_command(full)),
            digest: [0xCD; 32],
            ship_to: full.then(|| ship_to(true)),
            accepted: Recorded { at: Timestamp(1_764_000_000_001), fact: Fact::Accepted(accepted) },
            backlog_max: u64::MAX,
        };
        let encode = |(at, new): &(Timestamp, NewCommand)| encode_receipt(*at, new.id, new);
        sample(&format!("receipt.{name}"), (Timestamp(1_764_000_000_002), new), encode, decode_receipt)
    };
    let store = Uuid::from_u128(7);
    let head = sample("receipts_head", store, |id| encode_receipts_head(*id), decode_receipts_head);
    vec![receipt("full", true), receipt("least", false), head]
}

fn samples() -> Vec<Sample> {
    [facts(), commands(), reports(), records(), hooks(), receipts(), vec![assignment()]]
        .into_iter()
        .flatten()
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2);
    digits.map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn every_released_value_decodes_to_what_it_was_and_is_written_the_same() {
    let lines = GOLDEN.lines().map(|line| line.split_once(' ').unwrap());
    let mut golden: BTreeMap<&str, &str> = lines.collect();
    let mut missing = String::new();
    for sample in samples() {
        let Some(stored) = golden.remove(sample.name.as_str()) else {
            missing.push_str(&format!("{} {}\n", sample.name, hex(&sample.bytes)));
            continue;
        };
        let again = (sample.again)(&unhex(stored));
        assert_eq!(hex(&again), stored, "{} is written otherwise", sample.name);
    }
    assert!(missing.is_empty(), "append to golden_v1.txt:\n{missing}");
    assert!(golden.is_empty(), "lines without a value: {golden:?}");
}

#[test]
fn a_value_of_another_kind_or_a_later_format_is_named_as_such() {
    let claim = encode_claim(id(1));
    assert!(matches!(decode_feed(&claim), Err(FormatError::Kind { expected: 7, found: 5 })));
    let later = [&[5, 2], &claim[2..]].concat();
    assert!(matches!(decode_claim(&later), Err(FormatError::Format(2))));
    assert!(matches!(decode_claim(&[5]), Err(FormatError::Short)));
    assert!(matches!(decode_claim(&claim[..9]), Err(FormatError::Short)));
}

#[test]
fn a_digest_sees_every_field_and_no_default() {
    let of = |command: &OrderCommand, to: &ShipTo| digest(&Command::Order(command.clone()), Some(to));
    let (command, to) = (order_command(false), ship_to(false));
    let same = of(&command, &to);
    assert_eq!(of(&OrderCommand { priority: Priority(5), ..command.clone() }, &to), same);
    assert_ne!(of(&OrderCommand { priority: Priority(4), ..command.clone() }, &to), same);
    assert_ne!(of(&command, &ShipTo { city: "York".into(), ..to.clone() }), same);
    assert_ne!(digest(&Command::Order(command.clone()), None), same);
    // Digests are stored, so what they are taken over may never change.
    assert_eq!(hex(&same), "38c38b06086e8c6eecd029582d47ad08990ec6eee284b5e8e581d960e0e38119");
}

#[test]
fn a_commands_digest_is_read_from_its_first_bytes() {
    let head = CommandHead { client: ClientNo(5), digest: [0xCD; 32] };
    let bytes = encode_command(&head, &Command::Order(order_command(true)));
    assert_eq!(decode_digest(&bytes[..60]).unwrap(), [0xCD; 32]);
}
