//! What no single value shows: settings that contradict each other.

use std::collections::BTreeMap;
use std::time::Duration;

use humantime_serde::re::humantime;

use super::fault::{Fault, nearest};
use super::{Key, KeyRole, Redis, RedisUrl, Settings, Warehouse, WmsKind};

/// Adds what contradicts itself to `faults`; `source` tells where the value at a path was set.
pub(super) fn check(
    settings: &Settings,
    source: impl Fn(&[&str]) -> Option<String>,
    faults: &mut Vec<Fault>,
) {
    let mut fault = |path: &[&str], detail: String, hint: Option<String>| {
        faults.push(Fault { key: path.join("."), source: source(path), detail, hint });
    };
    warehouses(&settings.warehouses, &mut fault);
    for (i, warehouse) in settings.warehouses.iter().enumerate() {
        wms(warehouse.wms.kind, &i.to_string(), &|path| source(path).is_some(), &mut fault);
    }
    keys(settings, &mut fault);
    redis(&settings.store.redis, &mut fault);
    let address = settings.http.listen;
    if settings.keys.is_empty() && !address.ip().is_loopback() {
        let detail = format!("found {address}, expected a loopback address while no key is configured");
        let hint = "everybody who reaches the port would be an operator; make a key with `wavegate key new`";
        fault(&["http", "listen"], detail, Some(hint.into()));
    }
}

/// What can be meant and hardly is: said at the start and by `config check`, and obeyed.
pub(crate) fn doubts(settings: &Settings) -> Vec<String> {
    let whole = |d: Duration| humantime::format_duration(d).to_string();
    let (events, transactions) = (settings.events.retention, settings.transactions.retention);
    let mut doubts = Vec::new();
    if events > transactions {
        doubts.push(format!(
            "events.retention is {} and transactions.retention {}: an event is not kept longer than its transaction",
            whole(events),
            whole(transactions)
        ));
    }
    doubts
}

fn redis(redis: &Redis, fault: &mut impl FnMut(&[&str], String, Option<String>)) {
    let urls = ["store", "redis", "urls"];
    match (redis.cluster, redis.urls.len()) {
        (false, 2..) => {
            let hint = "they are some of a cluster's? then store.redis.cluster = true";
            fault(&urls, format!("found {} addresses, expected one", redis.urls.len()), Some(hint.into()));
        }
        (true, _) if redis.urls.iter().any(RedisUrl::has_database) => {
            fault(&urls, "found a database, expected none: a cluster has only one".into(), None);
        }
        (true | false, _) => {}
    }
    let secure = redis.urls.iter().filter(|url| url.is_secure()).count();
    if secure != 0 && secure != redis.urls.len() {
        fault(&urls, "found redis:// and rediss://, expected one of them for all".into(), None);
    }
    let files = [&redis.ca_file, &redis.cert_file, &redis.key_file];
    if secure == 0 && files.iter().any(|file| file.is_some()) {
        let hint = "ca_file, cert_file and key_file are for TLS";
        fault(&urls, "found redis://, expected rediss://".into(), Some(hint.into()));
    }
    if redis.cert_file.is_some() != redis.key_file.is_some() {
        let path = ["store", "redis", "cert_file"];
        fault(&path, "found a certificate or a key alone, expected both or neither".into(), None);
    }
}

fn warehouses(all: &[Warehouse], fault: &mut impl FnMut(&[&str], String, Option<String>)) {
    if all.is_empty() {
        fault(&["warehouses"], "found no warehouse, expected one at least".into(), None);
    }
    let (mut codes, mut partitions) = (BTreeMap::new(), BTreeMap::new());
    for (i, warehouse) in all.iter().enumerate() {
        let index = i.to_string();
        if let Some(first) = codes.insert(&warehouse.code, i) {
            let detail = format!("found {:?}, which warehouses.{first} has as well", warehouse.code);
            fault(&["warehouses", &index, "code"], detail, None);
        }
        if let Some(first) = partitions.insert(warehouse.partition, i) {
            let detail = format!("found {}, which warehouses.{first} has as well", warehouse.partition);
            fault(&["warehouses", &index, "partition"], detail, None);
        }
        services(warehouse, &index, fault);
    }
}

/// What a WMS of kind "http" has and no other, and the reverse.
const HTTP_ONLY: [&str; 2] = ["url", "key"];
const SIMULATED_ONLY: [&str; 13] = [
    "pick",
    "pack",
    "depart",
    "short_pick_rate",
    "damage_rate",
    "reject_rate",
    "refuse_rate",
    "forget_rate",
    "silent_rate",
    "late_rate",
    "repeat_rate",
    "reorder_rate",
    "die_after",
];

/// Each kind of WMS with the fields of its own, and with none of another's.
fn wms(
    kind: WmsKind,
    index: &str,
    is_set: &dyn Fn(&[&str]) -> bool,
    fault: &mut impl FnMut(&[&str], String, Option<String>),
) {
    let (others, owner) = match kind {
        WmsKind::Simulated => (&HTTP_ONLY[..], WmsKind::Http),
        WmsKind::Http => (&SIMULATED_ONLY[..], WmsKind::Simulated),
    };
    for field in others.iter().filter(|field| is_set(&["warehouses", index, "wms", field])) {
        let detail = format!("only a WMS of kind {:?} has it", owner.as_str());
        fault(&["warehouses", index, "wms", field], detail, None);
    }
    if kind == WmsKind::Http {
        for field in HTTP_ONLY.iter().filter(|field| !is_set(&["warehouses", index, "wms", field])) {
            let detail = format!("a WMS of kind \"http\" needs `{field}`");
            fault(&["warehouses", index, "wms"], detail, None);
        }
    }
}

fn services(warehouse: &Warehouse, index: &str, fault: &mut impl FnMut(&[&str], String, Option<String>)) {
    let known = &warehouse.services;
    let blank = |s: &String| s.is_empty() || s.len() > 64 || s.chars().any(char::is_control);
    if known.is_empty() || known.iter().any(blank) {
        let detail = "expected one service at least, each of 1 to 64 characters".to_owned();
        fault(&["warehouses", index, "services"], detail, None);
    }
    if let Some(twice) = known.iter().enumerate().find(|(i, s)| known[..*i].contains(s)).map(|(_, s)| s) {
        fault(&["warehouses", index, "services"], format!("names {twice:?} twice"), None);
    }
    let cut_offs = warehouse.cut_offs.keys().map(|service| ("cut_offs", service));
    let carriers = warehouse.carriers.keys().map(|service| ("carriers", service));
    for (table, service) in cut_offs.chain(carriers) {
        if !known.contains(service) {
            let near = nearest(service, known.iter().map(String::as_str));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its services: {}", known.join(", ")),
            };
            let detail = format!("{} has no such service", warehouse.code);
            fault(&["warehouses", index, table, service], detail, Some(hint));
        }
    }
    for (service, carrier) in &warehouse.carriers {
        if blank(carrier) {
            let detail = "expected a carrier of 1 to 64 characters".to_owned();
            fault(&["warehouses", index, "carriers", service], detail, None);
        }
    }
}

fn keys(settings: &Settings, fault: &mut impl FnMut(&[&str], String, Option<String>)) {
    let mut digests = BTreeMap::new();
    for (i, key) in settings.keys.iter().enumerate() {
        let index = i.to_string();
        if let Some(first) = digests.insert(key.sha256, i) {
            let detail = format!("is the digest of keys.{first} as well");
            fault(
                &["keys", &index, "sha256"],
                detail,
                Some("make another key with `wavegate key new`".into()),
            );
        }
        key_names(key, &index, settings, fault);
    }
}

fn key_names(
    key: &Key,
    index: &str,
    all: &Settings,
    fault: &mut impl FnMut(&[&str], String, Option<String>),
) {
    let (wants_client, wants_warehouses) = match key.role {
        KeyRole::Client => (true, false),
        KeyRole::Wms => (false, true),
        KeyRole::Operator => (false, false),
    };
    match (&key.client, wants_client) {
        (None, true) => fault(&["keys", index], "a key of role \"client\" needs `client`".into(), None),
        (Some(_), false) => {
            fault(&["keys", index, "client"], "only a key of role \"client\" has one".into(), None);
        }
        (Some(_), true) | (None, false) => {}
    }
    match (key.warehouses.is_empty(), wants_warehouses) {
        (true, true) => fault(&["keys", index], "a key of role \"wms\" needs `warehouses`".into(), None),
        (false, false) => {
            fault(&["keys", index, "warehouses"], "only a key of role \"wms\" has them".into(), None);
        }
        (true, false) | (false, true) => {}
    }
    for (n, code) in key.warehouses.iter().enumerate() {
        if !all.warehouses.iter().any(|w| w.code == *code) {
            let codes: Vec<&str> = all.warehouses.iter().map(|w| w.code.as_str()).collect();
            let detail = format!("found {code:?}, expected one of {}", codes.join(", "));
            fault(&["keys", index, "warehouses", &n.to_string()], detail, None);
        }
    }
}
