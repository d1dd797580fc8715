//! The faults: each process has a thread that kills it, stops it and starts it again at moments of its
//! own, drawn from the seed. They know nothing of each other, so that everything may be down at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wavegate_engine::ports::entropy::{Entropy as _, SeededEntropy};

use super::{Storm, some_time};
use crate::floor::TestWms;
use crate::redis_server::Redis;
use crate::server::TestServer;

/// A thread looks so often whether the storm is over.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// A fault of a node lasts no longer: more than twice its lease.
const NODE_AWAY_MAX: Duration = Duration::from_secs(7);
const WMS_AWAY_MAX: Duration = Duration::from_secs(5);
const REDIS_AWAY_MAX: Duration = Duration::from_secs(4);
/// Between two faults of the same process.
const CALM: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(14));

/// All processes of a run. The nodes end first.
pub(super) struct Fleet {
    pub(super) nodes: Vec<TestServer>,
    pub(super) houses: Vec<TestWms>,
    pub(super) redis: Redis,
}

/// One of them.
pub(super) enum Victim {
    Node(usize, Box<TestServer>),
    Wms(Box<TestWms>),
    Redis(Box<Redis>),
}

impl Fleet {
    pub(super) fn into_victims(self) -> Vec<Victim> {
        let nodes = self.nodes.into_iter().enumerate().map(|(n, node)| Victim::Node(n, Box::new(node)));
        let houses = self.houses.into_iter().map(|house| Victim::Wms(Box::new(house)));
        nodes.chain(houses).chain([Victim::Redis(Box::new(self.redis))]).collect()
    }

    /// Together again, in the order in which they went.
    pub(super) fn of(victims: Vec<Victim>) -> Fleet {
        let (mut nodes, mut houses, mut the_redis) = (Vec::new(), Vec::new(), None);
        for victim in victims {
            match victim {
                Victim::Node(_, node) => nodes.push(*node),
                Victim::Wms(house) => houses.push(*house),
                Victim::Redis(redis) => the_redis = Some(*redis),
            }
        }
        Fleet { nodes, houses, redis: the_redis.expect("the Redis") }
    }

    /// The warehouses outside and where their ledgers are.
    pub(super) fn ledgers(&self) -> Vec<(String, PathBuf)> {
        self.houses.iter().map(|house| (house.code.clone(), house.ledger_path())).collect()
    }

    /// Ends the nodes in order and has the store checked.
    pub(super) fn check_at_rest(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            let status = node.term();
            if !status.success() {
                return Err(format!("SIGTERM ends with {status}"));
            }
        }
        let check = self.nodes[0].check_command().output().expect("the binary runs");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let whole = said(&check.stdout) + &said(&check.stderr);
        if check.status.success() { Ok(()) } else { Err(format!("store check: {whole}")) }
    }

    /// Lines in which a process says that something in it panicked.
    pub(super) fn panics(&self) -> Vec<String> {
        let nodes = self.nodes.iter().flat_map(TestServer::logs);
        let all = nodes.chain(self.houses.iter().map(TestWms::log));
        let lines = all.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| line.contains("panicked at")).collect()
    }

    /// Puts the logs where they outlive the test.
    pub(super) fn keep_logs(&self, seed: u64) -> PathBuf {
        let dir =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("storm-{}-{seed}", self.nodes.len()));
        std::fs::create_dir_all(&dir).expect("a directory");
        for (n, node) in self.nodes.iter().enumerate() {
            for (life, log) in node.logs().iter().enumerate() {
                std::fs::write(dir.join(format!("n{n}-{life}.log")), log).expect("a log");
            }
        }
        for house in &self.houses {
            std::fs::write(dir.join(format!("wms-{}.log", house.code)), house.log()).expect("a log");
            std::fs::copy(house.ledger_path(), dir.join(format!("wms-{}.ndjson", house.code))).ok();
        }
        dir
    }
}

/// Makes faults until the storm is over; ends with the process running.
pub(super) fn begin(storm: &Arc<Storm>, mut victim: Victim) -> JoinHandle<Victim> {
    let storm = storm.clone();
    std::thread::spawn(move || {
        let dice = storm.dice(victim.number());
        while wait(&storm, some_time(&dice, CALM.0, CALM.1)) {
            victim.suffer(&storm, &dice);
        }
        victim
    })
}

/// Waits so long; false once the storm is over.
fn wait(storm: &Storm, time: Duration) -> bool {
    let until = Instant::now() + time;
    while !storm.is_over() && Instant::now() < until {
        std::thread::sleep(LOOKS_EVERY);
    }
    !storm.is_over()
}

impl Victim {
    fn number(&self) -> u64 {
        match self {
            Victim::Node(n, _) => 100 + *n as u64,
            Victim::Wms(house) => 200 + house.code.bytes().map(u64::from).sum::<u64>(),
            Victim::Redis(_) => 900,
        }
    }

    fn name(&self) -> String {
        match self {
            Victim::Node(n, _) => format!("node n{n}"),
            Victim::Wms(house) => format!("the WMS of {}", house.code),
            Victim::Redis(_) => "Redis".to_owned(),
        }
    }

    /// One fault, from its beginning to its end.
    fn suffer(&mut self, storm: &Storm, dice: &SeededEntropy) {
        let how = dice.below(5);
        let name = self.name();
        let tell = |what: &str| {
            let at = storm.begun.elapsed().as_secs_f64();
            storm.diary.lock().unwrap().push(format!("{at:7.2} s  {name} {what}"));
        };
        let none = Duration::ZERO;
        match self {
            Victim::Node(n, node) => {
                let away = some_time(dice, none, NODE_AWAY_MAX);
                match how {
                    0 | 1 => {
                        tell(&format!("is killed, and starts after {away:?}"));
                        node.kill();
                        wait(storm, away);
                        node.revive();
                    }
                    2 | 3 => {
                        tell(&format!("stands still for {away:?}"));
                        node.signal("STOP");
                        wait(storm, away);
                        node.signal("CONT");
                    }
                    _ => {
                        tell(&format!("is ended, and starts after {away:?}"));
                        let status = node.term();
                        if !status.success() {
                            storm.violation(format!("{name}: SIGTERM ends with {status}"));
                        }
                        wait(storm, away);
                        node.revive();
                    }
                }
                storm.places.lock().unwrap()[*n].clone_from(&node.url);
            }
            Victim::Wms(house) => {
                let away = some_time(dice, none, WMS_AWAY_MAX);
                if how < 3 {
                    tell(&format!("is killed, and starts after {away:?}"));
                    house.kill();
                    wait(storm, away);
                    house.start();
                } else {
                    tell(&format!("stands still for {away:?}"));
                    house.signal("STOP");
                    wait(storm, away);
                    house.signal("CONT");
                }
            }
            Victim::Redis(redis) => {
                let away = some_time(dice, none, REDIS_AWAY_MAX);
                if how < 2 {
                    tell(&format!("is killed, and starts after {away:?}"));
                    redis.kill();
                    wait(storm, away);
                    redis.restart();
                } else {
                    tell(&format!("stands still for {away:?}"));
                    redis.signal("STOP");
                    wait(storm, away);
                    redis.signal("CONT");
                }
            }
        }
        tell("is back");
    }
}
