//! Where a packet to an address would go from here: asked of the kernel for one address, which costs microseconds
//! however many addresses and interfaces there are.
//!
//! A list of the host's addresses is seconds old, and a bind proves nothing where `ip_nonlocal_bind` is set, as it is
//! on hosts whose addresses move.

use std::io;
use std::net::IpAddr;

use super::netlink::{ask, attribute};

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is this host's own.
    Here,
    /// It is on a network that this host is attached to, such as a bridge of the engine's.
    Attached,
    /// It is behind a gateway, or nowhere.
    Elsewhere,
}

const ROUTE: i32 = 0;
const GET_ROUTE: u16 = 26;

/// Where `address` is, now.
pub fn whereabouts(address: IpAddr) -> io::Result<Whereabouts> {
    match ask(ROUTE, GET_ROUTE, &question(address)) {
        Ok((_, route)) => Ok(read(&route)),
        Err(error) if is_no_route(&error) => Ok(Whereabouts::Elsewhere),
        Err(error) => Err(error),
    }
}

/// The kernel's ways to say that no packet could go there.
fn is_no_route(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let none = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::INVAL, Errno::ACCESS, Errno::NETDOWN];
    error.raw_os_error().is_some_and(|code| none.iter().any(|errno| errno.raw_os_error() == code))
}

fn question(address: IpAddr) -> Vec<u8> {
    const DESTINATION: u16 = 1;
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = if address.is_ipv4() { 8_u16 } else { 20 };
    let mut body = vec![family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&DESTINATION.to_ne_bytes());
    body.extend_from_slice(&bytes);
    body
}

fn read(route: &[u8]) -> Whereabouts {
    const HEADER: usize = 12;
    const UNICAST: u8 = 1;
    const LOCAL: u8 = 2;
    const GATEWAY: u16 = 5;
    const VIA: u16 = 18;
    let attributes = route.get(HEADER..).unwrap_or_default();
    let is_direct = || [GATEWAY, VIA].iter().all(|kind| attribute(attributes, *kind).is_none());
    match route.get(7) {
        Some(&LOCAL) => Whereabouts::Here,
        Some(&UNICAST) if is_direct() => Whereabouts::Attached,
        _ => Whereabouts::Elsewhere,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_here_and_a_documentation_network_is_not() {
        for (address, here) in [("127.0.0.1", true), ("127.9.9.9", true), ("203.0.113.77", false)] {
            let found = whereabouts(address.parse().unwrap()).unwrap();
            assert_eq!(found == Whereabouts::Here, here, "{address}: {found:?}");
        }
    }

    #[test]
    fn every_address_of_this_host_is_here() {
        for one in if_addrs::get_if_addrs().unwrap() {
            assert_eq!(whereabouts(one.ip()).unwrap(), Whereabouts::Here, "{one:?}");
        }
    }

    #[test]
    fn a_gateway_leads_elsewhere() {
        let header = |kind| vec![2, 32, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        let attribute = |kind: u16| [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &[10, 0, 0, 1]].concat();
        for (kind, attributes, expected) in [
            (2, vec![], Whereabouts::Here),
            (1, attribute(4), Whereabouts::Attached),
            (1, [attribute(4), attribute(5)].concat(), Whereabouts::Elsewhere),
            (1, attribute(18), Whereabouts::Elsewhere),
            (7, vec![], Whereabouts::Elsewhere),
        ] {
            assert_eq!(read(&[header(kind), attributes].concat()), expected);
        }
        assert_eq!(read(&[]), Whereabouts::Elsewhere);
    }
}
