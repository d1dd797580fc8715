//! Streams of events: how long from an event's making to all who follow it, what a stream costs in
//! memory, and how soon a closed one is gone; beside nginx with the nchan module, which does nothing
//! else.
//!
//! An event's time counts from the request that makes it: the server under test also puts it on
//! disk within that time, the other does not.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::keys::Key;
use super::load::{Load, Pace, Requests};
use super::nchan::Nginx;
use super::order::{self, Orders};
use super::process::Served;
use super::report::{Check, Report, Target};
use super::server::{self, Wms};
use super::statistics::Latencies;
use super::wire::Connection;
use super::{Bench, Error};

/// Followers of one feed, and events a second to all of them.
const LOADS: [(usize, u32); 2] = [(2_000, 10), (9_000, 5)];
/// What stands before an event's number, in the only text of it that its maker chooses.
const MARK: &[u8] = b"\"reference\":\"E";
/// Digits of the number.
const DIGITS: usize = 8;
/// Events before those that count.
const WARM_EVENTS: usize = 5;
/// The last events must have come within this.
const COMES_WITHIN: Duration = Duration::from_secs(15);
/// Closed streams must be gone within this; it is waited longer, so that the answer is a number.
const GONE_WITHIN: f64 = 5.0;
const GONE_WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A stream's memory, in bytes.
const MEMORY_MAX: f64 = 16_384.0;
/// Clients with a stream each, while another client's orders are accepted.
const OTHERS: usize = 1_000;
const FEED: &str = "/v1/events?types=wavegate.move.accepted";
const ACCEPT: &str = "Accept: text/event-stream\r\n";
/// Connections that are opened together.
const OPENED_TOGETHER: usize = 100;

/// What has the followers.
enum Side {
    Server(Served),
    Nchan(Nginx),
}

/// What was seen of a load.
struct Run {
    p50_ms: f64,
    p99_ms: f64,
    lost: f64,
    memory: f64,
    gone_s: f64,
}

/// Measures every load.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let nchan = Nginx::is_installed();
    if !nchan {
        bench.tell("sse: nginx with the nchan module is not here (Debian: nginx-light libnginx-mod-nchan): nothing to compare with");
    }
    for (followers, per_second) in LOADS {
        let name = format!("{followers} streams at {per_second}/s");
        let rounds = bench
            .rounds(&format!("sse: {name}"), async |_| {
                let dir = bench.directory()?;
                let server = bench.options.passed.start(dir.path(), 1, Wms::Paused)?;
                let ours = run(bench, Side::Server(server), followers, per_second).await?;
                let theirs = match nchan {
                    true => Some(
                        run(bench, Side::Nchan(Nginx::start(bench.directory()?)?), followers, per_second)
                            .await?,
                    ),
                    false => None,
                };
                Ok((ours, theirs))
            })
            .await?;
        let ours = |value: fn(&Run) -> f64| rounds.series(|(ours, _)| value(ours));
        report.measure(&format!("p50 to all of {name}"), "ms", ours(|r| r.p50_ms));
        report.measure(&format!("p99 to all of {name}"), "ms", ours(|r| r.p99_ms));
        let mut check = |id: &str, claim: &str, unit, values, bound| {
            let id = format!("sse.{id}_{followers}");
            let check = Check::new(&id, &format!("{name}: {claim}"), unit, values, Target::AtMost(bound));
            report.checks.push(check.spoiled(rounds.spoiled));
        };
        check("lost", "events that did not come", "", ours(|r| r.lost), 0.0);
        check("memory", "resident memory a stream", "B", ours(|r| r.memory), MEMORY_MAX);
        check("gone", "until closed streams are gone", "s", ours(|r| r.gone_s), GONE_WITHIN);
        if nchan {
            let theirs =
                |value: fn(&Run) -> f64| rounds.series(|(_, theirs)| theirs.as_ref().map_or(f64::NAN, value));
            report.measure(&format!("p99 to all of {name}, nginx with nchan"), "ms", theirs(|r| r.p99_ms));
            report.measure(
                &format!("memory a stream of {name}, nginx with nchan"),
                "B",
                theirs(|r| r.memory),
            );
            let over = ours(|r| r.p99_ms).over(&theirs(|r| r.p99_ms));
            let id = format!("sse.p99_{followers}");
            let claim = format!("{name}: p99 from making an event to a follower, over nginx with nchan");
            let check = Check::new(&id, &claim, "", over, Target::AtMost(1.25));
            report.checks.push(check.spoiled(rounds.spoiled));
        }
    }
    accepting(bench, report).await
}

/// Accepting beside streams of other clients, over accepting without; the events come in both.
async fn accepting(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let rounds = bench
        .rounds("sse: accepting beside 1,000 streams", async |turn| {
            turn.each([false, true], async |followed| accept(bench, followed).await).await
        })
        .await?;
    let (without, beside) = (rounds.series(|r| r[0]), rounds.series(|r| r[1]));
    report.measure("accepted while 1,000 others get an event a second", "/s", without.clone());
    report.measure("the same while each of them is followed", "/s", beside.clone());
    let claim = "accepting beside 1,000 streams, each of another client with an event a second, over without";
    let check = Check::new("sse.accept", claim, "", beside.over(&without), Target::AtLeast(0.9));
    report.checks.push(check.spoiled(rounds.spoiled));
    Ok(())
}

async fn accept(bench: &Bench<'_>, followed: bool) -> Result<f64, Error> {
    let failed = |e| Error::io("load the server", e);
    let (operator, buyer) = (Key::of_operator(), Key::of_client("buyer"));
    let others: Vec<Key> = (0..OTHERS).map(|n| Key::of_client(&format!("other-{n}"))).collect();
    let all = [&operator, &buyer].into_iter().chain(&others);
    let settings: String = all.map(|key| key.setting.as_str()).collect();
    let dir = bench.directory()?;
    let server = bench.options.passed.start_with(dir.path(), 1, Wms::Paused, &settings)?;
    let pause = operator.on(&String::from_utf8_lossy(&order::pause(0))).into_bytes();
    server::once(server.address, vec![pause], 200, "pause").await?;
    let heard = Rc::new(Heard::default());
    let mut reading = JoinSet::new();
    if followed {
        let request = order::get(FEED, ACCEPT);
        let requests = others.iter().map(|key| key.on(&request)).collect();
        for stream in open(server.address, requests).await? {
            reading.spawn_local(listen(stream, heard.clone()));
        }
    }
    // Each of them an event a second, one after the other.
    let mut connection = Connection::open(server.address).await.map_err(failed)?;
    let events = async {
        let mut due = tokio::time::interval(Duration::from_secs(1) / u32::try_from(OTHERS).unwrap_or(1));
        for n in 0.. {
            due.tick().await;
            let request = others[n % OTHERS].on(&receipt(n));
            if connection.exchange(request.as_bytes()).await.is_err() {
                break;
            }
        }
    };
    let load = Load {
        address: server.address,
        connections: bench.options.connections,
        requests: Requests::Orders(Rc::new(Orders::with_key(&buyer, 1, 0..u64::MAX))),
        pace: Pace::Answers,
        warm: bench.warm(),
        window: bench.options.window,
        wanted: 202,
    };
    let answered = tokio::select! {
        answered = load.run(|| ()) => answered.map_err(failed)?,
        () = events => return Err(Error::failed("no more events could be made")),
    };
    Ok(Bench::sound(answered, "sse")?.per_second())
}

async fn run(bench: &Bench<'_>, side: Side, followers: usize, per_second: u32) -> Result<Run, Error> {
    let before = side.memory();
    let all = subscribe(&side, followers).await?;
    let heard = Rc::new(Heard::default());
    let mut reading = JoinSet::new();
    for stream in all {
        reading.spawn_local(listen(stream, heard.clone()));
    }
    let counted = (bench.options.window.as_secs_f64() * f64::from(per_second)).ceil() as usize;
    let events = WARM_EVENTS + counted;
    let mut publisher = side.publisher(bench).await?;
    let mut due = tokio::time::interval(Duration::from_secs(1) / per_second);
    for n in 0..events {
        due.tick().await;
        heard.made.borrow_mut().push(Instant::now());
        publisher.publish(n).await?;
    }
    let wanted = (counted * followers) as u64;
    let until = Instant::now() + COMES_WITHIN;
    while heard.count.get() < wanted && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let memory = side.memory().saturating_sub(before) as f64 / followers as f64;
    let lost = wanted.saturating_sub(heard.count.get()) as f64;
    let closed = Instant::now();
    drop(reading);
    side.is_rid_of_them(closed + GONE_WAIT).await?;
    let latencies = heard.latencies.borrow();
    Ok(Run {
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        lost,
        memory,
        gone_s: closed.elapsed().as_secs_f64(),
    })
}

/// What the followers have heard.
struct Heard {
    /// When each event was made.
    made: RefCell<Vec<Instant>>,
    latencies: RefCell<Latencies>,
    count: Cell<u64>,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard { made: RefCell::default(), latencies: RefCell::new(Latencies::new()), count: Cell::new(0) }
    }
}

impl Heard {
    fn hear(&self, n: usize) {
        if n >= WARM_EVENTS
            && let Some(made) = self.made.borrow().get(n)
        {
            self.latencies.borrow_mut().record(made.elapsed());
            self.count.set(self.count.get() + 1);
        }
    }
}

/// Reads one stream until it ends.
async fn listen(mut stream: TcpStream, heard: Rc<Heard>) {
    let finder = Finder::new(MARK);
    let mut buffer = Vec::with_capacity(8 * 1024);
    while stream.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
        let mut at = 0;
        while let Some(found) = finder.find(&buffer[at..]).map(|found| at + found + MARK.len()) {
            let Some(digits) = buffer.get(found..found + DIGITS) else { break };
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            number.into_iter().for_each(|n| heard.hear(n));
            at = found + DIGITS;
        }
        // What may be the beginning of the next mark stays.
        let kept = buffer.len().saturating_sub(MARK.len() + DIGITS).max(at);
        buffer.drain(..kept);
    }
}

async fn subscribe(side: &Side, followers: usize) -> Result<Vec<TcpStream>, Error> {
    open(side.address(), vec![order::get(side.path(), ACCEPT); followers]).await
}

/// Opens a stream for each request, its head read.
async fn open(address: SocketAddr, requests: Vec<String>) -> Result<Vec<TcpStream>, Error> {
    let failed = |e| Error::io("follow a stream", e);
    let mut all = Vec::with_capacity(requests.len());
    for requests in requests.chunks(OPENED_TOGETHER) {
        let mut opening = JoinSet::new();
        for request in requests {
            let request = request.clone();
            opening.spawn_local(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(request.as_bytes()).await?;
                let mut head = Vec::new();
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                }
                match head.starts_with(b"HTTP/1.1 200") {
                    true => Ok(stream),
                    false => Err(std::io::Error::other(String::from_utf8_lossy(&head).into_owned())),
                }
            });
        }
        while let Some(opened) = opening.join_next().await {
            let opened = opened.map_err(|e| Error::failed(e.to_string()))?;
            all.push(opened.map_err(failed)?);
        }
    }
    Ok(all)
}

/// Makes events.
struct Publisher {
    connection: Connection,
    request: Box<dyn Fn(usize) -> String>,
}

impl Publisher {
    async fn publish(&mut self, n: usize) -> Result<(), Error> {
        let request = (self.request)(n);
        let answer = self.connection.exchange(request.as_bytes()).await;
        match answer.map_err(|e| Error::io("make an event", e))?.status {
            200..=299 => Ok(()),
            status => Err(Error::failed(format!("an event was answered with {status}"))),
        }
    }
}

fn receipt(n: usize) -> String {
    let body = format!(
        r#"{{"reference":"E{n:0DIGITS$}","warehouse":"W000","type":"receipt","sku":"SKU-sse","quantity":1}}"#
    );
    order::post("/v1/inventory/moves", &body)
}

impl Side {
    fn address(&self) -> SocketAddr {
        match self {
            Side::Server(served) => served.address,
            Side::Nchan(nginx) => nginx.address,
        }
    }

    fn path(&self) -> &'static str {
        match self {
            Side::Server(_) => FEED,
            Side::Nchan(_) => "/sub",
        }
    }

    fn memory(&self) -> u64 {
        match self {
            Side::Server(served) => served.memory(),
            Side::Nchan(nginx) => nginx.memory(),
        }
    }

    /// Makes events; the other side's are as long as ours.
    async fn publisher(&self, bench: &Bench<'_>) -> Result<Publisher, Error> {
        let failed = |e| Error::io("make events", e);
        let request: Box<dyn Fn(usize) -> String> = match self {
            Side::Server(_) => Box::new(receipt),
            Side::Nchan(_) => {
                let like = one_of_ours(bench).await?;
                Box::new(move |n| {
                    let text = like.replacen("E00000000", &format!("E{n:0DIGITS$}"), 1);
                    order::post("/pub", &text)
                })
            }
        };
        Ok(Publisher { connection: Connection::open(self.address()).await.map_err(failed)?, request })
    }

    /// Waits until the server says that nobody follows.
    async fn is_rid_of_them(&self, until: Instant) -> Result<(), Error> {
        let Side::Server(served) = self else { return Ok(()) };
        loop {
            let failed = |e| Error::io("read the metrics", e);
            let mut connection = Connection::open(served.address).await.map_err(failed)?;
            let answer = connection.exchange(order::get("/metrics", "").as_bytes()).await.map_err(failed)?;
            let text = String::from_utf8_lossy(answer.body);
            let open = text.lines().find_map(|line| line.strip_prefix("sse_connections "));
            let open = open.and_then(|open| open.trim().parse::<f64>().ok());
            if open == Some(0.0) || Instant::now() > until {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// An event of ours, as it is sent.
async fn one_of_ours(bench: &Bench<'_>) -> Result<String, Error> {
    let failed = |e| Error::io("make one event", e);
    let dir = bench.directory()?;
    let server = bench.options.passed.start(dir.path(), 1, Wms::Paused)?;
    let mut connection = Connection::open(server.address).await.map_err(failed)?;
    connection.exchange(receipt(0).as_bytes()).await.map_err(failed)?;
    let request = order::get("/v1/events?limit=1", "Accept: application/json\r\n");
    let page = connection.exchange(request.as_bytes()).await.map_err(failed)?;
    let page: serde_json::Value = serde_json::from_slice(page.body).unwrap_or_default();
    Ok(page["events"][0].to_string())
}
