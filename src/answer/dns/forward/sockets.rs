//! The sockets through which the resolver asks upstream: tokio's, with one difference.
//!
//! A datagram socket is connected to the server that it asks. So the kernel lets in what that server sends and nothing
//! else, and a port where nobody listens is known at once, not after a deadline.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

type Opening<S> = Pin<Box<dyn Send + Future<Output = io::Result<S>>>>;

type Receiving<'a> = Pin<Box<dyn Send + Future<Output = io::Result<(usize, SocketAddr)>> + 'a>>;

/// Opens them.
#[derive(Clone, Default)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Datagrams;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        patience: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        self.tokio.connect_tcp(server, local, patience)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Opening<Datagrams> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Datagrams { socket, server })
        })
    }
}

/// A datagram socket for one server.
pub(super) struct Datagrams {
    socket: UdpSocket,
    server: SocketAddr,
}

impl DnsUdpSocket for Datagrams {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        ready!(self.socket.poll_recv(cx, &mut buf))?;
        Poll::Ready(Ok((buf.filled().len(), self.server)))
    }

    /// Waits for errors too: without asking for them, a refused port would look like silence.
    fn recv_from<'own: 'a, 'buffer: 'a, 'a>(&'own self, buf: &'buffer mut [u8]) -> Receiving<'a> {
        Box::pin(async move {
            let receive = || self.socket.take_error()?.map_or_else(|| self.socket.try_recv(buf), Err);
            let length = self.socket.async_io(Interest::READABLE | Interest::ERROR, receive).await?;
            Ok((length, self.server))
        })
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf)
    }
}
