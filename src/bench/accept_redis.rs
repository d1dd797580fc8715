//! Accepting orders with the store in Redis, each run on a Redis of its own: how many a second beside a
//! bare server that sends the same scripts, at what cost in processor time on either side, how long one
//! takes when the machine is half busy, and what a second node that is asked for nothing changes.

use std::rc::Rc;

use super::accept::{FILLED_FROM, Run, Side, WAREHOUSES, at_full_speed, fresh, load, stocked};
use super::load::Pace;
use super::order::{Orders, References};
use super::redis::RedisServer;
use super::report::{Check, Report, Target};
use super::server::{self, Wms};
use super::{Bench, Error};

/// Measures all of it.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let max = throughput(bench, report).await?;
    latency(bench, report, max / 2.0).await?;
    second_node(bench, report, max / 2.0).await
}

/// As fast as answers come; the most that the server accepts in a second.
async fn throughput(bench: &Bench<'_>, report: &mut Report) -> Result<f64, Error> {
    let rounds = at_full_speed(bench, "accept in Redis").await?;
    let rates = [
        ("in Redis: accepted by the ceiling", rounds.series(|r| r.ceiling.per_second)),
        ("in Redis: accepted, pipelines paused", rounds.series(|r| r.paused.per_second)),
        ("in Redis: accepted, pipelines running", rounds.series(|r| r.running.per_second)),
        ("in Redis: accepted, random references", rounds.series(|r| r.random.per_second)),
    ];
    let costs = [
        ("in Redis: processor time of an order, ceiling", rounds.series(|r| r.ceiling.cpu_us)),
        ("in Redis: processor time of an order, server", rounds.series(|r| r.paused.cpu_us)),
        ("in Redis: Redis' own beside the ceiling", rounds.series(|r| r.ceiling.redis_us)),
        ("in Redis: Redis' own beside the server", rounds.series(|r| r.paused.redis_us)),
    ];
    rates.into_iter().for_each(|(name, values)| report.measure(name, "/s", values));
    costs.into_iter().for_each(|(name, values)| report.measure(name, "µs", values));
    let check = Check::new(
        "redis.accept",
        "in Redis: accepting at 256 connections, pipelines paused, over the ceiling",
        "",
        rounds.series(|r| r.paused.per_second).over(&rounds.series(|r| r.ceiling.per_second)),
        Target::AtLeast(0.6),
    );
    report.checks.push(check.spoiled(rounds.spoiled));
    Ok(rounds.series(|r| r.paused.per_second).median())
}

/// At half the maximum rate.
async fn latency(bench: &Bench<'_>, report: &mut Report, rate: f64) -> Result<(), Error> {
    let (ordered, pace) = (References::Ordered, Pace::PerSecond(rate));
    let name = format!("accept in Redis at {rate:.0}/s");
    let sides = [Side::Ceiling, Side::Server(Wms::Paused)];
    let rounds = bench.rounds(&name, async |turn| {
        turn.each(sides, async |side| fresh(bench, side, ordered, pace).await).await
    });
    let rounds = rounds.await?;
    let measured = [
        ("in Redis: p50 at half the rate, ceiling", rounds.series(|[ceiling, _]| ceiling.p50_ms)),
        ("in Redis: p50 at half the rate, pipelines paused", rounds.series(|[_, paused]| paused.p50_ms)),
        ("in Redis: p99 at half the rate, ceiling", rounds.series(|[ceiling, _]| ceiling.p99_ms)),
        ("in Redis: p99 at half the rate, pipelines paused", rounds.series(|[_, paused]| paused.p99_ms)),
    ];
    measured.into_iter().for_each(|(name, values)| report.measure(name, "ms", values));
    Ok(())
}

/// The first of two nodes beside one alone, both asked for the same at half the maximum rate: so each has
/// processor time to spare, and what is counted is the first node's own.
async fn second_node(bench: &Bench<'_>, report: &mut Report, rate: f64) -> Result<(), Error> {
    let pace = Pace::PerSecond(rate);
    let rounds = bench.rounds("accept beside a second node", async |turn| {
        let run = async |beside| match beside {
            true => beside_another(bench, pace).await,
            false => fresh(bench, Side::Server(Wms::Paused), References::Ordered, pace).await,
        };
        turn.each([false, true], run).await
    });
    let rounds = rounds.await?;
    let cpu = rounds.series(|[_, beside]| beside.cpu_us);
    report.measure("in Redis: processor time of an order, beside a second node", "µs", cpu.clone());
    let per_second = rounds.series(|[_, beside]| beside.per_second);
    report.measure("in Redis: accepted beside a second node, at half the rate", "/s", per_second.clone());
    let checks = [
        (
            "redis.second_node",
            "in Redis: processor time an order beside a second node, over it alone",
            cpu.over(&rounds.series(|[alone, _]| alone.cpu_us)),
            Target::AtMost(1.1),
        ),
        (
            "redis.second_node_redis",
            "in Redis: the same of Redis itself",
            rounds.series(|[_, beside]| beside.redis_us).over(&rounds.series(|[alone, _]| alone.redis_us)),
            Target::AtMost(1.1),
        ),
    ];
    for (id, claim, values, target) in checks {
        report.checks.push(Check::new(id, claim, "", values, target).spoiled(rounds.spoiled));
    }
    Ok(())
}

/// A run at a node that shares its warehouses with one which nobody asks.
async fn beside_another(bench: &Bench<'_>, pace: Pace) -> Result<Run, Error> {
    let dirs = [bench.directory()?, bench.directory()?];
    let first = stocked(bench, dirs[0].path(), Wms::Paused).await?;
    let url = first.redis.as_ref().map(RedisServer::url);
    let passed = &bench.options.passed;
    let _second = passed.start_on(dirs[1].path(), url.as_deref(), WAREHOUSES, Wms::Paused, "keys = []\n")?;
    server::shared(first.address, 2).await?;
    let orders = Rc::new(Orders::new(WAREHOUSES, References::Ordered, 0..FILLED_FROM));
    load(bench, &first, orders, pace).await
}
