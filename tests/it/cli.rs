//! The command line: exit codes, messages and files, as a user meets them.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::server::{TestServer, wait_bounded, wavegate};

/// Runs the binary in `dir` to its end.
fn run(dir: &Path, args: &[&str]) -> Output {
    wavegate().current_dir(dir).args(args).output().expect("the binary runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_misspelt_setting_stops_the_start_with_its_name_its_source_and_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("site.toml");
    std::fs::write(&file, "[http]\nlistne = \"127.0.0.1:1\"\n[engine]\nthreads = \"two\"\n").unwrap();
    let output = run(dir.path(), &["serve", "--config", "site.toml", "--set", "limits.body_maxx=1KiB"]);
    assert_eq!(output.status.code(), Some(2));
    let text = err(&output);
    for part in
        ["http.listne", "site.toml", "`listen`", "engine.threads", "\"two\"", "limits.body_maxx", "--set"]
    {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!dir.path().join("data").exists(), "nothing is opened before the settings are right");
}

#[test]
fn a_fault_in_the_environment_names_the_variable() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = wavegate();
    command.current_dir(dir.path()).env("WAVEGATE__SHUTDOWN__GRACE", "soon").args(["config", "check"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = err(&output);
    assert!(text.contains("WAVEGATE__SHUTDOWN__GRACE") && text.contains("shutdown.grace"), "{text}");
}

#[test]
fn a_missing_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["config", "check", "--config", "none.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("none.toml"), "{}", err(&output));
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["srve"][..], &["key", "new", "--role", "client"], &["--set", "x"], &["completions", "tcl"]]
    {
        assert_eq!(run(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(run(dir.path(), &["--help"]).status.code(), Some(0));
    assert_eq!(run(dir.path(), &["--version"]).status.code(), Some(0));
}

#[test]
fn without_keys_only_loopback_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["serve", "--set", "http.listen=0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("http.listen") && err(&output).contains("wavegate key new"),
        "{}",
        err(&output)
    );
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_key_made_by_key_new_is_understood_by_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["key", "new", "--role", "client", "--client", "acme"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    let key = text.lines().find(|l| l.starts_with("wg_")).expect("the key");
    assert!((32..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()), "{key}");
    let lines = &text[text.find("[[keys]]").expect("the lines")..];
    assert!(!lines.contains(key), "only the digest goes into a file");
    std::fs::write(dir.path().join("keys.toml"), lines).unwrap();
    let open = ["config", "check", "--config", "keys.toml", "--set", "http.listen=0.0.0.0:0"];
    assert_eq!(run(dir.path(), &open).status.code(), Some(0), "with a key every address is allowed");
}

#[test]
fn config_show_names_value_and_source_of_every_setting() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.toml"), "[limits]\nbody_max = \"1KiB\"\n").unwrap();
    let mut command = wavegate();
    command.current_dir(dir.path()).env("WAVEGATE__LOG__LEVEL", "warn");
    command.args(["config", "show", "--config", "a.toml", "--set", "manifests.sscc_prefix=0614142"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    for (setting, source) in [
        ("limits.body_max = \"1KiB\"", "a.toml"),
        ("log.level = \"warn\"", "environment WAVEGATE__LOG__LEVEL"),
        ("manifests.sscc_prefix = \"0614142\"", "--set manifests.sscc_prefix"),
        ("http.listen = \"127.0.0.1:8080\"", "default"),
        ("warehouses.2.code = \"RNO3\"", "default"),
        ("warehouses.1.wms.credits = 500", "default"),
    ] {
        let line =
            text.lines().find(|l| l.starts_with(setting)).unwrap_or_else(|| panic!("{setting}: {text}"));
        assert!(line.ends_with(&format!("# {source}")), "{line}");
    }
}

#[test]
fn the_default_file_in_the_repository_is_what_the_program_has_built_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml");
    let built_in = out(&run(dir.path(), &["config", "show"]));
    let read = out(&run(dir.path(), &["config", "show", "--config", file]));
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|l| l.split("  # ").next().unwrap_or(l).trim_end().to_owned()).collect()
    };
    assert_eq!(values(&built_in), values(&read));
    assert!(values(&built_in).len() > 40);
}

#[test]
fn completions_are_printed_and_a_closed_pipe_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(dir.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains("wavegate"));
    }
    let mut command = wavegate();
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let status = wait_bounded(&mut child, Duration::from_secs(20));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_second_process_on_the_same_directory_ends_with_3() {
    let server = TestServer::start();
    let second = run(server.dir().path(), &["serve", "--set", "http.listen=127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(3), "{}", err(&second));
    assert!(err(&second).contains("held by another process"), "{}", err(&second));
    assert_eq!(out(&second), "", "it never said that it listens");
    let check = run(server.dir().path(), &["store", "check"]);
    assert_eq!(check.status.code(), Some(3), "{}", err(&check));
}

#[test]
fn a_start_that_would_change_a_partition_is_refused_with_2() {
    let mut server = TestServer::start();
    assert_eq!(server.term().code(), Some(0), "{}", server.log());
    let file = server.dir().path().join("moved.toml");
    let mut moved = std::fs::File::create(file).unwrap();
    for (code, partition) in [("ATL1", 1), ("DFW2", 3), ("RNO3", 2)] {
        writeln!(moved, "[[warehouses]]\ncode = \"{code}\"\npartition = {partition}").unwrap();
    }
    drop(moved);
    let args = ["serve", "--set", "http.listen=127.0.0.1:0", "--config", "moved.toml"];
    let output = run(server.dir().path(), &args);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("DFW2"), "{}", err(&output));
    // The refusal has changed nothing.
    server.restart();
}

#[test]
fn a_taken_port_is_a_failure_that_names_it() {
    let server = TestServer::start();
    let address = server.url.trim_start_matches("http://").to_owned();
    let other = tempfile::tempdir().unwrap();
    let output = run(other.path(), &["serve", "--set", &format!("http.listen={address}")]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains(&address), "{}", err(&output));
}

#[test]
fn sigterm_ends_an_idle_server_with_0_and_its_store_checks() {
    let mut server = TestServer::start();
    assert!(server.log().is_empty() || server.log().contains("durability fsync"), "{}", server.log());
    assert_eq!(server.term().code(), Some(0), "{}", server.log());
    let check = run(server.dir().path(), &["store", "check"]);
    assert_eq!(check.status.code(), Some(0), "{}", err(&check));
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_checking_it() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["store", "check"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!dir.path().join("data").exists());
}

#[test]
fn submit_sends_takes_replays_and_names_what_was_refused() {
    let server = TestServer::start();
    let order = |reference: &str| {
        format!(
            "{{\"reference\":\"{reference}\",\"warehouse\":\"ATL1\",\"service_level\":\"ground\",\"ship_to\":\
             {{\"name\":\"A\",\"lines\":[\"1 Main St\"],\"city\":\"Atlanta\",\"country\":\"US\"}},\
             \"lines\":[{{\"line\":1,\"sku\":\"X\",\"quantity\":1}}]}}"
        )
    };
    let dir = server.dir();
    std::fs::write(dir.path().join("good.json"), format!("[{},\n{}]", order("A-1"), order("A-2"))).unwrap();
    let url = server.url.clone();
    for _ in 0..2 {
        let output = run(dir.path(), &["submit", "good.json", "--url", &url]);
        assert_eq!(output.status.code(), Some(0), "{}{}", out(&output), err(&output));
        assert!(out(&output).starts_with("2 orders: "), "{}", out(&output));
    }
    let mixed = format!("{}\n{{\"reference\":\"B-1\"}}\nnonsense\n{}\n", order("A-3"), order("A-4"));
    std::fs::write(dir.path().join("mixed.ndjson"), mixed).unwrap();
    let output = run(dir.path(), &["submit", "mixed.ndjson", "--url", &url]);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    for part in
        ["line 2 \"B-1\": validation_failed", "/service_level", "line 3: not JSON", "4 orders: ", "2 refused"]
    {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_backup_of_a_live_store_is_a_data_directory() {
    let server = TestServer::start();
    let copy = run(server.dir().path(), &["store", "backup", "copy"]);
    assert_eq!(copy.status.code(), Some(0), "{}", err(&copy));
    let check = run(server.dir().path(), &["store", "check", "--set", "store.embedded.data_dir=copy"]);
    assert_eq!(check.status.code(), Some(0), "{}", err(&check));
    let again = run(server.dir().path(), &["store", "backup", "copy"]);
    assert_eq!(again.status.code(), Some(1), "a backup overwrites nothing");
    let none = run(server.dir().path(), &["store", "backup", "x", "--set", "store.embedded.data_dir=none"]);
    assert_eq!(none.status.code(), Some(3), "{}", err(&none));
}

#[test]
fn the_demo_ships_everything_although_a_pipeline_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["demo", "--orders", "200", "--seed", "3", "--crash", "--exit"]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", err(&output));
    assert!(text.starts_with("listening on http://127.0.0.1:"), "{text}");
    assert!(text.lines().last().unwrap_or("").starts_with("200 accepted, 200 shipped, 0 lost in "), "{text}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left where it was started");
}

/// A warehouse with a WMS of kind "http", as one `--set`.
fn http_wms(fields: &str) -> String {
    format!("warehouses=[{{code=\"ATL1\",partition=1,wms={{kind=\"http\",{fields}}}}}]")
}

#[test]
fn a_wms_over_http_needs_address_and_key_and_has_nothing_of_the_simulation() {
    let dir = tempfile::tempdir().unwrap();
    let good = "url=\"http://127.0.0.1:1/wms\",key=\"wms-secret-0123456789\"";
    let check = |fields: &str| run(dir.path(), &["config", "check", "--set", &http_wms(fields)]);
    assert_eq!(check(good).status.code(), Some(0), "{}", err(&check(good)));
    for (fields, parts) in [
        ("credits=5", &["needs `url`", "needs `key`", "warehouses.0.wms"][..]),
        (&format!("{good},pick=\"1s\""), &["warehouses.0.wms.pick", "\"simulated\""]),
        (&good.replace("http:", "ftp:"), &["warehouses.0.wms.url", "ftp://127.0.0.1:1/wms", "http or https"]),
        (&good.replace("/wms\"", "/wms?a=1\""), &["warehouses.0.wms.url", "query"]),
        (&good.replace("wms-secret-0123456789", "secret"), &["warehouses.0.wms.key", "16 to 128"]),
        (
            &good.replace("\"wms-secret-0123456789\"", "424242424242424242"),
            &["warehouses.0.wms.key", "16 to 128"],
        ),
        (&good.replace("127", "ada:secret@127"), &["warehouses.0.wms.url", "without user"]),
        (&format!("{good},keys=1"), &["warehouses.0.wms.keys", "`key`"]),
    ] {
        let output = check(fields);
        let text = err(&output);
        assert_eq!(output.status.code(), Some(2), "{fields}: {text}");
        for part in parts {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(!text.contains("secret") && !text.contains("4242"), "{text}");
    }
    let simulated = "warehouses=[{code=\"ATL1\",partition=1,wms={url=\"http://x\"}}]";
    let text = err(&run(dir.path(), &["config", "check", "--set", simulated]));
    assert!(text.contains("warehouses.0.wms.url") && text.contains("\"http\""), "{text}");
}

#[test]
fn the_key_of_a_wms_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let fields = "url=\"http://127.0.0.1:1/wms\",key=\"wms-secret-0123456789\",credits=7";
    let output = run(dir.path(), &["config", "show", "--set", &http_wms(fields)]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for setting in [
        "warehouses.0.wms.key = \"(hidden)\"",
        "warehouses.0.wms.url = \"http://127.0.0.1:1/wms\"",
        "warehouses.0.wms.credits = 7",
        "warehouses.0.wms.wave_max = 50",
    ] {
        assert!(text.lines().any(|l| l.starts_with(setting)), "{setting}: {text}");
    }
    assert!(!text.contains("secret") && !text.contains("wms.pick"), "{text}");
    let server = TestServer::start_with(&[&http_wms(fields), "log.level=trace"]);
    assert!(!server.log().contains("secret"), "{}", server.log());
}
