//! Which primary has which hash slot: keys to slots, what `CLUSTER SLOTS` says, and how a command is
//! sent on when a slot is elsewhere. It must never talk to Redis.

use std::fmt;
use std::sync::Arc;

use redis::{ConnectionAddr, ErrorKind, RedisError, ServerErrorKind, Value};

use super::replies::{bytes, list, number};

/// Hash slots of a Redis Cluster (cluster specification, "Key distribution model").
const SLOTS: usize = 16_384;

/// Where a Redis listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// The address that a client was told.
    pub(super) fn of(addr: &ConnectionAddr) -> Address {
        match addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Address { host: host.as_str().into(), port: *port }
            }
            // A socket in the file system has no port, and no cluster has one.
            other => Address { host: other.to_string().into(), port: 0 },
        }
    }

    /// `host:port` as a redirection names it. Without a host it is that of who redirects.
    fn redirected(text: &str, from: &Address) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if is_unknown(host) { Arc::clone(&from.host) } else { host.into() };
        Some(Address { host, port: port.parse().ok()? })
    }
}

/// What a node says that does not know how it is reached.
fn is_unknown(host: &str) -> bool {
    host.is_empty() || host == "?"
}

/// The hash slot of a key: of what stands between its first `{` and the next `}`, if that is anything.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{');
    let tag = open.and_then(|open| {
        let behind = key.get(open + 1..)?;
        let close = behind.iter().position(|byte| *byte == b'}')?;
        behind.get(..close).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM, as the cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// Who has which slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SlotMap {
    /// One Redis has all.
    Single(Address),
    /// By slot; `None` where nobody does.
    Cluster(Vec<Option<Address>>),
}

impl SlotMap {
    /// Out of an answer to `CLUSTER SLOTS` of the node at `from`.
    pub(super) fn read(answer: Value, from: &Address) -> SlotMap {
        let mut owners = vec![None; SLOTS];
        for range in list(answer) {
            let mut parts = list(range).into_iter();
            let (Some(first), Some(last)) = (parts.next().and_then(number), parts.next().and_then(number))
            else {
                continue;
            };
            let Some(primary) = parts.next().and_then(|node| endpoint(node, from)) else { continue };
            let last = usize::try_from(last).unwrap_or(SLOTS).min(SLOTS - 1);
            let first = usize::try_from(first).unwrap_or(SLOTS);
            owners.iter_mut().take(last + 1).skip(first).for_each(|owner| *owner = Some(primary.clone()));
        }
        SlotMap::Cluster(owners)
    }

    /// Who has a slot, which is worked out only where it matters.
    pub(super) fn owner(&self, slot: impl FnOnce() -> u16) -> Option<&Address> {
        match self {
            SlotMap::Single(address) => Some(address),
            SlotMap::Cluster(owners) => owners.get(usize::from(slot())).and_then(Option::as_ref),
        }
    }

    /// A slot is elsewhere.
    pub(super) fn moved(&mut self, slot: u16, to: Address) {
        match self {
            SlotMap::Single(_) => {}
            SlotMap::Cluster(owners) => {
                if let Some(owner) = owners.get_mut(usize::from(slot)) {
                    *owner = Some(to);
                }
            }
        }
    }

    /// Everybody who has a slot, each once.
    pub(super) fn primaries(&self) -> Vec<Address> {
        let mut all: Vec<Address> = match self {
            SlotMap::Single(address) => vec![address.clone()],
            SlotMap::Cluster(owners) => {
                let mut all: Vec<&Address> = owners.iter().flatten().collect();
                all.dedup();
                all.into_iter().cloned().collect()
            }
        };
        all.sort_unstable();
        all.dedup();
        all
    }

    /// True when every slot has an owner.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            SlotMap::Single(_) => true,
            SlotMap::Cluster(owners) => owners.iter().all(Option::is_some),
        }
    }
}

/// Host and port of a node in an answer to `CLUSTER SLOTS`.
fn endpoint(node: Value, from: &Address) -> Option<Address> {
    let mut parts = list(node).into_iter();
    let host = parts.next().and_then(bytes).and_then(|host| String::from_utf8(host).ok());
    let host = host.filter(|host| !is_unknown(host));
    let port = u16::try_from(parts.next().and_then(number)?).ok()?;
    Some(Address { host: host.map_or_else(|| Arc::clone(&from.host), Arc::from), port })
}

/// Why something was not executed, and where or when it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// The slot is another primary's now.
    Moved(u16, Address),
    /// The slot is on its way, and this key is there already, or is to be made there.
    Ask(Address),
    /// The slot is on its way, and some of the keys are here, some there.
    TryAgain,
    /// The scripts of this Redis were flushed.
    NoScript,
}

impl Elsewhere {
    /// What an error of the node at `from` says; `None` for all others.
    pub(super) fn of(e: &RedisError, from: &Address) -> Option<Elsewhere> {
        let ErrorKind::Server(kind) = e.kind() else { return None };
        let redirected = || {
            let (to, slot) = e.redirect_node()?;
            Some((slot, Address::redirected(to, from)?))
        };
        match kind {
            ServerErrorKind::Moved => redirected().map(|(slot, to)| Elsewhere::Moved(slot, to)),
            ServerErrorKind::Ask => redirected().map(|(_, to)| Elsewhere::Ask(to)),
            ServerErrorKind::TryAgain => Some(Elsewhere::TryAgain),
            ServerErrorKind::NoScript => Some(Elsewhere::NoScript),
            // Theirs, and it grows: all others are answers.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address { host: "10.0.0.1".into(), port }
    }

    fn text(s: &str) -> Value {
        Value::BulkString(s.as_bytes().to_vec())
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"wg:{7}:own"), slot_of(b"wg:{7}:log"));
        assert_eq!(slot_of(b"wg:{7}:own"), slot_of(b"7"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384, "an empty tag is none");
        assert_eq!(slot_of(b"foo{{bar}}"), slot_of(b"{bar"));
    }

    #[test]
    fn a_map_is_what_the_cluster_says() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, node: Value| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let said = Value::Array(vec![
            range(0, 8_000, node(text("10.0.0.2"), 1)),
            range(8_001, 16_383, node(Value::Nil, 2)),
        ]);
        let mut map = SlotMap::read(said, &address(9));
        assert_eq!(map.owner(|| 8_000).map(ToString::to_string).as_deref(), Some("10.0.0.2:1"));
        assert_eq!(map.owner(|| 8_001), Some(&address(2)), "a node without a host is where it was asked");
        assert!(map.is_whole() && map.primaries().len() == 2);
        map.moved(0, address(3));
        assert_eq!((map.owner(|| 0), map.primaries().len()), (Some(&address(3)), 3));
        let none = SlotMap::read(Value::Array(Vec::new()), &address(9));
        assert!(!none.is_whole() && none.primaries().is_empty());
    }

    #[test]
    fn what_was_not_executed_is_told_from_what_failed() {
        let said = |line: &str| {
            let e = redis::parse_redis_value(line.as_bytes()).and_then(Value::extract_error).unwrap_err();
            Elsewhere::of(&e, &address(9))
        };
        assert_eq!(said("-MOVED 77 10.0.0.1:4\r\n"), Some(Elsewhere::Moved(77, address(4))));
        assert_eq!(said("-MOVED 77 :4\r\n"), Some(Elsewhere::Moved(77, address(4))));
        assert_eq!(said("-ASK 77 10.0.0.1:4\r\n"), Some(Elsewhere::Ask(address(4))));
        assert_eq!(said("-TRYAGAIN wait\r\n"), Some(Elsewhere::TryAgain));
        for other in ["-CLUSTERDOWN The cluster is down\r\n", "-OOM no room\r\n", "-ERR what?\r\n"] {
            assert_eq!(said(other), None);
        }
    }
}
