//! Whole orders: from the first that is sent until the last has left, with a WMS that does
//! everything at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::load::{Load, Pace, Requests};
use super::order::{Orders, References, UNITS};
use super::report::{Check, Report, Target};
use super::server::{self, Wms};
use super::{Bench, Error};

/// Those who send are fewer than at the door: the pipelines are to be busy, not the queue.
const CONNECTIONS: usize = 64;
const FEW: u32 = 3;
const MANY: u32 = 100;

struct Run {
    per_second: f64,
    cpu_us: f64,
    accepted_in: Duration,
}

/// Measures it with few warehouses and with many.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let rounds = bench.rounds("pipeline", async |turn| {
        turn.each([FEW, MANY], async |warehouses| run(bench, warehouses).await).await
    });
    let rounds = rounds.await?;
    let (few, many) = (rounds.series(|r| r[0].per_second), rounds.series(|r| r[1].per_second));
    report.measure("processor time of a whole order", "µs", rounds.series(|r| r[0].cpu_us));
    let accepting = rounds.series(|r| bench.options.orders as f64 / r[0].accepted_in.as_secs_f64());
    report.measure("accepted meanwhile at 64 connections", "/s", accepting);
    report.measure("whole orders, 100 warehouses", "/s", many.clone());
    let whole = "whole orders, accepted to shipped, at a WMS that answers at once";
    let checks = [
        Check::new("pipeline.orders", whole, "/s", few.clone(), Target::AtLeast(3_000.0)),
        Check::new(
            "pipeline.many",
            "the same with 100 warehouses, over it with 3",
            "",
            many.over(&few),
            Target::AtLeast(0.8),
        ),
    ];
    report.checks.extend(checks.map(|check| check.spoiled(rounds.spoiled)));
    Ok(())
}

async fn run(bench: &Bench<'_>, warehouses: u32) -> Result<Run, Error> {
    let count = bench.options.orders;
    let dir = bench.directory()?;
    let server = bench.options.passed.start(dir.path(), warehouses, Wms::AtOnce)?;
    server::stock(server.address, warehouses).await?;
    let orders = Orders::new(warehouses, References::Ordered, 0..count);
    let load = Load {
        address: server.address,
        connections: CONNECTIONS,
        requests: Requests::Orders(Rc::new(orders)),
        pace: Pace::Answers,
        warm: Duration::ZERO,
        window: Duration::ZERO,
        wanted: 202,
    };
    let (begun, before) = (Instant::now(), server.cpu());
    let answered = load.send_all().await.map_err(|e| Error::io("send orders", e))?;
    let answered = Bench::sound(answered, "pipeline")?;
    for n in 0..warehouses {
        let units = server::orders_of(n, warehouses, count) * UNITS;
        server::shipped(server.address, n, units).await?;
    }
    let (took, cpu) = (begun.elapsed(), server.cpu().saturating_sub(before));
    Ok(Run {
        per_second: count as f64 / took.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        accepted_in: answered.window,
    })
}
