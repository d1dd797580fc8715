//! Against a real Redis that comes back with an older copy of its data.

use std::path::Path;

use super::tests::{DURABLE, Redis, recent, until};
use super::*;
use crate::ports::store::{FeedBounds, SharedStore, Verdict};
use crate::ports::turns::first_of_turn;
use crate::store::contract::{CLIENT, accept};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

async fn sequences(store: &SharedStore, after: u64) -> Option<Vec<u64>> {
    let feed = store.feed(CLIENT, after, 99).await.ok()?;
    Some(feed.iter().map(|entry| entry.sequence).collect())
}

async fn lease(store: &SharedStore) -> u64 {
    store.lease_serials(10).await.unwrap().wait().await.unwrap()
}

#[tokio::test]
async fn a_redis_that_lost_its_end_counts_on_above_all_that_it_gave_out() {
    let mut redis = Redis::start(&DURABLE);
    let dir = tempfile::tempdir().unwrap();
    let receipts = ReceiptOptions { dir: dir.path().join("receipts"), keep: KEEP_MAX };
    let options = RedisOptions { receipts: Some(receipts), ..redis.options() };
    let store: SharedStore = Arc::new(RedisStore::open(&options).unwrap());
    assert_eq!(accept(&store, vec![recent(1, "r1", 1)]).await, [Verdict::New]);
    assert_eq!(sequences(&store, 0).await, Some(vec![1]));
    let first = lease(&store).await;

    // Nothing is lost: it counts on.
    redis.restart();
    until("it goes on", async || sequences(&store, 0).await.filter(|all| *all == [1])).await;
    assert_eq!(accept(&store, vec![recent(2, "r2", 1)]).await, [Verdict::New]);
    assert_eq!(sequences(&store, 0).await, Some(vec![1, 2]));
    assert_eq!(lease(&store).await, first + 10);

    let (data, early) = (redis.dir.path().join("appendonlydir"), dir.path().join("early"));
    copy(&data, &early);
    assert_eq!(accept(&store, vec![recent(3, "r3", 1), recent(4, "r4", 1)]).await, [Verdict::New; 2]);
    assert_eq!(sequences(&store, 0).await, Some(vec![1, 2, 3, 4]));
    assert_eq!(lease(&store).await, first + 20);
    redis.server.kill().unwrap();
    redis.server.wait().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&early, &data);
    redis.restart();
    // The receipts put the orders back, and what is told of them has numbers that nobody has seen.
    let told = [1, 2, first_of_turn(1), first_of_turn(1) + 1];
    until("it goes on", async || sequences(&store, 0).await.filter(|all| *all == told)).await;
    assert_eq!(sequences(&store, 4).await, Some(told[2..].to_vec()), "behind a cursor of before");
    let bounds = store.feed_bounds(CLIENT).await.unwrap();
    assert_eq!(bounds, FeedBounds { first: 1, next: first_of_turn(1) + 2 });
    assert_eq!(lease(&store).await, first + 30);
    let violations = crate::store::check(&*store).await;
    assert!(violations.is_empty(), "{violations:?}");
}
