//! The benchmark runs to its end, says what it has measured, and notices a loss. Its numbers mean
//! nothing here.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::server::wavegate;

fn bench(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("the binary runs")
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let short = "--quick --noisy --pairs 1 --seconds 0.3 --connections 8 --json now.json".split(' ');
    let mut command = wavegate();
    command.current_dir(dir).arg("bench").args(args).args(short);
    command
}

/// The checks of the run before, each of which has measured something.
fn checks(dir: &Path) -> Vec<String> {
    let report: Value = serde_json::from_slice(&std::fs::read(dir.join("now.json")).unwrap()).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .map(|check| {
            assert!(
                check["value"].as_f64().is_some_and(|value| value > 0.0),
                "nothing was measured: {check}"
            );
            check["id"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn every_measure_stands_in_the_table_and_in_the_json_with_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), &["--markdown", "--set", "engine.threads=1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(dir.path().join("now.json")).unwrap()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let ids: Vec<&str> = checks.iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        [
            "accept.paused",
            "accept.running",
            "accept.cpu",
            "accept.random",
            "accept.p99",
            "accept.p99_dead",
            "accept.p99_slow",
            "pipeline.orders",
            "pipeline.many",
            "status.read",
            "status.not_modified",
        ]
    );
    let table = String::from_utf8(output.stdout).unwrap();
    for check in checks {
        let value = check["value"].as_f64().unwrap_or_else(|| panic!("nothing was measured: {check}"));
        assert!(value > 0.0, "{check}");
        assert!(table.contains(check["claim"].as_str().unwrap()), "{table}");
    }
    assert!(report["machine"]["cores"].as_u64().is_some_and(|n| n > 0), "{report}");
}

#[test]
fn what_was_better_by_more_than_a_tenth_before_fails() {
    let dir = tempfile::tempdir().unwrap();
    let check = |id: &str, value: f64| {
        json!({"id": id, "claim": "", "unit": "", "values": [value], "value": value,
               "target": {"at_least": 0.5}, "met": true, "spoiled": 0})
    };
    let before = json!({
        "machine": {"cpu": "", "cores": 1, "memory": 0, "kernel": "", "filesystem": "", "rustc": "", "program": ""},
        "rounds": 1, "seconds": 1.0, "measured": [],
        "checks": [check("status.read", 1e6), check("status.not_modified", 1e-6)],
    });
    std::fs::write(dir.path().join("before.json"), before.to_string()).unwrap();
    let output = bench(dir.path(), &["status", "--baseline", "before.json"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("worse than the baseline: status.read: 1,000,000 before"), "{told}");
    assert!(!told.contains("status.not_modified:"), "{told}");
    let none = bench(dir.path(), &["status", "--baseline", "none.json"]);
    assert_eq!(none.status.code(), Some(2), "a baseline that is not there is wrong usage");
}

#[test]
fn with_the_store_in_redis_each_measure_has_a_redis_of_its_own_and_a_ceiling_beside_it() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        eprintln!("skipped: redis-server is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = [
        ("accept", &["redis.accept", "redis.second_node", "redis.second_node_redis"][..]),
        (
            "status",
            &["redis.status", "redis.not_modified", "redis.status_commands", "redis.status_reads"][..],
        ),
    ];
    for (measure, ids) in expected {
        let output = bench(dir.path(), &[measure, "--set", "store.backend=redis"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(checks(dir.path()), ids, "{measure}");
    }
}

#[test]
fn without_redis_server_the_benchmark_of_redis_says_what_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), &["accept", "--set", "store.backend=redis"]);
    let output = command.env("PATH", dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("redis-server is not installed") && told.contains("apt-get install"), "{told}");
}
