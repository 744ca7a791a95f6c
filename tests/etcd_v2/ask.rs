//! Requests of v2, sent as plainly as it goes, so that real etcd and the program are asked with the very same bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long a reply may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub status: u16,
    pub head: String,
    pub text: String,
    pub body: Value,
}

impl Told {
    /// The store's index.
    pub fn index(&self) -> u64 {
        self.header("x-etcd-index").and_then(|index| index.parse().ok()).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    pub fn code(&self) -> u64 {
        self.body["errorCode"].as_u64().unwrap_or(0)
    }

    pub fn value(&self) -> &str {
        self.body["node"]["value"].as_str().unwrap_or("")
    }

    pub fn action(&self) -> &str {
        self.body["action"].as_str().unwrap_or("")
    }

    pub fn modified(&self) -> u64 {
        self.body["node"]["modifiedIndex"].as_u64().unwrap_or(0)
    }
}

/// Text as a form has it.
pub fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A form of these fields.
pub fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
}

/// Sends a request for `target`, which begins behind `/v2/keys`, and reads the reply; nothing when none comes in time.
pub fn try_ask(at: &str, method: &str, target: &str, form: Option<&str>, patience: Duration) -> Option<Told> {
    let kind = if form.is_some() { "Content-Type: application/x-www-form-urlencoded\r\n" } else { "" };
    request(at, method, &format!("/v2/keys{target}"), kind, form.unwrap_or(""), patience)
}

/// The same for any target, with these lines in the head.
pub fn request(at: &str, method: &str, target: &str, head: &str, body: &str, patience: Duration) -> Option<Told> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    let length = body.len();
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok()?;
    Some(read(&String::from_utf8(reply).unwrap()))
}

fn read(reply: &str) -> Told {
    let (head, rest) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let text = if is_chunked { unchunked(rest) } else { rest.to_owned() };
    let body = serde_json::from_str(&text).unwrap_or_default();
    Told { status, head: head.to_owned(), text, body }
}

fn unchunked(mut rest: &str) -> String {
    let mut text = String::new();
    while let Some((size, others)) = rest.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size.trim(), 16) else { break };
        text.push_str(&others[..size]);
        rest = others[size..].trim_start_matches("\r\n");
    }
    text
}

/// Asks, and wants a reply.
pub fn ask(at: &str, method: &str, target: &str, form: Option<&str>) -> Told {
    let told = try_ask(at, method, target, form, PATIENCE);
    told.unwrap_or_else(|| panic!("{at} never replied to {method} {target}"))
}

pub fn get(at: &str, target: &str) -> Told {
    ask(at, "GET", target, None)
}

pub fn put(at: &str, target: &str, fields: &[(&str, &str)]) -> Told {
    ask(at, "PUT", target, Some(&form(fields)))
}

pub fn post(at: &str, target: &str, fields: &[(&str, &str)]) -> Told {
    ask(at, "POST", target, Some(&form(fields)))
}

pub fn delete(at: &str, target: &str) -> Told {
    ask(at, "DELETE", target, None)
}
