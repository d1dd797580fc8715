//! `wavegate submit FILE --url URL`: sends orders or moves from a file.
//!
//! Every command carries its reference, so sending one again is harmless: whatever is unclear
//! after a failure is simply sent again, and so is the whole file after an interruption.

mod input;
mod tally;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;

use self::input::{Item, Items};
use self::tally::Tally;
use super::Failure;
use super::api::{Api, Patience, Reply, is_busy, problem};

/// Orders in one request: half of what a batch may hold, so that a refusal of all is cheap.
const BATCH_MAX: usize = 500;
/// Bytes in one request: well under the 10 MiB that a batch may have.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Requests under way at once: enough that the server never waits for this side.
const BATCHES_MAX: usize = 4;
/// Moves have no batch; so many singles are under way.
const SINGLES_MAX: usize = 64;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Submit {
    /// JSON array, NDJSON or one object; - for standard input
    file: PathBuf,
    /// The server, say http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// The key to call it with
    #[arg(long)]
    key: Option<String>,
    /// The file holds inventory moves, not orders
    #[arg(long)]
    moves: bool,
}

/// Sends everything; a refused command is a failure, after all others were sent.
pub(super) fn run(command: &Submit) -> Result<(), Failure> {
    let api = Api::new(&command.url, command.key.as_deref())?;
    let (file, size) = open(&command.file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Tally::new(if command.moves { "moves" } else { "orders" }, size);
    let sent = runtime.block_on(submit(&api, file, command.moves, &tally));
    tally.finish()?;
    if let Err(failure) = sent {
        let again = "what was accepted is recognised by its reference: run the same command again to go on";
        return Err(Failure::failed(format!("{failure}\n{again}")));
    }
    match tally.refused() {
        0 => Ok(()),
        1 => Err(Failure::failed("1 was refused")),
        n => Err(Failure::failed(format!("{n} were refused"))),
    }
}

type Source = Box<dyn Read + Send>;

fn open(path: &Path) -> Result<(Source, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let name = |e: io::Error| Failure::usage(format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(name)?;
    let meta = file.metadata().map_err(name)?;
    if meta.is_dir() {
        return Err(Failure::usage(format!("{}: is a directory", path.display())));
    }
    Ok((Box::new(file), meta.is_file().then_some(meta.len())))
}

async fn submit(api: &Api, file: Source, moves: bool, tally: &Tally) -> Result<(), Failure> {
    let position = tally.position();
    let (batch_max, parallel) = if moves { (1, SINGLES_MAX) } else { (BATCH_MAX, BATCHES_MAX) };
    let (send, receive) = mpsc::channel(parallel);
    // Reading blocks (a pipe may be slow), so it has a thread; the channel bounds what is ahead.
    let reader = std::thread::spawn(move || read(file, &position, batch_max, &send));
    let batches = futures_util::stream::unfold(receive, async |mut receive| {
        receive.recv().await.map(|batch: Vec<Item>| (batch, receive))
    });
    let sent = batches
        .map(|batch| async move {
            if moves { single_moves(api, batch, tally).await } else { orders(api, batch, tally).await }
        })
        .buffer_unordered(parallel);
    let mut sent = std::pin::pin!(sent);
    while let Some(done) = sent.next().await {
        done?;
        tally.tick();
    }
    match reader.join() {
        Ok(read) => read.map_err(|e| Failure::failed(format!("the file cannot be read on: {e}"))),
        Err(_) => Err(Failure::failed("the file cannot be read on")),
    }
}

/// Counts the bytes that were read, for the progress.
struct Counted<R>(R, Arc<AtomicU64>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(into)?;
        self.1.fetch_add(n.try_into().unwrap_or(0), Ordering::Relaxed);
        Ok(n)
    }
}

fn read(
    file: Source,
    position: &Arc<AtomicU64>,
    batch_max: usize,
    send: &mpsc::Sender<Vec<Item>>,
) -> io::Result<()> {
    let from = BufReader::with_capacity(64 << 10, Counted(file, Arc::clone(position)));
    let mut items = Items::new(from);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(item) = items.next()? {
        let size = item.text.as_ref().map_or(0, String::len);
        if batch.len() == batch_max || (bytes + size > BATCH_BYTES_MAX && !batch.is_empty()) {
            // The other side is gone when sending has failed; there is nothing left to read for.
            if send.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(());
            }
            bytes = 0;
        }
        bytes += size;
        batch.push(item);
    }
    if !batch.is_empty() {
        send.blocking_send(batch).ok();
    }
    Ok(())
}

/// Refuses what is no JSON and gives back the rest.
fn readable(batch: Vec<Item>, tally: &Tally) -> Vec<(u64, String)> {
    let mut good = Vec::new();
    for Item { line, text } in batch {
        match text {
            Ok(text) => good.push((line, text)),
            Err(why) => tally.refuse(line, None, &why),
        }
    }
    good
}

/// Sends a batch, then again what the server was too busy for, until all is decided.
async fn orders(api: &Api, batch: Vec<Item>, tally: &Tally) -> Result<(), Failure> {
    let mut open = readable(batch, tally);
    let mut patience = Patience::new();
    while !open.is_empty() {
        let body: String = open.iter().flat_map(|(_, text)| [text.as_str(), "\n"]).collect();
        let reply = api.post_until_decided("/v1/orders/batch", NDJSON, body).await?;
        let Some(results) = reply.body["results"].as_array() else {
            return undecided(api, open, &reply, tally).await;
        };
        let before = open.len();
        let (busy, why) = sort(&mut open, results, tally)?;
        if busy {
            if open.len() < before {
                patience = Patience::new();
            }
            patience.pause(reply.retry_after, &why).await?;
        }
    }
    Ok(())
}

/// Books the results and leaves in `open` what is to be sent again.
fn sort(open: &mut Vec<(u64, String)>, results: &[Value], tally: &Tally) -> Result<(bool, String), Failure> {
    if results.len() != open.len() {
        let detail = format!("sent {} orders, got {} results", open.len(), results.len());
        return Err(Failure::failed(format!("{detail}: is this a Wavegate server?")));
    }
    let mut again = Vec::new();
    let mut why = String::new();
    for ((line, text), result) in open.drain(..).zip(results) {
        let status = result["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(0);
        let told = problem(&result["problem"]).unwrap_or_else(|| format!("status {status}"));
        match status {
            200 | 202 => tally.accept(result["replayed"].as_bool()),
            busy if is_busy(busy) => {
                why = told;
                again.push((line, text));
            }
            _ => tally.refuse(line, reference(&text).as_deref(), &told),
        }
    }
    let busy = !again.is_empty();
    *open = again;
    Ok((busy, why))
}

/// The server judged the batch as a whole: one by one shows which order it means.
async fn undecided(api: &Api, open: Vec<(u64, String)>, reply: &Reply, tally: &Tally) -> Result<(), Failure> {
    if !matches!(reply.status, 400 | 413 | 422) {
        return Err(Failure::failed(reply.problem()));
    }
    for (line, text) in open {
        single(api, "/v1/orders", line, text, tally).await?;
    }
    Ok(())
}

async fn single_moves(api: &Api, batch: Vec<Item>, tally: &Tally) -> Result<(), Failure> {
    for (line, text) in readable(batch, tally) {
        single(api, "/v1/inventory/moves", line, text, tally).await?;
    }
    Ok(())
}

async fn single(api: &Api, path: &str, line: u64, text: String, tally: &Tally) -> Result<(), Failure> {
    let reply = api.post_until_decided(path, JSON, text.clone()).await?;
    match reply.status {
        200 | 202 => tally.accept(Some(reply.replayed)),
        400 | 403 | 409 | 413 | 422 => tally.refuse(line, reference(&text).as_deref(), &reply.problem()),
        // A wrong key or address fails for all that follow as well.
        _ => return Err(Failure::failed(reply.problem())),
    }
    Ok(())
}

fn reference(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    value["reference"].as_str().map(str::to_owned)
}
