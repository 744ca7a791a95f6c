//! JSON as it is sent: control characters beyond those that JSON itself escapes are escaped too, so that `curl` on a
//! terminal is safe; a parser reads back the very same text.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::model::words::plain::is_unsafe;

/// A compact formatter that leaves no unsafe character as it is.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut done = 0;
        for (at, character) in fragment.char_indices().filter(|(_, character)| is_unsafe(*character)) {
            writer.write_all(&fragment.as_bytes()[done..at])?;
            write!(writer, "\\u{:04x}", u32::from(character))?; // all of them lie in the basic plane
            done = at + character.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[done..])
    }
}

/// Appends a value's JSON.
pub(in crate::answer) fn write(into: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = Serializer::with_formatter(into, Escaping);
    value.serialize(&mut serializer).expect("our shapes have text keys and a vector takes every write");
}

/// A value's JSON.
pub(super) fn bytes(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    write(&mut bytes, value);
    bytes
}

/// A whole answer, ended by a line feed for people.
pub(super) fn reply(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = bytes(value);
    body.push(b'\n');
    raw(status, Body::from(body))
}

/// An answer whose JSON is made already.
pub(super) fn raw(status: StatusCode, body: Body) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_safe_and_parsers_see_the_same_text() {
        let text = "a\u{1b}[31m\u{7f}\u{9b}2J\u{202e}ü\u{2028}\"\\\n東";
        let json = String::from_utf8(bytes(&text)).expect("text");
        assert!(!json.chars().any(is_unsafe), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
    }
}
