//! HTTP/1.1: the status of one GET, and nothing of its body.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Connection, Parsed, WireError};

/// The longest head of a response that is read.
const MAX_HEAD: usize = 16 * 1024;

/// How long a server is given to close by itself, so that not this side is left with a TIME_WAIT.
const PARTING: Duration = Duration::from_millis(5);

/// Asks for `path` and yields the status.
pub async fn get(connection: &mut Connection, host: SocketAddr, path: &str) -> Result<u16, WireError> {
    connection.send(request(host, path)?.as_bytes()).await?;
    let status = status(connection).await?;
    tokio::time::timeout(PARTING, connection.drain(MAX_HEAD)).await.ok();
    connection.finish().await;
    Ok(status)
}

/// The status that counts. Interim responses come before it, and no server has many.
async fn status(connection: &mut Connection) -> Result<u16, WireError> {
    const MOST_INTERIM: usize = 16;
    for _ in 0..MOST_INTERIM {
        let status = connection.reply(parse_head).await?;
        if status >= 200 {
            return Ok(status);
        }
    }
    Err(WireError::Garbled { expected: "a final HTTP response", got: "interim ones without end".to_owned() })
}

/// The request. A path comes from a container's label: it must not be able to end the line and go on.
fn request(host: SocketAddr, path: &str) -> Result<String, WireError> {
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WireError::Unaskable("the path is not a URL's"));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request = String::with_capacity(160);
    write!(
        request,
        "GET {slash}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wharf/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .expect("a string takes all that is written to it");
    Ok(request)
}

/// Reads a response's head and yields its status.
pub fn parse_head(buffer: &[u8]) -> Parsed<u16> {
    const EXPECTED: &str = "an HTTP response";
    const VERSION: &[u8] = b"HTTP/1.";
    if buffer.iter().zip(VERSION).any(|(byte, wanted)| byte != wanted) {
        return Err(EXPECTED);
    }
    // "HTTP/1.1 200" and what ends it.
    let Some(line) = buffer.get(..13) else { return Ok(None) };
    let digits = line[9..12].iter().all(u8::is_ascii_digit);
    if !matches!(line[7], b'0' | b'1') || line[8] != b' ' || !digits || !matches!(line[12], b' ' | b'\r' | b'\n') {
        return Err(EXPECTED);
    }
    let status = line[9..12].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    if !(100..600).contains(&status) {
        return Err(EXPECTED);
    }
    let window = &buffer[..buffer.len().min(MAX_HEAD)];
    match window.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        Some(end) => Ok(Some((status, end + 4))),
        None if buffer.len() >= MAX_HEAD => Err("the end of an HTTP head"),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_status_is_told() {
        let cases: [(&[u8], Parsed<u16>); 8] = [
            (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", Ok(Some((200, 25)))),
            (b"HTTP/1.0 503\r\n\r\n", Ok(Some((503, 16)))),
            (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 ", Ok(Some((103, 28)))),
            (b"HTTP/1.1 200 OK\r\nA: b", Ok(None)),
            (b"HTTP/1", Ok(None)),
            (b"HTTP/2 200\r\n\r\n", Err("an HTTP response")),
            (b"HTTP/1.1 2x0 OK\r\n", Err("an HTTP response")),
            (b"SSH-2.0-OpenSSH", Err("an HTTP response")),
        ];
        for (input, expected) in cases {
            assert_eq!(parse_head(input), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_path_cannot_carry_headers() {
        let host = "127.0.0.1:80".parse().expect("an address");
        for path in ["/a\r\nX: y", "/a b", "/\u{e9}"] {
            assert!(request(host, path).is_err(), "{path:?}");
        }
        assert!(
            request(host, "health").expect("a request").starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(tail in proptest::collection::vec(any::<u8>(), 0..100), honest in any::<bool>()) {
            let mut bytes = if honest { b"HTTP/1.1 200 OK\r\n".to_vec() } else { Vec::new() };
            bytes.extend(tail);
            if let Ok(Some((_, length))) = parse_head(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
