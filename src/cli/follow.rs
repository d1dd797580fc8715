//! Follows a stream of events of a server: comes again when the line breaks, goes on by its cursor,
//! and gives up only where coming again cannot help.

use futures_util::StreamExt;
use reqwest::Response;
use serde_json::Value;
use sse_stream::SseStream;

use super::api::{Api, Patience, is_busy, problem};
use super::{Failure, with_causes};

/// What a stream brings.
pub(super) enum Heard {
    /// An event: its type, and its CloudEvent as it came.
    Event(String, String),
    /// Events before what follows are gone; what the server says about it.
    Gap(Value),
    /// Nothing will follow; the state in which its transaction ended.
    End(String),
}

/// A stream that is followed.
pub(super) struct Follow {
    api: Api,
    path: String,
    cursor: Option<String>,
    stream: Option<SseStream<reqwest::Body>>,
}

impl Follow {
    /// The stream at `path`, from the cursor on if there is one.
    pub(super) fn new(api: Api, path: String, cursor: Option<String>) -> Follow {
        Follow { api, path, cursor, stream: None }
    }

    /// The next that comes; `None` when the stream has ended before.
    ///
    /// # Errors
    /// When the server refuses the stream, or could not be reached for minutes.
    pub(super) async fn next(&mut self) -> Result<Option<Heard>, Failure> {
        let mut patience = Patience::new();
        loop {
            let why = match self.heard().await {
                Ok(heard) => return Ok(heard),
                Err(Missed::Refused(failure)) => return Err(failure),
                Err(Missed::Line(why)) => why,
            };
            self.stream = None;
            patience.pause(None, &why).await?;
        }
    }

    async fn heard(&mut self) -> Result<Option<Heard>, Missed> {
        if self.stream.is_none() {
            let Some(response) = self.open().await? else { return Ok(None) };
            self.stream = Some(SseStream::new(reqwest::Body::from(response)));
        }
        let Some(stream) = &mut self.stream else { return Ok(None) };
        loop {
            let next = stream.next().await.ok_or_else(|| Missed::Line("the stream was cut".to_owned()))?;
            let event = next.map_err(|e| Missed::Line(with_causes(&e)))?;
            // It may stand alone: how far a stream has looked that lets little through.
            self.cursor = event.id.filter(|id| !id.is_empty()).or(self.cursor.take());
            let (Some(kind), Some(data)) = (event.event, event.data) else { continue };
            let told = || serde_json::from_str(&data).unwrap_or(Value::Null);
            return Ok(Some(match kind.as_str() {
                "gap" => Heard::Gap(told()),
                "end" => Heard::End(told()["state"].as_str().unwrap_or("done").to_owned()),
                _ => Heard::Event(kind, data),
            }));
        }
    }

    /// Opens the stream; `None` when nothing follows the cursor ever.
    async fn open(&self) -> Result<Option<Response>, Missed> {
        let opened = self.api.open_stream(&self.path, self.cursor.as_deref()).await;
        let response = opened.map_err(|e| Missed::Line(with_causes(&e)))?;
        let status = response.status().as_u16();
        match status {
            200 => return Ok(Some(response)),
            204 => return Ok(None),
            _ => {}
        }
        let body = response.bytes().await.unwrap_or_default();
        let said = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let why = problem(&said).unwrap_or_else(|| format!("the server answered {status}"));
        Err(if is_busy(status) { Missed::Line(why) } else { Missed::Refused(Failure::failed(why)) })
    }
}

/// Why nothing was heard.
enum Missed {
    /// Coming again helps.
    Line(String),
    /// It does not.
    Refused(Failure),
}
