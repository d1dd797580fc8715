//! Webhooks: whether an endpoint that hangs and one that has long been dead are felt by another client.
//!
//! The same events go to one client's endpoint, alone and beside the others. A delivery's time counts
//! from the request that makes its event until the receiver has read it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::keys::Key;
use super::order;
use super::process::Served;
use super::report::{Check, Report, Target};
use super::server::{self, Wms};
use super::statistics::Latencies;
use super::wire::Connection;
use super::{Bench, Error};

/// Events a second of the client that is measured.
const PER_SECOND: u32 = 50;
/// Deliveries that wait for the dead endpoint.
const DEAD: usize = 50_000;
/// The hanging endpoint's client goes on as well, at this part of the pace.
const HANGING_EVERY: usize = 5;
const MARK: &[u8] = b"\"reference\":\"E";
const DIGITS: usize = 8;
const WARM_EVENTS: usize = 20;
const COMES_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Run {
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures both.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Error> {
    let rounds = bench.rounds("webhook", async |turn| {
        turn.each([false, true], async |beside| run(bench, beside).await).await
    });
    let rounds = rounds.await?;
    let (alone, beside) = (rounds.series(|r| r[0].p99_ms), rounds.series(|r| r[1].p99_ms));
    report.measure("p50 of a delivery", "ms", rounds.series(|r| r[0].p50_ms));
    report.measure("p99 of a delivery", "ms", alone.clone());
    report.measure("p99 of a delivery beside a hanging and a dead endpoint", "ms", beside.clone());
    let claim = "p99 of a delivery beside one endpoint that hangs and one with 50,000 waiting deliveries, over it alone";
    let check = Check::new("webhook.others", claim, "", beside.over(&alone), Target::AtMost(1.1));
    report.checks.push(check.spoiled(rounds.spoiled));
    Ok(())
}

async fn run(bench: &Bench<'_>, beside: bool) -> Result<Run, Error> {
    let failed = |e| Error::io("receive webhooks", e);
    let receiver = Receiver::start(true).await.map_err(failed)?;
    let dir = bench.directory()?;
    let clients = [Client::new("measured"), Client::new("hanging"), Client::new("dead")];
    let keys = clients.each_ref().map(|client| client.0.setting.as_str()).concat();
    let more = format!("{keys}\n[webhooks]\nallow_cidrs = [\"127.0.0.0/8\"]\n");
    let server = bench.options.passed.start_with(dir.path(), 1, Wms::Paused, &more)?;
    let [measured, hanging, dead] = &clients;
    measured.endpoint(&server, receiver.address).await?;
    let silent = Receiver::start(false).await.map_err(failed)?;
    if beside {
        hanging.endpoint(&server, silent.address).await?;
        let gone = TcpListener::bind("127.0.0.1:0").await.and_then(|l| l.local_addr()).map_err(failed)?;
        dead.endpoint(&server, gone).await?;
        // A move is two events.
        let requests = (0..DEAD / 2).map(|n| dead.receipt(n).into_bytes()).collect();
        server::once(server.address, requests, 202, "webhook").await?;
    }
    let counted = (bench.options.window.as_secs_f64() * f64::from(PER_SECOND)).ceil() as usize;
    let mut connection = Connection::open(server.address).await.map_err(failed)?;
    let mut due = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    for n in 0..WARM_EVENTS + counted {
        due.tick().await;
        if beside && n.is_multiple_of(HANGING_EVERY) {
            send(&mut connection, &hanging.receipt(n)).await?;
        }
        receiver.heard.made.borrow_mut().push(Instant::now());
        send(&mut connection, &measured.receipt(n)).await?;
    }
    let until = Instant::now() + COMES_WITHIN;
    while receiver.heard.count.get() < counted {
        if Instant::now() > until {
            let came = receiver.heard.count.get();
            return Err(Error::failed(format!("{came} of {counted} deliveries came")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let latencies = receiver.heard.latencies.borrow();
    Ok(Run { p50_ms: latencies.quantile_ms(0.5), p99_ms: latencies.quantile_ms(0.99) })
}

async fn send(connection: &mut Connection, request: &str) -> Result<Value, Error> {
    let answer =
        connection.exchange(request.as_bytes()).await.map_err(|e| Error::io("call the server", e))?;
    match answer.status {
        200..=299 => Ok(serde_json::from_slice(answer.body).unwrap_or_default()),
        status => {
            let said = String::from_utf8_lossy(answer.body);
            Err(Error::failed(format!("a call was answered with {status}: {said}")))
        }
    }
}

/// A client of the server under test.
struct Client(Key);

impl Client {
    fn new(name: &str) -> Client {
        Client(Key::of_client(name))
    }

    fn post(&self, path: &str, body: &str) -> String {
        self.0.on(&order::post(path, body))
    }

    /// Wants the events of every move at this address.
    async fn endpoint(&self, server: &Served, address: SocketAddr) -> Result<(), Error> {
        let failed = |e| Error::io("make an endpoint", e);
        let body =
            format!(r#"{{"url":"http://{address}/hooks","types":["wavegate.move.*"],"delivery":"every"}}"#);
        let mut connection = Connection::open(server.address).await.map_err(failed)?;
        send(&mut connection, &self.post("/v1/webhooks/endpoints", &body)).await.map(|_made| ())
    }

    fn receipt(&self, n: usize) -> String {
        let body = format!(
            r#"{{"reference":"E{n:0DIGITS$}","warehouse":"W000","type":"receipt","sku":"SKU-hook","quantity":1}}"#
        );
        self.post("/v1/inventory/moves", &body)
    }
}

/// Who receives; one that does not answer hangs.
struct Receiver {
    address: SocketAddr,
    heard: Rc<Heard>,
}

struct Heard {
    answers: bool,
    made: RefCell<Vec<Instant>>,
    latencies: RefCell<Latencies>,
    count: Cell<usize>,
}

impl Receiver {
    async fn start(answers: bool) -> io::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heard = Rc::new(Heard {
            answers,
            made: RefCell::default(),
            latencies: RefCell::new(Latencies::new()),
            count: Cell::new(0),
        });
        let all = heard.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(receive(stream, all.clone()));
            }
        });
        Ok(Receiver { address, heard })
    }
}

async fn receive(mut stream: TcpStream, heard: Rc<Heard>) {
    let mut buffer = Vec::with_capacity(8 * 1024);
    while stream.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
        while let Some(length) = whole(&buffer) {
            if !heard.answers {
                return std::future::pending().await;
            }
            heard.hear(&buffer[..length]);
            buffer.drain(..length);
            if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
                return;
            }
        }
    }
}

/// The length of the request that stands first, once it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let end = head + length.trim().parse::<usize>().ok()?;
    (bytes.len() >= end).then_some(end)
}

impl Heard {
    /// A move has two events; only the first tells how long it took.
    fn hear(&self, request: &[u8]) {
        if Finder::new(b"wavegate.move.accepted").find(request).is_none() {
            return;
        }
        let Some(at) = Finder::new(MARK).find(request).map(|at| at + MARK.len()) else { return };
        let digits = request.get(at..at + DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
        let number: Option<usize> = digits.and_then(|digits| digits.parse().ok());
        if let Some(n) = number.filter(|n| *n >= WARM_EVENTS)
            && let Some(made) = self.made.borrow().get(n)
        {
            self.latencies.borrow_mut().record(made.elapsed());
            self.count.set(self.count.get() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once_it_is_whole() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST";
        let length = request.len() - 4;
        assert!((0..length).all(|cut| whole(&request[..cut]).is_none()));
        assert_eq!(whole(request), Some(length));
    }
}
