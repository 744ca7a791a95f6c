//! memcached: its version, asked by text or by the binary protocol.
//!
//! A server with SASL, or one bound to the binary protocol, says nothing at all to a line of text, and one bound to
//! text says nothing to a binary request: which dialect a server speaks is known only once it has answered.

use super::{Connection, Parsed, WireError, line};

/// `version` in the binary protocol: magic, opcode 0x0b, no key, no extras, no body.
const BINARY_VERSION: [u8; 24] = [0x80, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const BINARY_HEADER: usize = 24;

/// What the server said to a request for its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It serves.
    Version,
    /// It is up and wants its clients to log in.
    WantsLogin,
    /// It is full: too many open connections.
    Full,
    /// It refused, in its own words.
    Refused(String),
}

/// Asks by text.
pub async fn version_by_text(connection: &mut Connection) -> Result<Reply, WireError> {
    connection.send(b"version\r\n").await?;
    connection.reply(parse_text).await
}

/// Asks by the binary protocol.
pub async fn version_by_binary(connection: &mut Connection) -> Result<Reply, WireError> {
    connection.send(&BINARY_VERSION).await?;
    connection.reply(parse_binary).await
}

/// Reads the answer to `version`.
pub fn parse_text(buffer: &[u8]) -> Parsed<Reply> {
    const EXPECTED: &str = "memcached's VERSION";
    let Some((text, length)) = line(buffer, 256, EXPECTED)? else { return Ok(None) };
    if text.strip_prefix(b"VERSION ").is_some_and(|version| !version.is_empty()) {
        return Ok(Some((Reply::Version, length)));
    }
    if text == b"ERROR Too many open connections" {
        return Ok(Some((Reply::Full, length)));
    }
    // Text with authentication (-Y) answers nothing else until one has logged in.
    if text == b"CLIENT_ERROR unauthenticated" {
        return Ok(Some((Reply::WantsLogin, length)));
    }
    let refused = [&b"SERVER_ERROR "[..], b"CLIENT_ERROR "].iter().any(|prefix| text.starts_with(prefix));
    if refused { Ok(Some((Reply::Refused(super::quote(text)), length))) } else { Err(EXPECTED) }
}

/// Reads the answer to a binary version request.
pub fn parse_binary(buffer: &[u8]) -> Parsed<Reply> {
    const EXPECTED: &str = "memcached's binary version";
    const AUTH_ERROR: u16 = 0x20;
    // Said on connecting, in text whatever the dialect.
    if buffer.first() == Some(&b'E') {
        return match parse_text(buffer) {
            Ok(None) => Ok(None),
            Ok(Some((Reply::Full, length))) => Ok(Some((Reply::Full, length))),
            _ => Err(EXPECTED),
        };
    }
    if buffer.iter().zip(&[0x81, 0x0b]).any(|(byte, wanted)| byte != wanted) {
        return Err(EXPECTED);
    }
    let Some(header) = buffer.get(..BINARY_HEADER) else { return Ok(None) };
    let status = u16::from_be_bytes([header[6], header[7]]);
    let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if body > 256 {
        return Err(EXPECTED);
    }
    let whole = BINARY_HEADER + body;
    if buffer.len() < whole {
        return Ok(None);
    }
    let reply = match status {
        0 if body > 0 => Reply::Version,
        0 => return Err(EXPECTED),
        AUTH_ERROR => Reply::WantsLogin,
        _ => Reply::Refused(super::quote(&buffer[BINARY_HEADER..whole])),
    };
    Ok(Some((reply, whole)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(status: u8, body: &[u8]) -> Vec<u8> {
        let mut reply = vec![0u8; BINARY_HEADER];
        reply[..2].copy_from_slice(&[0x81, 0x0b]);
        reply[7] = status;
        reply[11] = u8::try_from(body.len()).expect("short");
        reply.extend_from_slice(body);
        reply
    }

    #[test]
    fn text_answers_are_told_apart() {
        assert_eq!(parse_text(b"VERSION 1.6.18\r\n"), Ok(Some((Reply::Version, 16))));
        assert_eq!(parse_text(b"VERSION 1.6"), Ok(None));
        assert_eq!(parse_text(b"ERROR Too many open connections\r\n"), Ok(Some((Reply::Full, 33))));
        assert_eq!(parse_text(b"CLIENT_ERROR unauthenticated\r\n"), Ok(Some((Reply::WantsLogin, 30))));
        assert!(matches!(parse_text(b"SERVER_ERROR out of memory\r\n"), Ok(Some((Reply::Refused(_), _)))));
        for garbage in [&b"VERSION \r\n"[..], b"ERROR\r\n", b"SSH-2.0-x\r\n", b"\n", &[b'x'; 300]] {
            assert!(parse_text(garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn binary_answers_are_told_apart() {
        assert_eq!(parse_binary(&binary(0, b"1.6.18")), Ok(Some((Reply::Version, 30))));
        assert_eq!(parse_binary(&binary(0x20, b"Auth failure")), Ok(Some((Reply::WantsLogin, 36))));
        assert_eq!(parse_binary(&binary(0, b"1.6.18")[..29]), Ok(None));
        assert_eq!(parse_binary(&[0x81]), Ok(None));
        assert!(parse_binary(b"VERSION").is_err());
        assert!(parse_binary(&BINARY_VERSION).is_err(), "an echo is no answer");
        let mut endless = binary(0, b"");
        endless[8] = 0xff;
        assert!(parse_binary(&endless).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for parse in [parse_text, parse_binary] {
                if let Ok(Some((_, length))) = parse(&bytes) {
                    prop_assert!(length <= bytes.len());
                }
            }
        }
    }
}
