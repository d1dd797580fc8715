//! Reads the layers, fills in what a list entry leaves out, and parses; reports every fault.
//!
//! The parser stops at its first fault. So that a user sees all of them at once, what is faulty
//! is replaced by a value that works (or taken away, when it is unknown) and parsed again.

use figment::error::{Actual, Error, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Tag, Value};
use figment::{Figment, Profile, Provider};

use super::fault::{Fault, Faults, nearest};
use super::{DEFAULTS, Settings, Sources, Wms, WmsKind, check};

/// The most faults that one run reports: past it a file is of another program.
const FAULTS_MAX: usize = 50;

/// What an entry of `[[warehouses]]` gets for what it leaves out.
const WAREHOUSE: &str = r#"
timezone = "UTC"
backlog_max = 100000
services = ["ground", "express", "economy", "freight", "same_day", "next_day", "two_day"]
cut_offs = {}
carriers = {}
[wms]
kind = "simulated"
wave_max = 50
credits = 500
pick = "200ms"
pack = "100ms"
depart = "1s"
short_pick_rate = 0.0
damage_rate = 0.0
reject_rate = 0.0
refuse_rate = 0.0
forget_rate = 0.0
silent_rate = 0.0
late_rate = 0.0
repeat_rate = 0.0
reorder_rate = 0.0
die_after = 0
"#;

/// What the `wms` of such an entry gets when it is of kind "http"; url and key are the user's.
const HTTP_WMS: &str = "wave_max = 50\ncredits = 500";

/// The simulated WMS that a warehouse has when nothing is said about it.
///
/// # Errors
/// Only if the template were no settings, which a test rules out.
pub(crate) fn simulated_wms() -> Result<Wms, Box<Error>> {
    Figment::from(Toml::string(WAREHOUSE)).extract_inner("wms").map_err(Box::new)
}

/// The settings in force and where each was set.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Parsed.
    pub(crate) settings: Settings,
    /// As written, complete, for display.
    pub(super) values: Value,
    /// Names the source of a value by its tag.
    pub(super) layers: Figment,
}

impl Loaded {
    /// True when no user has set what stands at `key`.
    pub(crate) fn is_default(&self, key: &str) -> bool {
        at(&self.values, &[key]).is_none_or(|value| self.source(value.tag()) == "default")
    }

    /// Where a value was set.
    pub(super) fn source(&self, tag: Tag) -> String {
        source(&self.layers, tag).unwrap_or_else(|| "default".into())
    }
}

fn source(layers: &Figment, tag: Tag) -> Option<String> {
    layers.get_metadata(tag).map(|metadata| metadata.name.to_string())
}

/// Reads and parses everything.
///
/// # Errors
/// All faults that were found.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let missing: Vec<Fault> = sources.files.iter().filter_map(|file| unreadable(file)).collect();
    if !missing.is_empty() {
        return Err(Faults(missing));
    }
    let layers = sources.figment();
    let mut profiles =
        layers.data().map_err(|e| Faults(e.into_iter().map(|e| syntax(&layers, &e)).collect()))?;
    let mut values = Value::from(profiles.remove(&Profile::Default).unwrap_or_default());
    complete(&mut values);
    let (settings, mut faults) = parse(&layers, &values);
    if let Some(settings) = settings {
        let mut contradictions = Vec::new();
        let of = |path: &[&str]| at(&values, path).and_then(|v| source(&layers, v.tag()));
        check::check(&settings, of, &mut contradictions);
        // What contradicts a mended value contradicts nothing that the user wrote.
        contradictions.retain(|c| !faults.iter().any(|f| entry(&f.key) == entry(&c.key)));
        faults.append(&mut contradictions);
        if faults.is_empty() {
            return Ok(Loaded { settings, values, layers });
        }
    }
    Err(Faults(faults))
}

/// The section or list entry that a key belongs to.
fn entry(key: &str) -> &str {
    let end = key.match_indices('.').nth(1).map_or(key.len(), |(i, _)| i);
    &key[..end]
}

fn unreadable(file: &std::path::Path) -> Option<Fault> {
    let detail = match std::fs::read_to_string(file) {
        Ok(_) => return None,
        Err(e) => format!("{}: cannot be read: {e}", file.display()),
    };
    Some(Fault { key: String::new(), source: None, detail, hint: Some("see --config".into()) })
}

/// A file that is not TOML.
fn syntax(layers: &Figment, error: &Error) -> Fault {
    let named = error.metadata.as_ref().map(|m| m.name.to_string());
    let source = named.or_else(|| layers.metadata().last().map(|m| m.name.to_string()));
    let detail = format!("is not TOML: {}", error.kind.to_string().trim_end());
    Fault { key: String::new(), source, detail, hint: None }
}

/// Fills in what entries of `[[warehouses]]` leave out.
fn complete(values: &mut Value) {
    let read = |text| Toml::string(text).data().ok().and_then(|data| data.into_values().next());
    let (Some(template), Some(http)) = (read(WAREHOUSE), read(HTTP_WMS)) else { return };
    let Value::Dict(_, root) = values else { return };
    let Some(Value::Array(_, warehouses)) = root.get_mut("warehouses") else { return };
    for warehouse in warehouses {
        if let Value::Dict(_, entry) = warehouse {
            if let Some(Value::Dict(_, wms)) = entry.get_mut("wms")
                && wms.get("kind").and_then(Value::as_str) == Some(WmsKind::Http.as_str())
            {
                underlay(wms, &http);
                let rest = template.iter().filter(|(key, _)| *key != "wms");
                underlay(entry, &rest.map(|(key, value)| (key.clone(), value.clone())).collect());
                continue;
            }
            underlay(entry, &template);
        }
    }
}

fn underlay(entry: &mut Dict, template: &Dict) {
    for (key, default) in template {
        match (entry.get_mut(key), default) {
            // A table of rates and times is completed; a map of services is the user's alone.
            (Some(Value::Dict(_, inner)), Value::Dict(_, default)) if !default.is_empty() => {
                underlay(inner, default);
            }
            (Some(_), _) => {}
            (None, default) => {
                entry.insert(key.clone(), default.clone());
            }
        }
    }
}

/// Parses again and again, each time with the last fault mended.
fn parse(layers: &Figment, values: &Value) -> (Option<Settings>, Vec<Fault>) {
    let mut values = values.clone();
    let mut faults = Vec::new();
    while faults.len() < FAULTS_MAX {
        let error = match values.deserialize::<Settings>() {
            Ok(settings) => return (Some(settings), faults),
            Err(error) => error,
        };
        let mut path: Vec<&str> = error.path.iter().map(String::as_str).collect();
        faults.push(describe(layers, &values, &path, &error.kind));
        let mended = match &error.kind {
            Kind::UnknownField(..) => replace(&mut values, &path, None),
            Kind::MissingField(field) => {
                path.push(field);
                let fallback = fallback(&path);
                fallback.is_some() && replace(&mut values, &path, fallback)
            }
            _ => {
                let fallback = fallback(&path);
                // What does not help once does not help again.
                at(&values, &path) != fallback.as_ref() && replace(&mut values, &path, fallback)
            }
        };
        if !mended {
            break;
        }
    }
    (None, faults)
}

/// A value that certainly parses, so that the faults behind this one are found as well.
fn fallback(path: &[&str]) -> Option<Value> {
    let toml = |text: &str| Some(Value::from(Toml::string(text).data().ok()?.remove(&Profile::Default)?));
    match path {
        ["warehouses", i, "code"] => Some(Value::from(format!("W{i}"))),
        ["warehouses", i, "partition"] => Some(Value::from(i.parse::<u16>().ok()?)),
        ["warehouses", _, rest @ ..] => at(&toml(WAREHOUSE)?, rest).cloned(),
        ["keys", _, "role"] => Some(Value::from("operator")),
        ["keys", i, "sha256"] => Some(Value::from(format!("{i:0>64}"))),
        _ => at(&toml(DEFAULTS)?, path).cloned(),
    }
}

fn describe(layers: &Figment, values: &Value, path: &[&str], kind: &Kind) -> Fault {
    let value = at(values, path);
    let source = value.and_then(|v| source(layers, v.tag()));
    let (detail, hint) = match kind {
        Kind::UnknownField(field, known) => {
            let near = nearest(field, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let all = || format!("known here: {}", known.join(", "));
            ("no such setting".into(), Some(near.unwrap_or_else(all)))
        }
        Kind::UnknownVariant(found, known) => (
            format!(
                "found {found:?}, expected {}",
                known.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(" or ")
            ),
            nearest(found, known.iter().copied()).map(|near| format!("did you mean {near:?}?")),
        ),
        Kind::InvalidType(Actual::Map, expected) if expected == "a sequence" => (
            "found a table, expected a list".into(),
            Some("a list is set as a whole, its entries have no names".into()),
        ),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            (format!("found {}, expected {expected}", shown(found)), None)
        }
        Kind::MissingField(field) => (format!("`{field}` is missing"), None),
        // A parser's own words; figment's wrapper adds nothing to them.
        Kind::Message(text) => (text.clone(), None),
        other => (other.to_string(), None),
    };
    Fault { key: path.join("."), source, detail, hint }
}

fn shown(found: &Actual) -> String {
    match found {
        Actual::Unsigned(n) => format!("number {n}"),
        Actual::Signed(n) => format!("number {n}"),
        Actual::Float(n) => format!("number {n}"),
        Actual::Map => "a table".into(),
        Actual::Seq => "a list".into(),
        other => other.to_string(),
    }
}

/// The value at a path; a number names an entry of a list.
pub(super) fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    match value {
        Value::Dict(_, dict) => at(dict.get(*first)?, rest),
        Value::Array(_, items) => at(items.get(first.parse::<usize>().ok()?)?, rest),
        _ => None,
    }
}

/// Puts `new` at a path, or takes away what is there. False when there is nothing to replace.
fn replace(value: &mut Value, path: &[&str], new: Option<Value>) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    let index = first.parse::<usize>().ok();
    match value {
        Value::Dict(_, dict) if rest.is_empty() => match new {
            Some(new) => {
                dict.insert((*first).to_owned(), new);
                true
            }
            None => dict.remove(*first).is_some(),
        },
        Value::Dict(_, dict) => dict.get_mut(*first).is_some_and(|inner| replace(inner, rest, new)),
        // Entries of a list keep their numbers: a later fault names the entry that the user sees.
        Value::Array(_, items) => match index.and_then(|i| items.get_mut(i)) {
            Some(item) if rest.is_empty() => match new {
                Some(new) => {
                    *item = new;
                    true
                }
                None => false,
            },
            Some(item) => replace(item, rest, new),
            None => false,
        },
        _ => false,
    }
}
