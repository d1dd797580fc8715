//! `wavegate watch [TRANSACTION_ID] --url URL`: follows a feed, or one transaction to its end, in the
//! terminal.

use chrono::{DateTime, Local};
use clap::Args;
use serde_json::Value;

use super::api::Api;
use super::follow::{Follow, Heard};
use super::{Failure, print, tell};

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Follow this transaction from its first event to its end; without it, the whole feed
    transaction: Option<String>,
    /// The server, say http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// The key to call it with
    #[arg(long)]
    key: Option<String>,
    /// Whose feed, where the key does not say it
    #[arg(long)]
    client: Option<String>,
    /// Only these types, each exact or ending in .*
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Go on after this cursor; "earliest" replays what is kept
    #[arg(long, value_name = "CURSOR")]
    from: Option<String>,
    /// Print each event as it came: CloudEvents, one a line
    #[arg(long)]
    json: bool,
}

/// Follows until the transaction is done, or for ever.
pub(super) fn run(command: &Watch) -> Result<(), Failure> {
    let api = Api::new(&command.url, command.key.as_deref())?;
    let path = path(command.transaction.as_deref(), command.client.as_deref(), &command.types)?;
    let mut follow = Follow::new(api, path, command.from.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            match follow.next().await? {
                Some(Heard::Event(_, data)) if command.json => print(&format!("{data}\n"))?,
                Some(Heard::Event(kind, data)) => print(&line(&kind, &data))?,
                Some(Heard::Gap(said)) => tell(&gap(&said)),
                Some(Heard::End(state)) => {
                    tell(&format!("done: {state}\n"));
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    })
}

/// The stream of a feed, or of one transaction.
pub(super) fn path(
    transaction: Option<&str>,
    client: Option<&str>,
    types: &[String],
) -> Result<String, Failure> {
    let path = match transaction {
        Some(_) if !types.is_empty() => {
            return Err(Failure::usage("--types is for the feed: all events of a transaction are shown"));
        }
        Some(id) if id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') => {
            format!("/v1/status/{id}/events")
        }
        Some(id) => return Err(Failure::usage(format!("{id:?}: expected a transaction id"))),
        None => "/v1/events".to_owned(),
    };
    let mut query = reqwest::Url::parse("http://query").map_err(|e| Failure::failed(e.to_string()))?;
    if !types.is_empty() {
        query.query_pairs_mut().append_pair("types", &types.join(","));
    }
    if let Some(client) = client {
        query.query_pairs_mut().append_pair("client", client);
    }
    Ok(query.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
}

/// An event in one line: when, what, which state, what is wrong or when it will leave.
fn line(kind: &str, data: &str) -> String {
    let event: Value = serde_json::from_str(data).unwrap_or(Value::Null);
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let document = &event["data"];
    let time = local(&event["time"]);
    let at = time.map_or_else(|| text(&event["time"]), |at| at.format("%H:%M:%S%.3f").to_string());
    let Some(state) = document["state"].as_str() else {
        return format!("{at}  {kind}  {}\n", text(&event["subject"]));
    };
    let last = document["exceptions"].as_array().and_then(|all| all.last());
    let wrong = match (kind.ends_with(".exception"), last) {
        (true, Some(last)) => format!("  ! {}", text(&last["code"])),
        _ => String::new(),
    };
    let leaves = time.and_then(|now| leaves(&document["estimate"], now)).unwrap_or_default();
    format!(
        "{at}  {} {}  {state}{wrong}{leaves}  v{}  {}  {}\n",
        text(&document["kind"]),
        text(&document["reference"]),
        document["version"],
        text(&document["warehouse"]),
        text(&event["subject"]),
    )
}

/// When an order will probably leave, where an event says it; with the day where that is another one.
fn leaves(estimate: &Value, now: DateTime<Local>) -> Option<String> {
    let by = local(&estimate["shipped_p90"])?;
    let form = if by.date_naive() == now.date_naive() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    Some(format!("  likely to leave by {}, {} before it", by.format(form), estimate["position"]))
}

/// A time of the wire in this place's own.
fn local(time: &Value) -> Option<DateTime<Local>> {
    DateTime::parse_from_rfc3339(time.as_str()?).ok().map(|at| at.with_timezone(&Local))
}

/// What is told where events are missing.
pub(super) fn gap(said: &Value) -> String {
    let reason = said["reason"].as_str().unwrap_or("unknown");
    format!("events before these are missing ({reason}): this is the oldest that is kept\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line_that_names_the_order_its_state_and_what_is_wrong() {
        let data = json!({"time": "2026-11-26T10:00:00.120Z", "subject": "019a", "data": {
            "kind": "order", "reference": "WEB-1", "state": "backordered", "version": 3, "warehouse": "ATL1",
            "exceptions": [{"code": "short_pick"}]}});
        let shown = line("wavegate.order.exception", &data.to_string());
        assert!(shown.ends_with("order WEB-1  backordered  ! short_pick  v3  ATL1  019a\n"), "{shown}");
        let shown = line("wavegate.order.backordered", &data.to_string());
        assert!(!shown.contains('!'), "{shown}");
    }

    #[test]
    fn an_estimate_says_by_when_the_order_leaves_and_how_many_do_before() {
        let shown = |by: &str| {
            let data = json!({"time": "2026-11-26T10:00:00.120Z", "subject": "019a", "data": {
                "kind": "order", "reference": "WEB-1", "state": "allocated", "version": 2, "warehouse": "ATL1",
                "exceptions": [], "estimate": {"position": 12, "shipped_p50": by, "shipped_p90": by}}});
            line("wavegate.order.estimate_changed", &data.to_string())
        };
        let by = |text: &str, form: &str| local(&json!(text)).unwrap().format(form).to_string();
        let (soon, far) = ("2026-11-26T10:00:30.000Z", "2026-12-06T10:00:30.000Z");
        for (when, expected) in [(soon, by(soon, "%H:%M:%S")), (far, by(far, "%Y-%m-%d %H:%M:%S"))] {
            let end = format!(
                "order WEB-1  allocated  likely to leave by {expected}, 12 before it  v2  ATL1  019a\n"
            );
            assert!(shown(when).ends_with(&end), "{}", shown(when));
        }
    }

    #[test]
    fn what_is_no_transactions_event_is_named_by_its_subject() {
        let data = json!({"time": "2026-11-26T10:00:00.120Z", "subject": "SKU-1", "data": {"on_hand": 4}});
        assert!(
            line("wavegate.inventory.changed", &data.to_string())
                .ends_with("wavegate.inventory.changed  SKU-1\n")
        );
    }
}
