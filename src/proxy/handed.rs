//! An orderly restart: what the connections of one process are when it stops, and how the next one goes on with them.
//!
//! The service manager keeps the sockets meanwhile. Each is set to be reset should nobody take it up, so that a client
//! is never left with a connection that leads nowhere.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::pump::{Both, Held};
use super::session::reset;
use crate::catalog::proxy::Line;
use crate::catalog::proxy::handed::{FlowLeft, ListenerLeft, Manifest, PairLeft, ServerLeft};
use crate::catalog::proxy::redis::Identity;
use crate::host::fdstore::{self, Left};

/// A connection between two processes.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) client: TcpStream,
    pub(super) from: SocketAddr,
    /// Its server, and where that is; none where it still waits.
    pub(super) server: Option<(TcpStream, Line)>,
    pub(super) held: Both,
    /// As whom a session of Redis speaks, where it can be moved.
    pub(super) redis: Option<Identity>,
}

/// What a table leaves.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    pub(super) listeners: Vec<(SocketAddr, TcpListener)>,
    pub(super) connections: Vec<Handed>,
}

/// What the process before has left, by table.
#[derive(Debug, Default)]
pub(super) struct Estate {
    listeners: HashMap<SocketAddr, TcpListener>,
    connections: HashMap<String, Vec<Handed>>,
}

/// Leaves all of it to the next process.
pub(super) async fn leave(legacies: Vec<(String, Legacy)>) -> io::Result<usize> {
    let (mut listeners, mut pairs, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    for (name, legacy) in legacies {
        for (at, listener) in legacy.listeners {
            listeners.push(ListenerLeft { cookie: SockRef::from(&listener).cookie()?, at });
            sockets.push(OwnedFd::from(listener.into_std()?));
        }
        for handed in legacy.connections {
            // One that cannot be left has failed just now: it ends, and takes no other with it.
            if let Ok(pair) = pair(&name, handed, &mut sockets) {
                pairs.push(pair);
            }
        }
    }
    let connections = pairs.len();
    let memo = Manifest::new(listeners, pairs).encode();
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    fdstore::leave(&memo, &borrowed).await?;
    Ok(connections)
}

fn pair(name: &str, handed: Handed, sockets: &mut Vec<OwnedFd>) -> io::Result<PairLeft> {
    let mut left = |stream: TcpStream| {
        reset(&stream);
        let cookie = SockRef::from(&stream).cookie()?;
        sockets.push(stream.into_std()?.into());
        Ok::<u64, io::Error>(cookie)
    };
    let flow = |held: Held| held.into_rest().map(|(rest, is_over)| FlowLeft::new(rest, is_over));
    let (up, down) = (flow(handed.held.up)?, flow(handed.held.down)?);
    let client = left(handed.client)?;
    let server = match handed.server {
        Some((stream, line)) => Some(ServerLeft { cookie: left(stream)?, address: line.address, owner: line.owner }),
        None => None,
    };
    Ok(PairLeft { proxy: name.to_owned(), client, server, up, down, redis: handed.redis })
}

impl Estate {
    /// What came back with this process's start.
    pub(super) fn of(left: Option<Left>) -> Self {
        let Some(left) = left else { return Self::default() };
        let Some(manifest) = Manifest::decode(&left.memo) else {
            tracing::warn!("another build left connections in a form that is not known here: they are reset");
            return Self::default();
        };
        let cookied =
            left.sockets.into_iter().filter_map(|socket| Some((SockRef::from(&socket).cookie().ok()?, socket)));
        let mut sockets: HashMap<u64, OwnedFd> = cookied.collect();
        let mut estate = Self::default();
        for listener in manifest.listeners {
            let socket = sockets.remove(&listener.cookie);
            let taken = socket.and_then(|socket| TcpListener::from_std(std::net::TcpListener::from(socket)).ok());
            estate.listeners.extend(taken.map(|taken| (listener.at, taken)));
        }
        for pair in manifest.pairs {
            let name = pair.proxy.clone();
            if let Some(handed) = take(pair, &mut sockets) {
                estate.connections.entry(name).or_default().push(handed);
            }
        }
        estate
    }

    /// What a table goes on with. What no table asks for is reset.
    pub(super) fn of_table(&mut self, name: &str, listen: &[SocketAddr]) -> Legacy {
        let listeners = listen.iter().filter_map(|at| Some((*at, self.listeners.remove(at)?))).collect();
        Legacy { listeners, connections: self.connections.remove(name).unwrap_or_default() }
    }
}

fn take(pair: PairLeft, sockets: &mut HashMap<u64, OwnedFd>) -> Option<Handed> {
    let mut stream = |cookie: u64| TcpStream::from_std(std::net::TcpStream::from(sockets.remove(&cookie)?)).ok();
    let client = stream(pair.client)?;
    let server = match pair.server {
        Some(left) => Some((stream(left.cookie)?, Line { address: left.address, owner: left.owner })),
        None => None,
    };
    let from = client.peer_addr().ok()?;
    let held = |flow: FlowLeft| Held::left(flow.rest, flow.is_over);
    Some(Handed { client, from, server, held: Both { up: held(pair.up), down: held(pair.down) }, redis: pair.redis })
}
