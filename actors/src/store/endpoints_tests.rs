//! What every store must do with webhook endpoints and their deliveries, as claims of the contract.

use std::time::Duration;
use uuid::Uuid;

use super::contract::{CLIENT, accept, id, order};
use crate::domain::endpoint::{
    ContentType, DeliveryMode, DisabledReason, EndpointId, EndpointSettings, Fortune, Include, Secret,
    Secrets,
};
use crate::domain::ids::ClientNo;
use crate::domain::time::Timestamp;
use crate::ports::announcement::Announcement;
use crate::ports::endpoints::{
    ATTEMPTS_KEPT, Attempt, AttemptOutcome, Changed, DeadDelivery, DeliveryRecord, DeliveryRows,
    EndpointChange, Open, PendingDelivery, REPLAYS_MAX, Replay, Rest, Skipped, Standing, StoredEndpoint,
    Which,
};
use crate::ports::store::{CommitError, FeedEntry, SharedStore};

const OTHER: ClientNo = ClientNo(2);
const NOW: Timestamp = Timestamp(5_000);

pub(super) fn hook(n: u64) -> EndpointId {
    EndpointId::new(Timestamp(1_000), n)
}

fn settings(url: &str) -> EndpointSettings {
    EndpointSettings {
        url: url.to_owned(),
        types: vec!["wavegate.order.*".to_owned()],
        description: "a shop".to_owned(),
        delivery: DeliveryMode::Every,
        content_type: ContentType::CloudEvents,
        include: Include { metadata: true, ship_to: false },
    }
}

pub(super) fn endpoint(n: u64, client: ClientNo) -> StoredEndpoint {
    StoredEndpoint {
        id: hook(n),
        client,
        // Longer than one chunk.
        settings: settings(&format!("https://{}.example/", "x".repeat(2_000))),
        secrets: Secrets::new(Secret::random([n; 4])),
        standing: Standing::Enabled,
        created_at: NOW,
        revision: 1,
    }
}

async fn create(store: &SharedStore, endpoint: StoredEndpoint) -> Option<StoredEndpoint> {
    store.create_endpoint(endpoint, 2).await.unwrap().wait().await.unwrap()
}

async fn change(store: &SharedStore, n: u64, change: EndpointChange) -> Changed {
    store.change_endpoint(CLIENT, hook(n), change).await.unwrap().wait().await.unwrap()
}

async fn take(store: &SharedStore, n: u64) -> u64 {
    store.take_endpoint(CLIENT, hook(n)).await.unwrap().wait().await.unwrap()
}

pub(super) fn entry(sequence: u64) -> FeedEntry {
    FeedEntry { sequence, id: id(sequence), version: 1 }
}

pub(super) fn pending(sequence: u64, attempts: u16) -> PendingDelivery {
    PendingDelivery { entry: entry(sequence), attempts, next_at: NOW }
}

pub(super) fn nothing(epoch: u64, cursor: u64) -> DeliveryRecord {
    DeliveryRecord {
        epoch,
        cursor,
        fortune: Fortune { success_at: NOW, hopeless: 3 },
        rest: Rest::default(),
        skipped: None,
        pending: vec![],
        finished: vec![],
        dead: vec![],
        revived: vec![],
        attempts: vec![],
        replays: vec![],
        disabled: None,
    }
}

pub(super) fn attempt(n: u16) -> Attempt {
    Attempt {
        webhook_id: format!("{}.1", id(1)),
        event_type: "wavegate.order.accepted".to_owned(),
        transaction_id: Some(id(1)),
        attempt: n,
        at: NOW,
        status: Some(503),
        duration_ms: 12,
        outcome: AttemptOutcome::Refused,
    }
}

pub(super) fn dead(sequence: u64) -> DeadDelivery {
    DeadDelivery {
        endpoint: hook(1),
        client: CLIENT,
        entry: entry(sequence),
        attempts: 11,
        reason: "it answered 500".to_owned(),
        at: NOW,
    }
}

pub(super) async fn endpoints_are_kept_whole_and_each_client_has_its_own(store: &SharedStore) {
    assert_eq!(create(store, endpoint(1, CLIENT)).await, Some(endpoint(1, CLIENT)));
    assert!(create(store, endpoint(2, CLIENT)).await.is_some());
    assert_eq!(create(store, endpoint(3, CLIENT)).await, None, "two are as many as a client may have");
    assert!(create(store, endpoint(4, OTHER)).await.is_some());
    assert_eq!(store.endpoints_of(CLIENT).await.unwrap(), [endpoint(1, CLIENT), endpoint(2, CLIENT)]);
    assert_eq!(store.endpoint(CLIENT, hook(4)).await.unwrap(), None);
    assert_eq!(store.endpoint(OTHER, hook(4)).await.unwrap(), Some(endpoint(4, OTHER)));
    assert_eq!(store.endpoints().await.unwrap().len(), 3);
    let absent = store.change_endpoint(CLIENT, hook(4), EndpointChange::Delete).await.unwrap();
    assert_eq!(absent.wait().await.unwrap(), Changed::Absent);
}

pub(super) async fn changes_of_an_endpoint_are_seen_and_numbered(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    let to = |revision| EndpointChange::Settings { settings: settings("http://a/"), revision };
    assert_eq!(change(store, 1, to(7)).await, Changed::Moved);
    let Changed::To(changed) = change(store, 1, to(1)).await else { panic!("it is there") };
    assert_eq!((changed.settings.url.as_str(), changed.revision), ("http://a/", 2));
    let rotation = EndpointChange::Rotate { next: Secret::random([9; 4]), until: Timestamp(9_000), now: NOW };
    let Changed::To(changed) = change(store, 1, rotation).await else { panic!("it is there") };
    let valid: Vec<_> = changed.secrets.valid_at(NOW).cloned().collect();
    assert_eq!(valid, [Secret::random([9; 4]), Secret::random([1; 4])]);
    assert_eq!(store.endpoint(CLIENT, hook(1)).await.unwrap(), Some(*changed));
}

pub(super) async fn an_endpoint_begins_at_the_end_of_its_feed(store: &SharedStore) {
    accept(store, vec![order(1, "r1", 1), order(2, "r2", 1)]).await;
    create(store, endpoint(1, CLIENT)).await;
    let epoch = take(store, 1).await;
    let found = store.deliveries(CLIENT, hook(1)).await.unwrap().unwrap();
    assert_eq!((found.cursor, found.next_attempt, found.fortune), (2, 1, Fortune::new(NOW)));
    let gone = DeliveryRecord { disabled: Some((DisabledReason::Gone, NOW)), ..nothing(epoch, 2) };
    store.record(CLIENT, hook(1), gone).await.unwrap();
    let disabled = store.endpoint(CLIENT, hook(1)).await.unwrap().unwrap();
    assert_eq!(disabled.standing, Standing::Disabled(DisabledReason::Gone));
    let said = *store.feed(CLIENT, 0, 9).await.unwrap().last().unwrap();
    assert_eq!((said.sequence, said.version, said.id.at()), (3, 0, NOW));
    let Some(Announcement::Endpoint(notice)) = store.announcement(CLIENT, 3).await.unwrap() else {
        panic!("it says what happened")
    };
    assert_eq!((notice.endpoint, notice.reason, notice.at), (hook(1), DisabledReason::Gone, NOW));
    assert_eq!((notice.settings, notice.created_at), (endpoint(1, CLIENT).settings, NOW));
    assert_eq!(store.announcement(CLIENT, 2).await.unwrap(), None);
    accept(store, vec![order(3, "r3", 1)]).await;
    let replay = Replay { id: Uuid::from_u128(1), which: Which::One(1), cursor: 0 };
    assert_eq!(change(store, 1, EndpointChange::Replay(replay)).await, Changed::Disabled);
    let Changed::To(enabled) = change(store, 1, EndpointChange::Enable { now: Timestamp(7) }).await else {
        panic!("it is there")
    };
    assert_eq!(enabled.standing, Standing::Enabled);
    let found = store.deliveries(CLIENT, hook(1)).await.unwrap().unwrap();
    assert_eq!(found.fortune, Fortune::new(Timestamp(7)));
    let end = store.feed(CLIENT, 0, 9).await.unwrap().last().unwrap().sequence;
    assert_eq!(found.cursor, end, "what was skipped is not taken up by itself");
    assert_eq!(found.skipped, Some(Skipped { after: 2, to: end }));
    // Whoever disabled it has nothing more to say.
    let late = store.record(CLIENT, hook(1), nothing(epoch, 2)).await;
    assert!(matches!(late, Err(CommitError::Conflict)), "{late:?}");
    let all = store.sweep_feeds(Timestamp(1_000_000), Duration::from_secs(1), 99).await.unwrap();
    assert_eq!((all, store.announcement(CLIENT, 3).await.unwrap()), (4, None), "it goes with its entry");
}

pub(super) async fn deliveries_are_recorded_by_the_last_epoch_only(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    let old = take(store, 1).await;
    let epoch = take(store, 1).await;
    assert!(epoch > old && old > 0);
    assert_eq!(take(store, 8).await, 0, "there is none");
    let stale = store.record(CLIENT, hook(1), nothing(old, 9)).await;
    assert!(matches!(stale, Err(CommitError::Conflict)), "{stale:?}");
    let first = DeliveryRecord {
        pending: vec![pending(3, 1), pending(5, 2)],
        attempts: vec![(1, attempt(1)), (2, attempt(2))],
        ..nothing(epoch, 6)
    };
    store.record(CLIENT, hook(1), first).await.unwrap();
    let second = DeliveryRecord { finished: vec![3, 4], pending: vec![pending(5, 3)], ..nothing(epoch, 7) };
    store.record(CLIENT, hook(1), second).await.unwrap();
    let found = store.deliveries(CLIENT, hook(1)).await.unwrap().unwrap();
    assert_eq!(found.pending, [pending(5, 3)]);
    assert_eq!((found.cursor, found.next_attempt, found.fortune.hopeless), (7, 3, 3));
    assert_eq!(store.attempts(hook(1)).await.unwrap(), [(2, attempt(2)), (1, attempt(1))]);
}

pub(super) async fn an_endpoint_rests_until_its_next_record_or_until_it_is_enabled(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    let epoch = take(store, 1).await;
    let open = Open { until: Timestamp(8_000), pause: Duration::from_secs(20) };
    let rest = Rest { asked: Some(Timestamp(9_000)), open: Some(open) };
    let found = async || store.deliveries(CLIENT, hook(1)).await.unwrap().unwrap().rest;
    assert_eq!(found().await, Rest::default());
    store.record(CLIENT, hook(1), DeliveryRecord { rest, ..nothing(epoch, 0) }).await.unwrap();
    assert_eq!(found().await, rest);
    let epoch = take(store, 1).await;
    assert_eq!(found().await, rest, "whoever takes it over finds it");
    store.record(CLIENT, hook(1), nothing(epoch, 0)).await.unwrap();
    assert_eq!(found().await, Rest::default());
    let gone = DeliveryRecord { rest, disabled: Some((DisabledReason::Gone, NOW)), ..nothing(epoch, 0) };
    store.record(CLIENT, hook(1), gone).await.unwrap();
    change(store, 1, EndpointChange::Enable { now: NOW }).await;
    assert_eq!(found().await, Rest::default());
}

pub(super) async fn what_is_skipped_is_known_until_a_record_says_that_it_was_looked_through(
    store: &SharedStore,
) {
    create(store, endpoint(1, CLIENT)).await;
    let disable = async |cursor, skipped| {
        let disabled = Some((DisabledReason::Gone, NOW));
        let gone = DeliveryRecord { disabled, skipped, ..nothing(take(store, 1).await, cursor) };
        store.record(CLIENT, hook(1), gone).await.unwrap();
        change(store, 1, EndpointChange::Enable { now: NOW }).await;
        store.deliveries(CLIENT, hook(1)).await.unwrap().unwrap().skipped
    };
    // Each time the feed grows by the word that the endpoint is disabled.
    assert_eq!(disable(0, None).await, Some(Skipped { after: 0, to: 1 }));
    let half = Some(Skipped { after: 0, to: 1 });
    assert_eq!(disable(1, half).await, Some(Skipped { after: 0, to: 2 }), "it was not looked through");
    assert_eq!(disable(2, None).await, Some(Skipped { after: 2, to: 3 }));
    store.record(CLIENT, hook(1), nothing(take(store, 1).await, 3)).await.unwrap();
    assert_eq!(store.deliveries(CLIENT, hook(1)).await.unwrap().unwrap().skipped, None);
}

pub(super) async fn attempts_are_remembered_up_to_a_number(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    let epoch = take(store, 1).await;
    let attempts = (1..=ATTEMPTS_KEPT + 7).map(|n| (n, attempt(1))).collect();
    store.record(CLIENT, hook(1), DeliveryRecord { attempts, ..nothing(epoch, 0) }).await.unwrap();
    let kept: Vec<u64> = store.attempts(hook(1)).await.unwrap().iter().map(|(n, _)| *n).collect();
    assert_eq!(kept, (8..=ATTEMPTS_KEPT + 7).rev().collect::<Vec<_>>());
}

pub(super) async fn dead_deliveries_are_paged_revived_and_given_up(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    let epoch = take(store, 1).await;
    let kept = DeliveryRecord { dead: vec![dead(4), dead(5), dead(6)], ..nothing(epoch, 6) };
    store.record(CLIENT, hook(1), kept).await.unwrap();
    assert_eq!(store.dead_deliveries(None, 2).await.unwrap(), [dead(4), dead(5)]);
    assert_eq!(store.dead_deliveries(Some((hook(1), 5)), 2).await.unwrap(), [dead(6)]);
    let again = DeliveryRecord { finished: vec![4, 6], dead: vec![dead(4)], ..nothing(epoch, 6) };
    store.record(CLIENT, hook(1), again).await.unwrap();
    assert_eq!(store.dead_deliveries(None, 9).await.unwrap(), [dead(4), dead(5)], "6 came through after all");
    let kept = DeliveryRecord { finished: vec![6], dead: vec![dead(6)], ..nothing(epoch, 6) };
    store.record(CLIENT, hook(1), kept).await.unwrap();
    let revived = DeliveryRecord { revived: vec![4], pending: vec![pending(4, 0)], ..nothing(epoch, 6) };
    store.record(CLIENT, hook(1), revived).await.unwrap();
    assert_eq!(store.dead_delivery(hook(1), 4).await.unwrap(), None);
    assert_eq!(store.dead_delivery(hook(1), 5).await.unwrap(), Some(dead(5)));
    let give_up = async |n| store.give_up_delivery(hook(1), n).await.unwrap().wait().await.unwrap();
    assert_eq!((give_up(5).await, give_up(5).await), (true, false));
    assert_eq!(store.dead_deliveries(None, 9).await.unwrap(), [dead(6)]);
}

pub(super) async fn replays_wait_for_the_actor_up_to_a_number(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    let epoch = take(store, 1).await;
    let types = vec!["wavegate.order.shipped".to_owned(); 100];
    let which = Which::Span { since: Timestamp(1), until: Timestamp(2), types };
    let span = Replay { id: Uuid::from_u128(1), which, cursor: 0 };
    let one = |n: u64| Replay { id: Uuid::from_u128(u128::from(n)), which: Which::One(n), cursor: 0 };
    assert!(matches!(change(store, 1, EndpointChange::Replay(span.clone())).await, Changed::To(_)));
    for n in 2..=REPLAYS_MAX as u64 {
        assert!(matches!(change(store, 1, EndpointChange::Replay(one(n))).await, Changed::To(_)));
    }
    assert_eq!(change(store, 1, EndpointChange::Replay(one(9_999))).await, Changed::TooMany);
    let on = Replay { cursor: 700, ..span.clone() };
    let done = (2..=REPLAYS_MAX as u64).map(|n| (Uuid::from_u128(u128::from(n)), None));
    let replays = done.chain([(span.id, Some(on.clone()))]).collect();
    store.record(CLIENT, hook(1), DeliveryRecord { replays, ..nothing(epoch, 0) }).await.unwrap();
    assert_eq!(store.deliveries(CLIENT, hook(1)).await.unwrap().unwrap().replays, [on]);
}

pub(super) async fn a_deleted_endpoint_is_gone_at_once_and_its_rows_by_and_by(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    create(store, endpoint(2, CLIENT)).await;
    let epoch = take(store, 1).await;
    let rows = DeliveryRecord {
        pending: vec![pending(1, 1), pending(2, 1)],
        dead: vec![dead(3), dead(4)],
        attempts: vec![(1, attempt(1))],
        ..nothing(epoch, 4)
    };
    store.record(CLIENT, hook(1), rows).await.unwrap();
    assert_eq!(store.purge_endpoint(CLIENT, hook(1), 9).await.unwrap(), 0, "it is not deleted");
    change(store, 1, EndpointChange::Delete).await;
    assert_eq!(store.endpoint(CLIENT, hook(1)).await.unwrap(), None);
    assert_eq!(store.endpoints_of(CLIENT).await.unwrap(), [endpoint(2, CLIENT)]);
    let late = store.record(CLIENT, hook(1), nothing(epoch, 9)).await;
    assert!(matches!(late, Err(CommitError::Conflict)), "{late:?}");
    let left = store.endpoints().await.unwrap();
    assert!(left.iter().any(|e| e.id == hook(1) && e.standing == Standing::Deleted));
    let mut purged = Vec::new();
    while purged.last() != Some(&0) {
        purged.push(store.purge_endpoint(CLIENT, hook(1), 4).await.unwrap());
    }
    // Progress, two pending, two dead, one attempt.
    assert_eq!(purged, [4, 2, 0]);
    assert_eq!(store.endpoints().await.unwrap(), [endpoint(2, CLIENT)]);
    assert_eq!(store.dead_deliveries(None, 9).await.unwrap(), []);
    assert_eq!(store.attempts(hook(1)).await.unwrap(), []);
}

pub(super) async fn what_stands_about_deliveries_is_read_endpoint_by_endpoint(store: &SharedStore) {
    create(store, endpoint(1, CLIENT)).await;
    create(store, endpoint(2, OTHER)).await;
    let epoch = take(store, 1).await;
    let replay = Replay { id: Uuid::from_u128(1), which: Which::One(1), cursor: 0 };
    change(store, 1, EndpointChange::Replay(replay)).await;
    let rows = DeliveryRecord {
        pending: vec![pending(1, 1), pending(2, 1)],
        dead: vec![dead(3)],
        attempts: vec![(1, attempt(1))],
        ..nothing(epoch, 4)
    };
    store.record(CLIENT, hook(1), rows).await.unwrap();
    let first = DeliveryRows {
        endpoint: hook(1),
        progress: Some((4, 2)),
        pending: vec![entry(1), entry(2)],
        attempts: vec![1],
        replays: 1,
        dead: vec![entry(3)],
        damaged: vec![],
    };
    let second = DeliveryRows { endpoint: hook(2), progress: Some((0, 1)), ..DeliveryRows::default() };
    assert_eq!((first.count(), second.count()), (6, 1));
    assert_eq!(store.delivery_rows(None).await.unwrap(), Some(first));
    assert_eq!(store.delivery_rows(Some(hook(1))).await.unwrap(), Some(second));
    assert_eq!(store.delivery_rows(Some(hook(2))).await.unwrap(), None);
    assert_eq!(store.damaged_endpoints().await.unwrap(), []);
}
