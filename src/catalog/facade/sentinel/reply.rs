//! Replies as values, and their bytes in either protocol of Redis.

use crate::model::words::record::Text;

/// The protocol that a client has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resp {
    /// RESP2, unless HELLO asks for another.
    #[default]
    Two,
    /// RESP3.
    Three,
}

/// One reply. What RESP2 lacks is told in what it has: maps are flat arrays, pushes arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RespValue {
    /// `+…`
    Simple(&'static str),
    /// `+…` of words that are ours.
    Status(String),
    /// `-…`; what would end the line early is made a blank.
    Error(String),
    /// `:…`
    Number(i64),
    /// `$…`
    Text(Text),
    /// `$…` of bytes that a client sent.
    Bytes(Vec<u8>),
    /// Nothing where a text might be: `$-1`.
    NoText,
    /// Nothing where an array might be: `*-1`.
    NoArray,
    /// `*…`
    Array(Vec<RespValue>),
    /// `%…`
    Map(Vec<(&'static str, RespValue)>),
    /// `>…`
    Push(Vec<RespValue>),
}

impl RespValue {
    /// A text.
    pub fn text(text: impl Into<Text>) -> Self {
        Self::Text(text.into())
    }

    /// An error without a code of its own.
    pub fn err(words: impl std::fmt::Display) -> Self {
        Self::Error(format!("ERR {words}"))
    }

    /// Appends its bytes.
    pub fn write(&self, resp: Resp, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind: char, count: usize| out.extend(format!("{kind}{count}\r\n").bytes());
        let is_three = resp == Resp::Three;
        match self {
            Self::Simple(text) => out.extend(format!("+{text}\r\n").bytes()),
            Self::Status(text) => out.extend(format!("+{text}\r\n").bytes()),
            Self::Error(text) => {
                out.push(b'-');
                out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
                out.extend(b"\r\n");
            }
            Self::Number(number) => out.extend(format!(":{number}\r\n").bytes()),
            Self::Text(text) => bulk(text.as_bytes(), out),
            Self::Bytes(bytes) => bulk(bytes, out),
            Self::NoText | Self::NoArray if is_three => out.extend(b"_\r\n"),
            Self::NoText => out.extend(b"$-1\r\n"),
            Self::NoArray => out.extend(b"*-1\r\n"),
            Self::Array(values) | Self::Push(values) => {
                let is_push = is_three && matches!(self, Self::Push(_));
                head(out, if is_push { '>' } else { '*' }, values.len());
                values.iter().for_each(|value| value.write(resp, out));
            }
            Self::Map(fields) => {
                let (kind, each) = if is_three { ('%', 1) } else { ('*', 2) };
                head(out, kind, each * fields.len());
                for (name, value) in fields {
                    bulk(name.as_bytes(), out);
                    value.write(resp, out);
                }
            }
        }
    }
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("${}\r\n", bytes.len()).bytes());
    out.extend(bytes);
    out.extend(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_bytes() {
        let nested =
            || RespValue::Map(vec![("a", RespValue::Number(-1)), ("b", RespValue::Array(vec![RespValue::NoText]))]);
        let cases = [
            (RespValue::Simple("OK"), "+OK\r\n", "+OK\r\n"),
            (RespValue::err("a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (RespValue::NoArray, "*-1\r\n", "_\r\n"),
            (RespValue::Push(vec![RespValue::text("x")]), "*1\r\n$1\r\nx\r\n", ">1\r\n$1\r\nx\r\n"),
            (RespValue::Bytes(vec![b'\r']), "$1\r\n\r\r\n", "$1\r\n\r\r\n"),
            (
                nested(),
                "*4\r\n$1\r\na\r\n:-1\r\n$1\r\nb\r\n*1\r\n$-1\r\n",
                "%2\r\n$1\r\na\r\n:-1\r\n$1\r\nb\r\n*1\r\n_\r\n",
            ),
        ];
        for (value, two, three) in cases {
            for (resp, expected) in [(Resp::Two, two), (Resp::Three, three)] {
                let mut out = Vec::new();
                value.write(resp, &mut out);
                assert_eq!(String::from_utf8(out).expect("text"), expected, "{value:?}");
            }
        }
    }
}
