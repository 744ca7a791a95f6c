//! The header that tells a server whose connection it is: HAProxy's PROXY protocol, versions 1 and 2.

use std::net::{IpAddr, SocketAddr};

use super::SendProxy;

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a connection that came from `client` to `here`.
pub(crate) fn header(version: SendProxy, client: SocketAddr, here: SocketAddr) -> Vec<u8> {
    let (client, here) = same_family(client, here);
    match version {
        SendProxy::Off => Vec::new(),
        SendProxy::V1 => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", client.ip(), here.ip(), client.port(), here.port()).into_bytes()
        }
        SendProxy::V2 => binary(client, here),
    }
}

fn binary(client: SocketAddr, here: SocketAddr) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    let addresses = [octets(client.ip()), octets(here.ip())].concat();
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    let mut header = signature_for(family);
    // Two addresses and two ports: 12 or 36 bytes.
    header.extend([0, if client.is_ipv4() { 12 } else { 36 }]);
    header.extend(addresses);
    header.extend(client.port().to_be_bytes());
    header.extend(here.port().to_be_bytes());
    header
}

fn signature_for(family: u8) -> Vec<u8> {
    SIGNATURE.iter().copied().chain([0x21, family]).collect()
}

/// Both as IPv4 where both are, else both as IPv6: the header has room for one family.
fn same_family(client: SocketAddr, here: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let (client, here) = (plain(client), plain(here));
    if client.is_ipv4() == here.is_ipv4() {
        return (client, here);
    }
    let mapped = |at: SocketAddr| match at.ip() {
        IpAddr::V4(four) => SocketAddr::new(four.to_ipv6_mapped().into(), at.port()),
        IpAddr::V6(_) => at,
    };
    (mapped(client), mapped(here))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: SendProxy, client: &str, here: &str) -> Vec<u8> {
        header(version, client.parse().expect("an address"), here.parse().expect("an address"))
    }

    #[test]
    fn version_1_is_a_line() {
        let line = of(SendProxy::V1, "10.0.0.1:51234", "10.0.0.2:5432");
        assert_eq!(line, b"PROXY TCP4 10.0.0.1 10.0.0.2 51234 5432\r\n");
        let line = of(SendProxy::V1, "[::ffff:10.0.0.1]:1", "10.0.0.2:2");
        assert_eq!(line, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "an IPv4 client of a socket for both families");
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
        let line = of(SendProxy::V1, &format!("[{longest}]:65535"), &format!("[{longest}]:65535"));
        assert!(line.starts_with(b"PROXY TCP6 ffff:") && line.len() <= 107, "{}", line.len());
    }

    #[test]
    fn version_2_has_its_lengths() {
        let bytes = of(SendProxy::V2, "10.0.0.1:51234", "10.0.0.2:5432");
        let (signature, rest) = bytes.split_at(12);
        assert_eq!(signature, [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]);
        assert_eq!(rest, [0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0xC8, 0x22, 0x15, 0x38]);
        assert_eq!(of(SendProxy::V2, "[::1]:1", "[::1]:2").len(), 16 + 36);
        assert!(of(SendProxy::Off, "[::1]:1", "[::1]:2").is_empty());
    }
}
