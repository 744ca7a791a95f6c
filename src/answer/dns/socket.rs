//! The sockets that questions come in on: bound here, or passed by systemd.
//!
//! For each UDP address several sockets share the port, so that each answering thread has a queue of its own. A shared
//! port would also let a second agent join in silently; therefore each address is bound alone first, to see that it
//! is free. Passed sockets are used as they are and never shut down: the next process goes on reading them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted, as far as the host lets them: one that finds no room comes again after 1
/// s.
const BACKLOG: i32 = 4_096;
/// Room for questions that arrive while a thread does not run.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What stands in the way of one address.
#[derive(Debug, thiserror::Error)]
#[error("cannot answer on {transport} {address}: {source}")]
pub struct AddressError {
    /// The address, or a passed socket's name.
    pub address: String,
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// Why.
    pub source: io::Error,
}

/// Everything that stands in the way of answering.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct BindError(pub Vec<AddressError>);

/// Sockets that questions come in on.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// For datagrams; those of one address share a port.
    pub(super) udp: Vec<Udp>,
    /// For streams.
    pub(super) tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Binds every address for both transports, with `share` UDP sockets each; all problems at once.
    pub(super) fn bind(addresses: &[SocketAddr], share: usize) -> Result<Self, BindError> {
        let mut sockets = Self::default();
        let mut problems = Vec::new();
        for &address in addresses {
            let bound = bind_both(address, share);
            match bound {
                Ok((udp, tcp)) => {
                    sockets.udp.extend(udp);
                    sockets.tcp.push(tcp);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(sockets) } else { Err(BindError(problems)) }
    }

    /// Takes sockets that are bound already.
    pub(super) fn take(passed: Vec<OwnedFd>) -> Result<Self, BindError> {
        let mut sockets = Self::default();
        let mut problems = Vec::new();
        for fd in passed {
            let socket = Socket::from(fd);
            let kind = socket.r#type();
            let name = socket.local_addr().ok().and_then(|address| address.as_socket());
            let taken = match kind {
                Ok(Type::DGRAM) => Udp::of(UdpSocket::from(socket)).map(|udp| sockets.udp.push(udp)),
                Ok(Type::STREAM) => {
                    let listener = TcpListener::from(socket);
                    listener.set_nonblocking(true).map(|()| sockets.tcp.push(listener))
                }
                Ok(_) => Err(io::Error::other("neither a stream nor a datagram socket")),
                Err(error) => Err(error),
            };
            if let Err(source) = taken {
                let address = name.map_or_else(|| "of a passed socket".to_owned(), |name| name.to_string());
                problems.push(AddressError { address, transport: "socket", source });
            }
        }
        if problems.is_empty() { Ok(sockets) } else { Err(BindError(problems)) }
    }

    /// Addresses that questions come in on, each once.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().filter_map(|udp| udp.socket.local_addr().ok());
        let mut addresses = Vec::new();
        for address in udp.chain(self.tcp.iter().filter_map(|tcp| tcp.local_addr().ok())) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

fn bind_both(address: SocketAddr, share: usize) -> Result<(Vec<Udp>, TcpListener), AddressError> {
    let problem = |transport| move |source| AddressError { address: address.to_string(), transport, source };
    let (tcp, udp) = alone(address).map_err(|(transport, source)| problem(transport)(source))?;
    let address = udp.local_addr().map_err(problem("udp"))?;
    drop(udp);
    let sockets = (0..share.max(1)).map(|_| shared_udp(address)).collect::<io::Result<Vec<_>>>();
    Ok((sockets.map_err(problem("udp"))?, tcp))
}

/// Binds the address for streams, and the same port for datagrams with nobody beside us.
fn alone(address: SocketAddr) -> Result<(TcpListener, UdpSocket), (&'static str, io::Error)> {
    let mut attempts = 0;
    loop {
        let tcp = tcp(address).map_err(|error| ("tcp", error))?;
        let bound = tcp.local_addr().map_err(|error| ("tcp", error))?;
        match plain_udp(bound) {
            Ok(udp) => return Ok((tcp, udp)),
            // A port chosen by the system may be taken for the other transport.
            Err(_) if address.port() == 0 && attempts < 16 => attempts += 1,
            Err(error) => return Err(("udp", error)),
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn plain_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn shared_udp(address: SocketAddr) -> io::Result<Udp> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Udp::of(socket.into())
}

/// One UDP socket, and whether it must be told which of its addresses to answer from.
#[derive(Debug)]
pub(super) struct Udp {
    pub(super) socket: UdpSocket,
    wildcard: bool,
}

/// Whom to answer, and from which address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Where the question came from.
    pub(super) from: SocketAddr,
    /// The address that was asked, on a wildcard socket.
    asked: Option<IpAddr>,
}

#[cfg(test)]
impl Peer {
    pub(super) fn at(from: SocketAddr) -> Self {
        Self { from, asked: None }
    }
}

impl Udp {
    fn of(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let wildcard = address.ip().is_unspecified();
        if wildcard {
            match address.ip() {
                IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
                IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            }
        }
        // A larger queue is welcome, not needed.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        socket.set_nonblocking(true)?;
        Ok(Self { socket, wildcard })
    }

    /// The next datagram, `WouldBlock` when there is none.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        if !self.wildcard {
            let (length, from) = self.socket.recv_from(buffer)?;
            return Ok((length, Peer { from, asked: None }));
        }
        let mut control = cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
        let mut parts = [io::IoSliceMut::new(buffer)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let from = message.address.as_ref().and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
        let asked = message.cmsgs()?.find_map(|message| asked_address(&message));
        Ok((message.bytes, Peer { from, asked }))
    }

    /// Sends a reply from the address that was asked. A full queue loses it, as the network may.
    pub(super) fn send(&self, reply: &[u8], to: Peer) -> io::Result<()> {
        match to.asked {
            None => self.socket.send_to(reply, to.from).map(|_| ()),
            Some(asked) => self.send_from(reply, to.from, asked),
        }
    }

    fn send_from(&self, reply: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
        let parts = [io::IoSlice::new(reply)];
        let fd = self.socket.as_raw_fd();
        let to = SockaddrStorage::from(to);
        let sent = match from {
            IpAddr::V4(address) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], MsgFlags::MSG_DONTWAIT, Some(&to))
            }
            IpAddr::V6(address) => {
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: address.octets() }, ipi6_ifindex: 0 };
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], MsgFlags::MSG_DONTWAIT, Some(&to))
            }
        };
        Ok(sent.map(|_| ())?)
    }
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::new(v4.ip(), v4.port())));
    }
    let v6 = storage.as_sockaddr_in6()?;
    Some(SocketAddr::V6(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id())))
}

fn asked_address(message: &ControlMessageOwned) -> Option<IpAddr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(udp: &Udp, buffer: &mut [u8]) -> (usize, Peer) {
        loop {
            match udp.receive(buffer) {
                Ok(got) => return got,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
        for (wildcard, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let sockets = Sockets::bind(&[wildcard.parse().expect("an address")], 1).expect("free port");
            let port = sockets.addresses()[0].port();
            let asked: IpAddr = asked.parse().expect("an address");
            let client = UdpSocket::bind(SocketAddr::new(asked, 0)).expect("loopback");
            client.send_to(b"hello", SocketAddr::new(asked, port)).expect("sent");
            let mut buffer = [0; 64];
            let (length, peer) = received(&sockets.udp[0], &mut buffer);
            assert_eq!((&buffer[..length], peer.asked), (&b"hello"[..], Some(asked)));
            sockets.udp[0].send(b"answer", peer).expect("sent");
            let (length, from) = client.recv_from(&mut buffer).expect("the answer");
            assert_eq!((&buffer[..length], from), (&b"answer"[..], SocketAddr::new(asked, port)));
        }
    }

    #[test]
    fn every_taken_address_is_told_at_once() {
        let first = Sockets::bind(&["127.0.0.1:0".parse().expect("an address")], 2).expect("free port");
        let taken = first.addresses()[0];
        let elsewhere: SocketAddr = "192.0.2.1:5300".parse().expect("an address");
        let BindError(problems) = Sockets::bind(&[taken, elsewhere], 2).expect_err("neither can be had");
        assert_eq!(
            problems.iter().map(|problem| &*problem.address).collect::<Vec<_>>(),
            [taken.to_string(), elsewhere.to_string()]
        );
    }

    #[test]
    fn a_port_shared_by_another_agent_is_taken() {
        let first = Sockets::bind(&["127.0.0.1:0".parse().expect("an address")], 2).expect("free port");
        let address = first.addresses()[0];
        let Sockets { udp, tcp } = first;
        drop(tcp);
        let problem = Sockets::bind(&[address], 2).expect_err("datagrams are read by another");
        assert_eq!(problem.0[0].transport, "udp");
        drop(udp);
    }

    #[test]
    fn passed_sockets_are_told_apart() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("free port");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("free port");
        let sockets = Sockets::take(vec![tcp.into(), udp.into()]).expect("both are fine");
        assert_eq!((sockets.udp.len(), sockets.tcp.len()), (1, 1));
    }
}
