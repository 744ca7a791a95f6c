//! The few messages of PostgreSQL's protocol 3.0 that a probe sends and reads.

use crate::wire::{Parsed, quote};

/// The longest message that is read.
const LONGEST: usize = 32 * 1024;

/// The request to go on in TLS.
pub(super) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The end of a session.
pub(super) const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// One message of the server, as far as a probe cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Authentication is over.
    LetIn,
    /// The password itself is wanted.
    WantsPassword,
    /// A hash of password, user and this salt is wanted.
    WantsMd5([u8; 4]),
    /// SASL is wanted.
    WantsSasl {
        /// SCRAM-SHA-256 is among the mechanisms.
        scram: bool,
    },
    /// SASL goes on.
    Sasl(Vec<u8>),
    /// SASL ends.
    SaslEnd(Vec<u8>),
    /// Another way to log in is wanted.
    WantsOther,
    /// An error, which ends a session that has not begun.
    Error(Refusal),
    /// Something to know, not an answer.
    Notice,
    /// The parameter `in_hot_standby`.
    Standby(bool),
    /// A row with one truth value.
    Truth(bool),
    /// It waits for a query.
    Ready,
    /// Anything else.
    Other,
}

/// Why the server refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The SQLSTATE.
    pub code: String,
    /// The server's words, escaped and cut.
    pub message: String,
}

/// The first packet of a session.
pub(super) fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for text in ["user", user, "database", database, "application_name", "wharf"] {
        push_text(&mut body, text);
    }
    body.push(0);
    sized(&[], &body)
}

/// A password, or what stands for one.
pub(super) fn password(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 1);
    push_text(&mut body, text);
    sized(b"p", &body)
}

/// The beginning of a SCRAM exchange.
pub(super) fn sasl_initial(data: &str) -> Vec<u8> {
    let mut body = b"SCRAM-SHA-256\0".to_vec();
    body.extend_from_slice(&length(data.len()));
    body.extend_from_slice(data.as_bytes());
    sized(b"p", &body)
}

/// The rest of it.
pub(super) fn sasl(data: &str) -> Vec<u8> {
    sized(b"p", data.as_bytes())
}

/// A query.
pub(super) fn query(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 1);
    push_text(&mut body, text);
    sized(b"Q", &body)
}

fn sized(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(kind.len() + 4 + body.len());
    message.extend_from_slice(kind);
    message.extend_from_slice(&length(body.len() + 4));
    message.extend_from_slice(body);
    message
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Text up to a NUL: what a name holds after one could be read as another parameter.
fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes().take_while(|byte| *byte != 0));
    body.push(0);
}

/// Reads the answer to the request for TLS: one byte, with which an error begins too.
pub fn parse_tls(buffer: &[u8]) -> Parsed<bool> {
    match buffer.first() {
        None => Ok(None),
        Some(b'S') => Ok(Some((true, 1))),
        Some(b'N') => Ok(Some((false, 1))),
        Some(_) => Err("PostgreSQL's answer to a request for TLS"),
    }
}

/// Reads one message.
pub fn parse(buffer: &[u8]) -> Parsed<Message> {
    const EXPECTED: &str = "a PostgreSQL message";
    const KINDS: &[u8] = b"RENSKZvTDCI";
    let Some(kind) = buffer.first() else { return Ok(None) };
    if !KINDS.contains(kind) {
        return Err(EXPECTED);
    }
    let Some(length) = buffer.get(1..5) else { return Ok(None) };
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if !(4..=LONGEST).contains(&length) {
        return Err(EXPECTED);
    }
    let Some(body) = buffer.get(5..=length) else { return Ok(None) };
    let message = match kind {
        b'R' => parse_authentication(body).ok_or(EXPECTED)?,
        b'E' => Message::Error(parse_error(body).ok_or(EXPECTED)?),
        b'N' => Message::Notice,
        b'S' => parse_parameter(body),
        b'D' => parse_row(body),
        b'Z' => Message::Ready,
        _ => Message::Other,
    };
    Ok(Some((message, length + 1)))
}

fn parse_authentication(body: &[u8]) -> Option<Message> {
    let (kind, rest) = body.split_first_chunk::<4>()?;
    Some(match u32::from_be_bytes(*kind) {
        0 => Message::LetIn,
        3 => Message::WantsPassword,
        5 => Message::WantsMd5(*rest.first_chunk::<4>()?),
        10 => Message::WantsSasl { scram: rest.split(|byte| *byte == 0).any(|name| name == b"SCRAM-SHA-256") },
        11 => Message::Sasl(rest.to_vec()),
        12 => Message::SaslEnd(rest.to_vec()),
        _ => Message::WantsOther,
    })
}

/// Reads the fields of an error: each a letter and text up to a NUL, and a NUL after the last.
pub fn parse_error(body: &[u8]) -> Option<Refusal> {
    let fields = body.strip_suffix(&[0, 0])?;
    let field = |letter| fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[letter]));
    let code = field(b'C').filter(|code| code.len() == 5 && code.iter().all(u8::is_ascii_alphanumeric))?;
    Some(Refusal { code: String::from_utf8_lossy(code).into_owned(), message: quote(field(b'M')?) })
}

fn parse_parameter(body: &[u8]) -> Message {
    match body {
        b"in_hot_standby\0on\0" => Message::Standby(true),
        b"in_hot_standby\0off\0" => Message::Standby(false),
        _ => Message::Other,
    }
}

fn parse_row(body: &[u8]) -> Message {
    match body {
        [0, 1, 0, 0, 0, 1, b't'] => Message::Truth(true),
        [0, 1, 0, 0, 0, 1, b'f'] => Message::Truth(false),
        _ => Message::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        sized(&[kind], body)
    }

    fn check(input: &[u8], expected: Message) {
        assert_eq!(parse(input), Ok(Some((expected, input.len()))), "{}", input.escape_ascii());
        assert_eq!(parse(&input[..input.len() - 1]), Ok(None), "half of {}", input.escape_ascii());
    }

    #[test]
    fn messages_are_told_apart() {
        check(&message(b'R', &[0, 0, 0, 0]), Message::LetIn);
        check(&message(b'R', &[0, 0, 0, 3]), Message::WantsPassword);
        check(&message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]), Message::WantsMd5([1, 2, 3, 4]));
        check(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), Message::WantsSasl { scram: true });
        check(&message(b'R', b"\0\0\0\x0aOAUTHBEARER\0\0"), Message::WantsSasl { scram: false });
        check(&message(b'S', b"in_hot_standby\0on\0"), Message::Standby(true));
        check(&message(b'D', b"\0\x01\0\0\0\x01f"), Message::Truth(false));
        check(&message(b'Z', b"I"), Message::Ready);
        let refusal = Refusal { code: "57P03".to_owned(), message: "\"starting up\"".to_owned() };
        check(&message(b'E', b"SFATAL\0C57P03\0Mstarting up\0\0"), Message::Error(refusal));
    }

    #[test]
    fn what_is_no_message_is_known_early() {
        for bad in [
            &b"H"[..],
            b"R\0\0\0\x03",
            b"R\xff\xff\xff\xff",
            b"R\0\0\0\x04",
            b"R\0\0\0\x08\0\0\0\x05",
            b"E\0\0\0\x0aC28000\0",
        ] {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_name_cannot_carry_parameters() {
        let packet = startup("a\0replication\0true", "b");
        assert!(!packet.windows(11).any(|bytes| bytes == b"replication"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(kind in 0usize..12, body in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..300) {
            let kind = b"RENSKZvTDCIx"[kind];
            let whole = message(kind, &body);
            if let Ok(Some((_, length))) = parse(&whole) {
                prop_assert_eq!(length, whole.len());
            }
            prop_assert!(!matches!(parse(&whole[..cut.min(whole.len() - 1)]), Ok(Some(_))));
            parse(&body).ok();
            parse_tls(&body).ok();
        }
    }
}
