//! A real redis-server for a test: a directory and a free port of its own, killed by its id when the
//! test is over.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);

/// What Wavegate needs of a Redis.
pub(crate) const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A running redis-server.
pub(crate) struct Redis {
    server: Child,
    port: u16,
    dir: PathBuf,
    settings: Vec<String>,
}

impl Redis {
    /// Starts one on what is in `dir`, if anything.
    pub(crate) fn start(dir: &Path, settings: &[&str]) -> Redis {
        std::fs::create_dir_all(dir).expect("a directory");
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        for _ in 0..20 {
            // Somebody may take the port in between; then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
            if let Some(server) = serve(dir, port, &settings) {
                return Redis { server, port, dir: dir.to_owned(), settings };
            }
        }
        panic!("redis-server does not start");
    }

    /// Where it listens, on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What makes a server use it, as options of `--set`.
    pub(crate) fn sets(&self) -> [String; 2] {
        let urls = format!("store.redis.urls=[\"redis://127.0.0.1:{}\"]", self.port);
        ["store.backend=\"redis\"".to_owned(), urls]
    }

    /// Stops it without warning (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.server.kill().ok();
        self.server.wait().expect("the end of a killed process");
    }

    /// Starts it again, on the same port and directory.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.server = serve(&self.dir, self.port, &self.settings).expect("its own port");
    }

    /// Forgets what a killed one had on disk.
    pub(crate) fn empty(&self) {
        std::fs::remove_dir_all(self.dir.join("appendonlydir")).expect("its append-only files");
    }

    /// Copies what a running one has on disk by now.
    pub(crate) fn copy_data(&self, to: &Path) {
        copy(&self.dir.join("appendonlydir"), to);
    }

    /// Gives a killed one what was copied: it has lost all since, as a replica that lagged.
    pub(crate) fn put_back(&self, from: &Path) {
        self.empty();
        copy(from, &self.dir.join("appendonlydir"));
    }

    /// Asks for one thing, as an operator would, and gives back the answer's text.
    pub(crate) fn tell(&self, words: &str) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        let mut stream = std::io::BufReader::new(stream);
        stream.get_mut().write_all(format!("{words}\r\n").as_bytes()).expect("a request");
        let mut line = String::new();
        stream.read_line(&mut line).expect("an answer");
        let Some(length) = line.strip_prefix('$') else { return line };
        let mut text = vec![0; length.trim().parse().expect("a length")];
        stream.read_exact(&mut text).expect("its text");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Sends a signal: STOP or CONT.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.server.id())).status();
        assert!(status.expect("a shell").success(), "SIG{name} was not sent");
    }
}

/// Starts a Redis Cluster of three primaries, and gives it back with what makes a server use it.
pub(crate) fn start_cluster(dir: &Path) -> (Vec<Redis>, [String; 3]) {
    const PRIMARIES: usize = 3;
    let mut nodes = Vec::new();
    for n in 0..PRIMARIES {
        let bus = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let of_cluster = "--cluster-enabled yes --cluster-node-timeout 2000 --cluster-port";
        let bus = bus.to_string();
        let settings: Vec<&str> = DURABLE.into_iter().chain(of_cluster.split(' ')).chain([&*bus]).collect();
        let node = Redis::start(&dir.join(format!("node-{n}")), &settings);
        let (first, end) = (n * 16_384 / PRIMARIES, (n + 1) * 16_384 / PRIMARIES);
        node.tell(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
        node.tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
        nodes.push((node, bus));
    }
    let (first, bus) = (nodes[0].0.port, nodes[0].1.clone());
    nodes[1..].iter().for_each(|(node, _)| {
        node.tell(&format!("CLUSTER MEET 127.0.0.1 {first} {bus}"));
    });
    let until = Instant::now() + START_MAX;
    let is_formed = |info: String| info.contains("cluster_state:ok") && info.contains("known_nodes:3");
    while !nodes.iter().all(|(node, _)| is_formed(node.tell("CLUSTER INFO"))) {
        assert!(Instant::now() < until, "the cluster is not formed within {START_MAX:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let nodes: Vec<Redis> = nodes.into_iter().map(|(node, _)| node).collect();
    let urls = format!("store.redis.urls=[\"redis://127.0.0.1:{}\"]", nodes[1].port);
    (nodes, ["store.backend=\"redis\"".to_owned(), urls, "store.redis.cluster=true".to_owned()])
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for file in std::fs::read_dir(from).expect("append-only files") {
        let file = file.expect("a file").path();
        std::fs::copy(&file, to.join(file.file_name().expect("its name"))).expect("a copy");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// Starts a server, if the port is free.
fn serve(dir: &Path, port: u16, settings: &[String]) -> Option<Child> {
    let mut server = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .arg("--dir")
        .arg(dir)
        .args(settings)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let until = Instant::now() + START_MAX;
    while Instant::now() < until {
        if server.try_wait().expect("a child's state").is_some() {
            return None;
        }
        if answers(port) {
            return Some(server);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill().ok();
    server.wait().ok();
    None
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    // Whatever it says, be it that it wants a password or still reads its data, it is there: it is asked
    // on until it has read them.
    let mut answer = [0; 4];
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer != b"-LOA"
}
