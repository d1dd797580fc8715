//! A small reader of server-sent events (WHATWG HTML §9.2), as a client that trusts nothing: every
//! event must have its three lines, in one chunk of text that is whole.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::server::TestServer;

/// The longest that an event may keep a test waiting.
const EVENT_WITHIN: Duration = Duration::from_secs(30);

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Its cursor.
    pub(crate) id: String,
    /// Its type.
    pub(crate) event: String,
    /// Its one line of data.
    pub(crate) data: Value,
}

impl Event {
    /// Its number in the feed.
    pub(crate) fn sequence(&self) -> u64 {
        let text =
            self.data["feedsequence"].as_str().unwrap_or_else(|| panic!("no sequence in {}", self.data));
        assert_eq!(text.len(), 20, "{text}");
        text.parse().unwrap()
    }

    /// The CloudEvent's id.
    pub(crate) fn event_id(&self) -> &str {
        self.data["id"].as_str().unwrap()
    }
}

/// An open stream.
pub(crate) struct Stream {
    response: reqwest::Response,
    text: String,
    /// Lines that began with a colon.
    pub(crate) comments: usize,
    /// What `retry:` said last.
    pub(crate) retry: Option<String>,
    /// The cursor that a block without an event brought last.
    pub(crate) cursor: Option<String>,
}

/// What a stream was asked for with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) key: Option<&'a str>,
    pub(crate) last: Option<&'a str>,
    pub(crate) cookie: Option<&'a str>,
}

/// Asks for a stream; the answer may be another one.
pub(crate) async fn ask(server: &TestServer, path: &str, ask: Ask<'_>) -> reqwest::Result<reqwest::Response> {
    let client = crate::server::client();
    let mut request = client.get(server.at(path)).header("accept", "text/event-stream");
    if let Some(key) = ask.key {
        request = request.bearer_auth(key);
    }
    if let Some(last) = ask.last {
        request = request.header("last-event-id", last);
    }
    if let Some(cookie) = ask.cookie {
        request = request.header("cookie", cookie);
    }
    request.send().await
}

/// Asks a server at an address for a stream from a place on; it may be gone.
pub(crate) async fn reach(url: &str, path: &str, last: &str) -> reqwest::Result<reqwest::Response> {
    let client = crate::server::client();
    let request = client.get(format!("{url}{path}")).header("accept", "text/event-stream");
    request.header("last-event-id", last).send().await
}

/// Asks a server at an address for a stream from a place on.
pub(crate) async fn follow(url: &str, path: &str, last: &str) -> reqwest::Response {
    reach(url, path, last).await.expect("an answer")
}

/// Opens a stream without a key.
pub(crate) async fn open(server: &TestServer, path: &str, last: Option<&str>) -> Stream {
    let response = ask(server, path, Ask { last, ..Ask::default() }).await.expect("an answer");
    Stream::of(response)
}

impl Stream {
    /// The stream that an answer is.
    pub(crate) fn of(response: reqwest::Response) -> Stream {
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(headers.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
        }
        Stream { response, text: String::new(), comments: 0, retry: None, cursor: None }
    }

    /// The head of the answer.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next event; `None` at the end of the stream, also where it was cut off.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(EVENT_WITHIN, self.read()).await.expect("an event in time")
    }

    /// The next event, which must come.
    pub(crate) async fn event(&mut self) -> Event {
        self.next().await.expect("an event before the end")
    }

    /// Events until one that `last` says is the last.
    pub(crate) async fn until(&mut self, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            events.push(self.event().await);
            if last(&events[events.len() - 1]) {
                return events;
            }
        }
    }

    /// Reads on until there is a comment more.
    pub(crate) async fn comment(&mut self) {
        let before = self.comments;
        while self.comments == before {
            assert!(!self.text.contains("\n\n"), "an event where a comment was to come: {}", self.text);
            let chunk = tokio::time::timeout(EVENT_WITHIN, self.response.chunk()).await;
            let chunk = chunk.expect("a comment in time").expect("a live stream").expect("no end");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            self.skip_what_is_no_event();
        }
    }

    fn skip_what_is_no_event(&mut self) {
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            let is_event = |line: &str| line.starts_with("event: ") || line.starts_with("data: ");
            if block.lines().any(is_event) {
                return;
            }
            let known = |line: &str| [":", "retry: ", "id: "].iter().any(|name| line.starts_with(name));
            assert!(block.lines().all(known), "{block:?}");
            self.comments += block.lines().filter(|line| line.starts_with(':')).count();
            let retry = block.lines().find_map(|line| line.strip_prefix("retry: "));
            let cursor = block.lines().find_map(|line| line.strip_prefix("id: "));
            self.cursor = cursor.map(str::to_owned).or(self.cursor.take());
            self.retry = retry.map(str::to_owned).or(self.retry.take());
            self.text = rest.to_owned();
        }
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            self.skip_what_is_no_event();
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse(block);
                self.text = rest.to_owned();
                return Some(event);
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.text.push_str(std::str::from_utf8(&chunk).expect("whole characters")),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

fn parse(block: &str) -> Event {
    let lines: Vec<&str> = block.split('\n').collect();
    let [id, event, data] = lines.as_slice() else { panic!("not three lines: {block:?}") };
    let field = |line: &str, name: &str| {
        line.strip_prefix(name).unwrap_or_else(|| panic!("no {name} in {line:?}")).to_owned()
    };
    Event {
        id: field(id, "id: "),
        event: field(event, "event: "),
        data: serde_json::from_str(&field(data, "data: ")).expect("JSON on one line"),
    }
}
