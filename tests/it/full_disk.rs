//! The data directory on a disk that fills: the lanes close in their order before it is full,
//! nothing is half-written, and all goes on when there is room. Needs to mount a small tmpfs, so it
//! runs as root only and says so where it can't.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::door::{Answer, get, order, post, until};
use crate::server::{TestServer, wavegate};

/// The size of the disk: what must stay free for orders (64 MiB), and a little.
const DISK_MIB: u64 = 72;

/// A small disk, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Disk> {
        std::fs::create_dir(at).unwrap();
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.ok().filter(|o| o.status.success()).map(|_| Disk(at.to_owned()))
    }

    /// Puts so much on the disk that this many MiB are free.
    fn leave_mib(&self, mib: u64) {
        let ballast = self.0.join("ballast");
        std::fs::remove_file(&ballast).ok();
        let free = free_mib(&self.0);
        assert!(free >= mib, "{free} MiB are free, {mib} are wanted");
        let mut file = File::create(&ballast).unwrap();
        for _ in 0..free - mib {
            file.write_all(&vec![1; 1 << 20]).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold it.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn free_mib(dir: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-k"]).arg(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse::<u64>().unwrap() / 1_024
}

fn receipt(reference: &str) -> Value {
    json!({"reference": reference, "warehouse": "ATL1", "type": "receipt", "sku": "A", "quantity": 1})
}

async fn cancel(server: &TestServer, id: &str) -> Answer {
    post(server, &format!("/v1/orders/{id}/cancel"), &json!({"reference": format!("c-{id}")})).await
}

/// Posts orders in batches until one is refused; the ids of those that were accepted.
async fn fill(server: &TestServer) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..1_000 {
        let batch: Vec<Value> = (0..100).map(|i| order(&format!("fill-{n}-{i}"))).collect();
        let answer = post(server, "/v1/orders/batch", &json!(batch)).await;
        if answer.status == 503 {
            return ids;
        }
        let results = answer.body["results"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
        let accepted = results.iter().filter_map(|item| item["transaction_id"].as_str());
        ids.extend(accepted.map(str::to_owned));
        if let Some(refused) = results.iter().find(|item| item["status"] != 202) {
            assert_eq!(refused["problem"]["code"], "store_full", "{refused}");
            return ids;
        }
    }
    panic!("100,000 orders fit on a disk of {DISK_MIB} MiB");
}

/// Every event of the feed by its type and subject; their numbers leave none out.
async fn events(server: &TestServer) -> Vec<(String, String)> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let page = get(server, &format!("/v1/events?limit=1000&after={next}")).await;
        let events = page.body["events"].as_array().unwrap_or_else(|| panic!("{}", page.body));
        for event in events {
            assert_eq!(event["feedsequence"], json!(format!("{:020}", all.len() + 1)));
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            all.push((text("type"), text("subject")));
        }
        match page.body["next"].as_str() {
            Some(cursor) if !events.is_empty() => next = cursor.to_owned(),
            Some(_) | None => return all,
        }
    }
}

#[actix_rt::test]
async fn lanes_close_in_their_order_and_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&dir.path().join("disk")) else {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    };
    let data = format!("store.embedded.data_dir={:?}", disk.0.join("data"));
    let mut server = TestServer::start_with(&[&data]);

    let ids = fill(&server).await;
    assert!(ids.len() > 100, "{} orders until the work lane closed", ids.len());
    // All are pulled and wait for stock: what follows is alone with the disk.
    until(&server, &ids[ids.len() - 1], |d| d["state"] == "backordered").await;
    // A batch was refused that one order would still fit beside: well past that bound.
    disk.leave_mib(50);
    let refused = post(&server, "/v1/orders", &order("closed")).await;
    refused.is_problem(503, "store_full");
    assert!(refused.header("retry-after").is_some(), "it says when to come again");
    assert_eq!(post(&server, "/v1/inventory/moves", &receipt("open")).await.status, 202);
    assert_eq!(cancel(&server, &ids[0]).await.status, 202);

    disk.leave_mib(20);
    post(&server, "/v1/inventory/moves", &receipt("closed")).await.is_problem(503, "store_full");
    assert_eq!(cancel(&server, &ids[1]).await.status, 202);

    disk.leave_mib(4);
    cancel(&server, &ids[2]).await.is_problem(503, "store_full");
    assert_eq!(get(&server, &format!("/v1/status/{}", ids[2])).await.status, 200, "reading goes on");
    assert_eq!(get(&server, "/healthz").await.status, 200);

    let grown = format!("remount,size={}m", 4 * DISK_MIB);
    assert!(Command::new("mount").args(["-o", &grown]).arg(&disk.0).status().unwrap().success());
    disk.leave_mib(2 * DISK_MIB);
    let again = post(&server, "/v1/orders", &order("open again")).await;
    assert_eq!(again.status, 202);
    assert_eq!(cancel(&server, &ids[2]).await.status, 202);
    until(&server, again.id(), |d| d["state"] == "backordered").await;
    for cancelled in &ids[..3] {
        until(&server, cancelled, |d| d["state"] == "cancelled").await;
    }
    assert_eq!(post(&server, "/v1/inventory/moves", &receipt("closed")).await.status, 202);

    // What was accepted is there, what was refused left nothing behind.
    for page in ids.chunks(500) {
        let answer = post(&server, "/v1/status/query", &json!({ "ids": page })).await;
        let items = answer.body["items"].as_array().unwrap();
        assert_eq!(items.len(), page.len());
        assert!(items.iter().all(|item| item["state"].is_string()), "{}", answer.body);
    }
    let refused = get(&server, "/v1/orders?reference=closed").await;
    assert_eq!(refused.body["items"], json!([]));
    // Nor in the feed, which has each order that was accepted once.
    let told = events(&server).await;
    let accepted = told.iter().filter(|(kind, _)| kind == "wavegate.order.accepted");
    let mut accepted: Vec<&String> = accepted.map(|(_, subject)| subject).collect();
    assert_eq!(accepted.len(), ids.len() + 1, "those that filled the disk, and the one after it");
    accepted.sort_unstable();
    accepted.dedup();
    assert_eq!(accepted.len(), ids.len() + 1);
    assert_eq!(server.term().code(), Some(0));
    let checked = wavegate().args(["store", "check", "--set", &data]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
