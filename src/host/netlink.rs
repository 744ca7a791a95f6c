//! One question to the kernel over netlink, and its one answer.
//!
//! The kernel answers while it takes the question, so nothing waits here. Both sockets that are used (routes, and who
//! holds a connection) need no right.

use std::io;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The family, as the kernel numbers it.
const AF_NETLINK: i32 = 16;
/// Before the message: length, kind, flags, sequence, sender.
const HEADER: usize = 16;
/// The kind of an answer that is an error.
const ERROR: u16 = 2;
/// In case that a kernel does not answer at once after all.
const PATIENCE: Duration = Duration::from_millis(20);

/// An answer: its kind and its body.
pub(super) type Answer = (u16, Vec<u8>);

/// Asks the part of the kernel with this number one question of this kind.
pub(super) fn ask(part: i32, kind: u16, body: &[u8]) -> io::Result<Answer> {
    let socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(part)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&question(kind, body))?;
    let mut buffer = [0; 8192];
    let read = io::Read::read(&mut &socket, &mut buffer)?;
    answer(&buffer[..read])
}

fn question(kind: u16, body: &[u8]) -> Vec<u8> {
    const REQUEST: u16 = 1;
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&REQUEST.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

fn answer(message: &[u8]) -> io::Result<Answer> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let length = u32_at(message, 0).ok_or_else(short)? as usize;
    let kind = u16_at(message, 4).ok_or_else(short)?;
    let body = message.get(HEADER..length).ok_or_else(short)?;
    if kind != ERROR {
        return Ok((kind, body.to_vec()));
    }
    let number = u32_at(body, 0).ok_or_else(short)?.cast_signed();
    Err(io::Error::from_raw_os_error(number.saturating_neg()))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The attribute of this number among those at the end of an answer.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others() {
        let bytes =
            [5u16.to_ne_bytes(), 1u16.to_ne_bytes(), [7, 0], [0, 0], 6u16.to_ne_bytes(), [21, 0], [8, 9]].concat();
        assert_eq!(attribute(&bytes, 21), Some(&[8, 9][..]));
        assert_eq!(attribute(&bytes, 22), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..64), wanted in 0u16..4) {
            attribute(&bytes, wanted);
            answer(&bytes).ok();
        }
    }
}
