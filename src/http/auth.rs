//! Who calls, and what they may: the one place that decides a role for a route.

use std::sync::Arc;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::uri::Authority;
use actix_web::web;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wavegate_engine::domain::command::Kind;
use wavegate_engine::domain::ids::ClientNo;
use wavegate_engine::engine::Handle;
use wavegate_engine::wire::reader::{FaultCode, Faults, Path};

use super::events::ticket::{Grant, Refused, cookie_in};
use super::problem::Problem;
use super::state::State;

/// A configured key: only its digest is known here.
#[derive(Clone, Debug)]
pub struct KeyConfig {
    /// Whose it is.
    pub role: Role,
    /// SHA-256 of the key as printed.
    pub sha256: [u8; 32],
}

/// What a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client: its own transactions and stock.
    Client {
        /// Its name.
        client: String,
    },
    /// The system of these warehouses.
    Wms {
        /// Their codes.
        warehouses: Vec<String>,
    },
    /// Everything.
    Operator,
}

/// The client that calls are for when there are no keys.
pub const LOCAL_CLIENT: &str = "local";

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Nobody in particular, on a route that anybody may call.
    Anybody,
    /// A client.
    Client(ClientNo),
    /// A warehouse's system, of the warehouses with these codes.
    Wms(Arc<[String]>),
    /// An operator, who names the client that a call is for.
    Operator,
    /// Without keys: an operator that is also this client.
    Local(ClientNo),
}

impl Caller {
    /// Whether a transaction of this client and kind, in this warehouse, is the caller's to see.
    /// A warehouse's system sees what it brings or carries out as such, and never an order.
    pub(crate) fn sees(&self, owner: ClientNo, kind: Kind, warehouse: &str) -> bool {
        match (self, kind) {
            (Caller::Client(own), _) => *own == owner,
            (Caller::Operator | Caller::Local(_), _) => true,
            (Caller::Wms(_), Kind::Move | Kind::Manifest) => self.enters(warehouse),
            (Caller::Wms(_), Kind::Order | Kind::Cancellation) | (Caller::Anybody, _) => false,
        }
    }

    /// Whether the caller may act in and look into this warehouse.
    pub(crate) fn enters(&self, warehouse: &str) -> bool {
        match self {
            Caller::Wms(own) => own.iter().any(|code| code == warehouse),
            Caller::Client(_) | Caller::Operator | Caller::Local(_) => true,
            Caller::Anybody => false,
        }
    }

    /// The client that a call is for; `named` is the caller's word for it, found at `at`.
    pub(crate) fn client(
        &self,
        engine: &Handle,
        named: Option<&str>,
        at: &'static str,
    ) -> Result<ClientNo, Problem> {
        let named = match named {
            None => None,
            Some(name) => Some(match engine.client(name) {
                Some(client) => client,
                None if matches!(self, Caller::Client(_)) => return Err(ANOTHER),
                None => return Err(unknown_client(at)),
            }),
        };
        match (self, named) {
            (Caller::Client(own), Some(named)) if named != *own => Err(ANOTHER),
            (Caller::Client(own), _) => Ok(*own),
            (Caller::Local(own), None) => Ok(*own),
            (Caller::Local(_) | Caller::Operator | Caller::Wms(_), Some(named)) => Ok(named),
            (Caller::Operator | Caller::Wms(_), None) => Err(Problem::ClientRequired),
            (Caller::Anybody, _) => Err(Problem::Unauthorized),
        }
    }
}

/// A client may not learn which other names exist, so every other name is answered alike.
const ANOTHER: Problem = Problem::Forbidden("the key is another client's");

fn unknown_client(at: &'static str) -> Problem {
    let mut faults = Faults::new(1);
    faults.add(&Path::Key(&Path::Root, at), FaultCode::UnknownClient, "no client has this name");
    Problem::Invalid(faults.into_vec())
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Anybody, without a key.
    Open,
    /// Clients and operators.
    Clients,
    /// Clients, operators and warehouses' systems.
    All,
    /// Operators.
    Operators,
}

/// The access table. A path that is not served needs no key to be told so.
fn access(pattern: Option<&str>) -> Access {
    match pattern {
        // What a warehouse's system sees of transactions is decided by their kind.
        Some(
            "/v1/inventory/moves"
            | "/v1/status/{id}"
            | "/v1/status/{id}/events"
            | "/v1/status/query"
            | "/v1/events/tickets",
        ) => Access::All,
        Some(warehouses) if warehouses.starts_with("/v1/warehouses") => Access::All,
        // A page holds nothing of a client; it asks for it as any caller does.
        Some("/healthz" | "/readyz" | "/track/{id}") | None => Access::Open,
        Some(assets) if assets.starts_with("/assets/") => Access::Open,
        Some("/metrics") => Access::Operators,
        Some(ops) if ops.starts_with("/v1/ops/") => Access::Operators,
        Some(_) => Access::Clients,
    }
}

/// The keys, ready to compare.
#[derive(Debug)]
pub(crate) struct Keys {
    known: Vec<([u8; 32], Caller)>,
    local: Option<ClientNo>,
}

impl Keys {
    /// Resolves the names of the configured keys.
    ///
    /// # Errors
    /// The name of a client that the engine does not know.
    pub(crate) fn new(configured: &[KeyConfig], engine: &Handle) -> Result<Keys, String> {
        let number = |name: &str| engine.client(name).ok_or_else(|| name.to_owned());
        let mut known = Vec::with_capacity(configured.len());
        for key in configured {
            let caller = match &key.role {
                Role::Client { client } => Caller::Client(number(client)?),
                Role::Wms { warehouses } => Caller::Wms(warehouses.clone().into()),
                Role::Operator => Caller::Operator,
            };
            known.push((key.sha256, caller));
        }
        let local = if known.is_empty() { Some(number(LOCAL_CLIENT)?) } else { None };
        Ok(Keys { known, local })
    }

    /// Decides who calls and whether they may.
    pub(crate) fn admit(&self, request: &ServiceRequest) -> Result<Caller, Problem> {
        if let Some(local) = self.local {
            only_from_this_machine(request)?;
            return Ok(Caller::Local(local));
        }
        let access = access(request.match_pattern().as_deref());
        if access == Access::Open {
            return Ok(Caller::Anybody);
        }
        let caller = bearer(request.headers()).and_then(|key| self.holder(key));
        let caller = caller.ok_or(Problem::Unauthorized)?;
        match (&caller, access) {
            (Caller::Wms(_), Access::Clients) => {
                Err(Problem::Forbidden("the key of a warehouse's system is not for this"))
            }
            (Caller::Client(_) | Caller::Wms(_), Access::Operators) => {
                Err(Problem::Forbidden("only an operator's key is for this"))
            }
            (_, Access::Open | Access::Clients | Access::All | Access::Operators) => Ok(caller),
        }
    }

    /// Compares with every key to the end, so that the time tells nothing.
    fn holder(&self, key: &[u8]) -> Option<Caller> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut holder = None;
        for (known, caller) in &self.known {
            if bool::from(known.ct_eq(&digest)) {
                holder = Some(caller);
            }
        }
        holder.cloned()
    }
}

/// Who comes to a stream with a ticket, or with the cookie that one has set: a browser, which can send
/// no key. `None` when the caller brings neither, or a key.
pub(super) async fn stream_guest(request: &ServiceRequest, state: &State) -> Result<Option<Grant>, Problem> {
    // Looked for first: most requests bring neither, and the pattern costs a walk over the routes.
    let brings = request.query_string().contains("ticket") || request.headers().contains_key(header::COOKIE);
    if !brings || request.headers().contains_key(header::AUTHORIZATION) {
        return Ok(None);
    }
    let stream = matches!(request.match_pattern().as_deref(), Some("/v1/events" | "/v1/status/{id}/events"));
    if !stream {
        return Ok(None);
    }
    let ticket = ticket_in(request.query_string());
    let cookies = request.headers().get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let cookie = cookie_in(cookies);
    let local = state.keys.local.is_some();
    // Without keys everybody here is let in anyway; but a ticket means what it says.
    if ticket.is_none() && (cookie.is_none() || local) {
        return Ok(None);
    }
    if local {
        only_from_this_machine(request)?;
    }
    let mut hosts = request.headers().get_all(header::HOST).filter_map(|host| host.to_str().ok());
    let secure = !hosts.next().is_some_and(is_loopback_authority);
    let now = state.engine.now();
    match state.tickets.admit(request.path(), ticket.as_deref(), cookie, now, secure).await {
        Ok(grant) => Ok(Some(grant)),
        Err(Refused::OtherStream) => Err(Problem::TicketScope),
        Err(Refused::Unknown) => Err(Problem::Unauthorized),
        Err(Refused::StoreUnavailable) => Err(Problem::StoreUnavailable),
    }
}

/// The ticket of a query. One that stands there empty, or twice, is none that we made.
fn ticket_in(query: &str) -> Option<String> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query).ok()?.into_inner();
    pairs.into_iter().find(|(name, _)| name == "ticket").map(|(_, ticket)| ticket)
}

/// The key of `Authorization: Bearer <key>` (RFC 6750), when the header stands once.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let value = values.next().filter(|_| values.next().is_none())?.as_bytes();
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

/// Without keys anything that runs in a browser here could reach us: only names of this machine
/// are answered to, which a page of another origin or a rebound name does not have.
fn only_from_this_machine(request: &ServiceRequest) -> Result<(), Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).peekable();
    let host_is_local = |host: &header::HeaderValue| host.to_str().is_ok_and(is_loopback_authority);
    let target_is_local = request.uri().authority().is_none_or(|a| is_loopback_authority(a.as_str()));
    if hosts.peek().is_none() || !hosts.all(host_is_local) || !target_is_local {
        return Err(Problem::HostNotAllowed);
    }
    let origin_is_local = |origin: &header::HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(is_loopback_authority)
    };
    if headers.get_all(header::ORIGIN).all(origin_is_local) { Ok(()) } else { Err(Problem::OriginNotAllowed) }
}

/// `localhost` and names below it (RFC 6761 §6.3), 127.0.0.0/8 or `[::1]`, with any port.
fn is_loopback_authority(text: &str) -> bool {
    if text.contains('@') {
        return false;
    }
    let Ok(authority) = Authority::try_from(text) else { return false };
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host);
    let below = host.len().checked_sub(".localhost".len()).and_then(|at| host.get(at..));
    if host.eq_ignore_ascii_case("localhost") || below.is_some_and(|h| h.eq_ignore_ascii_case(".localhost")) {
        return true;
    }
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn hash(key: &str) -> [u8; 32] {
        Sha256::digest(key).into()
    }

    fn keys() -> Keys {
        let known = vec![
            (hash("client-key-0123456"), Caller::Client(ClientNo(1))),
            (hash("wms-key-0123456789"), Caller::Wms(vec!["ATL1".to_owned()].into())),
            (hash("operator-key-01234"), Caller::Operator),
        ];
        Keys { known, local: None }
    }

    fn local_answer(headers: &[(&'static str, &str)]) -> Result<Caller, u16> {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        let keys = Keys { known: Vec::new(), local: Some(ClientNo(7)) };
        keys.admit(&request.to_srv_request()).map_err(|p| p.status().as_u16())
    }

    #[test]
    fn without_keys_only_loopback_names_are_answered() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.1.2.3", "[::1]:80", "a.localhost"] {
            assert_eq!(local_answer(&[("host", host)]), Ok(Caller::Local(ClientNo(7))), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "192.168.0.1",
            "localhost@evil",
            "0.0.0.0",
            "",
            "[::2]",
        ] {
            assert_eq!(local_answer(&[("host", host)]), Err(421), "{host}");
        }
        assert_eq!(local_answer(&[]), Err(421));
        for (origin, answer) in [
            ("http://localhost:3000", Ok(Caller::Local(ClientNo(7)))),
            ("https://127.0.0.1", Ok(Caller::Local(ClientNo(7)))),
            ("https://evil.example", Err(403)),
            ("null", Err(403)),
            ("file://localhost", Err(403)),
        ] {
            assert_eq!(local_answer(&[("host", "localhost"), ("origin", origin)]), answer, "{origin}");
        }
    }

    #[test]
    fn a_key_is_its_holder_and_no_other() {
        let keys = keys();
        assert_eq!(keys.holder(b"client-key-0123456"), Some(Caller::Client(ClientNo(1))));
        assert_eq!(keys.holder(b"operator-key-01234"), Some(Caller::Operator));
        for wrong in [&b""[..], b"client-key-012345", b"client-key-01234567", b"CLIENT-KEY-0123456"] {
            assert_eq!(keys.holder(wrong), None);
        }
    }

    #[test]
    fn the_access_table_is_the_contract_s() {
        for open in ["/healthz", "/readyz"] {
            assert_eq!(access(Some(open)), Access::Open);
        }
        for clients in ["/v1/orders", "/v1/orders/batch", "/v1/orders/{id}/cancel"] {
            assert_eq!(access(Some(clients)), Access::Clients);
        }
        for all in [
            "/v1/inventory/moves",
            "/v1/status/{id}",
            "/v1/status/query",
            "/v1/warehouses",
            "/v1/warehouses/{code}/inventory/{sku}",
        ] {
            assert_eq!(access(Some(all)), Access::All);
        }
    }

    #[test]
    fn only_one_bearer_header_names_a_key() {
        let read = |values: &[&str]| {
            let mut request = TestRequest::default();
            for value in values {
                request = request.append_header((header::AUTHORIZATION, *value));
            }
            bearer(request.to_srv_request().headers()).map(<[u8]>::to_vec)
        };
        assert_eq!(read(&["bearer abc"]), Some(b"abc".to_vec()));
        for bad in [&[][..], &["Basic abc"], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
