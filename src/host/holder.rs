//! Who holds the other end of a connection within this host: the control group of the process that listens there.
//!
//! The kernel tells it of each socket (`NETLINK_SOCK_DIAG`), as the number of a group of the unified hierarchy. Asked
//! is the accepted connection itself, not the listener: of several listeners on one port, or where addresses are
//! translated on the way, only that one heard us.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::netlink::{ask, attribute, u32_at};

const SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const ESTABLISHED: u8 = 1;
/// Family, state, timer and retransmissions come before whose socket an answer is of.
const WHOSE: usize = 4;
/// Ports and addresses of both ends.
const ENDS: usize = 2 + 2 + 16 + 16;

/// The number of the control group that holds the server's end of a connection from `client` to `server`; `None` where
/// this host does not hold it, or has not accepted it yet.
pub fn group_of(server: SocketAddr, client: SocketAddr) -> io::Result<Option<u64>> {
    let whose = ends(server, client);
    let question = question(server, &whose);
    let (kind, answer) = match ask(SOCK_DIAG, SOCK_DIAG_BY_FAMILY, &question) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        asked => asked?,
    };
    Ok(if kind == SOCK_DIAG_BY_FAMILY { read(&answer, &whose) } else { None })
}

fn ends(server: SocketAddr, client: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENDS);
    bytes.extend_from_slice(&server.port().to_be_bytes());
    bytes.extend_from_slice(&client.port().to_be_bytes());
    for address in [server.ip(), client.ip()] {
        let mut sixteen = [0; 16];
        match address {
            IpAddr::V4(v4) => sixteen[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => sixteen = v6.octets(),
        }
        bytes.extend_from_slice(&sixteen);
    }
    bytes
}

fn question(server: SocketAddr, whose: &[u8]) -> Vec<u8> {
    const TCP: u8 = 6;
    let family = if server.is_ipv4() { 2 } else { 10 };
    let mut body = vec![family, TCP, 0, 0];
    body.extend_from_slice(&u32::MAX.to_ne_bytes());
    body.extend_from_slice(whose);
    // Any interface, and no cookie of an earlier answer.
    body.extend_from_slice(&0_u32.to_ne_bytes());
    body.extend_from_slice(&[0xff; 8]);
    body
}

/// The kernel falls back to a listener where the connection is not its own: what it found must be the connection.
fn read(answer: &[u8], whose: &[u8]) -> Option<u64> {
    const BODY: usize = 72;
    const GROUP: u16 = 21;
    let found = answer.get(WHOSE..WHOSE + ENDS)?;
    if answer.get(1) != Some(&ESTABLISHED) || found != whose {
        return None;
    }
    let group = attribute(answer.get(BODY..)?, GROUP)?;
    let halves = (u32_at(group, 0)?, u32_at(group, 4)?);
    let bytes = [halves.0.to_ne_bytes(), halves.1.to_ne_bytes()].concat();
    Some(u64::from_ne_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_held_by_some_group_and_a_listener_alone_by_none() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let ours = client.local_addr().unwrap();
            assert!(group_of(server, ours).unwrap().is_some_and(|group| group > 0), "{address}");
            let nobody = SocketAddr::new(ours.ip(), 1);
            assert_eq!(group_of(server, nobody).unwrap(), None, "the listener itself says nothing");
            assert_eq!(group_of(SocketAddr::new(server.ip(), 1), ours).unwrap(), None);
        }
    }
}
