//! Sockets to be asked on: TCP, and a unix socket whose file belongs to one agent at a time.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Owner and group may ask, and so drain.
const SOCKET_MODE: u32 = 0o660;

/// Connections that may wait to be accepted, as far as the host lets them (`net.core.somaxconn`): one that finds no
/// room comes again after 1 s only, be it the crowd's or not.
const BACKLOG: u32 = 4_096;

/// Why nobody can be served where it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The TCP address cannot be had.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The unix socket cannot be made.
    #[error("cannot listen on the socket {}", path.display())]
    Unix {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound unix socket; its file goes when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl UnixSocket {
    /// Binds under a name of our own first, so that the file is never there with other permissions, and a file left by
    /// an agent that died is replaced in one step.
    pub(super) fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |source| BindError::Unix { path: path.to_owned(), source };
        if StdUnixStream::connect(path).is_ok() {
            return Err(fail(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(fail)?;
        let placed = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(SOCKET_MODE))
            .and_then(|()| std::fs::metadata(&fresh))
            .and_then(|metadata| std::fs::rename(&fresh, path).map(|()| metadata.ino()));
        match placed {
            Ok(inode) => Ok(Self { listener, path: path.to_owned(), inode }),
            Err(source) => {
                let _ = std::fs::remove_file(&fresh);
                Err(fail(source))
            }
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket to be asked on.
#[derive(Debug)]
pub enum Listener {
    /// A TCP address.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixSocket),
}

/// The stream to a client.
#[derive(Debug)]
pub enum Link {
    /// By TCP.
    Tcp(TcpStream),
    /// By a unix socket.
    Unix(UnixStream),
    /// From within this process.
    Inside(DuplexStream),
}

/// Who is on the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(IpAddr),
    /// A client of a unix socket, let in by the file's permissions, and its user.
    Unix(u32),
    /// This process itself.
    Inside,
}

/// Those who share what one peer may have: an address, the /64 that one IPv6 host chooses its addresses from, a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharer {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 network.
    V6([u16; 4]),
    /// A user of this host.
    User(u32),
    /// This process itself.
    Inside,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(user) => write!(f, "user {user}"),
            Self::Inside => f.write_str("the agent"),
        }
    }
}

impl Peer {
    /// With whom it shares.
    pub fn sharer(self) -> Sharer {
        match self {
            Self::Tcp(address) => match address.to_canonical() {
                IpAddr::V4(four) => Sharer::V4(four),
                IpAddr::V6(six) => {
                    let [a, b, c, d, ..] = six.segments();
                    Sharer::V6([a, b, c, d])
                }
            },
            Self::Unix(user) => Sharer::User(user),
            Self::Inside => Sharer::Inside,
        }
    }
}

impl Listener {
    /// Binds a TCP address.
    pub async fn tcp(address: SocketAddr) -> Result<Self, BindError> {
        listen(address).map(Self::Tcp).map_err(|source| BindError::Tcp { address, source })
    }

    /// Binds a unix socket.
    pub fn unix(path: &Path) -> Result<Self, BindError> {
        UnixSocket::bind(path).map(Self::Unix)
    }

    /// The TCP address bound.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The next client. What is dropped before it is done loses none.
    pub(super) async fn accept(&self) -> io::Result<(Link, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Link::Tcp(stream), Peer::Tcp(peer.ip())))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let user = stream.peer_cred().map_or(u32::MAX, |of| of.uid());
                Ok((Link::Unix(stream), Peer::Unix(user)))
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_) => f.write_str("tcp"),
            },
            Self::Unix(socket) => write!(f, "{}", socket.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("http.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a leftover"));
        let first = UnixSocket::bind(&path).expect("the leftover is replaced");
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, SOCKET_MODE);
        let refused = UnixSocket::bind(&path).expect_err("the first one answers");
        assert!(refused.to_string().contains("http.sock"), "{refused}");
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_another_took_over_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("http.sock");
        let first = UnixSocket::bind(&path).expect("free");
        std::fs::remove_file(&path).expect("ours");
        let second = UnixSocket::bind(&path).expect("free again");
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
