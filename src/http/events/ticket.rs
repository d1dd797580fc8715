//! What lets a browser, which can set no header, follow a stream: a ticket that is used once and
//! soon, and the cookie that its first use sets, by which the browser goes on by itself.
//!
//! Both say themselves what they may see and until when, and are signed with a secret of the store: so
//! they hold at every node that shares it, and a cookie holds after a restart. That a ticket was used is
//! remembered by the nodes together; where there can be only one it is forgotten with the process, and
//! tickets from before its start are refused. Neither may reach a log.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use rand::Rng;
use sha2::{Digest, Sha256};
use wavegate_engine::domain::ids::{ClientNo, TransactionId};
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::ports::membership::Membership;
use wavegate_engine::ports::store::Store;
use wavegate_engine::wire::event::TypeFilter;

/// A ticket must be used within this.
pub(super) const TICKET_MAX: Duration = Duration::from_secs(30);
/// A browser goes on by itself for this long.
const COOKIE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// So long a used ticket is remembered: longer than it can be used by any node's clock.
const USED_FOR: Duration = Duration::from_secs(120);
/// With so many remembered, those that are over are forgotten.
const USED_MANY: usize = 1_024;
/// Bytes of a cookie that every browser takes, its attributes included (RFC 6265 §6.1: 4,096).
const COOKIE_BYTES_MAX: usize = 3_800;
/// The cookie's name.
const COOKIE: &str = "wavegate_stream";

/// What a ticket or a cookie may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One transaction.
    Transaction(TransactionId),
    /// Events of these types of the client's feed.
    Types(TypeFilter),
}

/// What a caller was let in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Whose events.
    pub(crate) client: ClientNo,
    /// Which of them.
    pub(crate) scope: Scope,
    /// The cookie to set, when a ticket was used.
    pub(crate) cookie: Option<String>,
    /// The name of the ticket that was used: it is given back when it has opened nothing.
    ticket: Option<[u8; 32]>,
}

impl Scope {
    /// The path of the one stream that it is for.
    fn path(&self) -> String {
        match self {
            Scope::Transaction(id) => format!("/v1/status/{id}/events"),
            Scope::Types(_) => "/v1/events".to_owned(),
        }
    }

    fn write(&self) -> String {
        match self {
            Scope::Transaction(id) => format!("t{id}"),
            Scope::Types(types) => format!("e{}", types.patterns().collect::<Vec<_>>().join(",")),
        }
    }

    fn read(text: &str) -> Option<Scope> {
        match text.split_at_checked(1)? {
            ("t", id) => id.parse().ok().map(Scope::Transaction),
            ("e", types) => types.parse().ok().map(Scope::Types),
            _ => None,
        }
    }
}

/// Why a ticket or a cookie lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not known, used, or too old.
    Unknown,
    /// It is for another stream.
    OtherStream,
    /// Whether it was used before cannot be known now.
    StoreUnavailable,
}

/// Names of used tickets, and until when they are remembered.
struct Used {
    until: HashMap<[u8; 32], Timestamp>,
    /// How many there may be before those that are over are looked for.
    many: usize,
}

/// The seals of tickets and cookies, and which tickets were used.
pub(crate) struct Tickets {
    cookies: [u8; 32],
    tickets: [u8; 32],
    used: Mutex<Used>,
    /// The nodes that remember together; where there can be only one, since when it remembers.
    memory: Result<Arc<dyn Membership>, Timestamp>,
}

impl Tickets {
    /// Those of a store, for a process that starts now.
    pub(crate) fn of(store: &dyn Store, now: Timestamp) -> Tickets {
        let memory = store.membership().ok_or(now);
        Tickets::new(store.secret("wavegate_stream"), store.secret("wavegate_ticket"), memory)
    }

    fn new(cookies: [u8; 32], tickets: [u8; 32], memory: Result<Arc<dyn Membership>, Timestamp>) -> Tickets {
        let used = Mutex::new(Used { until: HashMap::new(), many: USED_MANY });
        Tickets { cookies, tickets, used, memory }
    }

    /// True when the cookie that a ticket of this scope sets is one that browsers keep.
    pub(crate) fn is_short_enough(&self, client: ClientNo, scope: &Scope) -> bool {
        seal(&self.cookies, client, scope, &[0; 32], Timestamp::NEVER).len() <= COOKIE_BYTES_MAX
    }

    /// Makes a ticket, and says until when it can be used.
    pub(crate) fn make(&self, client: ClientNo, scope: &Scope, now: Timestamp) -> (String, Timestamp) {
        let until = now.after(TICKET_MAX);
        (seal(&self.tickets, client, scope, &rand::rng().random(), until), until)
    }

    /// Lets in who brings a ticket or a cookie to the stream at `path`. A ticket is used up by it; one
    /// that was used before is looked past when the cookie that it set is there, for a browser comes
    /// again under the same address. `secure`: the cookie must not travel in the clear.
    pub(crate) async fn admit(
        &self,
        path: &str,
        ticket: Option<&str>,
        cookie: Option<&str>,
        now: Timestamp,
        secure: bool,
    ) -> Result<Grant, Refused> {
        let used = match ticket {
            Some(ticket) => self.redeem(path, ticket, now, secure).await,
            None => Err(Refused::Unknown),
        };
        match (used, cookie) {
            (Ok(grant), _) => Ok(grant),
            (Err(Refused::Unknown), Some(cookie)) => self.recognise(path, ticket, cookie, now),
            (Err(why), _) => Err(why),
        }
    }

    /// Takes a ticket back that has opened nothing: who brought it may try again.
    pub(crate) async fn give_back(&self, grant: Grant) {
        let Some(name) = grant.ticket else { return };
        self.used.lock().until.remove(&name);
        if let Ok(nodes) = &self.memory {
            nodes.forget_use(name).await;
        }
    }

    async fn redeem(&self, path: &str, ticket: &str, now: Timestamp, secure: bool) -> Result<Grant, Refused> {
        let sealed = open(&self.tickets, ticket).filter(|sealed| sealed.until > now);
        let Sealed { client, scope, until, .. } = sealed.ok_or(Refused::Unknown)?;
        if scope.path() != path {
            return Err(Refused::OtherStream);
        }
        let name = name_of(ticket);
        if !self.is_first_use(name, until, now).await? {
            return Err(Refused::Unknown);
        }
        let mut cookie = format!(
            "{COOKIE}={}; Path={}; Max-Age={}; HttpOnly; SameSite=Strict",
            seal(&self.cookies, client, &scope, &name, now.after(COOKIE_MAX)),
            scope.path(),
            COOKIE_MAX.as_secs()
        );
        if secure {
            cookie.push_str("; Secure");
        }
        Ok(Grant { client, scope, cookie: Some(cookie), ticket: Some(name) })
    }

    async fn is_first_use(&self, name: [u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, Refused> {
        if !self.used.lock().is_first(name, now) {
            return Ok(false);
        }
        match &self.memory {
            Err(since) => Ok(until >= since.after(TICKET_MAX)),
            Ok(nodes) => nodes.first_use(name, USED_FOR).await.map_err(|why| {
                tracing::warn!(%why, "a ticket is not taken: it may have been used");
                self.used.lock().until.remove(&name);
                Refused::StoreUnavailable
            }),
        }
    }

    fn recognise(
        &self,
        path: &str,
        ticket: Option<&str>,
        cookie: &str,
        now: Timestamp,
    ) -> Result<Grant, Refused> {
        let sealed = open(&self.cookies, cookie).filter(|sealed| sealed.until > now);
        let Sealed { client, scope, mark, .. } = sealed.ok_or(Refused::Unknown)?;
        let is_the_same = match scope {
            Scope::Transaction(_) => true,
            // A browser has one cookie for the feed: another page of it may have brought another ticket.
            Scope::Types(_) => ticket.is_none_or(|ticket| mark_of(&name_of(ticket)) == mark),
        };
        if scope.path() != path || !is_the_same {
            return Err(Refused::OtherStream);
        }
        Ok(Grant { client, scope, cookie: None, ticket: None })
    }
}

impl Used {
    /// True for a name that is not remembered; from here on it is.
    fn is_first(&mut self, name: [u8; 32], now: Timestamp) -> bool {
        if self.until.len() >= self.many {
            self.until.retain(|_, until| *until > now);
            self.many = USED_MANY.max(2 * self.until.len());
        }
        self.until.insert(name, now.after(USED_FOR)).is_none()
    }
}

/// What a ticket or a cookie says.
struct Sealed {
    client: ClientNo,
    until: Timestamp,
    /// Tells it from others; in a cookie, which ticket set it.
    mark: String,
    scope: Scope,
}

/// What is to be said, and the proof that we said it.
fn seal(secret: &[u8; 32], client: ClientNo, scope: &Scope, mark: &[u8; 32], until: Timestamp) -> String {
    let said = format!("{}.{}.{}.{}", client.0, until.0, mark_of(mark), scope.write());
    let said = hex(said.as_bytes());
    let proof = hex(&mac(secret, &said).finalize().into_bytes());
    format!("{said}.{proof}")
}

fn open(secret: &[u8; 32], sealed: &str) -> Option<Sealed> {
    let (said, proof) = sealed.split_once('.')?;
    // Compared in constant time.
    mac(secret, said).verify_slice(&unhex(proof)?).ok()?;
    let said = String::from_utf8(unhex(said)?).ok()?;
    let mut parts = said.splitn(4, '.');
    let client = ClientNo(parts.next()?.parse().ok()?);
    let until = Timestamp(parts.next()?.parse().ok()?);
    let mark = parts.next()?.to_owned();
    Some(Sealed { client, until, mark, scope: Scope::read(parts.next()?)? })
}

fn mac(secret: &[u8; 32], said: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(said.as_bytes());
    mac
}

/// The cookie of streams among those that a browser sends.
pub(crate) fn cookie_in<'h>(headers: impl Iterator<Item = &'h str>) -> Option<&'h str> {
    let all = headers.flat_map(|header| header.split(';'));
    let mut ours = all.filter_map(|pair| pair.trim().split_once('=').filter(|(name, _)| *name == COOKIE));
    ours.next().map(|(_, value)| value)
}

/// By which a cookie knows the ticket that set it.
fn mark_of(ticket: &[u8; 32]) -> String {
    hex(&ticket[..8])
}

/// The name of a ticket: of what it says, for its proof can be written in more than one way.
fn name_of(ticket: &str) -> [u8; 32] {
    let said = ticket.split_once('.').map_or(ticket, |(said, _)| said);
    Sha256::digest(said).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wavegate_engine::domain::ids::PartitionId;

    const NOW: Timestamp = Timestamp(1_000_000);

    /// Of a process that has started now and is the only one.
    fn tickets() -> Tickets {
        Tickets::new([7; 32], [8; 32], Err(NOW))
    }

    fn of_transaction() -> Scope {
        Scope::Transaction(TransactionId::new(Timestamp(5), PartitionId(1), 9))
    }

    fn value(grant: &Grant) -> String {
        let cookie = grant.cookie.as_deref().unwrap();
        cookie_in(cookie.split("; ").take(1)).unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_ticket_lets_in_once_within_its_time_and_to_its_stream_only() {
        let (tickets, scope) = (tickets(), of_transaction());
        let path = scope.path();
        let (ticket, until) = tickets.make(ClientNo(3), &scope, NOW);
        assert_eq!(until, NOW.after(TICKET_MAX));
        let admit =
            async |path: &str, ticket: &str, now| tickets.admit(path, Some(ticket), None, now, false).await;
        assert_eq!(admit("/v1/events", &ticket, NOW).await, Err(Refused::OtherStream));
        let grant = admit(&path, &ticket, NOW).await.unwrap();
        assert_eq!((grant.client, &grant.scope), (ClientNo(3), &scope));
        assert_eq!(admit(&path, &ticket, NOW).await, Err(Refused::Unknown));
        let (said, proof) = ticket.split_once('.').unwrap();
        let loud = format!("{said}.{}", proof.to_uppercase());
        assert_eq!(admit(&path, &loud, NOW).await, Err(Refused::Unknown), "the same ticket, written anew");
        let (late, until) = tickets.make(ClientNo(3), &scope, NOW);
        assert_eq!(admit(&path, &late, until).await, Err(Refused::Unknown));
        assert_eq!(admit(&path, "", NOW).await, Err(Refused::Unknown));
        assert_eq!(admit(&path, &value(&grant), NOW).await, Err(Refused::Unknown), "a cookie is no ticket");
    }

    #[tokio::test]
    async fn a_process_that_was_not_there_lets_nobody_in_twice() {
        let (before, scope) = (tickets(), of_transaction());
        let (ticket, _) = before.make(ClientNo(3), &scope, NOW);
        let later = NOW.after(Duration::from_secs(1));
        let after = Tickets::new([7; 32], [8; 32], Err(later));
        let admit = async |ticket: &str| after.admit(&scope.path(), Some(ticket), None, later, false).await;
        assert_eq!(admit(&ticket).await, Err(Refused::Unknown));
        let (own, _) = after.make(ClientNo(3), &scope, later);
        assert!(admit(&own).await.is_ok());
    }

    #[tokio::test]
    async fn a_cookie_holds_in_another_process_for_its_stream_until_its_end() {
        let scope = Scope::Types("wavegate.order.*,wavegate.move.applied".parse().unwrap());
        let first = tickets();
        let (ticket, _) = first.make(ClientNo(3), &scope, NOW);
        let grant = first.admit("/v1/events", Some(&ticket), None, NOW, true).await.unwrap();
        let set = grant.cookie.clone().unwrap();
        for part in
            ["; Path=/v1/events;", "; Max-Age=86400;", "; HttpOnly;", "; SameSite=Strict;", "; Secure"]
        {
            assert!(set.contains(part), "{set}");
        }
        let cookie = value(&grant);
        let second = Tickets::new([7; 32], [8; 32], Err(NOW.after(TICKET_MAX)));
        let now = NOW.after(TICKET_MAX);
        let again = second.admit("/v1/events", Some(&ticket), Some(&cookie), now, true).await.unwrap();
        assert_eq!(again, Grant { client: ClientNo(3), scope, cookie: None, ticket: None });
        let (another, _) = first.make(ClientNo(3), &of_transaction(), NOW);
        let others = second.admit("/v1/events", Some(&another), Some(&cookie), now, true).await;
        assert_eq!(others, Err(Refused::OtherStream), "a cookie that another page's ticket has set");
        let other = of_transaction().path();
        let elsewhere = second.admit(&other, None, Some(&cookie), now, true).await;
        assert_eq!(elsewhere, Err(Refused::OtherStream));
        let end = NOW.after(COOKIE_MAX);
        let late = second.admit("/v1/events", None, Some(&cookie), end, true).await;
        assert_eq!(late, Err(Refused::Unknown));
    }

    #[tokio::test]
    async fn a_cookie_that_we_did_not_seal_is_none() {
        let tickets = tickets();
        let of =
            |secret: u8| seal(&[secret; 32], ClientNo(3), &of_transaction(), &[1; 32], NOW.after(COOKIE_MAX));
        let path = of_transaction().path();
        let admit = async |cookie: &str| tickets.admit(&path, None, Some(cookie), NOW, false).await;
        let sealed = of(7);
        assert!(admit(&sealed).await.is_ok());
        let (said, proof) = sealed.split_once('.').unwrap();
        let last = if proof.ends_with('0') { "1" } else { "0" };
        for bad in [
            of(8),
            said.to_owned(),
            format!("{said}."),
            format!("{said}.{}{last}", &proof[..63]),
            format!("{}.{proof}", hex(b"4.99999999999999.t")),
            "é.é".to_owned(),
            String::new(),
        ] {
            assert_eq!(admit(&bad).await, Err(Refused::Unknown), "{bad}");
        }
    }

    #[test]
    fn used_tickets_are_forgotten_when_their_time_is_over() {
        let mut used = Used { until: HashMap::new(), many: USED_MANY };
        let name = |n: usize| <[u8; 32]>::from(Sha256::digest(n.to_string()));
        for n in 0..3 * USED_MANY {
            assert!(used.is_first(name(n), NOW));
        }
        assert_eq!(used.until.len(), 3 * USED_MANY, "those that can be used still are remembered");
        assert!(!used.is_first(name(0), NOW));
        for n in 3 * USED_MANY..5 * USED_MANY {
            assert!(used.is_first(name(n), NOW.after(USED_FOR)));
        }
        assert_eq!(used.until.len(), 2 * USED_MANY);
    }

    #[tokio::test]
    async fn a_ticket_that_has_opened_nothing_can_be_used_again() {
        let (tickets, path) = (tickets(), of_transaction().path());
        let (ticket, _) = tickets.make(ClientNo(3), &of_transaction(), NOW);
        let admit =
            async |cookie: Option<&str>| tickets.admit(&path, Some(&ticket), cookie, NOW, false).await;
        let grant = admit(None).await.unwrap();
        tickets.give_back(grant).await;
        let grant = admit(None).await.unwrap();
        let by_cookie = admit(Some(&value(&grant))).await.unwrap();
        tickets.give_back(by_cookie).await;
        assert_eq!(admit(None).await, Err(Refused::Unknown));
    }

    #[test]
    fn a_cookie_that_browsers_would_drop_is_not_made() {
        let scope = |n: usize| {
            let names: Vec<String> =
                (0..n).map(|i| format!("wavegate.order.{}", "a".repeat(100 - i))).collect();
            Scope::Types(names.join(",").parse().unwrap())
        };
        assert!(tickets().is_short_enough(ClientNo(3), &scope(10)));
        assert!(!tickets().is_short_enough(ClientNo(3), &scope(30)));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let all = ["a=1; wavegate_stream=xyz; b=2"];
        assert_eq!(cookie_in(all.into_iter()), Some("xyz"));
        assert_eq!(cookie_in(["wavegate_streams=1", "x"].into_iter()), None);
    }
}
