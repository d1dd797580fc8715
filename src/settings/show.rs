//! Every setting, its value and where it came from, as `wavegate config show` prints it.

use figment::value::{Empty, Num, Value};

use super::Loaded;

/// One line a setting, in TOML's dotted form: `http.listen = "127.0.0.1:8080"  # default`.
pub(crate) fn show(loaded: &Loaded) -> String {
    let mut lines = Vec::new();
    walk(loaded, String::new(), &loaded.values, &mut lines);
    let width = lines.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or(0).min(72);
    let line = |(setting, source): (String, String)| format!("{setting:width$}  # {source}\n");
    lines.into_iter().map(line).collect()
}

fn walk(loaded: &Loaded, path: String, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Dict(_, dict) if !dict.is_empty() => {
            for (key, value) in dict {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(loaded, path, value, lines);
            }
        }
        // A list of tables is shown entry by entry.
        Value::Array(_, items) if items.iter().any(|item| matches!(item, Value::Dict(..))) => {
            for (i, item) in items.iter().enumerate() {
                walk(loaded, format!("{path}.{i}"), item, lines);
            }
        }
        leaf => {
            let secret = is_secret(&path) || path == "store.redis.urls" && written(leaf).contains('@');
            let shown = if secret { "\"(hidden)\"".to_owned() } else { written(leaf) };
            lines.push((format!("{path} = {shown}"), loaded.source(leaf.tag())));
        }
    }
}

/// Keys that stand in the settings in clear.
fn is_secret(path: &str) -> bool {
    path.starts_with("warehouses.") && path.ends_with(".wms.key")
}

fn written(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{:?}", c.to_string()),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(_, n) => number(n),
        Value::Empty(_, Empty::None | Empty::Unit) => "\"\"".into(),
        Value::Dict(_, dict) => {
            let pairs: Vec<_> = dict.iter().map(|(k, v)| format!("{k} = {}", written(v))).collect();
            if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
        Value::Array(_, items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
    }
}

fn number(n: &Num) -> String {
    match (n.to_u128(), n.to_i128(), n.to_f64()) {
        (Some(n), _, _) => n.to_string(),
        (None, Some(n), _) => n.to_string(),
        (None, None, Some(n)) => format!("{n:?}"),
        (None, None, None) => "?".into(),
    }
}
