//! The container files at the top against the program, a real Redis and a real nginx: what cannot be run
//! here is parsed, and every setting, flag, file and command in it is tried outside of its container.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::floor::free_port;
use crate::redis_server::Redis;
use crate::server::{TestServer, client, wavegate};
use crate::shop::{PATIENCE, fast_warehouses, get, id_of, order, receipt, status_when};
use crate::sse::Stream;

/// The services that are nodes.
const NODES: [&str; 2] = ["wavegate-1", "wavegate-2"];

fn top(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn compose() -> Value {
    serde_saphyr::from_str(&top("docker-compose.yml")).expect("YAML")
}

fn texts(list: &Value) -> Vec<String> {
    let all = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    all.iter().map(|text| text.as_str().unwrap_or_else(|| panic!("no text: {text}")).to_owned()).collect()
}

/// Settings that the image and the compose file make for a node, as its process sees them.
fn environment(node: &str) -> BTreeMap<String, String> {
    let dockerfile = top("Dockerfile");
    let image = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='));
    let mut all: BTreeMap<String, String> = image.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let compose = compose();
    let service = compose["services"][node]["environment"].as_object().expect("its environment");
    all.extend(service.iter().map(|(k, v)| (k.clone(), v.as_str().expect("a text").to_owned())));
    all
}

/// `wavegate config VERB` as in the container, with a key as its comment says.
fn config(verb: &str, environment: &BTreeMap<String, String>) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wavegate.toml");
    let digest = "a".repeat(64);
    std::fs::write(&file, format!("[[keys]]\nrole = \"client\"\nclient = \"acme\"\nsha256 = \"{digest}\"\n"))
        .unwrap();
    let mut command = wavegate();
    command.args(["config", verb, "--config"]).arg(&file).envs(environment).current_dir(dir.path());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_variable_of_the_container_files_is_a_setting_of_the_program() {
    for node in NODES {
        variables_of(node);
    }
}

fn variables_of(node: &str) {
    let environment = environment(node);
    assert!(environment.len() >= 7 && environment.keys().all(|name| name.starts_with("WAVEGATE__")));
    let (code, said) = config("check", &environment);
    assert_eq!(code, Some(0), "{said}");
    // The program would say so if one were not.
    let mut wrong = environment.clone();
    wrong.insert("WAVEGATE__STORE__REDIS__NODES".to_owned(), "2".to_owned());
    let (code, said) = config("check", &wrong);
    assert!(code == Some(2) && said.contains("store.redis.nodes"), "{said}");

    let (_, shown) = config("show", &environment);
    for setting in
        ["store.backend", "store.redis.urls", "store.redis.receipts_dir", "http.listen", "cluster.node"]
    {
        let line = shown.lines().find(|line| line.contains(setting)).unwrap_or_else(|| panic!("{shown}"));
        assert!(line.contains("environment"), "{line}");
    }
}

#[test]
fn two_nodes_share_one_redis_behind_one_port_and_what_each_keeps_is_in_a_volume_of_its_own() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["balancer", "redis", "wavegate-1", "wavegate-2"]));
    let declared = compose["volumes"].as_object().unwrap();
    let mut kept = BTreeSet::new();
    for name in NODES.into_iter().chain(["redis"]) {
        let volumes = texts(&services[name]["volumes"]);
        let own: Vec<&str> = volumes.iter().filter_map(|volume| volume.strip_suffix(":/data")).collect();
        assert!(own.len() == 1 && declared.contains_key(own[0]), "{name} keeps nothing: {volumes:?}");
        assert!(kept.insert(own[0].to_owned()), "{name} shares its volume");
        assert!(services[name]["deploy"].is_null() && services[name]["scale"].is_null(), "{name} is one");
        assert!(services[name]["ports"].is_null(), "{name} is reached through the balancer");
    }
    assert_eq!(texts(&services["balancer"]["ports"]), ["127.0.0.1:8080:8080"]);
    let mut called = BTreeSet::new();
    for node in NODES {
        let environment = environment(node);
        for setting in ["WAVEGATE__STORE__REDIS__RECEIPTS_DIR", "WAVEGATE__STORE__EMBEDDED__DATA_DIR"] {
            assert!(Path::new(&environment[setting]).starts_with("/data"), "{setting}");
        }
        assert!(environment["WAVEGATE__STORE__REDIS__URLS"].contains("//redis:"), "the service by its name");
        assert!(called.insert(environment["WAVEGATE__CLUSTER__NODE"].clone()), "{node} is called as another");
        assert_eq!(services[node]["depends_on"]["redis"]["condition"], "service_healthy");
        assert_eq!(services["balancer"]["depends_on"][node]["condition"], "service_healthy");
        assert_eq!(environment["WAVEGATE__HTTP__LISTEN"], "0.0.0.0:8080");
        assert!(top("nginx.conf").contains(&format!("server {node}:8080 ")), "{node} is not balanced");
    }
}

/// Runs a container's health check, with the port of a test in place of its own.
fn is_healthy(service: &Value, own: &str, port: &str) -> bool {
    let words = texts(&service["healthcheck"]["test"]);
    let mut command = match (words[0].as_str(), &words[1..]) {
        ("CMD", [program, args @ ..]) => {
            let mut command = Command::new(program);
            command.args(args.iter().map(|arg| arg.replace(own, port)));
            command
        }
        ("CMD-SHELL", [line]) => {
            let mut command = Command::new("sh");
            command.args(["-c", &line.replace(own, port)]);
            command
        }
        (how, _) => panic!("{how} is no health check"),
    };
    command.output().unwrap().status.success()
}

#[test]
fn a_redis_with_the_flags_of_the_compose_file_is_taken_and_the_health_checks_say_how_it_is() {
    let compose = compose();
    let (wavegate, redis) = (&compose["services"]["wavegate-1"], &compose["services"]["redis"]);
    let flags = texts(&redis["command"]);
    assert_eq!(flags[0], "redis-server");
    let flags: Vec<&str> = flags[1..].iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().unwrap();
    let real = Redis::start(&dir.path().join("redis"), &flags);
    let [backend, urls] = real.sets();
    let server = TestServer::start_with(&[&backend, &urls]);
    let port = server.url.rsplit_once(':').unwrap().1;

    let until = Instant::now() + PATIENCE;
    while !is_healthy(wavegate, "8080", port) {
        assert!(Instant::now() < until, "never healthy: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let ping = |port: &str| is_healthy(redis, "redis-cli ping", &format!("redis-cli -p {port} ping"));
    assert!(ping(&real.port().to_string()) && !ping("1"));
    real.signal("STOP");
    while is_healthy(wavegate, "8080", port) {
        assert!(Instant::now() < until, "healthy without Redis");
        std::thread::sleep(Duration::from_millis(20));
    }
    real.signal("CONT");
}

#[test]
fn what_the_image_is_built_from_is_there() {
    let dockerfile = top("Dockerfile");
    assert!(dockerfile.contains("--bin wavegate") && dockerfile.contains("target/release/wavegate"));
    let built = compose();
    let at = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(built["services"]["wavegate-1"]["build"].as_str().unwrap());
    assert!(at.join("Dockerfile").exists());
}

/// The very nginx of the compose file, on ports of this machine.
struct Nginx {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Nginx {
    /// In front of these nodes, once it answers.
    fn start(nodes: [&TestServer; 2]) -> Nginx {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut conf = top("nginx.conf").replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
        for (name, node) in NODES.into_iter().zip(nodes) {
            conf = conf.replace(&format!("{name}:8080"), node.url.trim_start_matches("http://"));
        }
        let conf = conf.replace("/tmp/nginx", &format!("{}/nginx", dir.path().display()));
        assert!(!conf.contains(":8080") && conf.contains("max_fails=1"), "{conf}");
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, conf).unwrap();
        let checked =
            Command::new("nginx").args(["-t", "-c"]).arg(&file).output().expect("nginx is installed");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let mut command = Command::new("nginx");
        let process = command.args(["-g", "daemon off;", "-c"]).arg(&file).spawn().expect("nginx starts");
        Nginx { process, url: format!("http://127.0.0.1:{port}"), _dir: dir }
    }

    async fn listens(&self, http: &reqwest::Client) {
        let until = Instant::now() + PATIENCE;
        let readyz = format!("{}/readyz", self.url);
        while !http.get(&readyz).send().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(Instant::now() < until, "nginx does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM: the master ends its workers first, which a SIGKILL would leave behind.
        let kill = format!("kill -TERM {}", self.process.id());
        Command::new("sh").arg("-c").arg(kill).status().ok();
        self.process.wait().ok();
    }
}

async fn answered(http: &reqwest::Client, url: String, body: &Value) -> Value {
    let answer = http.post(url).json(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 202, "{:?}", answer.text().await);
    answer.json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_nginx_of_the_compose_file_a_killed_node_costs_no_call_and_no_event() {
    let compose = compose();
    let flags = texts(&compose["services"]["redis"]["command"]);
    let flags: Vec<&str> = flags[1..].iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(&dir.path().join("redis"), &flags);
    let [backend, urls] = redis.sets();
    let warehouses = fast_warehouses(&[]);
    let start = |node: &str| {
        let name = format!("cluster.node={}", environment(node)["WAVEGATE__CLUSTER__NODE"]);
        let sets = [&warehouses, "manifests.close_every=100ms", &backend, &urls, &name, "cluster.lease=3s"];
        TestServer::start_with(&sets)
    };
    let [mut first, second] = NODES.map(start);
    let nginx = Nginx::start([&first, &second]);
    let http = client();
    nginx.listens(&http).await;

    let stream = http.get(format!("{}/v1/events", nginx.url)).header("accept", "text/event-stream");
    let stream = stream.header("last-event-id", "earliest").send().await.expect("a stream");
    let mut stream = Stream::of(stream);
    for code in ["ATL1", "DFW2", "RNO3"] {
        let body = receipt(&format!("stock-{code}"), code, "SKU-B", 1_000);
        answered(&http, format!("{}/v1/inventory/moves", nginx.url), &body).await;
    }
    let applied = |event: &crate::sse::Event| event.event == "wavegate.move.applied";
    let begun = Instant::now();
    let mut events = stream.until(applied).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "events stood in a buffer: {:?}", begun.elapsed());

    // Every call is answered, whichever node it was for.
    let mut ids = Vec::new();
    for n in 0..60_u32 {
        if n == 20 {
            first.kill();
        }
        let code = ["ATL1", "DFW2", "RNO3"][n as usize % 3];
        let body = order(&format!("b{n}"), code, "SKU-B", 1);
        ids.push(id_of(&answered(&http, format!("{}/v1/orders", nginx.url), &body).await));
        let (status, document) = get(&http, format!("{}/v1/status/{}", nginx.url, ids[n as usize])).await;
        assert_eq!(status, 200, "{document}");
    }
    for id in &ids {
        let document = status_when(&http, &nginx.url, id, |d| d["done"] == true).await;
        assert_eq!(document["state"], "shipped", "{document}");
    }
    // The stream went on, or ends and is gone on with from its last event.
    let shipped =
        |events: &[crate::sse::Event]| events.iter().filter(|e| e.event == "wavegate.order.shipped").count();
    while shipped(&events) < ids.len() {
        match stream.next().await {
            Some(event) => events.push(event),
            None => {
                let last = &events[events.len() - 1].id;
                stream = Stream::of(crate::sse::follow(&nginx.url, "/v1/events", last).await);
            }
        }
    }
    let numbers: Vec<u64> = events.iter().map(crate::sse::Event::sequence).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no hole and no repeat");
    drop(nginx);
}
