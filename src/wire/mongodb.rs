//! MongoDB: what a server says to `hello`, asked by its older name `isMaster`, which every version knows.

use super::{Connection, Parsed, WireError};

/// The longest reply that is read.
const LONGEST: usize = 48 * 1024;

/// What names our request in the reply to it.
const REQUEST: u32 = 0x7761_7266;

const OP_MSG: u32 = 2013;

/// What the server said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// `ok: 1`.
    pub ok: bool,
    /// It takes writes.
    pub writable: bool,
    /// It is a secondary.
    pub secondary: bool,
    /// It belongs to a replica set.
    pub in_set: bool,
}

/// Asks.
pub async fn hello(connection: &mut Connection) -> Result<Hello, WireError> {
    connection.send(&request()).await?;
    let hello = connection.reply(parse).await?;
    connection.finish().await;
    Ok(hello)
}

fn request() -> Vec<u8> {
    let mut document = vec![0; 4];
    document.extend_from_slice(b"\x10isMaster\0\x01\0\0\0");
    document.extend_from_slice(b"\x02$db\0\x06\0\0\0admin\0");
    document.push(0);
    patch_length(&mut document);
    let mut message = vec![0; 4];
    for word in [REQUEST, 0, OP_MSG, 0] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&document);
    patch_length(&mut message);
    message
}

fn patch_length(message: &mut [u8]) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// Reads the reply.
pub fn parse(buffer: &[u8]) -> Parsed<Hello> {
    const EXPECTED: &str = "MongoDB's hello";
    const HEADER: usize = 21;
    let Some(length) = word(buffer, 0) else { return Ok(None) };
    let length = length as usize;
    if !(HEADER..=LONGEST).contains(&length) {
        return Err(EXPECTED);
    }
    if word(buffer, 8).is_some_and(|request| request != REQUEST) || word(buffer, 12).is_some_and(|code| code != OP_MSG)
    {
        return Err(EXPECTED);
    }
    let Some(message) = buffer.get(..length) else { return Ok(None) };
    if message[20] != 0 {
        return Err(EXPECTED);
    }
    let hello = read_document(&message[HEADER..]).ok_or(EXPECTED)?;
    Ok(Some((hello, length)))
}

/// Reads the elements of a BSON document that matter, and steps over the others.
fn read_document(document: &[u8]) -> Option<Hello> {
    let length = word(document, 0)? as usize;
    let mut rest = document.get(4..length)?;
    let mut hello = Hello::default();
    loop {
        let (kind, after) = rest.split_first()?;
        if *kind == 0 {
            return Some(hello);
        }
        let end = after.iter().position(|byte| *byte == 0)?;
        let (name, value) = (&after[..end], &after[end + 1..]);
        let size = size_of(*kind, value)?;
        let content = value.get(..size)?;
        match name {
            b"ok" => hello.ok = is_one(*kind, content),
            b"ismaster" | b"isWritablePrimary" => hello.writable = content == [1],
            b"secondary" => hello.secondary = content == [1],
            b"setName" => hello.in_set = true,
            _ => {}
        }
        rest = &value[size..];
    }
}

fn is_one(kind: u8, content: &[u8]) -> bool {
    match kind {
        0x01 => content == 1f64.to_le_bytes(),
        0x10 => content == 1i32.to_le_bytes(),
        0x12 => content == 1i64.to_le_bytes(),
        0x08 => content == [1],
        _ => false,
    }
}

/// How many bytes a value of this kind takes.
fn size_of(kind: u8, value: &[u8]) -> Option<usize> {
    let text = |from: usize| value.get(from..)?.iter().position(|byte| *byte == 0).map(|end| from + end + 1);
    Some(match kind {
        0x01 | 0x09 | 0x11 | 0x12 => 8,
        0x02 | 0x0d | 0x0e => word(value, 0)? as usize + 4,
        0x03 | 0x04 | 0x0f => (word(value, 0)? as usize).max(5),
        0x05 => word(value, 0)? as usize + 5,
        0x06 | 0x0a | 0x7f | 0xff => 0,
        0x07 => 12,
        0x08 => 1,
        0x0b => text(text(0)?)?,
        0x0c => word(value, 0)? as usize + 4 + 12,
        0x10 => 4,
        0x13 => 16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(elements: &[u8]) -> Vec<u8> {
        let mut document = vec![0; 4];
        document.extend_from_slice(elements);
        document.push(0);
        patch_length(&mut document);
        let mut message = vec![0; 4];
        for word in [7, REQUEST, OP_MSG, 0] {
            message.extend_from_slice(&word.to_le_bytes());
        }
        message.push(0);
        message.extend_from_slice(&document);
        patch_length(&mut message);
        message
    }

    #[test]
    fn a_hello_tells_what_it_is() {
        let ok = b"\x01ok\0\0\0\0\0\0\0\xf0\x3f";
        let secondary =
            [&b"\x08ismaster\0\0\x08secondary\0\x01\x02setName\0\x04\0\0\0rs0\0\x03t\0\x05\0\0\0\0"[..], ok].concat();
        let expected = Hello { ok: true, writable: false, secondary: true, in_set: true };
        let message = reply(&secondary);
        assert_eq!(parse(&message), Ok(Some((expected, message.len()))));
        assert_eq!(parse(&message[..message.len() - 1]), Ok(None));
        let alone = reply(&[&b"\x08ismaster\0\x01"[..], ok].concat());
        assert_eq!(parse(&alone).map(|found| found.map(|(hello, _)| hello.writable)), Ok(Some(true)));
    }

    #[test]
    fn what_is_no_hello_is_known() {
        assert!(parse(&request()).is_err(), "an echo is no answer");
        for bad in [&b"HTTP/1.1"[..], b"\xff\xff\xff\xff", &reply(b"\x42x\0"), &reply(b"\x02x\0\xff\xff\xff\x7f")] {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes).ok();
            parse(&reply(&bytes)).ok();
        }
    }
}
