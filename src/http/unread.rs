//! Chunked bodies that nobody reads to their end.
//!
//! actix-http drains a chunked body whose reader is gone, without a bound on bytes or time, so a
//! client that never ends its body would keep its connection for ever. A body whose reader is
//! still there when the answer is out makes it close instead, within the disconnect time-out.
//! So the reader is kept until then.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::web::Bytes;
use futures_util::Stream;

/// A body that the handler reads through us.
#[derive(Clone)]
pub(crate) struct Unread(Rc<RefCell<Watched>>);

struct Watched {
    payload: Payload,
    ended: bool,
}

impl Unread {
    /// Takes a chunked body under watch; others are bounded by their length and left alone.
    pub(crate) fn watch(request: &mut ServiceRequest) -> Option<Unread> {
        request.headers().get(header::TRANSFER_ENCODING)?;
        let payload = request.take_payload();
        let unread = Unread(Rc::new(RefCell::new(Watched { payload, ended: false })));
        request.set_payload(Payload::Stream { payload: Box::pin(unread.clone()) });
        Some(unread)
    }

    /// Whether some of it was never read.
    pub(crate) fn is_left(&self) -> bool {
        !self.0.borrow().ended
    }

    /// Keeps the reader until the answer is out.
    pub(crate) fn behind(self, body: impl MessageBody + 'static) -> BoxBody {
        BoxBody::new(Answer { body: body.boxed(), _reader: self })
    }
}

impl Stream for Unread {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut watched = self.0.borrow_mut();
        let next = ready!(Pin::new(&mut watched.payload).poll_next(cx));
        watched.ended |= !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

struct Answer {
    body: BoxBody,
    _reader: Unread,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
