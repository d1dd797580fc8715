//! A stream from its first line to its last. Every event is one chunk, its bytes shared with all who
//! get the same event; between events a comment shows that the line is alive.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use actix_web::HttpResponse;

use actix_web::web::{self, Bytes};
use futures_util::Stream;
use futures_util::stream::{self, unfold};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{self, Instant, Interval, MissedTickBehavior};
use wavegate_engine::domain::ids::{ClientNo, TransactionId};
use wavegate_engine::domain::state::State as Standing;
use wavegate_engine::engine::{FeedReader, Next, TransactionReader};
use wavegate_engine::wire::cursor::Cursor;
use wavegate_engine::wire::event::frame;

use super::Filter;
use super::resume::{self, Gap, Start};
use crate::http::state::State;

/// What comes first: how long a client waits before it comes again, and a sign of life. A feed's stream
/// begins where its reader came: until an event brings another cursor it goes on from this one. A
/// transaction's begins with its first event, so it needs none.
fn first(followed: &Followed, cursor: Cursor) -> Bytes {
    match followed {
        Followed::Feed(..) => format!("retry: 3000\nid: {cursor}\n\n: connected\n\n").into(),
        Followed::Transaction(..) => Bytes::from_static(b"retry: 3000\n\n: connected\n\n"),
    }
}

/// A sign of life: proxies cut what is silent for a minute.
const COMMENT: Bytes = Bytes::from_static(b": \n\n");
/// How often it is given.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// What is followed.
pub(super) enum Followed {
    /// A feed, and which of its events are wanted.
    Feed(Box<FeedReader>, Filter),
    /// One transaction, and its state as it was last seen.
    Transaction(Box<TransactionReader>, TransactionId, Standing),
}

/// One stream.
pub(super) struct Session {
    state: web::Data<State>,
    client: ClientNo,
    /// The place of the last event that was given.
    seen: u64,
    /// The place that the client knows of: it goes on from there when it comes again.
    told: u64,
    followed: Followed,
    comments: Interval,
    ready: VecDeque<Bytes>,
    over: bool,
    /// Given back with the connection.
    _place: OwnedSemaphorePermit,
}

#[derive(Serialize)]
struct Ended {
    transaction_id: TransactionId,
    state: &'static str,
}

impl Session {
    pub(super) fn new(
        state: web::Data<State>,
        client: ClientNo,
        place: OwnedSemaphorePermit,
        start: Start,
        followed: Followed,
    ) -> Session {
        let mut comments = time::interval_at(Instant::now() + COMMENT_EVERY, COMMENT_EVERY);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cursor = start.cursor(&state, client);
        let mut ready = VecDeque::from([first(&followed, cursor)]);
        ready.extend(start.gap.as_ref().map(|gap| control("gap", cursor, gap)));
        let (seen, told) = (start.after, start.after);
        Session { state, client, seen, told, followed, comments, ready, over: false, _place: place }
    }

    /// The body. What a stream costs while nothing happens is what this holds.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut session| async move {
            let chunk = session.next().await?;
            Some((Ok(chunk), session))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            let next = match &mut self.followed {
                Followed::Feed(reader, _) => tokio::select! {
                    biased;
                    () = self.state.draining() => return None,
                    next = reader.next() => next,
                    _ = self.comments.tick() => return Some(self.comment()),
                },
                Followed::Transaction(reader, ..) => tokio::select! {
                    biased;
                    () = self.state.draining() => return None,
                    next = reader.next() => next,
                    _ = self.comments.tick() => return Some(COMMENT),
                },
            };
            self.take(next);
        }
    }

    /// A sign of life. Where a filter has let nothing through it says how far it has looked: nobody is to
    /// look there again, nor to find it evicted.
    fn comment(&mut self) -> Bytes {
        if self.told == self.seen {
            return COMMENT;
        }
        self.told = self.seen;
        format!(":\nid: {}\n\n", self.cursor()).into()
    }

    fn take(&mut self, next: Next) {
        match next {
            Next::Event(event) => {
                match &mut self.followed {
                    Followed::Feed(_, filter) => {
                        self.seen = event.sequence;
                        if !filter.passes(&event) {
                            return;
                        }
                    }
                    Followed::Transaction(_, id, standing) => {
                        self.seen = match event.sequence {
                            0 => Cursor::version_of(*id, event.version),
                            sequence => sequence,
                        };
                        *standing = event.state;
                    }
                }
                self.told = self.seen;
                self.ready.push_back(event.frame.clone());
            }
            Next::Gap { oldest } => {
                let gap: Gap = resume::overtaken(&self.state, self.client, self.seen, oldest);
                self.seen = oldest - 1;
                self.told = self.seen;
                self.ready.push_back(control("gap", self.cursor(), &gap));
            }
            Next::End => {
                self.over = true;
                if let Followed::Transaction(_, transaction_id, standing) = &self.followed {
                    let last = Ended { transaction_id: *transaction_id, state: standing.as_str() };
                    let cursor = Cursor { ended: true, ..self.cursor() };
                    self.ready.push_back(control("end", cursor, &last));
                }
            }
            // It comes again with its cursor.
            Next::Cut => {
                self.state.stream_cut();
                self.over = true;
            }
        }
    }

    fn cursor(&self) -> Cursor {
        self.state.engine.cursor(self.client, self.seen)
    }
}

/// An event that is about the stream itself, with the cursor from which a reconnect goes on.
fn control(event: &str, cursor: Cursor, data: &impl Serialize) -> Bytes {
    // Only texts are in it.
    let data = serde_json::to_vec(data).unwrap_or_default();
    frame(&cursor.to_string(), event, &data).text
}

/// Closes the connection without an answer: a body that fails before its first byte takes the head
/// with it.
pub(super) fn no_answer() -> HttpResponse {
    let refused = io::Error::other("as many streams as there may be");
    HttpResponse::Ok().streaming(stream::once(std::future::ready(Err::<Bytes, _>(refused))))
}
