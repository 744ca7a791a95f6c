//! The binary protocol: only the list, the version, no-op and quit are answered; a get of another key finds nothing.
//!
//! A message is a header of 24 bytes and a body: extras, key and value. A body is passed over as far as it is not
//! looked at.

use super::talk::{DISCOVERY_ONLY, Discovery, ENGINE, LONGEST_BLOCK, NO_MEMBERS, OLD_KEY, Talk, Turn};

const HEADER: usize = 24;
const REPLY: u8 = 0x81;

const GET: u8 = 0x00;
const GET_QUIET: u8 = 0x09;
const GET_KEY: u8 = 0x0c;
const GET_KEY_QUIET: u8 = 0x0d;
const QUIT: u8 = 0x07;
const NOTHING: u8 = 0x0a;
const VERSION: u8 = 0x0b;
const STAT: u8 = 0x10;
const QUIT_QUIET: u8 = 0x17;
const CONFIG_GET: u8 = 0x60;
/// Set, add, replace, append, prepend and config set; those of them with the high nibble 1 are quiet.
const STORING: [u8; 11] = [0x01, 0x02, 0x03, 0x0e, 0x0f, 0x11, 0x12, 0x13, 0x19, 0x1a, 0x61];

const FINE: u16 = 0;
const NOT_FOUND: u16 = 1;
const UNKNOWN: u16 = 0x81;
const NOT_SUPPORTED: u16 = 0x83;
const FOR_NOW: u16 = 0x86;

/// The longest key.
const MAX_KEY: usize = 250;

struct Asked<'i> {
    opcode: u8,
    key: &'i [u8],
    opaque: [u8; 4],
}

/// Answers the message that `input` begins with.
pub(super) fn turn(talk: &mut Talk, input: &[u8], from: &Discovery<'_>, out: &mut Vec<u8>) -> Turn {
    let Some(header) = input.first_chunk::<HEADER>() else { return Turn::Wait };
    let key = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let extras = usize::from(header[4]);
    let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if key > MAX_KEY || body > LONGEST_BLOCK || extras + key > body {
        return Turn::Close;
    }
    let looked_at = HEADER + extras + key;
    let Some(key) = input.get(HEADER + extras..looked_at) else { return Turn::Wait };
    let asked = Asked { opcode: header[1], key, opaque: [header[12], header[13], header[14], header[15]] };
    if !answer(&asked, from, out) {
        return Turn::Close;
    }
    talk.skips = HEADER + body - looked_at;
    Turn::Took(looked_at)
}

/// Answers it; false when it was the last.
fn answer(asked: &Asked<'_>, from: &Discovery<'_>, out: &mut Vec<u8>) -> bool {
    let is_quiet = matches!(asked.opcode, GET_QUIET | GET_KEY_QUIET);
    match asked.opcode {
        CONFIG_GET if asked.key == b"cluster" => list(asked, from, out),
        GET | GET_QUIET | GET_KEY | GET_KEY_QUIET if asked.key == OLD_KEY => list(asked, from, out),
        GET | GET_QUIET | GET_KEY | GET_KEY_QUIET | CONFIG_GET => {
            if !is_quiet {
                say(asked, NOT_FOUND, "", "Not found", out);
            }
        }
        NOTHING | STAT => say(asked, FINE, "", "", out),
        VERSION => say(asked, FINE, "", ENGINE, out),
        QUIT => {
            say(asked, FINE, "", "", out);
            return false;
        }
        QUIT_QUIET => return false,
        opcode if STORING.contains(&opcode) => say(asked, NOT_SUPPORTED, "", DISCOVERY_ONLY, out),
        _ => say(asked, UNKNOWN, "", "Unknown command", out),
    }
    true
}

fn list(asked: &Asked<'_>, from: &Discovery<'_>, out: &mut Vec<u8>) {
    match from.list {
        Some(list) => say(asked, FINE, "\0\0\0\0", &list.body(), out),
        None => say(asked, FOR_NOW, "", NO_MEMBERS, out),
    }
}

/// A reply: flags or nothing, the key where it was asked for, and a value.
fn say(asked: &Asked<'_>, status: u16, flags: &str, value: &str, out: &mut Vec<u8>) {
    let names_key = matches!(asked.opcode, GET_KEY | GET_KEY_QUIET) && status == FINE;
    let key = if names_key { asked.key } else { &[] };
    let body = u32::try_from(flags.len() + key.len() + value.len()).expect("a list has its bound");
    let key_length = u16::try_from(key.len()).expect("a key has its bound");
    let extras = u8::try_from(flags.len()).expect("4 at most");
    out.extend_from_slice(&[REPLY, asked.opcode]);
    out.extend_from_slice(&key_length.to_be_bytes());
    out.extend_from_slice(&[extras, 0]);
    out.extend_from_slice(&status.to_be_bytes());
    out.extend_from_slice(&body.to_be_bytes());
    out.extend_from_slice(&asked.opaque);
    out.extend_from_slice(&[0; 8]);
    for part in [flags.as_bytes(), key, value.as_bytes()] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::super::talk::tests::{converse, list};
    use super::*;

    fn message(opcode: u8, extras: usize, key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = u32::try_from(extras + key.len() + value.len()).expect("small");
        let mut message = vec![0x80, opcode, 0, u8::try_from(key.len()).expect("small")];
        message.extend([u8::try_from(extras).expect("small"), 0, 0, 0]);
        message.extend(body.to_be_bytes());
        message.extend(*b"opaq");
        message.extend([7; 8]);
        message.extend(vec![0; extras]);
        message.extend([key, value].concat());
        message
    }

    /// Opcode, status and body of each reply; whether it was closed then.
    fn replies(said: &[u8]) -> (Vec<(u8, u16, String)>, bool) {
        let list = list();
        let told = converse(said, Some(&list), usize::MAX);
        assert_eq!(told, converse(said, Some(&list), 1));
        let (mut rest, mut replies) = (&told[..], Vec::new());
        while rest.len() >= HEADER {
            assert!(rest[0] == REPLY && &rest[12..16] == b"opaq" && rest[16..24] == [0; 8]);
            let end = HEADER + u32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
            let status = u16::from_be_bytes([rest[6], rest[7]]);
            replies.push((rest[1], status, String::from_utf8_lossy(&rest[HEADER..end]).into_owned()));
            rest = &rest[end..];
        }
        (replies, rest == b".")
    }

    #[test]
    fn the_list_is_told_behind_its_flags() {
        let body = format!("\0\0\0\0{}", list().body());
        assert_eq!(replies(&message(0x60, 0, b"cluster", b"")), (vec![(0x60, 0, body.clone())], false));
        assert_eq!(replies(&message(0x00, 0, OLD_KEY, b"")), (vec![(0x00, 0, body)], false));
        let with_key = format!("\0\0\0\0AmazonElastiCache:cluster{}", list().body());
        assert_eq!(replies(&message(0x0c, 0, OLD_KEY, b"")), (vec![(0x0c, 0, with_key)], false));
        let nobody = converse(&message(0x60, 0, b"cluster", b""), None, 99);
        assert_eq!(nobody[6..8], [0, 0x86]);
    }

    #[test]
    fn other_messages_are_answered_in_turn() {
        let said = [
            message(0x0b, 0, b"", b""),
            message(0x0a, 0, b"", b""),
            message(0x00, 0, b"x", b""),
            message(0x09, 0, b"x", b""),
            message(0x01, 8, b"x", b"value"),
            message(0x20, 0, b"PLAIN", b"user"),
            b"mn\r\n".to_vec(),
        ];
        let (told, closed) = replies(&said[..6].concat());
        let statuses: Vec<_> = told.iter().map(|(opcode, status, _)| (*opcode, *status)).collect();
        assert_eq!(statuses, [(0x0b, 0), (0x0a, 0), (0x00, 1), (0x01, 0x83), (0x20, 0x81)]);
        assert_eq!((told[0].2.as_str(), closed), ("1.6.22", false));
        assert!(converse(&said.concat(), None, 99).ends_with(b"MN\r\n"), "text may follow");
        assert_eq!(
            replies(&[message(0x07, 0, b"", b""), message(0x0a, 0, b"", b"")].concat()),
            (vec![(7, 0, String::new())], true)
        );
        assert_eq!(replies(&message(0x17, 0, b"", b"")), (vec![], true));
    }

    #[test]
    fn what_does_not_hold_together_ends_the_conversation() {
        let mut long = message(0x60, 0, b"cluster", b"");
        long[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        let mut short = message(0x60, 0, b"cluster", b"");
        short[11] = 3;
        for bad in [long, short] {
            assert_eq!(replies(&bad), (vec![], true));
        }
    }
}
