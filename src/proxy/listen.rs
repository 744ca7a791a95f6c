//! The sockets of one table. An address that this host does not have yet can be listened on all the same
//! (`IP_FREEBIND`): docker0 comes after the agent. What cannot be had is tried again.

use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that may wait to be accepted, as far as the host lets them.
const BACKLOG: i32 = 4_096;

/// The sockets, and the addresses that have none.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    bound: Vec<(SocketAddr, TcpListener)>,
    missing: Vec<SocketAddr>,
    next: usize,
}

impl Listeners {
    /// Those that the process before has left: who came meanwhile waits in them.
    pub(super) fn of(left: Vec<(SocketAddr, TcpListener)>) -> Self {
        Self { bound: left, ..Self::default() }
    }

    /// What is left to the next process.
    pub(super) fn into_left(self) -> Vec<(SocketAddr, TcpListener)> {
        self.bound
    }

    /// Keeps those sockets that are wanted still, and makes the others.
    pub(super) fn want(&mut self, addresses: &[SocketAddr]) -> Option<String> {
        self.bound.retain(|(address, _)| addresses.contains(address));
        let is_missing = |address: &&SocketAddr| !self.bound.iter().any(|(bound, _)| bound == *address);
        self.missing = addresses.iter().filter(is_missing).copied().collect();
        self.bind()
    }

    /// Tries those that are missing; why one cannot be had.
    pub(super) fn bind(&mut self) -> Option<String> {
        let mut problem = None;
        for address in std::mem::take(&mut self.missing) {
            match listen(address) {
                Ok(listener) => self.bound.push((address, listener)),
                Err(error) => {
                    problem = Some(format!("cannot listen on {address}: {error}"));
                    self.missing.push(address);
                }
            }
        }
        problem
    }

    /// Whether some are missing.
    pub(super) fn is_incomplete(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Where it listens, with the ports that were chosen.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.iter().filter_map(|(_, listener)| listener.local_addr().ok()).collect()
    }

    /// The next client of any of them, in turn. What is dropped before it is done loses none.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| {
            for offset in 0..self.bound.len() {
                let place = (self.next + offset) % self.bound.len();
                if let Poll::Ready(accepted) = self.bound[place].1.poll_accept(context) {
                    self.next = place + 1;
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::]:5432 and 0.0.0.0:5432 may be given both.
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
