//! Reading statuses, of orders that have shipped: whole, and as "you have it already"; beside a bare
//! handler that answers the same bytes.

use std::ffi::OsStr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::ceiling::Recording;
use super::load::{FixedRequests, Load, Pace, Requests};
use super::order::{self, Orders, References, UNITS};
use super::process::Served;
use super::redis::RedisServer;
use super::report::{Check, Report, Target};
use super::rounds::Rounds;
use super::server::{self, Wms};
use super::wire::{Answer, Connection};
use super::{Bench, Error, machine};

/// Orders that are read in turn.
const ORDERS: u64 = 1_000;
/// Commands that Redis may run for one status: one, and what a node asks once a second.
const COMMANDS_MAX: f64 = 1.01;
/// Reads of a connection for one status: reads of many requests share one.
const READS_MAX: f64 = 0.5;
/// What every HTTP server adds by itself.
const OWN_HEADERS: [&str; 3] = ["content-length", "date", "connection"];

struct Run {
    per_second: f64,
    cpu_us: f64,
    load_us: f64,
    /// What Redis did for one read; nothing without one.
    redis: PerRead,
}

/// For one read.
#[derive(Clone, Copy, Default)]
struct PerRead {
    commands: f64,
    /// Times that Redis read from a connection: fewer than reads where these share round trips.
    reads: f64,
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
    let url = server.redis.as_ref().map(RedisServer::url);
    let url = url.as_deref();
    let bare_read = bare(dirs[1].path(), &recorded(&server, &ids[0], "").await?, url)?;
    let bare_not_modified = bare(dirs[2].path(), &recorded(&server, &ids[0], &matching).await?, url)?;
    let all = [
        (&server, "", 200),
        (&bare_read, "", 200),
        (&server, matching.as_str(), 304),
        (&bare_not_modified, matching.as_str(), 304),
    ];
    let rounds = bench.rounds("status", async |turn| {
        let run = async |(asked, headers, wanted)| run(bench, asked, &server, &ids, headers, wanted).await;
        let [read, bare, not_modified, bare_not_modified] = turn.each(all, run).await?;
        Ok(Round { read, bare, not_modified, bare_not_modified })
    });
    let rounds = rounds.await?;
    if url.is_some() {
        in_redis(report, &rounds);
        return Ok(());
    }
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

/// The same with the store in Redis: beside a bare handler that reads the order once, too.
fn in_redis(report: &mut Report, rounds: &Rounds<Round>) {
    let (read, ceiling) = (rounds.series(|r| r.read.per_second), rounds.series(|r| r.bare.per_second));
    let not_modified = rounds.series(|r| r.not_modified.per_second);
    let its_ceiling = rounds.series(|r| r.bare_not_modified.per_second);
    report.measure("in Redis: statuses read", "/s", read.clone());
    report.measure("in Redis: the same bytes after one read, bare", "/s", ceiling.clone());
    report.measure("in Redis: statuses not modified", "/s", not_modified.clone());
    report.measure("in Redis: the same 304 after one read, bare", "/s", its_ceiling.clone());
    report.measure("in Redis: processor time of a status", "µs", rounds.series(|r| r.read.cpu_us));
    report.measure("in Redis: the same, bare", "µs", rounds.series(|r| r.bare.cpu_us));
    let (read, not_modified) = (read.over(&ceiling), not_modified.over(&its_ceiling));
    let commands = rounds.series(|r| r.read.redis.commands);
    let reads = rounds.series(|r| r.read.redis.reads);
    let (least, most) = (Target::AtLeast, Target::AtMost);
    let checks = [
        ("redis.status", "in Redis: a status read, over a bare handler with one read", read, least(0.75)),
        ("redis.not_modified", "in Redis: a 304, over a bare handler's", not_modified, least(0.75)),
        ("redis.status_commands", "in Redis: commands for a status read", commands, most(COMMANDS_MAX)),
        ("redis.status_reads", "in Redis: times it reads a connection for one", reads, most(READS_MAX)),
    ];
    for (id, claim, values, target) in checks {
        report.checks.push(Check::new(id, claim, "", values, target).spoiled(rounds.spoiled));
    }
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

fn bare(dir: &Path, recording: &Recording, redis: Option<&str>) -> Result<Served, Error> {
    let file = dir.join("recording.json");
    let text = serde_json::to_vec(recording).map_err(|e| Error::Store(Box::new(e)))?;
    std::fs::write(&file, text).map_err(|e| Error::io("write the recording", e))?;
    let bare = ["bench", "bare", "--recording"].map(OsStr::new);
    let redis = redis.map(|url| [OsStr::new("--redis"), OsStr::new(url)]).into_iter().flatten();
    Served::start(dir, bare.into_iter().chain([file.as_os_str()]).chain(redis))
}

async fn run(
    bench: &Bench<'_>,
    served: &Served,
    keeper: &Served,
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
    let mut done = Vec::new();
    let answered = load.run(|| {
        marks.push((served.cpu(), machine::cpu_of(std::process::id())));
        done.extend(keeper.redis.as_ref().map(RedisServer::done));
    });
    let answered = answered.await;
    let answered = Bench::sound(answered.map_err(|e| Error::io("read statuses", e))?, "status")?;
    let [(server, load), (server_end, load_end)] = marks[..] else {
        return Err(Error::failed("the load did not run to its end"));
    };
    let each_us =
        |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / answered.count as f64;
    let done = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    let redis = match done[..] {
        [begin, end] => PerRead {
            commands: end.commands.saturating_sub(begin.commands) as f64 / answered.count as f64,
            reads: end.reads.saturating_sub(begin.reads) as f64 / answered.count as f64,
        },
        _ => PerRead::default(),
    };
    Ok(Run {
        redis,
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
