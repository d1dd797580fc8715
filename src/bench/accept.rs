//! Accepting orders: how many a second and at what cost in processor time, how long one takes when
//! the machine is half busy, and what random references, busy pipelines and a WMS that is slow or
//! dead change in that.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::load::{Load, Pace, Requests};
use super::order::{Orders, References};
use super::process::{self, Served};
use super::redis::RedisServer;
use super::report::{Check, Report, Target};
use super::rounds::Rounds;
use super::server::{self, Wms};
use super::{Bench, Error};

/// As in the default configuration.
pub(super) const WAREHOUSES: u32 = 3;
/// A filled store's orders have numbers from here on, which no run reaches.
pub(super) const FILLED_FROM: u64 = 1 << 40;
/// Rounds of a p99 for each of anything else: a hundredth of some seconds is a few pauses of the machine.
const TAILS: usize = 3;

/// Who accepts.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// The least that accepting needs.
    Ceiling,
    /// The server.
    Server(Wms),
}

/// One run.
pub(super) struct Run {
    pub(super) per_second: f64,
    /// Of the server alone.
    pub(super) cpu_us: f64,
    /// Of the Redis that it uses; 0 without one.
    pub(super) redis_us: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Measures all of it.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let max = throughput(bench, report).await?;
    latency(bench, report, &max).await?;
    if bench.options.claims > 0 {
        many_claims(bench, report).await?;
    }
    Ok(())
}

/// One round as fast as answers come.
pub(super) struct Throughput {
    pub(super) ceiling: Run,
    pub(super) paused: Run,
    pub(super) running: Run,
    pub(super) random: Run,
}

/// Rounds as fast as answers come.
pub(super) async fn at_full_speed(bench: &Bench<'_>, name: &str) -> Result<Rounds<Throughput>, Error> {
    let all = [
        (Side::Ceiling, References::Ordered),
        (Side::Server(Wms::Paused), References::Ordered),
        (Side::Server(Wms::AtOnce), References::Ordered),
        (Side::Server(Wms::Paused), References::Random),
    ];
    let rounds = bench.rounds(name, async |turn| {
        let run = async |(side, references)| fresh(bench, side, references, Pace::Answers).await;
        let [ceiling, paused, running, random] = turn.each(all, run).await?;
        Ok(Throughput { ceiling, paused, running, random })
    });
    rounds.await
}

/// The most that the server accepts in a second.
struct Max {
    paused: f64,
    running: f64,
}

/// As fast as answers come.
async fn throughput(bench: &Bench<'_>, report: &mut Report) -> Result<Max, Error> {
    let rounds = at_full_speed(bench, "accept").await?;
    let rates = [
        ("accepted by the ceiling", rounds.series(|r| r.ceiling.per_second)),
        ("accepted, pipelines paused", rounds.series(|r| r.paused.per_second)),
        ("accepted, pipelines running", rounds.series(|r| r.running.per_second)),
        ("accepted, pipelines paused, random references", rounds.series(|r| r.random.per_second)),
    ];
    for (name, values) in rates {
        report.measure(name, "/s", values);
    }
    report.measure("processor time of an order, ceiling", "µs", rounds.series(|r| r.ceiling.cpu_us));
    report.measure("processor time of an order, server", "µs", rounds.series(|r| r.paused.cpu_us));
    let p99 = rounds.series(|r| r.paused.p99_ms);
    report.measure("p99 as fast as answers come, pipelines paused", "ms", p99);
    let over = |value: fn(&Throughput) -> f64, other: fn(&Throughput) -> f64| {
        rounds.series(value).over(&rounds.series(other))
    };
    let mut check = |id, claim, values, target| {
        report.checks.push(Check::new(id, claim, "", values, target).spoiled(rounds.spoiled));
    };
    check(
        "accept.paused",
        "accepting at 256 connections, pipelines paused, over the ceiling",
        over(|r| r.paused.per_second, |r| r.ceiling.per_second),
        Target::AtLeast(0.7),
    );
    check(
        "accept.running",
        "the same with pipelines running, over the ceiling",
        over(|r| r.running.per_second, |r| r.ceiling.per_second),
        Target::AtLeast(0.5),
    );
    check(
        "accept.cpu",
        "processor time an order, over the ceiling's",
        over(|r| r.paused.cpu_us, |r| r.ceiling.cpu_us),
        Target::AtMost(1.6),
    );
    check(
        "accept.random",
        "random references over ordered ones",
        over(|r| r.random.per_second, |r| r.paused.per_second),
        Target::AtLeast(0.8),
    );
    Ok(Max {
        paused: rounds.series(|r| r.paused.per_second).median(),
        running: rounds.series(|r| r.running.per_second).median(),
    })
}

/// At half the maximum rate: that of accepting alone beside the ceiling, and that of the whole house
/// where a WMS that answers at once is compared with one that does not.
async fn latency(bench: &Bench<'_>, report: &mut Report, max: &Max) -> Result<(), Error> {
    let (alone, house) = (Pace::PerSecond(max.paused / 2.0), Pace::PerSecond(max.running / 2.0));
    let at = async |pace, side| fresh(bench, side, References::Ordered, pace).await;
    let name = format!("accept alone at {:.0}/s", max.paused / 2.0);
    let sides = [Side::Ceiling, Side::Server(Wms::Paused)];
    let rounds = bench.many_rounds(TAILS * bench.options.pairs, &name, async |turn| {
        turn.each(sides, async |side| at(alone, side).await).await
    });
    let rounds = rounds.await?;
    for (n, side) in ["ceiling", "pipelines paused"].into_iter().enumerate() {
        report.measure(&format!("p50 at half the rate, {side}"), "ms", rounds.series(|r| r[n].p50_ms));
        report.measure(&format!("p99 at half the rate, {side}"), "ms", rounds.series(|r| r[n].p99_ms));
    }
    let check = Check::new(
        "accept.p99",
        "p99 at half the maximum rate, over the ceiling's at that rate",
        "",
        rounds.series(|r| r[1].p99_ms).over(&rounds.series(|r| r[0].p99_ms)),
        Target::AtMost(1.5),
    );
    report.checks.push(check.spoiled(rounds.spoiled));

    let name = format!("accept at {:.0}/s", max.running / 2.0);
    let wms = [Wms::AtOnce, Wms::Dead, Wms::Slow];
    let rounds = bench
        .rounds(&name, async |turn| turn.each(wms, async |wms| at(house, Side::Server(wms)).await).await);
    let rounds = rounds.await?;
    for (n, wms) in ["answers at once", "dead", "takes a second"].into_iter().enumerate() {
        let name = format!("p99 at half the rate, every WMS {wms}");
        report.measure(&name, "ms", rounds.series(|r| r[n].p99_ms));
    }
    let checks = [
        ("accept.p99_dead", "p99 at half the maximum rate with every WMS dead, over it with every WMS well"),
        ("accept.p99_slow", "the same with every WMS taking a second, over it with every WMS well"),
    ];
    for (n, (id, claim)) in checks.into_iter().enumerate() {
        let over = rounds.series(|r| r[n + 1].p99_ms).over(&rounds.series(|r| r[0].p99_ms));
        let check = Check::new(id, claim, "", over, Target::AtMost(1.3));
        report.checks.push(check.spoiled(rounds.spoiled));
    }
    Ok(())
}

/// Random against ordered references beside many that are stored.
async fn many_claims(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let claims = bench.options.claims;
    bench.tell(&format!("accept: storing {claims} claims first"));
    let dir = bench.directory()?;
    // Paused for good, and its stock is there, before the first order.
    drop(stocked(bench, dir.path(), Wms::Paused).await?);
    let data = dir.path().join("data");
    let (warehouses, count) = (WAREHOUSES.to_string(), claims.to_string());
    let fill = ["bench", "fill", "--warehouses", &warehouses, "--claims", &count, "--store"];
    process::run(dir.path(), fill.map(AsRef::as_ref).into_iter().chain([data.as_os_str()]))?;
    let server = bench.options.passed.start(dir.path(), WAREHOUSES, Wms::Paused)?;
    let mut next = 0;
    let rounds = bench
        .rounds(&format!("accept with {claims} claims"), async |turn| {
            let one = async |references| {
                let orders = Rc::new(Orders::new(WAREHOUSES, references, next..FILLED_FROM));
                let run = load(bench, &server, orders.clone(), Pace::Answers).await?;
                // Random names are those of the numbers: no number may come twice.
                next = orders.next_number();
                Ok::<Run, Error>(run)
            };
            turn.each([References::Ordered, References::Random], one).await
        })
        .await?;
    let (ordered, random) = (rounds.series(|r| r[0].per_second), rounds.series(|r| r[1].per_second));
    report.measure(&format!("accepted beside {claims} claims, ordered references"), "/s", ordered.clone());
    report.measure(&format!("accepted beside {claims} claims, random references"), "/s", random.clone());
    let check = Check::new(
        "accept.random_stored",
        "random references over ordered ones, a million claims stored",
        "",
        random.over(&ordered),
        Target::AtLeast(0.8),
    );
    report.checks.push(check.spoiled(rounds.spoiled));
    Ok(())
}

/// A run on a store that has accepted nothing yet.
pub(super) async fn fresh(
    bench: &Bench<'_>,
    side: Side,
    references: References,
    pace: Pace,
) -> Result<Run, Error> {
    let dir = bench.directory()?;
    let served = match side {
        Side::Server(wms) => stocked(bench, dir.path(), wms).await?,
        Side::Ceiling => ceiling(bench, dir.path())?,
    };
    let orders = Rc::new(Orders::new(WAREHOUSES, references, 0..FILLED_FROM));
    load(bench, &served, orders, pace).await
}

fn ceiling(bench: &Bench<'_>, dir: &Path) -> Result<Served, Error> {
    let redis = bench.options.passed.is_redis.then(|| RedisServer::start(&dir.join("redis"))).transpose()?;
    let (option, store) = match &redis {
        Some(redis) => ("--redis", redis.url()),
        None => ("--store", dir.join("data").display().to_string()),
    };
    let warehouses = WAREHOUSES.to_string();
    let ceiling = Served::start(dir, ["bench", "ceiling", "--warehouses", &warehouses, option, &store])?;
    Ok(ceiling.on(redis))
}

pub(super) async fn stocked(bench: &Bench<'_>, dir: &Path, wms: Wms) -> Result<Served, Error> {
    let server = bench.options.passed.start(dir, WAREHOUSES, wms)?;
    server::stock(server.address, WAREHOUSES).await?;
    if wms == Wms::Paused {
        server::pause(server.address, WAREHOUSES).await?;
    }
    Ok(server)
}

pub(super) async fn load(
    bench: &Bench<'_>,
    served: &Served,
    orders: Rc<Orders>,
    pace: Pace,
) -> Result<Run, Error> {
    let load = Load {
        address: served.address,
        connections: bench.options.connections,
        requests: Requests::Orders(orders),
        pace,
        warm: bench.warm(),
        window: bench.options.window,
        wanted: 202,
    };
    let mut marks: Vec<(Duration, Duration)> = Vec::new();
    let redis = || served.redis.as_ref().map_or(Duration::ZERO, RedisServer::cpu);
    let answered = load.run(|| marks.push((served.cpu(), redis()))).await;
    let answered = Bench::sound(answered.map_err(|e| Error::io("send orders", e))?, "accept")?;
    let [(server, redis), (server_end, redis_end)] = marks[..] else {
        return Err(Error::failed("the load did not run to its end"));
    };
    let each_us =
        |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / answered.count as f64;
    Ok(Run {
        per_second: answered.per_second(),
        cpu_us: each_us(server, server_end),
        redis_us: each_us(redis, redis_end),
        p50_ms: answered.latencies.quantile_ms(0.5),
        p99_ms: answered.latencies.quantile_ms(0.99),
    })
}
