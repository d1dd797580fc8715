//! The load: many kept-alive connections on one thread, either as fast as answers come or at a
//! constant rate.
//!
//! At a constant rate a request's latency counts from the time at which it was due, not from the
//! time at which it was sent: a server that stalls delays those behind as well, and a generator
//! that waited for it would leave just these out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::order::Orders;
use super::statistics::Latencies;
use super::wire::Connection;

/// Between two looks at what is due, at a constant rate. The runtime's own timers are coarser
/// than the latencies that are measured.
const TICK: Duration = Duration::from_micros(250);
/// Answers that do not come within this after the last request are lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent.
#[derive(Clone)]
pub(super) enum Requests {
    /// Each another order.
    Orders(Rc<Orders>),
    /// These, in turn, once or again and again.
    Fixed(Rc<FixedRequests>),
}

/// Requests made beforehand.
pub(super) struct FixedRequests {
    all: Vec<Vec<u8>>,
    next: Cell<usize>,
    again: bool,
}

impl FixedRequests {
    /// Sends `all` again and again.
    pub(super) fn again_and_again(all: Vec<Vec<u8>>) -> FixedRequests {
        FixedRequests { all, next: Cell::new(0), again: true }
    }

    /// Sends each of `all` once.
    pub(super) fn once(all: Vec<Vec<u8>>) -> FixedRequests {
        FixedRequests { all, next: Cell::new(0), again: false }
    }

    fn next(&self) -> Option<&[u8]> {
        let n = self.next.replace(self.next.get() + 1);
        let n = if self.again { n.checked_rem(self.all.len())? } else { n };
        self.all.get(n).map(Vec::as_slice)
    }
}

impl Requests {
    fn next<'a>(&'a self, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        match self {
            Requests::Orders(orders) => orders.write(buffer),
            Requests::Fixed(fixed) => fixed.next(),
        }
    }
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// On each connection the next as soon as the last is answered.
    Answers,
    /// This many a second over all connections, whatever the answers do.
    PerSecond(f64),
}

/// A load.
pub(super) struct Load {
    /// Whom to ask.
    pub(super) address: SocketAddr,
    /// Connections.
    pub(super) connections: usize,
    /// What to send.
    pub(super) requests: Requests,
    /// How fast.
    pub(super) pace: Pace,
    /// Sent first and not counted.
    pub(super) warm: Duration,
    /// Counted.
    pub(super) window: Duration,
    /// The status of an answer that counts.
    pub(super) wanted: u16,
}

/// What came of a load.
pub(super) struct Answered {
    /// Wanted answers in the window.
    pub(super) count: u64,
    /// How long the window was.
    pub(super) window: Duration,
    /// Of the wanted answers.
    pub(super) latencies: Latencies,
    /// Others by status, from the first request on; 0 = a connection that broke, or no answer.
    pub(super) others: BTreeMap<u16, u64>,
}

impl Answered {
    /// Wanted answers a second.
    pub(super) fn per_second(&self) -> f64 {
        self.count as f64 / self.window.as_secs_f64()
    }
}

struct Tally {
    requests: Requests,
    wanted: u16,
    counting: Cell<bool>,
    over: Cell<bool>,
    count: Cell<u64>,
    latencies: RefCell<Latencies>,
    others: RefCell<BTreeMap<u16, u64>>,
}

impl Tally {
    fn answered(&self, window: Duration) -> Answered {
        let latencies = self.latencies.replace(Latencies::new());
        Answered { count: self.count.get(), window, latencies, others: self.others.take() }
    }

    fn book(&self, status: u16, counts: bool, latency: Duration) {
        if status != self.wanted {
            *self.others.borrow_mut().entry(status).or_default() += 1;
        } else if counts {
            self.count.set(self.count.get() + 1);
            self.latencies.borrow_mut().record(latency);
        }
    }
}

impl Load {
    /// Runs it, calling `at` when the window begins and when it ends. Must run within a `LocalSet`.
    ///
    /// # Errors
    /// When no connection can be made.
    pub(super) async fn run(self, mut at: impl FnMut()) -> io::Result<Answered> {
        let tally = self.tally();
        let open = self.open().await?;
        let window = match self.pace {
            Pace::Answers => self.closed(&tally, open, &mut at).await,
            Pace::PerSecond(rate) => self.constant(&tally, open, rate, &mut at).await,
        };
        Ok(tally.answered(window))
    }

    /// Sends every request that there is, as fast as answers come, and counts all. Must run within
    /// a `LocalSet`.
    ///
    /// # Errors
    /// When no connection can be made.
    pub(super) async fn send_all(self) -> io::Result<Answered> {
        let tally = self.tally();
        tally.counting.set(true);
        let open = self.open().await?;
        let begun = Instant::now();
        let mut running = as_answers_come(&tally, open);
        while running.join_next().await.is_some() {}
        Ok(tally.answered(begun.elapsed()))
    }

    fn tally(&self) -> Rc<Tally> {
        Rc::new(Tally {
            requests: self.requests.clone(),
            wanted: self.wanted,
            counting: Cell::new(false),
            over: Cell::new(false),
            count: Cell::new(0),
            latencies: RefCell::new(Latencies::new()),
            others: RefCell::new(BTreeMap::new()),
        })
    }

    async fn open(&self) -> io::Result<Vec<Connection>> {
        let mut open = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            open.push(Connection::open(self.address).await?);
        }
        Ok(open)
    }

    async fn closed(&self, tally: &Rc<Tally>, open: Vec<Connection>, at: &mut impl FnMut()) -> Duration {
        let running = as_answers_come(tally, open);
        tokio::time::sleep(self.warm).await;
        at();
        let begun = Instant::now();
        tally.counting.set(true);
        tokio::time::sleep(self.window).await;
        tally.counting.set(false);
        let window = begun.elapsed();
        at();
        tally.over.set(true);
        finish(running, tally).await;
        window
    }

    async fn constant(
        &self,
        tally: &Rc<Tally>,
        open: Vec<Connection>,
        rate: f64,
        at: &mut impl FnMut(),
    ) -> Duration {
        let begun = Instant::now();
        let schedule = Rc::new(Schedule {
            begun,
            counts_from: begun + self.warm,
            ends: begun + self.warm + self.window,
            every: Duration::from_secs_f64(1.0 / rate.max(1.0)),
            next: Cell::new(0),
            idle: Notify::new(),
        });
        let mut running = JoinSet::new();
        for connection in open {
            running.spawn_local(as_due(tally.clone(), schedule.clone(), connection));
        }
        let ticking = Ticking::start();
        let mut started = false;
        loop {
            ticking.tick.notified().await;
            let now = Instant::now();
            if !started && now >= schedule.counts_from {
                started = true;
                at();
            }
            for _ in 0..schedule.due(now) {
                schedule.idle.notify_one();
            }
            if now >= schedule.ends {
                break;
            }
        }
        at();
        // Those who wait for the next find that there is none.
        schedule.idle.notify_waiters();
        finish(running, tally).await;
        self.window
    }
}

fn as_answers_come(tally: &Rc<Tally>, open: Vec<Connection>) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for connection in open {
        running.spawn_local(as_answered(tally.clone(), connection));
    }
    running
}

/// Waits for the last answers; those that do not come are counted as lost.
async fn finish(mut running: JoinSet<()>, tally: &Tally) {
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        let lost = u64::try_from(running.len()).unwrap_or(u64::MAX);
        *tally.others.borrow_mut().entry(0).or_default() += lost;
        running.abort_all();
    }
}

async fn as_answered(tally: Rc<Tally>, mut connection: Connection) {
    let mut buffer = Vec::new();
    while !tally.over.get() {
        let begun = Instant::now();
        let Some(request) = tally.requests.next(&mut buffer) else { return };
        let status = match connection.exchange(request).await {
            Ok(answer) => answer.status,
            Err(_) => 0,
        };
        tally.book(status, tally.counting.get(), begun.elapsed());
        if status == 0 {
            return;
        }
    }
}

/// When which request is due.
struct Schedule {
    begun: Instant,
    counts_from: Instant,
    ends: Instant,
    every: Duration,
    next: Cell<u32>,
    idle: Notify,
}

impl Schedule {
    fn at(&self, n: u32) -> Instant {
        self.begun + self.every * n
    }

    /// How many are due and not taken.
    fn due(&self, now: Instant) -> u32 {
        let last =
            now.min(self.ends).saturating_duration_since(self.begun).as_nanos() / self.every.as_nanos();
        u32::try_from(last).unwrap_or(u32::MAX).saturating_sub(self.next.get())
    }

    /// Waits for the next request and says when it is due; `None` when there is none any more.
    async fn next(&self) -> Option<Instant> {
        loop {
            let at = self.at(self.next.get());
            if at >= self.ends {
                return None;
            }
            if at <= Instant::now() {
                self.next.set(self.next.get() + 1);
                return Some(at);
            }
            self.idle.notified().await;
        }
    }
}

async fn as_due(tally: Rc<Tally>, schedule: Rc<Schedule>, mut connection: Connection) {
    let mut buffer = Vec::new();
    while let Some(due) = schedule.next().await {
        let Some(request) = tally.requests.next(&mut buffer) else { return };
        let status = match connection.exchange(request).await {
            Ok(answer) => answer.status,
            Err(_) => 0,
        };
        tally.book(status, due >= schedule.counts_from, due.elapsed());
        if status == 0 {
            return;
        }
    }
}

/// A thread that wakes the load every [`TICK`].
struct Ticking {
    tick: Arc<Notify>,
    over: Arc<AtomicBool>,
}

impl Ticking {
    fn start() -> Ticking {
        let ticking = Ticking { tick: Arc::new(Notify::new()), over: Arc::new(AtomicBool::new(false)) };
        let (tick, over) = (ticking.tick.clone(), ticking.over.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                tick.notify_one();
            }
        });
        ticking
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    /// Answers every read at once, but falls asleep once, in the middle, for `stall`.
    async fn server(stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let awake = Rc::new(Cell::new(0));
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let awake = awake.clone();
                tokio::task::spawn_local(async move {
                    let mut request = [0; 1024];
                    while stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                        awake.set(awake.get() + 1);
                        if awake.get() == 100 {
                            std::thread::sleep(stall);
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok();
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr, pace: Pace) -> Load {
        let requests = Requests::Fixed(Rc::new(FixedRequests::again_and_again(vec![b"ping".to_vec()])));
        let (warm, window) = (Duration::from_millis(20), Duration::from_millis(500));
        Load { address, connections: 4, requests, pace, warm, window, wanted: 200 }
    }

    #[tokio::test]
    async fn at_a_constant_rate_a_stall_is_everybodys_latency() {
        LocalSet::new()
            .run_until(async {
                let address = server(Duration::from_millis(200)).await;
                let mut calls = 0;
                let answered = load(address, Pace::PerSecond(1_000.0)).run(|| calls += 1).await.unwrap();
                assert_eq!(calls, 2);
                assert!(answered.others.is_empty(), "{:?}", answered.others);
                // All that were due are sent in the end: a few more or less at the edges.
                assert!((490..=501).contains(&answered.count), "{}", answered.count);
                // 200 of 500 came due in the stall, so a fifth waited for a half of it or longer.
                assert!(
                    answered.latencies.quantile_ms(0.9) > 80.0,
                    "{}",
                    answered.latencies.quantile_ms(0.9)
                );
            })
            .await;
    }

    #[tokio::test]
    async fn as_fast_as_answers_come_counts_the_window_alone() {
        LocalSet::new()
            .run_until(async {
                let address = server(Duration::ZERO).await;
                let answered = load(address, Pace::Answers).run(|| ()).await.unwrap();
                assert!(answered.count > 100 && answered.per_second() > 200.0);
                let refused = Load { wanted: 202, ..load(address, Pace::Answers) }.run(|| ()).await.unwrap();
                assert!(refused.count == 0 && refused.others[&200] > 100);
            })
            .await;
    }
}
