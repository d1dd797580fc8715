//! How often Redis is asked for what, counted by Redis itself.

use std::collections::BTreeMap;

use super::tests::{DURABLE, Redis, opened, recent};
use super::*;
use crate::domain::command::Kind;
use crate::ports::store::{Lookup, NewCommand, Verdict};
use crate::store::contract::{CLIENT, accept, id, order};

/// How often each command was called so far; without what a store asks by itself once a second.
async fn called(store: &RedisStore) -> BTreeMap<String, u64> {
    let mut ask = redis::pipe();
    ask.cmd("INFO").arg("commandstats");
    let info = store.inner.reads.ask(&ask).await.unwrap().remove(0);
    let info = String::from_utf8(replies::bytes(info).unwrap()).unwrap();
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
    };
    let mut called: BTreeMap<String, u64> = info.lines().filter_map(count).collect();
    ["info", "hget", "config|get", "script|load"].iter().for_each(|own| {
        called.remove(*own);
    });
    called
}

/// What was called since.
async fn called_since(store: &RedisStore, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let now = called(store).await.into_iter();
    let since = now.map(|(name, n)| (name.clone(), n - before.get(&name).copied().unwrap_or(0)));
    since.filter(|(_, n)| *n > 0).collect()
}

async fn reads_of_connections(store: &RedisStore) -> u64 {
    let mut ask = redis::pipe();
    ask.cmd("INFO").arg("stats");
    let info = store.inner.reads.ask(&ask).await.unwrap().remove(0);
    let info = String::from_utf8(replies::bytes(info).unwrap()).unwrap();
    let reads = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
    reads.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_status_is_one_command_and_many_at_once_share_round_trips() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    accept(&store, (1..=100).map(|n| order(n, &format!("r{n}"), 1)).collect()).await;
    let before = called(&own).await;
    for n in 1..=100 {
        let Some(Lookup::Live(found)) = store.transaction(id(n)).await.unwrap() else {
            panic!("{n} is there")
        };
        assert_eq!(found.id, id(n));
    }
    assert_eq!(store.transaction(id(999)).await.unwrap(), None);
    assert_eq!(called_since(&own, &before).await, BTreeMap::from([("hgetall".to_owned(), 101)]));

    let before = reads_of_connections(&own).await;
    let inner = Arc::clone(&own.inner);
    let all = own.runtime.spawn(async move {
        let reads = (1..=100).map(|n| inner.transaction(id(n)));
        futures_util::future::join_all(reads).await.into_iter().filter(|found| found.is_ok()).count()
    });
    assert_eq!(all.await.unwrap(), 100);
    let trips = reads_of_connections(&own).await - before;
    assert!(trips <= 25, "{trips} round trips for a hundred reads");
}

#[tokio::test]
async fn while_there_is_room_a_round_claims_and_appends_and_asks_nothing_else() {
    let redis = Redis::start(&DURABLE);
    let (own, store) = opened(&redis);
    let limited = |n, backlog_max| NewCommand { backlog_max, ..order(n, &format!("r{n}"), 1) };
    accept(&store, vec![limited(1, 13)]).await;
    let before = called(&own).await;
    accept(&store, (2..=11).map(|n| limited(n, 13)).collect()).await;
    let of = |called: &BTreeMap<String, u64>, name: &str| called.get(name).copied().unwrap_or(0);
    let since = called_since(&own, &before).await;
    let asked = ["set", "evalsha", "exists", "get"].map(|name| of(&since, name));
    assert_eq!(asked, [10, 10, 0, 0], "{since:?}");
    // Each script asks for the time and the length of the lane, and the round once.
    assert_eq!(["time", "xlen"].map(|name| of(&since, name)), [11, 11], "{since:?}");

    // Where it may be full, who was claimed before is looked for; who was not is refused without a trace.
    accept(&store, vec![limited(12, 13), limited(13, 13)]).await;
    let before = called(&own).await;
    let verdicts = accept(&store, vec![limited(14, 13), NewCommand { id: id(15), ..limited(1, 13) }]).await;
    assert_eq!(verdicts, [Verdict::BacklogFull, Verdict::Replay(id(1))]);
    let since = called_since(&own, &before).await;
    assert_eq!(["exists", "set", "evalsha"].map(|name| of(&since, name)), [2, 1, 1], "{since:?}");
}

#[tokio::test]
async fn a_lane_that_another_node_filled_is_full_and_the_refused_leave_no_claim() {
    let redis = Redis::start(&DURABLE);
    let ((_one, one), (own, other)) = (opened(&redis), opened(&redis));
    let limited = |n, reference: &str| NewCommand { backlog_max: 5, ..recent(n, reference, 1) };
    assert_eq!(accept(&other, vec![limited(1, "r1")]).await, [Verdict::New]);
    let rest: Vec<_> = (2..=5).map(|n| limited(n, &format!("r{n}"))).collect();
    assert_eq!(accept(&one, rest).await, vec![Verdict::New; 4]);
    // It last saw one in the lane.
    assert_eq!(accept(&other, vec![limited(6, "r6")]).await, [Verdict::BacklogFull]);
    assert_eq!(accept(&other, vec![limited(7, "r7")]).await, [Verdict::BacklogFull]);
    for reference in ["r6", "r7"] {
        let claim = own.inner.hasher.reference(CLIENT, Kind::Order, &reference.parse().unwrap());
        let mut ask = redis::pipe();
        ask.cmd("EXISTS").arg(place::claim(claim));
        assert_eq!(own.inner.reads.ask(&ask).await.unwrap(), [redis::Value::Int(0)], "{reference}");
    }
}
