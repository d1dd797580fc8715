//! Which addresses deliveries may go to: only those of the public internet, and those that an
//! operator opened. A client that could have us call an inside address would see with our eyes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len)
}

const fn v6(a: u16, b: u16, c: u16, len: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), len)
}

/// IANA's special-purpose IPv4 addresses, and one that clouds use for themselves.
const CLOSED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    // Azure's host agent, on an address of the public range.
    v4(168, 63, 129, 16, 32),
    // Link-local; the clouds' metadata is at 169.254.169.254.
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    // Reserved, and broadcast at its end.
    v4(240, 0, 0, 0, 4),
];

/// Global unicast: all of IPv6 that is the public internet is in it.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What of global unicast is not public: IETF protocols (Teredo is among them), documentation,
/// 6to4, which hides an IPv4 address.
const CLOSED_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 0, 23), v6(0x2001, 0xdb8, 0, 32), v6(0x2002, 0, 0, 16), v6(0x3fff, 0, 0, 20)];

/// RFC 6052: the last four bytes are an IPv4 address, and what is reached is that one.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// The addresses that may be called.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    /// The public internet, and what is opened besides.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>) -> Guard {
        Guard { allowed }
    }

    /// Whether an address may be called, however it is written.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let opened = |address: IpAddr| self.allowed.iter().any(|net| net.contains(&address));
        // ::ffff:a.b.c.d is a.b.c.d to the socket.
        let canonical = address.to_canonical();
        if opened(address) || opened(canonical) {
            return true;
        }
        match canonical {
            IpAddr::V4(address) => is_public_v4(address),
            IpAddr::V6(address) if NAT64.contains(&address) => {
                let [.., a, b, c, d] = address.octets();
                let reached = Ipv4Addr::new(a, b, c, d);
                opened(IpAddr::V4(reached)) || is_public_v4(reached)
            }
            IpAddr::V6(address) => {
                GLOBAL_V6.contains(&address) && !CLOSED_V6.iter().any(|net| net.contains(&address))
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !CLOSED_V4.iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(guard: &Guard, address: &str) -> bool {
        guard.permits(address.parse().unwrap())
    }

    #[test]
    fn nothing_that_is_not_public_may_be_called() {
        let guard = Guard::default();
        for closed in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(!permits(&guard, closed), "{closed}");
        }
    }

    #[test]
    fn the_public_internet_may_be_called() {
        let guard = Guard::default();
        for open in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(permits(&guard, open), "{open}");
        }
    }

    #[test]
    fn an_operator_opens_what_it_names_and_nothing_beside() {
        let nets = ["127.0.0.0/8", "fd12::/16", "10.1.0.0/16"].map(|net| net.parse().unwrap());
        let guard = Guard::new(nets.into());
        for open in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd12::5", "10.1.2.3"] {
            assert!(permits(&guard, open), "{open}");
        }
        for closed in ["::1", "10.2.0.1", "fd13::1", "169.254.169.254"] {
            assert!(!permits(&guard, closed), "{closed}");
        }
    }
}
