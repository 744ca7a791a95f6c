//! One connection to one server: TCP, or TLS over it, with a reply buffer that cannot grow without end.
//!
//! It closes without leaving a TIME_WAIT behind when the protocol allows ([`Connection::leave_at_once`]). Once a
//! secret went out, no text of the server is quoted any more: it might be an echo.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::{Parsed, WireError, quote, tls};

/// The longest reply that is kept, in bytes. Real ones have a few hundred.
pub const MAX_REPLY: usize = 64 * 1024;

/// The most that is read of one connection, in bytes, however many replies it makes.
const MAX_READ: usize = 256 * 1024;

/// What is asked of the socket at a time.
const CHUNK: usize = 1024;

/// A connection with what has been read and not yet understood.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    read: usize,
    told_a_secret: bool,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Connects to `target`.
    pub async fn open(target: SocketAddr) -> Result<Self, WireError> {
        let stream = connect(target).await.map_err(WireError::Connect)?;
        Ok(Self { stream: Stream::Plain(stream), buffer: Vec::new(), read: 0, told_a_secret: false })
    }

    /// Connects to `target` and begins TLS.
    pub async fn open_tls(target: SocketAddr) -> Result<Self, WireError> {
        Self::open(target).await?.into_tls().await
    }

    /// Begins TLS on a connection whose every byte has been understood.
    pub async fn into_tls(self) -> Result<Self, WireError> {
        let Stream::Plain(stream) = self.stream else {
            return Err(WireError::Tls("a session within a session".to_owned()));
        };
        if !self.buffer.is_empty() {
            return Err(WireError::Garbled { expected: "TLS", got: quote(&self.buffer) });
        }
        let stream = Stream::Tls(Box::new(tls::handshake(stream).await?));
        Ok(Self { stream, buffer: self.buffer, read: self.read, told_a_secret: self.told_a_secret })
    }

    /// Our end of it.
    pub fn local_address(&self) -> Option<SocketAddr> {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        stream.local_addr().ok()
    }

    /// Whether a secret, or what was made from one, went out.
    pub fn told_a_secret(&self) -> bool {
        self.told_a_secret
    }

    /// Whether the bytes go over TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Sends `request`.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), WireError> {
        let sent = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(request).await,
            Stream::Tls(stream) => match stream.write_all(request).await {
                Ok(()) => stream.flush().await,
                failed => failed,
            },
        };
        sent.map_err(broken)
    }

    /// Sends `request`, which holds a secret.
    pub async fn send_secret(&mut self, request: &[u8]) -> Result<(), WireError> {
        self.told_a_secret = true;
        self.send(request).await
    }

    /// Reads until `parse` finds a whole reply, and takes that off the buffer.
    pub async fn reply<T>(&mut self, parse: impl FnMut(&[u8]) -> Parsed<T>) -> Result<T, WireError> {
        self.reply_within(MAX_REPLY, parse).await
    }

    /// The same for replies that may be longer than a probe's, at most `most` bytes.
    pub async fn reply_within<T>(
        &mut self,
        most: usize,
        mut parse: impl FnMut(&[u8]) -> Parsed<T>,
    ) -> Result<T, WireError> {
        loop {
            if !self.buffer.is_empty() {
                match parse(&self.buffer) {
                    Ok(Some((reply, length))) => {
                        self.buffer.drain(..length.min(self.buffer.len()));
                        return Ok(reply);
                    }
                    Ok(None) => {}
                    Err(expected) => return Err(WireError::Garbled { expected, got: self.got() }),
                }
            }
            if self.buffer.len() >= most {
                return Err(WireError::TooLong(most));
            }
            match self.fill().await? {
                0 => return Err(WireError::Closed),
                read => self.read += read,
            }
            if self.read > MAX_READ {
                return Err(WireError::TooLong(MAX_READ));
            }
        }
    }

    /// Reads whatever comes until the server closes, at most `most` bytes, and keeps none of it.
    pub async fn drain(&mut self, most: usize) {
        let mut seen = 0;
        while seen < most {
            self.buffer.clear();
            match self.fill().await {
                Ok(0) | Err(_) => return,
                Ok(read) => seen += read,
            }
        }
    }

    /// Makes closing a reset: nothing waits in TIME_WAIT, on neither side. Only for servers that take no notice, and
    /// only when all that they said has been read.
    pub fn leave_at_once(&self) {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        // Refused: then the connection is closed the ordinary way.
        stream.set_zero_linger().ok();
    }

    /// Says that nothing more will be sent, so that the server sees an ordinary end.
    pub async fn finish(&mut self) {
        let ended = match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
        };
        // The server was faster.
        ended.ok();
    }

    async fn fill(&mut self) -> Result<usize, WireError> {
        self.buffer.reserve(CHUNK);
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read_buf(&mut self.buffer).await,
            Stream::Tls(stream) => stream.read_buf(&mut self.buffer).await,
        };
        match read {
            // A TLS peer that leaves without saying so has still said all that it will.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read.map_err(broken),
        }
    }

    fn got(&self) -> String {
        if self.told_a_secret { "something else".to_owned() } else { quote(&self.buffer) }
    }
}

/// A broken connection, or the one break that has a meaning of its own.
fn broken(error: io::Error) -> WireError {
    if tls::wants_certificate(&error) { WireError::WantsCertificate } else { WireError::Broken(error) }
}

/// Connects, without delaying small packets.
pub(super) async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    let stream = socket.connect(target).await?;
    // Where nothing listens, a port of the ephemeral range can be given to this very socket, which then connects to
    // itself and hears itself.
    if stream.local_addr()? == target {
        stream.set_zero_linger().ok();
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}
