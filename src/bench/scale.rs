//! What grows, and what must not: disk and memory with a million finished orders, the start with
//! them, and thousands of warehouses at rest. Takes long, so it runs only when it is named.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::{Load, Pace, Requests};
use super::order::{self, Orders, References, UNITS};
use super::process::Served;
use super::report::{Check, Report, Target};
use super::server::{self, Wms};
use super::statistics::Series;
use super::wire::Connection;
use super::{Bench, Error};

const WAREHOUSES: u32 = 3;
/// Warehouses that are configured and have nothing to do.
const AT_REST: u32 = 4_096;
/// Finished orders come in so many parts; memory is read after each.
const PARTS: u64 = 10;
/// Parts whose memory is set beside that of as many before. By then all that is bounded is full, the claims
/// that wait for their table last: what memory grows by from there on grows with the orders.
const LAST: usize = 4;
/// A server that has just started is not at rest.
const SETTLED: Duration = Duration::from_secs(5);
/// How long rest is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// As for the pipelines.
const CONNECTIONS: usize = 64;
/// The longest wait for a state of the server.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many orders of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Through to the end.
    pub(crate) finished: u64,
    /// In the hands of a WMS when the server starts.
    pub(crate) open: u64,
}

/// Measures all of it, once.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let Scale { finished, open } = bench.options.scale;
    let dir = bench.directory()?;
    finish(bench, report, dir.path(), finished).await?;
    start(bench, report, dir.path(), finished, open).await?;
    drop(dir);
    rest(bench, report).await
}

/// Lets orders through to their end, in parts.
async fn finish(bench: &Bench<'_>, report: &mut Report, dir: &Path, finished: u64) -> Result<(), Error> {
    let server = bench.options.passed.start(dir, WAREHOUSES, Wms::AtOnce)?;
    server::stock(server.address, WAREHOUSES).await?;
    let before = on_disk(&dir.join("data"))?;
    let part = finished.div_ceil(PARTS);
    let (mut rates, mut memory) = (Vec::new(), Vec::new());
    for n in 0..PARTS {
        bench.tell(&format!("scale: orders to their end, {} of {finished}", n * part));
        let begun = Instant::now();
        send(&server, n * part..(n + 1) * part).await?;
        for warehouse in 0..WAREHOUSES {
            let units = server::orders_of(warehouse, WAREHOUSES, (n + 1) * part) * UNITS;
            server::shipped(server.address, warehouse, units).await?;
        }
        rates.push(part as f64 / begun.elapsed().as_secs_f64());
        memory.push(server.memory() as f64);
    }
    let grown = on_disk(&dir.join("data"))?.saturating_sub(before) as f64 / (part * PARTS) as f64;
    let [before, last] = [2 * LAST, LAST].map(|from| &memory[memory.len() - from..][..LAST]);
    let growth = last.iter().sum::<f64>() / before.iter().sum::<f64>();
    report.measure("whole orders, part by part", "/s", Series(rates));
    report.measure("memory, part by part", "MB", memory.iter().map(|bytes| bytes / 1e6).collect());
    report.checks.extend([
        once("scale.disk", "disk of a finished three-line order", "B", grown, Target::AtMost(3_000.0)),
        once(
            "scale.memory",
            "memory over the last four tenths of all finished orders, over that of the four before",
            "",
            growth,
            Target::AtMost(1.1),
        ),
    ]);
    Ok(())
}

fn once(id: &str, claim: &str, unit: &str, value: f64, target: Target) -> Check {
    Check::new(id, claim, unit, Series(vec![value]), target)
}

async fn send(server: &Served, numbers: std::ops::Range<u64>) -> Result<(), Error> {
    let load = Load {
        address: server.address,
        connections: CONNECTIONS,
        requests: Requests::Orders(Rc::new(Orders::new(WAREHOUSES, References::Ordered, numbers))),
        pace: Pace::Answers,
        warm: Duration::ZERO,
        window: Duration::ZERO,
        wanted: 202,
    };
    let answered = load.send_all().await.map_err(|e| Error::io("send orders", e))?;
    Bench::sound(answered, "scale").map(drop)
}

/// Starts with many finished orders and many at a WMS.
async fn start(
    bench: &Bench<'_>,
    report: &mut Report,
    dir: &Path,
    finished: u64,
    open: u64,
) -> Result<(), Error> {
    let server = bench.options.passed.start(dir, WAREHOUSES, Wms::Holds)?;
    bench.tell(&format!("scale: {open} orders into the hands of a WMS"));
    let first = finished.div_ceil(PARTS) * PARTS;
    send(&server, first..first + open).await?;
    let all_released = |page: &Value| {
        let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|w| w["credits"]["used"].as_u64()).sum::<u64>() >= open
    };
    until(&server, "/v1/warehouses", all_released).await?;
    drop(server);
    let begun = Instant::now();
    let server = bench.options.passed.start(dir, WAREHOUSES, Wms::Holds)?;
    until(&server, "/readyz", |_| true).await?;
    let took = begun.elapsed().as_secs_f64();
    let claim = format!("start until ready with {finished} finished orders and {open} at a WMS");
    report.checks.push(once("scale.start", &claim, "s", took, Target::AtMost(3.0)));
    Ok(())
}

/// Asks until the answer is 200 and as wanted.
async fn until(server: &Served, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<(), Error> {
    let failed = |e| Error::io("ask the server", e);
    let begun = Instant::now();
    let mut connection = Connection::open(server.address).await.map_err(failed)?;
    let request = order::get(path, "");
    while begun.elapsed() < PATIENCE {
        let answer = connection.exchange(request.as_bytes()).await.map_err(failed)?;
        if answer.status == 200 && wanted(&serde_json::from_slice(answer.body).unwrap_or_default()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Error::failed(format!("{path} did not become what it must within {PATIENCE:?}")))
}

/// Watches a server whose many warehouses have nothing to do.
async fn rest(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let dir = bench.directory()?;
    bench.tell(&format!("scale: {AT_REST} warehouses at rest"));
    let server = bench.options.passed.start(dir.path(), AT_REST, Wms::AtOnce)?;
    until(&server, "/readyz", |_| true).await?;
    tokio::time::sleep(SETTLED).await;
    let before = server.cpu();
    tokio::time::sleep(WATCHED).await;
    let used = server.cpu().saturating_sub(before).as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
    let memory = server.memory() as f64 / 1e6;
    report.checks.extend([
        once("scale.rest_cpu", "4,096 warehouses at rest, of a core", "%", used, Target::AtMost(1.0)),
        once("scale.rest_memory", "4,096 warehouses at rest, memory", "MB", memory, Target::AtMost(100.0)),
    ]);
    Ok(())
}

/// Bytes that the files of a directory take on the disk. A file of the store is as long as its
/// address space in places; what counts are its blocks.
fn on_disk(dir: &Path) -> Result<u64, Error> {
    let failed = |e| Error::io("look at the store's files", e);
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        // The unit of st_blocks, whatever the filesystem's own is (stat(2)).
        bytes += entry.and_then(|e| e.metadata()).map_err(failed)?.blocks() * 512;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_with_its_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        std::fs::write(dir.path().join("full"), vec![1; 100_000]).unwrap();
        let bytes = on_disk(dir.path()).unwrap();
        assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
    }
}
