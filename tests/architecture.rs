//! The rules of the repository, checked on the text of its files: layers, deliberate absences,
//! shape. Where a rule makes the code worse, change the rule here and say why in the commit.

use std::fs;
use std::path::{Path, PathBuf};

/// A layer of the engine and what it may name of the others.
const LAYERS: [(&str, &[&str]); 8] = [
    ("domain", &["domain"]),
    ("wire", &["wire", "domain"]),
    ("ports", &["ports", "wire", "domain"]),
    ("store", &["store", "ports", "wire", "domain"]),
    ("wms", &["wms", "ports", "wire", "domain"]),
    ("webhooks", &["webhooks", "ports", "wire", "domain"]),
    // Only `store::digest` is shared with backends.
    ("actors", &["actors", "store", "ports", "wire", "domain"]),
    ("engine", &["engine", "actors", "store", "ports", "wire", "domain"]),
];

/// The store's backends. Nothing to their left names one, and they do not name each other.
const BACKENDS: [&str; 3] = ["embedded", "memory", "redis"];

/// The longest that a file may be before its tests, in lines.
const LINES_MAX: usize = 400;

/// Files that are longer, and why.
const LONGER: [(&str, &str); 1] = [("actors/src/ports/store.rs", "one trait and the types of its calls")];

/// A file of the repository without its tests and without its comments.
struct Source {
    path: String,
    text: String,
    code: Vec<String>,
}

impl Source {
    fn is_under(&self, folder: &str) -> bool {
        self.path.starts_with(&format!("{folder}/")) || self.path == format!("{folder}.rs")
    }

    /// True when the code names `word`, standing by itself.
    fn names(&self, word: &str) -> bool {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        self.code.iter().any(|line| {
            line.match_indices(word).any(|(i, _)| {
                let before = line[..i].chars().next_back().is_none_or(|c| !part(c));
                let after = line[i + word.len()..].chars().next().is_none_or(|c| !part(c));
                before && after
            })
        })
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, into: &mut Vec<Source>) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let path = path
                .strip_prefix(root())
                .expect("a path in the repository")
                .to_string_lossy()
                .replace('\\', "/");
            let code = before_tests(&text).filter(|l| !l.trim_start().starts_with("//"));
            let code = code.map(str::to_owned).collect();
            into.push(Source { path, text, code });
        }
    }
}

fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        let line = lines.next()?;
        // `#[cfg(test)] mod tests;` names another file and ends nothing.
        let opens_tests = |l: &&str| l.starts_with("mod ") && l.ends_with('{');
        (line != "#[cfg(test)]" || !lines.peek().is_some_and(opens_tests)).then_some(line)
    })
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut all = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut all);
    }
    assert!(!all.is_empty());
    all
}

/// Files that only tests compile.
fn is_test(source: &Source) -> bool {
    let name = source.path.rsplit('/').next().unwrap_or("");
    matches!(name, "tests.rs" | "contract.rs" | "golden.rs" | "properties.rs" | "confirmation_table.rs")
        || name.ends_with("_tests.rs")
        || source.path.contains("/sim/")
        || source.path.contains("/tests/")
        || source.path.starts_with("tests/")
}

#[test]
fn a_layer_names_only_what_is_to_its_left() {
    let engine = sources(&["actors/src"]);
    let mut wrong = Vec::new();
    for (layer, may_name) in LAYERS {
        let others = LAYERS.iter().map(|(other, _)| *other).filter(|other| !may_name.contains(other));
        for other in others.chain(["sim"]) {
            let name = format!("crate::{other}");
            let of_layer =
                engine.iter().filter(|s| s.is_under(&format!("actors/src/{layer}")) && !is_test(s));
            wrong.extend(of_layer.filter(|s| s.names(&name)).map(|s| format!("{}: {name}", s.path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_knows_no_clock_no_io_no_async_and_no_json() {
    let absent = [
        "tokio",
        "actix",
        "actix_rt",
        "serde_json",
        "Utc",
        "async",
        "std::fs",
        "std::net",
        "rand",
        "tracing",
        "SystemTime",
        "Instant",
    ];
    let domain = sources(&["actors/src/domain"]);
    let wrong: Vec<_> = domain
        .iter()
        .flat_map(|s| absent.iter().filter(|w| s.names(w)).map(|w| format!("{}: {w}", s.path)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn actors_name_no_backend_and_backends_not_each_other() {
    let engine = sources(&["actors/src"]);
    let mut wrong = Vec::new();
    for source in engine.iter().filter(|s| !is_test(s)) {
        for backend in BACKENDS {
            let its_own = source.is_under(&format!("actors/src/store/{backend}"))
                || source.path == "actors/src/store/mod.rs";
            let named = [
                format!("store::{backend}"),
                format!("super::{backend}"),
                format!("crate::store::{backend}"),
            ];
            if !its_own && named.iter().any(|n| source.names(n)) {
                wrong.push(format!("{}: {backend}", source.path));
            }
        }
    }
    let lmdb = engine.iter().filter(|s| s.names("heed") && !s.is_under("actors/src/store/embedded"));
    wrong.extend(lmdb.map(|s| format!("{}: heed", s.path)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn http_knows_only_the_door_of_the_engine_its_wire_and_its_domain() {
    let mut wrong = Vec::new();
    for source in sources(&["src/http"]) {
        for other in ["wavegate_engine::store", "wavegate_engine::wms", "wavegate_engine::sim", "actix::"] {
            if source.names(other) {
                wrong.push(format!("{}: {other}", source.path));
            }
        }
        for other in ["startup", "shutdown", "settings", "cli", "telemetry", "bench"] {
            if source.names(&format!("crate::{other}")) {
                wrong.push(format!("{}: {other}", source.path));
            }
        }
    }
    for source in sources(&["src"]).iter().filter(|s| !s.is_under("src/cli") && s.path != "src/main.rs") {
        if source.names("crate::cli") {
            wrong.push(format!("{}: cli", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_names_the_seeded_world_but_tests() {
    let all = sources(&["actors/src", "src"]);
    let named = |s: &&Source| s.names("crate::sim") || s.names("wavegate_engine::sim");
    let wrong: Vec<_> = all.iter().filter(|s| !is_test(s)).filter(named).map(|s| &s.path).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn time_and_randomness_come_through_ports_in_the_engine() {
    let exempt = ["actors/src/ports"];
    let outside = |s: &&Source| !exempt.iter().any(|e| s.is_under(e)) && !is_test(s);
    let mut wrong = Vec::new();
    for source in sources(&["actors/src"]).iter().filter(outside) {
        for word in ["Utc::now", "SystemTime::now", "Uuid::new_v4", "rand::rng", "thread_rng"] {
            if source.names(word) {
                wrong.push(format!("{}: {word}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_owns() {
    let all = sources(&["actors", "src", "tests"]);
    let wrong: Vec<_> = all.iter().filter(|s| !s.text.starts_with("//!")).map(|s| &s.path).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for source in sources(&["actors/src", "src"]).iter().filter(|s| !is_test(s)) {
        let lines = before_tests(&source.text).count();
        let listed = LONGER.iter().any(|(path, _)| *path == source.path);
        // A few lines over are not worth a worse cut.
        if lines > LINES_MAX + LINES_MAX / 10 && !listed {
            wrong.push(format!("{}: {lines} lines", source.path));
        }
        if listed && lines <= LINES_MAX {
            wrong.push(format!("{}: no longer too long, take it off the list", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_unwraps_outside_of_tests() {
    let mut wrong = Vec::new();
    for source in sources(&["actors/src", "src"]).iter().filter(|s| !is_test(s)) {
        for (i, line) in before_tests(&source.text).enumerate() {
            let comment = line.trim_start().starts_with("//");
            if !comment
                && [".unwrap()", "todo!(", "unimplemented!(", "dbg!("].iter().any(|w| line.contains(w))
            {
                wrong.push(format!("{}:{}", source.path, i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_change_log_and_the_licences_are_there() {
    for file in ["CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "deny.toml", "config/default.toml"] {
        assert!(fs::metadata(root().join(file)).is_ok_and(|m| m.len() > 0), "{file}");
    }
}
