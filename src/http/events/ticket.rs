//! What lets a browser, which can set no header, follow a stream: a ticket that is used once and
//! soon, and the cookie that its first use sets, by which the browser goes on by itself.
//!
//! A ticket lives in this process's memory; a cookie says itself what it may see and until when, and
//! is signed with a secret of the store, so it holds after a restart. Neither may reach a log.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use rand::Rng;
use sha2::{Digest, Sha256};
use wavegate_engine::domain::ids::{ClientNo, TransactionId};
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::wire::event::TypeFilter;

/// A ticket must be used within this.
pub(super) const TICKET_MAX: Duration = Duration::from_secs(30);
/// A browser goes on by itself for this long.
const COOKIE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Tickets that wait to be used.
const TICKETS_MAX: usize = 10_000;
/// Of one client, so that no client uses up all.
const TICKETS_OF_CLIENT_MAX: usize = 1_000;
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
    /// The ticket that was used.
    ticket: Option<Used>,
}

/// A ticket that was used: it is given back when it has opened nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Used {
    digest: [u8; 32],
    until: Timestamp,
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
}

struct Waiting {
    client: ClientNo,
    scope: Scope,
    until: Timestamp,
}

/// The tickets that wait to be used, and the seal of cookies.
pub(crate) struct Tickets {
    /// By the digest of the ticket, so that the time of a look tells nothing about it.
    waiting: Mutex<HashMap<[u8; 32], Waiting>>,
    secret: [u8; 32],
}

impl Tickets {
    /// None yet; cookies are sealed with `secret`.
    pub(crate) fn new(secret: [u8; 32]) -> Tickets {
        Tickets { waiting: Mutex::default(), secret }
    }

    /// True when the cookie that a ticket of this scope sets is one that browsers keep.
    pub(crate) fn is_short_enough(&self, client: ClientNo, scope: &Scope) -> bool {
        self.seal(client, scope, &[0; 32], Timestamp::NEVER).len() <= COOKIE_BYTES_MAX
    }

    /// Makes a ticket, and says until when it can be used; `None` when too many wait.
    pub(crate) fn make(&self, client: ClientNo, scope: Scope, now: Timestamp) -> Option<(String, Timestamp)> {
        let ticket = hex(&rand::rng().random::<[u8; 32]>());
        let until = now.after(TICKET_MAX);
        let mut waiting = self.waiting.lock();
        let is_full = |waiting: &HashMap<[u8; 32], Waiting>| {
            let own = || waiting.values().filter(|ticket| ticket.client == client).count();
            waiting.len() >= TICKETS_MAX
                || (waiting.len() >= TICKETS_OF_CLIENT_MAX && own() >= TICKETS_OF_CLIENT_MAX)
        };
        if is_full(&waiting) {
            waiting.retain(|_, ticket| ticket.until > now);
        }
        if is_full(&waiting) {
            return None;
        }
        waiting.insert(digest(&ticket), Waiting { client, scope, until });
        Some((ticket, until))
    }

    /// Lets in who brings a ticket or a cookie to the stream at `path`. A ticket is used up by it; one
    /// that was used before is looked past when the cookie that it set is there, for a browser comes
    /// again under the same address. `secure`: the cookie must not travel in the clear.
    pub(crate) fn admit(
        &self,
        path: &str,
        ticket: Option<&str>,
        cookie: Option<&str>,
        now: Timestamp,
        secure: bool,
    ) -> Result<Grant, Refused> {
        let used = ticket.map_or(Err(Refused::Unknown), |ticket| self.redeem(path, ticket, now, secure));
        match (used, cookie) {
            (Ok(grant), _) => Ok(grant),
            (Err(Refused::Unknown), Some(cookie)) => self.recognise(path, ticket, cookie, now),
            (Err(why), _) => Err(why),
        }
    }

    /// Takes a ticket back that has opened nothing: who brought it may try again.
    pub(crate) fn give_back(&self, grant: Grant) {
        if let Grant { client, scope, ticket: Some(Used { digest, until }), .. } = grant {
            self.waiting.lock().insert(digest, Waiting { client, scope, until });
        }
    }

    fn redeem(&self, path: &str, ticket: &str, now: Timestamp, secure: bool) -> Result<Grant, Refused> {
        let mut waiting = self.waiting.lock();
        let key = digest(ticket);
        let found = waiting.get(&key).filter(|ticket| ticket.until > now).ok_or(Refused::Unknown)?;
        if found.scope.path() != path {
            return Err(Refused::OtherStream);
        }
        let Waiting { client, scope, until } = waiting.remove(&key).ok_or(Refused::Unknown)?;
        drop(waiting);
        let mut cookie = format!(
            "{COOKIE}={}; Path={}; Max-Age={}; HttpOnly; SameSite=Strict",
            self.seal(client, &scope, &key, now.after(COOKIE_MAX)),
            scope.path(),
            COOKIE_MAX.as_secs()
        );
        if secure {
            cookie.push_str("; Secure");
        }
        Ok(Grant { client, scope, cookie: Some(cookie), ticket: Some(Used { digest: key, until }) })
    }

    fn recognise(
        &self,
        path: &str,
        ticket: Option<&str>,
        cookie: &str,
        now: Timestamp,
    ) -> Result<Grant, Refused> {
        let (client, scope, mark, until) = self.open(cookie).ok_or(Refused::Unknown)?;
        if until <= now {
            return Err(Refused::Unknown);
        }
        let is_the_same = match scope {
            Scope::Transaction(_) => true,
            // A browser has one cookie for the feed: another page of it may have brought another ticket.
            Scope::Types(_) => ticket.is_none_or(|ticket| mark_of(&digest(ticket)) == mark),
        };
        if scope.path() != path || !is_the_same {
            return Err(Refused::OtherStream);
        }
        Ok(Grant { client, scope, cookie: None, ticket: None })
    }

    /// What a cookie says, and the proof that we said it.
    fn seal(&self, client: ClientNo, scope: &Scope, ticket: &[u8; 32], until: Timestamp) -> String {
        let said = format!("{}.{}.{}.{}", client.0, until.0, mark_of(ticket), scope.write());
        let said = hex(said.as_bytes());
        let proof = hex(&self.mac(&said).finalize().into_bytes());
        format!("{said}.{proof}")
    }

    fn open(&self, cookie: &str) -> Option<(ClientNo, Scope, String, Timestamp)> {
        let (said, proof) = cookie.split_once('.')?;
        // Compared in constant time.
        self.mac(said).verify_slice(&unhex(proof)?).ok()?;
        let said = String::from_utf8(unhex(said)?).ok()?;
        let mut parts = said.splitn(4, '.');
        let client = ClientNo(parts.next()?.parse().ok()?);
        let until = Timestamp(parts.next()?.parse().ok()?);
        let mark = parts.next()?.to_owned();
        Some((client, Scope::read(parts.next()?)?, mark, until))
    }

    fn mac(&self, said: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        mac.update(said.as_bytes());
        mac
    }
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

fn digest(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket).into()
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

    fn tickets() -> Tickets {
        Tickets::new([7; 32])
    }

    fn of_transaction() -> Scope {
        Scope::Transaction(TransactionId::new(Timestamp(5), PartitionId(1), 9))
    }

    fn value(grant: &Grant) -> String {
        let cookie = grant.cookie.as_deref().unwrap();
        cookie_in(cookie.split("; ").take(1)).unwrap().to_owned()
    }

    #[test]
    fn a_ticket_lets_in_once_within_its_time_and_to_its_stream_only() {
        let (tickets, scope) = (tickets(), of_transaction());
        let path = scope.path();
        let (ticket, until) = tickets.make(ClientNo(3), scope.clone(), NOW).unwrap();
        assert_eq!(until, NOW.after(TICKET_MAX));
        let admit = |path: &str, ticket: &str, now| tickets.admit(path, Some(ticket), None, now, false);
        assert_eq!(admit("/v1/events", &ticket, NOW), Err(Refused::OtherStream));
        let grant = admit(&path, &ticket, NOW).unwrap();
        assert_eq!((grant.client, &grant.scope), (ClientNo(3), &scope));
        assert_eq!(admit(&path, &ticket, NOW), Err(Refused::Unknown));
        let (late, until) = tickets.make(ClientNo(3), scope, NOW).unwrap();
        assert_eq!(admit(&path, &late, until), Err(Refused::Unknown));
        assert_eq!(admit(&path, "", NOW), Err(Refused::Unknown));
    }

    #[test]
    fn a_cookie_holds_in_another_process_for_its_stream_until_its_end() {
        let scope = Scope::Types("wavegate.order.*,wavegate.move.applied".parse().unwrap());
        let first = tickets();
        let (ticket, _) = first.make(ClientNo(3), scope.clone(), NOW).unwrap();
        let grant = first.admit("/v1/events", Some(&ticket), None, NOW, true).unwrap();
        let set = grant.cookie.clone().unwrap();
        for part in
            ["; Path=/v1/events;", "; Max-Age=86400;", "; HttpOnly;", "; SameSite=Strict;", "; Secure"]
        {
            assert!(set.contains(part), "{set}");
        }
        let cookie = value(&grant);
        let second = tickets();
        let again = second.admit("/v1/events", Some(&ticket), Some(&cookie), NOW, true).unwrap();
        assert_eq!(again, Grant { client: ClientNo(3), scope, cookie: None, ticket: None });
        let (another, _) = first.make(ClientNo(3), of_transaction(), NOW).unwrap();
        let others = second.admit("/v1/events", Some(&another), Some(&cookie), NOW, true);
        assert_eq!(others, Err(Refused::OtherStream), "a cookie that another page's ticket has set");
        let other = of_transaction().path();
        assert_eq!(second.admit(&other, None, Some(&cookie), NOW, true), Err(Refused::OtherStream));
        let end = NOW.after(COOKIE_MAX);
        assert_eq!(second.admit("/v1/events", None, Some(&cookie), end, true), Err(Refused::Unknown));
    }

    #[test]
    fn a_cookie_that_we_did_not_seal_is_none() {
        let tickets = tickets();
        let sealed = tickets.seal(ClientNo(3), &of_transaction(), &[1; 32], NOW.after(COOKIE_MAX));
        let path = of_transaction().path();
        let admit = |cookie: &str| tickets.admit(&path, None, Some(cookie), NOW, false);
        assert!(admit(&sealed).is_ok());
        let other =
            Tickets::new([8; 32]).seal(ClientNo(3), &of_transaction(), &[1; 32], NOW.after(COOKIE_MAX));
        let (said, proof) = sealed.split_once('.').unwrap();
        let last = if proof.ends_with('0') { "1" } else { "0" };
        for bad in [
            other,
            said.to_owned(),
            format!("{said}."),
            format!("{said}.{}{last}", &proof[..63]),
            format!("{}.{proof}", hex(b"4.99999999999999.t")),
            "é.é".to_owned(),
            String::new(),
        ] {
            assert_eq!(admit(&bad), Err(Refused::Unknown), "{bad}");
        }
    }

    #[test]
    fn tickets_that_nobody_uses_make_room_when_their_time_is_over() {
        let tickets = tickets();
        for client in 0..TICKETS_MAX / TICKETS_OF_CLIENT_MAX {
            let client = ClientNo(u32::try_from(client).unwrap());
            for _ in 0..TICKETS_OF_CLIENT_MAX {
                assert!(tickets.make(client, of_transaction(), NOW).is_some());
            }
            assert_eq!(tickets.make(client, of_transaction(), NOW), None, "one client cannot use up all");
        }
        assert_eq!(tickets.make(ClientNo(99), of_transaction(), NOW), None);
        assert!(tickets.make(ClientNo(1), of_transaction(), NOW.after(TICKET_MAX)).is_some());
        assert_eq!(tickets.waiting.lock().len(), 1);
    }

    #[test]
    fn a_ticket_that_has_opened_nothing_can_be_used_again() {
        let (tickets, path) = (tickets(), of_transaction().path());
        let (ticket, _) = tickets.make(ClientNo(3), of_transaction(), NOW).unwrap();
        let grant = tickets.admit(&path, Some(&ticket), None, NOW, false).unwrap();
        tickets.give_back(grant);
        let grant = tickets.admit(&path, Some(&ticket), None, NOW, false).unwrap();
        let by_cookie = tickets.admit(&path, Some(&ticket), Some(&value(&grant)), NOW, false).unwrap();
        tickets.give_back(by_cookie);
        assert_eq!(tickets.admit(&path, Some(&ticket), None, NOW, false), Err(Refused::Unknown));
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
