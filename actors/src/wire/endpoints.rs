//! Webhook endpoints on the wire: what clients ask for, how an endpoint and its attempts are shown.

use serde::Serialize;
use url::Url;

use super::event::TypeFilter;
use super::json::Json;
use super::reader::{self, Chars, Fault, FaultCode, Faults, Fields, Path};
use super::signature;
use super::time::WireTime;
use crate::domain::endpoint::{
    Attempt, ContentType, DeliveryMode, DisabledReason, EndpointId, EndpointSettings, Include, Secret,
    Standing, StoredEndpoint,
};
use crate::domain::ids::{CorrelationId, TraceContext, TransactionId};
use crate::domain::time::Timestamp;

const URL: Chars = Chars { min: 1, max: 2_000, controls: false };
const DESCRIPTION: Chars = Chars { min: 0, max: 500, controls: false };
const WORD: Chars = Chars { min: 1, max: 64, controls: false };
const TYPE: Chars = Chars { min: 1, max: TypeFilter::PATTERN_BYTES_MAX, controls: false };
/// What an endpoint gets that names no types.
const ALL_TYPES: &str = "wavegate.*";

/// How long an old secret signs too unless a rotation says otherwise, and at most, in seconds.
pub const GRACE_S: u32 = 86_400;
/// A week.
pub const GRACE_S_MAX: u32 = 604_800;

/// Settings that a request names; the others stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPatch {
    url: Option<String>,
    types: Option<Vec<String>>,
    description: Option<String>,
    delivery: Option<DeliveryMode>,
    content_type: Option<ContentType>,
    include: Option<Include>,
}

impl EndpointPatch {
    /// Puts in what the request names.
    pub fn apply(&self, settings: &mut EndpointSettings) {
        let EndpointPatch { url, types, description, delivery, content_type, include } = self.clone();
        settings.url = url.unwrap_or_else(|| std::mem::take(&mut settings.url));
        settings.types = types.unwrap_or_else(|| std::mem::take(&mut settings.types));
        settings.description = description.unwrap_or_else(|| std::mem::take(&mut settings.description));
        settings.delivery = delivery.unwrap_or(settings.delivery);
        settings.content_type = content_type.unwrap_or(settings.content_type);
        settings.include = include.unwrap_or(settings.include);
    }
}

/// Reads the settings of a new endpoint.
///
/// # Errors
/// Every fault found.
pub fn endpoint(json: Json<'_>) -> Result<EndpointSettings, Vec<Fault>> {
    let patch = read(json, true)?;
    let mut settings = EndpointSettings {
        url: String::new(),
        types: vec![ALL_TYPES.to_owned()],
        description: String::new(),
        delivery: DeliveryMode::default(),
        content_type: ContentType::default(),
        include: Include::default(),
    };
    patch.apply(&mut settings);
    Ok(settings)
}

/// Reads a change of settings.
///
/// # Errors
/// Every fault found.
pub fn patch(json: Json<'_>) -> Result<EndpointPatch, Vec<Fault>> {
    read(json, false)
}

fn read(json: Json<'_>, is_new: bool) -> Result<EndpointPatch, Vec<Fault>> {
    let mut faults = Faults::new(Faults::MAX_OF_ITEM);
    let root = Path::Root;
    let mut patch = EndpointPatch::default();
    if let Some(mut fields) = Fields::open(json, &root, &mut faults) {
        patch.url = match is_new {
            true => fields.required("url", &root, &mut faults, url),
            false => named(&mut fields, "url", &mut faults, url),
        };
        patch.types = named(&mut fields, "types", &mut faults, types);
        patch.description =
            named(&mut fields, "description", &mut faults, |v, p, f| reader::text(v, DESCRIPTION, p, f));
        patch.delivery = named(&mut fields, "delivery", &mut faults, |v, p, f| {
            word(v, &[("latest", DeliveryMode::Latest), ("every", DeliveryMode::Every)], p, f)
        });
        patch.content_type =
            named(&mut fields, "content_type", &mut faults, |v, p, f| word(v, &CONTENT_TYPES, p, f));
        patch.include = named(&mut fields, "include", &mut faults, include);
        fields.close(&root, &mut faults);
    }
    if faults.is_empty() { Ok(patch) } else { Err(faults.into_vec()) }
}

/// A member that may be absent; `null` is not that.
fn named<'j, T>(
    fields: &mut Fields<'j>,
    name: &'static str,
    faults: &mut Faults,
    read: impl FnOnce(Json<'j>, &Path<'_>, &mut Faults) -> Option<T>,
) -> Option<T> {
    let value = fields.take(name)?;
    read(value, &Path::Key(&Path::Root, name), faults)
}

const CONTENT_TYPES: [(&str, ContentType); 2] =
    [("application/json", ContentType::Json), ("application/cloudevents+json", ContentType::CloudEvents)];

fn word<T: Copy>(value: Json<'_>, known: &[(&str, T)], path: &Path<'_>, faults: &mut Faults) -> Option<T> {
    let text = reader::text(value, WORD, path, faults)?;
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        faults.add(path, FaultCode::UnknownValue, format!("must be one of {}", names.join(", ")));
    }
    found
}

fn url(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<String> {
    let text = reader::text(value, URL, path, faults)?;
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    };
    if Url::parse(&text).is_ok_and(|url| plain(&url)) {
        return Some(text);
    }
    let detail = "must be an absolute http or https address without user, password and fragment";
    faults.add(path, FaultCode::Malformed, detail);
    None
}

/// Patterns of types, as event streams take them.
fn types(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let items = reader::bounded_list(value, TypeFilter::PATTERNS_MAX, path, faults)?;
    reader::each(items, path, faults, |value, path, faults| {
        let text = reader::text(value, TYPE, path, faults)?;
        if TypeFilter::new([text.as_str()]).is_none() {
            faults.add(path, FaultCode::Malformed, "must be a type of event, exact or ending in .*");
            return None;
        }
        Some(text)
    })
}

fn include(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Include> {
    let items = reader::list(value, path, faults)?;
    let mut include = Include::default();
    for (i, item) in items.into_iter().enumerate().take(Faults::MAX_OF_ITEM) {
        let path = Path::Index(path, i);
        match word(item, &[("metadata", false), ("ship_to", true)], &path, faults)? {
            false => include.metadata = true,
            true => include.ship_to = true,
        }
    }
    Some(include)
}

/// Reads a rotation: for how many seconds the old secret signs too.
///
/// # Errors
/// Every fault found.
pub fn rotation(json: Json<'_>) -> Result<u32, Vec<Fault>> {
    let mut faults = Faults::new(Faults::MAX_OF_ITEM);
    let mut grace = None;
    if let Some(mut fields) = Fields::open(json, &Path::Root, &mut faults) {
        grace = named(&mut fields, "grace_seconds", &mut faults, |v, p, f| {
            reader::whole(&v, (0, GRACE_S_MAX), p, f)
        });
        fields.close(&Path::Root, &mut faults);
    }
    if faults.is_empty() { Ok(grace.unwrap_or(GRACE_S)) } else { Err(faults.into_vec()) }
}

/// What is to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRequest {
    /// Not older.
    pub since: Timestamp,
    /// Not newer.
    pub until: Timestamp,
    /// Of these types; of the endpoint's own where there are none.
    pub types: Vec<String>,
}

/// Reads a replay; without `until` it is up to now.
///
/// # Errors
/// Every fault found.
pub fn replay(json: Json<'_>, now: Timestamp) -> Result<ReplayRequest, Vec<Fault>> {
    let mut faults = Faults::new(Faults::MAX_OF_ITEM);
    let root = Path::Root;
    let mut asked = ReplayRequest { since: now, until: now, types: Vec::new() };
    if let Some(mut fields) = Fields::open(json, &root, &mut faults) {
        let since = fields.required("since", &root, &mut faults, reader::time);
        let until = fields.optional("until", &root, &mut faults, reader::time).flatten();
        let wanted = fields.optional("types", &root, &mut faults, types).flatten();
        fields.close(&root, &mut faults);
        asked.since = since.unwrap_or(now);
        asked.until = until.unwrap_or(now);
        asked.types = wanted.unwrap_or_default();
        if since.is_some() && asked.until < asked.since {
            let at = Path::Key(&root, if until.is_some() { "until" } else { "since" });
            faults.add(&at, FaultCode::OutOfRange, "the time ends before it begins");
        }
    }
    if faults.is_empty() { Ok(asked) } else { Err(faults.into_vec()) }
}

/// An endpoint as its client sees it.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct EndpointDocument<'a> {
    pub id: String,
    pub url: &'a str,
    pub types: &'a [String],
    pub description: &'a str,
    pub delivery: &'static str,
    pub content_type: &'static str,
    pub include: Vec<&'static str>,
    pub state: &'static str,
    pub disabled_reason: Option<&'static str>,
    pub created_at: WireTime,
    /// Only where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl<'a> EndpointDocument<'a> {
    /// The document of an endpoint, without its secret.
    #[must_use]
    pub fn of(endpoint: &'a StoredEndpoint) -> EndpointDocument<'a> {
        let StoredEndpoint { id, settings, standing, created_at, .. } = endpoint;
        EndpointDocument::as_set(*id, settings, *standing, *created_at)
    }

    fn as_set(
        id: EndpointId,
        settings: &'a EndpointSettings,
        standing: Standing,
        created_at: Timestamp,
    ) -> EndpointDocument<'a> {
        let EndpointSettings { url, types, description, delivery, content_type, include } = settings;
        let (state, disabled_reason) = match standing {
            Standing::Enabled => ("enabled", None),
            Standing::Disabled(reason) => ("disabled", Some(reason.as_str())),
            Standing::Deleted => ("disabled", None),
        };
        let included = [("metadata", include.metadata), ("ship_to", include.ship_to)];
        EndpointDocument {
            id: id.to_string(),
            url,
            types,
            description,
            delivery: match delivery {
                DeliveryMode::Latest => "latest",
                DeliveryMode::Every => "every",
            },
            content_type: match content_type {
                ContentType::Json => "application/json",
                ContentType::CloudEvents => "application/cloudevents+json",
            },
            include: included.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect(),
            state,
            disabled_reason,
            created_at: WireTime(created_at),
            secret: None,
        }
    }

    /// The same with its current secret.
    #[must_use]
    pub fn with_secret(endpoint: &'a StoredEndpoint) -> EndpointDocument<'a> {
        let secret = Some(signature::secret_text(&endpoint.secrets.current));
        EndpointDocument { secret, ..EndpointDocument::of(endpoint) }
    }
}

/// The answer to a rotation.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct Rotated {
    pub secret: String,
    pub previous_expires_at: WireTime,
}

impl Rotated {
    /// A new secret, and when the one before it ends.
    #[must_use]
    pub fn of(secret: &Secret, until: Timestamp) -> Rotated {
        Rotated { secret: signature::secret_text(secret), previous_expires_at: WireTime(until) }
    }
}

/// An attempt as its client sees it.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields are the contract's own names")]
pub struct AttemptItem {
    pub webhook_id: String,
    pub event_type: String,
    pub transaction_id: Option<TransactionId>,
    pub attempt: u16,
    pub at: WireTime,
    pub status: Option<u16>,
    pub duration_ms: u32,
    pub outcome: &'static str,
}

impl From<Attempt> for AttemptItem {
    fn from(kept: Attempt) -> AttemptItem {
        let Attempt { webhook_id, event_type, transaction_id, attempt, at, status, duration_ms, outcome } =
            kept;
        let (at, outcome) = (WireTime(at), outcome.as_str());
        AttemptItem { webhook_id, event_type, transaction_id, attempt, at, status, duration_ms, outcome }
    }
}

/// An event about an endpoint, as JSON.
#[derive(Serialize)]
struct EndpointEvent<'a, D> {
    specversion: &'static str,
    id: &'a str,
    r#type: &'static str,
    source: &'static str,
    subject: String,
    time: WireTime,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    feedsequence: Option<String>,
    correlationid: &'a str,
    traceparent: String,
    data: D,
}

#[derive(Serialize)]
struct PingData {
    endpoint_id: String,
}

/// The test event of an endpoint, as JSON.
#[must_use]
pub fn ping(
    id: &str,
    endpoint: EndpointId,
    at: Timestamp,
    correlation: &CorrelationId,
    trace: &TraceContext,
) -> Vec<u8> {
    let event = EndpointEvent {
        specversion: "1.0",
        id,
        r#type: "wavegate.endpoint.ping",
        source: "/webhooks/endpoints",
        subject: endpoint.to_string(),
        time: WireTime(at),
        datacontenttype: "application/json",
        feedsequence: None,
        correlationid: correlation.as_str(),
        traceparent: trace.traceparent(),
        data: PingData { endpoint_id: endpoint.to_string() },
    };
    serde_json::to_vec(&event).expect("texts and a time are JSON")
}

/// What the feed says when an endpoint was disabled.
#[derive(Clone, Copy, Debug)]
pub struct Disabled<'a> {
    /// The event's id.
    pub id: &'a str,
    /// Its number in the feed.
    pub sequence: u64,
    /// The endpoint as it was.
    pub endpoint: EndpointId,
    /// What it was set to.
    pub settings: &'a EndpointSettings,
    /// Why.
    pub reason: DisabledReason,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was disabled.
    pub at: Timestamp,
    /// Of the event.
    pub correlation: &'a CorrelationId,
    /// Of the event.
    pub trace: &'a TraceContext,
}

/// The event `wavegate.endpoint.disabled`, as JSON; its data is the endpoint.
#[must_use]
pub fn disabled(said: Disabled<'_>) -> Vec<u8> {
    let standing = Standing::Disabled(said.reason);
    let event = EndpointEvent {
        specversion: "1.0",
        id: said.id,
        r#type: "wavegate.endpoint.disabled",
        source: "/webhooks/endpoints",
        subject: said.endpoint.to_string(),
        time: WireTime(said.at),
        datacontenttype: "application/json",
        feedsequence: Some(format!("{:020}", said.sequence)),
        correlationid: said.correlation.as_str(),
        traceparent: said.trace.traceparent(),
        data: EndpointDocument::as_set(said.endpoint, said.settings, standing, said.created_at),
    };
    serde_json::to_vec(&event).expect("texts, lists and times are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;

    fn faults(text: &str) -> Vec<(String, &'static str)> {
        let found = endpoint(json::parse(text.as_bytes()).unwrap()).unwrap_err();
        found.into_iter().map(|fault| (fault.pointer, fault.code.as_str())).collect()
    }

    #[test]
    fn an_endpoint_needs_an_address_and_nothing_else() {
        let bare = endpoint(json::parse(br#"{"url":"https://shop.example/hooks?x=1"}"#).unwrap()).unwrap();
        assert_eq!(bare.types, ["wavegate.*"]);
        assert_eq!((bare.delivery, bare.content_type), (DeliveryMode::Latest, ContentType::Json));
        let text = r#"{"url":"http://a/","types":["wavegate.order.*","wavegate.move.applied"],"description":"d",
            "delivery":"every","content_type":"application/cloudevents+json","include":["ship_to","metadata","ship_to"]}"#;
        let full = endpoint(json::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!((full.delivery, full.content_type), (DeliveryMode::Every, ContentType::CloudEvents));
        assert_eq!(full.include, Include { metadata: true, ship_to: true });
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let text = r#"{"url":"ftp://a/","types":["wavegate.*.x","ok",7],"delivery":"some","content_type":"text/plain",
            "include":["metadata","secrets"],"description":7,"extra":1}"#;
        let mut found = faults(text);
        found.sort();
        assert_eq!(
            found,
            [
                ("/content_type".to_owned(), "unknown_value"),
                ("/delivery".to_owned(), "unknown_value"),
                ("/description".to_owned(), "wrong_type"),
                ("/extra".to_owned(), "unknown_field"),
                ("/include/1".to_owned(), "unknown_value"),
                ("/types/0".to_owned(), "malformed"),
                ("/types/2".to_owned(), "wrong_type"),
                ("/url".to_owned(), "malformed"),
            ]
        );
        assert_eq!(faults("{}"), [("/url".to_owned(), "missing")]);
    }

    #[test]
    fn an_address_is_absolute_and_holds_no_secret_of_its_own() {
        for bad in [
            "",
            "/hooks",
            "shop.example",
            "ftp://a/",
            "https://u@a/",
            "https://u:p@a/",
            "https://a/#x",
            "http://",
            "javascript:1",
        ] {
            let text = serde_json::to_string(&serde_json::json!({"url": bad})).unwrap();
            assert!(endpoint(json::parse(text.as_bytes()).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut settings =
            endpoint(json::parse(br#"{"url":"http://a/","description":"d"}"#).unwrap()).unwrap();
        let change = patch(json::parse(br#"{"delivery":"every"}"#).unwrap()).unwrap();
        change.apply(&mut settings);
        assert_eq!((settings.url.as_str(), settings.description.as_str()), ("http://a/", "d"));
        assert_eq!(settings.delivery, DeliveryMode::Every);
        patch(json::parse(br"{}").unwrap()).unwrap().apply(&mut settings);
        assert!(patch(json::parse(br#"{"url":null}"#).unwrap()).is_err());
    }

    #[test]
    fn a_replay_has_a_beginning_and_ends_not_before_it() {
        let now = Timestamp(1_795_536_000_000);
        let read = |text: &str| replay(json::parse(text.as_bytes()).unwrap(), now);
        let open = read(r#"{"since":"2026-11-24T15:00:00Z"}"#).unwrap();
        assert_eq!((open.until, open.types), (now, Vec::<String>::new()));
        for bad in [
            "{}",
            r#"{"since":"2026-11-24T17:00:00Z"}"#,
            r#"{"since":"2026-11-24T15:00:00Z","until":"2026-11-24T14:00:00Z"}"#,
            r#"{"since":"yesterday"}"#,
            r#"{"since":"2026-11-24T15:00:00Z","types":[]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grace_is_a_day_unless_it_is_named_and_a_week_at_most() {
        let read = |text: &str| rotation(json::parse(text.as_bytes()).unwrap());
        assert_eq!(read("{}"), Ok(86_400));
        assert_eq!(read(r#"{"grace_seconds":0}"#), Ok(0));
        assert!(read(r#"{"grace_seconds":604801}"#).is_err());
        assert!(read(r#"{"grace_seconds":-1}"#).is_err());
    }
}
