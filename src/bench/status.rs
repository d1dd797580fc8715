//! Reading statuses, of orders that have shipped: whole, and as "you have it already"; beside a bare
//! handler that answers the same bytes.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::ceiling::Recording;
use super::load::{FixedRequests, Load, Pace, Requests};
use super::order::{self, Orders, References, UNITS};
use super::process::Served;
use super::report::{Check, Report, Target};
use super::server::{self, Wms};
use super::wire::{Answer, Connection};
use super::{Bench, Error, machine};

/// Orders that are read in turn.
const ORDERS: u64 = 1_000;
/// What every HTTP server adds by itself.
const OWN_HEADERS: [&str; 3] = ["content-length", "date", "connection"];

struct Run {
    per_second: f64,
    cpu_us: f64,
    load_us: f64,
}

struct Round {
    read: Run,
    bare: Run,
    not_modified: Run,
    bare_not_modified: Run,
}

/// Measures both.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let dirs = [bench.directory()?, bench.directory()?, bench.directory()?];
    let server = bench.options.passed.start(dirs[0].path(), 1, Wms::AtOnce)?;
    let ids = shipped(&server).await?;
    let tag = recorded(&server, &ids[0], "").await?.tag();
    let matching = format!("If-None-Match: {tag}\r\n");
    let bare_read = bare(dirs[1].path(), &recorded(&server, &ids[0], "").await?)?;
    let bare_not_modified = bare(dirs[2].path(), &recorded(&server, &ids[0], &matching).await?)?;
    let rounds = bench.rounds("status", async || {
        Ok(Round {
            read: run(bench, &server, &ids, "", 200).await?,
            bare: run(bench, &bare_read, &ids, "", 200).await?,
            not_modified: run(bench, &server, &ids, &matching, 304).await?,
            bare_not_modified: run(bench, &bare_not_modified, &ids, &matching, 304).await?,
        })
    });
    let rounds = rounds.await?;
    let (read, ceiling) = (rounds.series(|r| r.read.per_second), rounds.series(|r| r.bare.per_second));
    let not_modified = rounds.series(|r| r.not_modified.per_second);
    let its_ceiling = rounds.series(|r| r.bare_not_modified.per_second);
    report.measure("statuses read", "/s", read.clone());
    report.measure("the same bytes from a bare handler", "/s", ceiling.clone());
    report.measure("statuses not modified", "/s", not_modified.clone());
    report.measure("the same 304 from a bare handler", "/s", its_ceiling.clone());
    report.measure("processor time of a status", "µs", rounds.series(|r| r.read.cpu_us));
    report.measure("processor time of the same bytes, bare", "µs", rounds.series(|r| r.bare.cpu_us));
    report.measure("the same on the side of the load", "µs", rounds.series(|r| r.bare.load_us));
    let checks = [
        ("status.read", "a status read, over a bare handler with the same bytes", read.over(&ceiling), 0.75),
        ("status.not_modified", "a 304, over a bare handler's", not_modified.over(&its_ceiling), 0.85),
    ];
    for (id, claim, values, bound) in checks {
        let check = Check::new(id, claim, "", values, Target::AtLeast(bound));
        report.checks.push(check.spoiled(rounds.spoiled));
    }
    Ok(())
}

/// Lets orders through to their end; their ids.
async fn shipped(server: &Served) -> Result<Vec<String>, Error> {
    server::stock(server.address, 1).await?;
    let failed = |e| Error::io("send orders", e);
    let mut connection = Connection::open(server.address).await.map_err(failed)?;
    let orders = Orders::new(1, References::Ordered, 0..ORDERS);
    let (mut buffer, mut ids) = (Vec::new(), Vec::new());
    while let Some(request) = orders.write(&mut buffer) {
        let answer = connection.exchange(request).await.map_err(failed)?;
        let accepted: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        let id = accepted["transaction_id"].as_str();
        let id = id.ok_or_else(|| Error::failed(format!("no id in an answer of {}", answer.status)))?;
        ids.push(id.to_owned());
    }
    server::shipped(server.address, 0, ORDERS * UNITS).await?;
    Ok(ids)
}

fn path(id: &str) -> String {
    format!("/v1/status/{id}")
}

async fn recorded(server: &Served, id: &str, headers: &str) -> Result<Recording, Error> {
    let failed = |e| Error::io("read a status", e);
    let mut connection = Connection::open(server.address).await.map_err(failed)?;
    let request = order::get(&path(id), headers);
    Ok(Recording::of(connection.exchange(request.as_bytes()).await.map_err(failed)?))
}

impl Recording {
    fn of(answer: Answer<'_>) -> Recording {
        let head = String::from_utf8_lossy(answer.head);
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let kept = headers.filter(|(name, _)| OWN_HEADERS.iter().all(|own| !own.eq_ignore_ascii_case(name)));
        Recording {
            status: answer.status,
            headers: kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: String::from_utf8_lossy(answer.body).into_owned(),
        }
    }

    fn tag(&self) -> String {
        let tag = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("etag"));
        tag.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

fn bare(dir: &Path, recording: &Recording) -> Result<Served, Error> {
    let file = dir.join("recording.json");
    let text = serde_json::to_vec(recording).map_err(|e| Error::Store(Box::new(e)))?;
    std::fs::write(&file, text).map_err(|e| Error::io("write the recording", e))?;
    let bare = ["bench", "bare", "--recording"];
    Served::start(dir, bare.map(AsRef::as_ref).into_iter().chain([file.as_os_str()]))
}

async fn run(
    bench: &Bench<'_>,
    served: &Served,
    ids: &[String],
    headers: &str,
    wanted: u16,
) -> Result<Run, Error> {
    let all = ids.iter().map(|id| order::get(&path(id), headers).into_bytes()).collect();
    let load = Load {
        address: served.address,
        connections: bench.options.connections,
        requests: Requests::Fixed(Rc::new(FixedRequests::again_and_again(all))),
        pace: Pace::Answers,
        warm: bench.warm(),
        window: bench.options.window,
        wanted,
    };
    let mut marks: Vec<(Duration, Duration)> = Vec::new();
    let answered = load.run(|| marks.push((served.cpu(), machine::cpu_of(std::process::id())))).await;
    let answered = Bench::sound(answered.map_err(|e| Error::io("read statuses", e))?, "status")?;
    let [(server, load), (server_end, load_end)] = marks[..] else {
        return Err(Error::failed("the load did not run to its end"));
    };
    let each_us =
        |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / answered.count as f64;
    Ok(Run {
        per_second: answered.per_second(),
        cpu_us: each_us(server, server_end),
        load_us: each_us(load, load_end),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_keeps_what_is_the_answers_own() {
        let answer = Answer {
            status: 200,
            head: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\netag: \"7\"\r\nDate: today\r\n\r\n",
            body: b"{}",
        };
        let recording = Recording::of(answer);
        assert_eq!(recording.headers, [("etag".to_owned(), "\"7\"".to_owned())]);
        assert_eq!((recording.tag().as_str(), recording.body.as_str()), ("\"7\"", "{}"));
    }
}
