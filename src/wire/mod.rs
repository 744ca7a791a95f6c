//! One small client per server protocol: enough of each to ask whether a server serves and what role it has.
//!
//! A wire client knows nothing of health, rise or fall: it says what the server said. Every reply may come from
//! anything that listens, so all parsers are pure functions over the bytes read so far, never panic, and look at a
//! bounded number of bytes. Deadlines are the caller's: he wraps the whole exchange in one.

pub mod connection;
pub mod discovery;
pub mod http;
pub mod memcached;
pub mod mongodb;
pub mod mysql;
pub mod postgres;
pub mod redis;
pub mod tcp;
mod tls;
pub mod zookeeper;

pub use connection::Connection;

/// What went wrong with an exchange. The words are for people; text of the server in them is escaped and cut.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(#[source] std::io::Error),
    /// The server closed before its reply was whole.
    #[error("closed the connection before answering")]
    Closed,
    /// The reply is longer than any true one.
    #[error("answered more than {0} bytes")]
    TooLong(usize),
    /// The reply is not of this protocol.
    #[error("expected {expected}, got {got}")]
    Garbled {
        /// What the protocol would have said.
        expected: &'static str,
        /// The beginning of what was said, escaped.
        got: String,
    },
    /// The server speaks TLS and wants a certificate of its clients.
    #[error("wants a client certificate")]
    WantsCertificate,
    /// No TLS session.
    #[error("TLS: {0}")]
    Tls(String),
    /// The address is another machine's, or nobody's.
    #[error("{0} is not on this host: not asked there")]
    NotHere(std::net::IpAddr),
    /// What should be asked cannot be put into this protocol.
    #[error("cannot ask: {0}")]
    Unaskable(&'static str),
}

impl WireError {
    /// Whether this machine, and not the server, is to blame: no file descriptor, port or memory left.
    pub fn is_local(&self) -> bool {
        use rustix::io::Errno;
        let (Self::Connect(error) | Self::Broken(error)) = self else { return false };
        let local = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        error.raw_os_error().is_some_and(|code| local.iter().any(|errno| errno.raw_os_error() == code))
    }

    /// Whether another dialect of the same protocol might be understood better.
    pub fn is_misunderstanding(&self) -> bool {
        match self {
            Self::Closed | Self::Garbled { .. } | Self::Tls(_) => true,
            Self::Broken(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            _ => false,
        }
    }
}

/// What a parser found in the bytes read so far: a whole reply and its length, nothing whole yet, or the name of what
/// it had expected instead.
pub type Parsed<T> = Result<Option<(T, usize)>, &'static str>;

/// Text of a server made fit for people: escaped, and cut after 60 bytes.
pub fn quote(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let more = if bytes.len() > LONGEST { "…" } else { "" };
    format!("\"{}{more}\"", bytes[..bytes.len().min(LONGEST)].escape_ascii())
}

/// The first line of `buffer` without its end, and its length with it. A line longer than `longest` is none.
fn line<'a>(buffer: &'a [u8], longest: usize, expected: &'static str) -> Parsed<&'a [u8]> {
    let window = &buffer[..buffer.len().min(longest)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let text = &window[..end];
            Ok(Some((text.strip_suffix(b"\r").unwrap_or(text), end + 1)))
        }
        None if buffer.len() >= longest => Err(expected),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_servers_is_escaped_and_cut() {
        assert_eq!(quote(b"a\x1b[31m\n\xff"), r#""a\x1b[31m\n\xff""#);
        assert!(quote(&[b'x'; 100_000]).len() < 80);
    }

    #[test]
    fn a_line_ends_somewhere() {
        assert_eq!(line(b"abc\r\ndef", 512, "a line"), Ok(Some((&b"abc"[..], 5))));
        assert_eq!(line(b"abc", 512, "a line"), Ok(None));
        assert_eq!(line(&[b'x'; 600], 512, "a line"), Err("a line"));
    }

    #[test]
    fn what_this_machine_lacks_is_not_held_against_the_server() {
        let emfile = std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(WireError::Connect(emfile).is_local());
        assert!(!WireError::Connect(std::io::ErrorKind::ConnectionRefused.into()).is_local());
    }
}
