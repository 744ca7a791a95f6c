//! RESP2's replies, nested as `EXEC` nests them, within bounds.

use crate::wire::{Parsed, line};

const EXPECTED: &str = "a Redis reply";
/// Elements of one array: no transaction of ours has more.
const MOST: usize = 64;
/// How deep arrays may nest.
const DEPTH: usize = 3;
/// The longest single text: what `CLIENT LIST` says of 10,000 clients is a third of it.
const LONGEST: usize = 16 << 20;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `+…`
    Simple(String),
    /// `-…`
    Error(String),
    /// `:…`
    Number(i64),
    /// `$…`
    Text(String),
    /// `*…`
    Array(Vec<Value>),
    /// Nothing: of either kind.
    Null,
}

impl Value {
    /// The server's words when it refused, in this reply or in one within it.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Error(words) => Some(words),
            Self::Array(values) => values.iter().find_map(Self::refusal),
            Self::Simple(_) | Self::Number(_) | Self::Text(_) | Self::Null => None,
        }
    }

    /// What an array holds; of any other reply, nothing.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(values) => values,
            Self::Simple(_) | Self::Error(_) | Self::Number(_) | Self::Text(_) | Self::Null => &[],
        }
    }

    /// The first text in it.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Array(values) => values.iter().find_map(Self::text),
            Self::Simple(_) | Self::Error(_) | Self::Number(_) | Self::Null => None,
        }
    }
}

/// Reads one reply.
pub fn parse(buffer: &[u8]) -> Parsed<Value> {
    nested(buffer, DEPTH)
}

fn nested(buffer: &[u8], depth: usize) -> Parsed<Value> {
    if buffer.first().is_some_and(|kind| !b"+-:$*".contains(kind)) {
        return Err(EXPECTED);
    }
    let Some((head, start)) = line(buffer, 1024, EXPECTED)? else { return Ok(None) };
    let (Some(kind), rest) = (head.first(), head.get(1..).unwrap_or_default()) else { return Err(EXPECTED) };
    let text = String::from_utf8_lossy(rest).into_owned();
    match kind {
        b'+' => Ok(Some((Value::Simple(text), start))),
        b'-' => Ok(Some((Value::Error(text), start))),
        b':' => Ok(Some((Value::Number(text.parse().map_err(|_| EXPECTED)?), start))),
        _ if text == "-1" => Ok(Some((Value::Null, start))),
        b'$' => bulk(buffer, start, length(&text, LONGEST)?),
        _ => array(buffer, start, length(&text, MOST)?, depth),
    }
}

fn length(text: &str, most: usize) -> Result<usize, &'static str> {
    text.parse::<usize>().ok().filter(|length| *length <= most).ok_or(EXPECTED)
}

fn bulk(buffer: &[u8], start: usize, length: usize) -> Parsed<Value> {
    let Some(body) = buffer.get(start..start + length + 2) else { return Ok(None) };
    let Some(text) = body.strip_suffix(b"\r\n") else { return Err(EXPECTED) };
    Ok(Some((Value::Text(String::from_utf8_lossy(text).into_owned()), start + length + 2)))
}

fn array(buffer: &[u8], start: usize, count: usize, depth: usize) -> Parsed<Value> {
    let Some(depth) = depth.checked_sub(1) else { return Err(EXPECTED) };
    let (mut values, mut at) = (Vec::with_capacity(count), start);
    for _ in 0..count {
        let Some((value, length)) = nested(&buffer[at..], depth)? else { return Ok(None) };
        values.push(value);
        at += length;
    }
    Ok(Some((Value::Array(values), at)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_transactions_reply_is_read_whole_or_not_at_all() {
        let text = b"*3\r\n+OK\r\n$4\r\nrole\r\n*2\r\n:7\r\n$-1\r\n";
        let inner = Value::Array(vec![Value::Number(7), Value::Null]);
        let whole = Value::Array(vec![Value::Simple("OK".to_owned()), Value::Text("role".to_owned()), inner]);
        assert_eq!(parse(text), Ok(Some((whole, text.len()))));
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn what_is_no_reply_or_has_no_end_is_refused() {
        for text in
            ["HTTP/1.1", "*65\r\n", "*-2\r\n", "$99999999\r\n", ":x\r\n", "$1\r\nabc", "*1\r\n*1\r\n*1\r\n*1\r\n"]
        {
            assert_eq!(parse(text.as_bytes()), Err(EXPECTED), "{text}");
        }
    }

    #[test]
    fn a_refusal_within_a_transaction_is_seen() {
        let (value, _) = parse(b"*2\r\n+OK\r\n-NOPERM no\r\n").expect("a reply").expect("whole");
        assert_eq!(value.refusal(), Some("NOPERM no"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0usize..5) {
            if let (Some(first), Some(kind)) = (bytes.first_mut(), b"+-:$*".get(kind)) {
                *first = *kind;
            }
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
