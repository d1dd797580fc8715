//! The container files at the top against the program and a real Redis: what cannot be run here is
//! parsed, and every setting, flag and command in it is tried outside of its container.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::redis_server::Redis;
use crate::server::{TestServer, wavegate};
use crate::shop::PATIENCE;

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

/// Settings that the image and the compose file make, as the process sees them.
fn environment() -> BTreeMap<String, String> {
    let dockerfile = top("Dockerfile");
    let image = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='));
    let mut all: BTreeMap<String, String> = image.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let compose = compose();
    let service = compose["services"]["wavegate"]["environment"].as_object().expect("its environment");
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
    let environment = environment();
    assert!(environment.len() >= 6 && environment.keys().all(|name| name.starts_with("WAVEGATE__")));
    let (code, said) = config("check", &environment);
    assert_eq!(code, Some(0), "{said}");
    // The program would say so if one were not.
    let mut wrong = environment.clone();
    wrong.insert("WAVEGATE__STORE__REDIS__NODES".to_owned(), "2".to_owned());
    let (code, said) = config("check", &wrong);
    assert!(code == Some(2) && said.contains("store.redis.nodes"), "{said}");

    let (_, shown) = config("show", &environment);
    for setting in ["store.backend", "store.redis.urls", "store.redis.receipts_dir", "http.listen"] {
        let line = shown.lines().find(|line| line.contains(setting)).unwrap_or_else(|| panic!("{shown}"));
        assert!(line.contains("environment"), "{line}");
    }
}

#[test]
fn there_is_one_node_on_one_redis_and_what_each_keeps_is_in_a_volume() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["redis", "wavegate"]));
    let declared = compose["volumes"].as_object().unwrap();
    for (name, service) in services {
        let volumes = texts(&service["volumes"]);
        let kept = volumes.iter().filter_map(|volume| volume.strip_suffix(":/data")).next();
        assert!(
            kept.is_some_and(|volume| declared.contains_key(volume)),
            "{name} keeps nothing: {volumes:?}"
        );
        assert!(service["deploy"].is_null() && service["scale"].is_null(), "{name} is one");
    }
    let environment = environment();
    for setting in ["WAVEGATE__STORE__REDIS__RECEIPTS_DIR", "WAVEGATE__STORE__EMBEDDED__DATA_DIR"] {
        assert!(Path::new(&environment[setting]).starts_with("/data"), "{setting}");
    }
    assert!(environment["WAVEGATE__STORE__REDIS__URLS"].contains("//redis:"), "the service by its name");
    assert_eq!(services["wavegate"]["depends_on"]["redis"]["condition"], "service_healthy");
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
    let (wavegate, redis) = (&compose["services"]["wavegate"], &compose["services"]["redis"]);
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
        .join(built["services"]["wavegate"]["build"].as_str().unwrap());
    assert!(at.join("Dockerfile").exists());
}
