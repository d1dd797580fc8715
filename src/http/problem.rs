//! Every refusal as an RFC 9457 problem document: the one place where a cause becomes a status,
//! a code and words.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use wavegate_engine::domain::ids::CorrelationId;
use wavegate_engine::engine::{OfficeError, SubmitError};
use wavegate_engine::ports::store::CommitError;
use wavegate_engine::wire::reader::Fault;

use super::pace;

/// Why a call is refused.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// The body is no JSON as the contract wants it.
    MalformedJson(String),
    /// The body ended before it was whole, or its framing is broken.
    MalformedBody,
    /// The body took too long to arrive.
    BodyTooSlow,
    /// The `Idempotency-Key` header is not what it should be.
    KeyMalformed,
    /// The caller must name a client.
    ClientRequired,
    /// No key, or not one of ours.
    Unauthorized,
    /// A key that may not do this.
    Forbidden(&'static str),
    /// The ticket, or its cookie, is for another stream.
    TicketScope,
    /// Without keys: a page of another origin.
    OriginNotAllowed,
    /// Without keys: not addressed to this machine.
    HostNotAllowed,
    /// No such thing, or not the caller's.
    NotFound,
    /// The transaction has no such version.
    VersionNotFound,
    /// The transaction ended longer ago than the retention.
    Expired,
    /// The path exists; the method does not. With the methods that do.
    MethodNotAllowed(&'static str),
    /// The reference stands for other content.
    ReferenceConflict,
    /// The dead letter was dealt with otherwise.
    LetterSettled,
    /// What is asked for cannot be done with the dead letter as it is; with the reason.
    NotPossible(String),
    /// The `Idempotency-Key` stands for other content.
    KeyReused,
    /// The body is larger than this many bytes.
    TooLarge(usize),
    /// The body is of a type that is not read here; with those that are.
    UnsupportedMediaType(&'static str),
    /// Deliveries may not go to this address.
    AddressForbidden,
    /// Well-formed and wrong: with every fault.
    Invalid(Vec<Fault>),
    /// The client sends faster than it may; come back in seconds.
    ClientRateLimited(u64),
    /// The warehouse has too much in its work lane; come back in seconds.
    BacklogFull(u64),
    /// Too much at once for this process.
    Overloaded,
    /// The process is about to end.
    Draining,
    /// The store did not take it in time.
    StoreUnavailable,
    /// The store has no room.
    StoreFull,
    /// Not ready for traffic; with the reasons.
    NotReady(String),
    /// A fault of the program's.
    Internal,
}

/// The document, as written.
#[derive(Debug, Serialize)]
pub(crate) struct ProblemDocument<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    instance: &'a str,
    code: &'static str,
    correlation_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorItem<'a>>,
}

#[derive(Debug, Serialize)]
struct ErrorItem<'a> {
    pointer: &'a str,
    code: &'static str,
    detail: &'a str,
}

impl Problem {
    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.head().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The code, as clients and logs know it.
    pub(crate) fn code(&self) -> &'static str {
        self.head().1
    }

    /// The document about this refusal of a call for `instance`.
    pub(crate) fn document<'a>(
        &'a self,
        instance: &'a str,
        correlation: &'a CorrelationId,
    ) -> ProblemDocument<'a> {
        let (status, code, title) = self.head();
        let faults: &[Fault] = if let Problem::Invalid(faults) = self { faults } else { &[] };
        let error =
            |f: &'a Fault| ErrorItem { pointer: &f.pointer, code: f.code.as_str(), detail: &f.detail };
        ProblemDocument {
            r#type: format!("urn:wavegate:problem:{code}"),
            title,
            status,
            detail: self.detail(),
            instance,
            code,
            correlation_id: correlation.as_str(),
            errors: faults.iter().map(error).collect(),
        }
    }

    /// The whole response but for the correlation header, which every response gets.
    pub(crate) fn respond(&self, instance: &str, correlation: &CorrelationId) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status());
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after_s() {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Problem::Unauthorized = self {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if let Problem::MethodNotAllowed(allowed) = self {
            response.insert_header((header::ALLOW, *allowed));
        }
        if let Problem::TooLarge(_) | Problem::BodyTooSlow = self {
            // The rest of the body is not read, so the connection cannot be used again.
            response.force_close();
        }
        response.body(serde_json::to_vec(&self.document(instance, correlation)).unwrap_or_default())
    }

    /// The problem that fits a bare status, as extractors and the framework answer it.
    pub(crate) fn of_status(status: StatusCode) -> Problem {
        match status.as_u16() {
            404 => Problem::NotFound,
            405 => Problem::MethodNotAllowed(""),
            408 => Problem::BodyTooSlow,
            400..=499 => Problem::MalformedBody,
            _ => Problem::Internal,
        }
    }

    fn head(&self) -> (u16, &'static str, &'static str) {
        match self {
            Problem::MalformedJson(_) => (400, "malformed_json", "Malformed JSON"),
            Problem::MalformedBody => (400, "malformed_body", "Malformed body"),
            Problem::BodyTooSlow => (408, "request_timeout", "Request timeout"),
            Problem::KeyMalformed => (400, "idempotency_key_malformed", "Malformed Idempotency-Key"),
            Problem::ClientRequired => (400, "client_required", "Client required"),
            Problem::Unauthorized => (401, "unauthorized", "Unauthorized"),
            Problem::Forbidden(_) => (403, "forbidden", "Forbidden"),
            Problem::TicketScope => (403, "ticket_scope", "Ticket for another stream"),
            Problem::OriginNotAllowed => (403, "origin_not_allowed", "Origin not allowed"),
            Problem::HostNotAllowed => (421, "host_not_allowed", "Host not allowed"),
            Problem::NotFound => (404, "not_found", "Not found"),
            Problem::VersionNotFound => (404, "version_not_found", "Version not found"),
            Problem::Expired => (410, "transaction_expired", "Transaction expired"),
            Problem::MethodNotAllowed(_) => (405, "method_not_allowed", "Method not allowed"),
            Problem::ReferenceConflict => (409, "reference_conflict", "Reference conflict"),
            Problem::LetterSettled => (409, "dead_letter_settled", "Dead letter settled"),
            Problem::NotPossible(_) => (409, "not_possible", "Not possible"),
            Problem::KeyReused => (422, "idempotency_key_reused", "Idempotency-Key reused"),
            Problem::TooLarge(_) => (413, "body_too_large", "Body too large"),
            Problem::UnsupportedMediaType(_) => (415, "unsupported_media_type", "Unsupported media type"),
            Problem::AddressForbidden => (422, "address_forbidden", "Address forbidden"),
            Problem::Invalid(_) => (422, "validation_failed", "Validation failed"),
            Problem::ClientRateLimited(_) => (429, "client_rate_limited", "Client rate limited"),
            Problem::BacklogFull(_) => (429, "warehouse_backlog_full", "Warehouse backlog full"),
            Problem::Overloaded => (503, "overloaded", "Overloaded"),
            Problem::Draining => (503, "draining", "Draining"),
            Problem::StoreUnavailable => (503, "store_unavailable", "Store unavailable"),
            Problem::StoreFull => (503, "store_full", "Store full"),
            Problem::NotReady(_) => (503, "not_ready", "Not ready"),
            Problem::Internal => (500, "internal_error", "Internal error"),
        }
    }

    fn detail(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Problem::MalformedJson(why) | Problem::NotReady(why) | Problem::NotPossible(why) => {
                return Cow::Owned(why.clone());
            }
            Problem::TooLarge(max) => return Cow::Owned(format!("the body may have {max} bytes")),
            Problem::MethodNotAllowed(allowed) => {
                return Cow::Owned(format!("this path answers to {allowed}"));
            }
            Problem::UnsupportedMediaType(known) => {
                return Cow::Owned(format!("send {known}, without Content-Encoding"));
            }
            Problem::Invalid(faults) => {
                return Cow::Owned(format!("{} of the request's values cannot be accepted", faults.len()));
            }
            Problem::Forbidden(why) => why,
            Problem::MalformedBody => "the body is not whole",
            Problem::BodyTooSlow => "the body took too long to arrive",
            Problem::KeyMalformed => {
                "an Idempotency-Key is 1 to 255 visible ASCII characters, quoted or bare, and stands once"
            }
            Problem::ClientRequired => "name the client with ?client= or, for a move, with owner",
            Problem::Unauthorized => "send a key: Authorization: Bearer <key>",
            Problem::TicketScope => "the ticket, or the cookie that it set, is for another stream",
            Problem::OriginNotAllowed => "without keys only pages of this machine may call",
            Problem::HostNotAllowed => "without keys the server answers only under a loopback name",
            Problem::NotFound => "there is nothing here for this caller",
            Problem::VersionNotFound => "the transaction has no such version",
            Problem::Expired => "it ended longer ago than transactions are kept",
            Problem::ReferenceConflict => "the reference was used before, with other content",
            Problem::LetterSettled => {
                "the dead letter was dealt with otherwise, or what it was about went on"
            }
            Problem::KeyReused => "the Idempotency-Key was used before, with other content",
            Problem::AddressForbidden => {
                "deliveries go to addresses of the public internet, and to networks that an operator allows"
            }
            Problem::ClientRateLimited(_) => "the client sends more commands a second than it may",
            Problem::BacklogFull(_) => "the warehouse has as much waiting as it may",
            Problem::Overloaded => "too much at once",
            Problem::Draining => "the server is about to end",
            Problem::StoreUnavailable => "the store did not answer in time; trying again is safe",
            Problem::StoreFull => "the store has no room",
            Problem::Internal => "the call failed; its correlation id is in the log",
        })
    }

    /// What `Retry-After` says, if trying again can help.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        match self {
            Problem::ClientRateLimited(seconds) | Problem::BacklogFull(seconds) => Some(*seconds),
            Problem::Overloaded | Problem::StoreUnavailable | Problem::NotReady(_) => Some(pace::jittered(1)),
            Problem::Draining => Some(pace::jittered(2)),
            // Somebody has to make room first.
            Problem::StoreFull => Some(pace::jittered(30)),
            Problem::MalformedJson(_)
            | Problem::MalformedBody
            | Problem::BodyTooSlow
            | Problem::KeyMalformed
            | Problem::ClientRequired
            | Problem::Unauthorized
            | Problem::Forbidden(_)
            | Problem::TicketScope
            | Problem::OriginNotAllowed
            | Problem::HostNotAllowed
            | Problem::NotFound
            | Problem::VersionNotFound
            | Problem::Expired
            | Problem::MethodNotAllowed(_)
            | Problem::ReferenceConflict
            | Problem::LetterSettled
            | Problem::NotPossible(_)
            | Problem::KeyReused
            | Problem::TooLarge(_)
            | Problem::UnsupportedMediaType(_)
            | Problem::AddressForbidden
            | Problem::Invalid(_)
            | Problem::Internal => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    /// Bare on purpose: the front writes the document, because only it knows the call.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status())
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Overloaded => Problem::Overloaded,
            SubmitError::Interrupted => Problem::StoreUnavailable,
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Full => Problem::StoreFull,
            CommitError::Conflict | CommitError::Unavailable(_) | CommitError::Unknown(_) => {
                Problem::StoreUnavailable
            }
        }
    }
}

impl From<OfficeError> for Problem {
    fn from(error: OfficeError) -> Self {
        match error {
            OfficeError::Absent => Problem::NotFound,
            OfficeError::AddressForbidden => Problem::AddressForbidden,
            OfficeError::TooMany | OfficeError::ReplaysFull | OfficeError::Disabled => {
                Problem::NotPossible(error.to_string())
            }
            OfficeError::Busy => Problem::Overloaded,
            OfficeError::Read(e) => super::state::unreadable(&e),
            OfficeError::Commit(e) => e.into(),
        }
    }
}

impl From<Vec<Fault>> for Problem {
    fn from(faults: Vec<Fault>) -> Self {
        Problem::Invalid(faults)
    }
}
