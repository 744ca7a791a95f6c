//! What a client says and is answered: memcached's text protocol, as far as it asks who is there.
//!
//! A command that stores is refused behind its data block, which is passed over as it comes in; so a client that
//! confuses the discovery endpoint with a cache is told so, command for command. A message that begins with 0x80 is
//! binary: see [`binary`].

use super::binary;
use super::member::MemberList;

/// The longest line, and the most of a binary message that is looked at.
pub const LONGEST: usize = 4 * 1024;
/// The longest data block that is passed over: the longest value that a memcached takes unless it is told otherwise.
pub(super) const LONGEST_BLOCK: usize = 1024 * 1024;
/// What clients of engines before 1.4.14 ask for.
pub(super) const OLD_KEY: &[u8] = b"AmazonElastiCache:cluster";
/// The engine that is said to be here: clients ask it with `config get cluster`, as they do from 1.4.14 on.
pub(super) const ENGINE: &str = "1.6.22";
/// The first byte of a binary message.
const BINARY: u8 = 0x80;
/// What a cache would have been for.
pub(super) const DISCOVERY_ONLY: &str = "discovery only";
pub(super) const NO_MEMBERS: &str = "no members yet";

/// What is answered from.
#[derive(Clone, Copy, Debug)]
pub struct Discovery<'d> {
    /// The list, once there is one.
    pub list: Option<&'d MemberList>,
    /// Connections that are open now.
    pub connections: i64,
    /// Seconds since the agent started.
    pub uptime: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// So many bytes were taken; there may be another command behind them.
    Took(usize),
    /// The rest of a command has to come in first.
    Wait,
    /// The conversation is over.
    Close,
}

/// One client's conversation: what is left of a data block that is passed over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Talk {
    pub(super) skips: usize,
    /// Whether what is passed over is a refused command's, which is answered behind it.
    answers: bool,
}

impl Talk {
    /// Whether the rest of a command is yet to come, beside what was not taken.
    pub fn is_amid(&self) -> bool {
        self.skips > 0
    }

    /// Answers the command that `input` begins with.
    pub fn turn(&mut self, input: &[u8], from: &Discovery<'_>, out: &mut Vec<u8>) -> Turn {
        if self.skips > 0 {
            return self.skip(input, out);
        }
        match input.first() {
            None => Turn::Wait,
            Some(&BINARY) => binary::turn(self, input, from, out),
            Some(_) => self.line(input, from, out),
        }
    }

    fn skip(&mut self, input: &[u8], out: &mut Vec<u8>) -> Turn {
        let taken = self.skips.min(input.len());
        self.skips -= taken;
        if self.skips == 0 && std::mem::take(&mut self.answers) {
            say(out, &format!("SERVER_ERROR {DISCOVERY_ONLY}"));
        }
        if taken > 0 { Turn::Took(taken) } else { Turn::Wait }
    }

    fn line(&mut self, input: &[u8], from: &Discovery<'_>, out: &mut Vec<u8>) -> Turn {
        let Some(length) = input.iter().take(LONGEST).position(|byte| *byte == b'\n') else {
            if input.len() < LONGEST {
                return Turn::Wait;
            }
            say(out, "CLIENT_ERROR line too long");
            return Turn::Close;
        };
        let line = input[..length].strip_suffix(b"\r").unwrap_or(&input[..length]);
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [b"quit"] => return Turn::Close,
            [b"config", b"get", b"cluster"] => tell(out, from, |list, out| {
                block(out, &format!("CONFIG cluster 0 {}", list.len()), list);
            }),
            [b"config", b"get", _] => say(out, "END"),
            [b"config", b"set", _, _, bytes, rest @ ..] => return self.refuse(bytes, rest, length, out),
            [b"config", b"delete", _] => say(out, &format!("SERVER_ERROR {DISCOVERY_ONLY}")),
            [get @ (b"get" | b"gets"), keys @ ..] if !keys.is_empty() => values(get, keys, from, out),
            [b"gat" | b"gats", _, _, ..] => say(out, "END"),
            [b"version"] => say(out, &format!("VERSION {ENGINE}")),
            [b"stats"] => stats(from, out),
            [b"stats", ..] => say(out, "END"),
            [b"verbosity", _, b"noreply"] => {}
            [b"verbosity", _, ..] => say(out, "OK"),
            [b"mn"] => say(out, "MN"),
            [b"set" | b"add" | b"replace" | b"append" | b"prepend", _, _, _, bytes, rest @ ..] => {
                return self.refuse(bytes, rest, length, out);
            }
            [b"cas", _, _, _, bytes, _, rest @ ..] => return self.refuse(bytes, rest, length, out),
            [b"ms", _, bytes, ..] => return self.refuse(bytes, &[], length, out),
            _ => say(out, "ERROR"),
        }
        Turn::Took(length + 1)
    }

    /// Passes over the data block of a command that would store.
    fn refuse(&mut self, bytes: &[u8], rest: &[&[u8]], line: usize, out: &mut Vec<u8>) -> Turn {
        let bytes = std::str::from_utf8(bytes).ok().and_then(|bytes| bytes.parse::<usize>().ok());
        match bytes {
            Some(bytes) if bytes <= LONGEST_BLOCK => {
                self.skips = bytes + 2;
                self.answers = rest.last() != Some(&&b"noreply"[..]);
                Turn::Took(line + 1)
            }
            Some(_) => {
                say(out, "SERVER_ERROR object too large for cache");
                Turn::Close
            }
            None => {
                say(out, "CLIENT_ERROR bad command line format");
                Turn::Took(line + 1)
            }
        }
    }
}

fn values(get: &[u8], keys: &[&[u8]], from: &Discovery<'_>, out: &mut Vec<u8>) {
    if !keys.contains(&OLD_KEY) {
        return say(out, "END");
    }
    let version = from.list.map_or(0, |list| list.version);
    let unique = if get == b"gets" { format!(" {version}") } else { String::new() };
    tell(out, from, |list, out| {
        block(out, &format!("VALUE AmazonElastiCache:cluster 0 {}{unique}", list.len()), list);
    });
}

/// Tells the list, or that there is none yet.
fn tell(out: &mut Vec<u8>, from: &Discovery<'_>, how: impl FnOnce(&str, &mut Vec<u8>)) {
    match from.list {
        Some(list) => how(&list.body(), out),
        None => say(out, &format!("SERVER_ERROR {NO_MEMBERS}")),
    }
}

fn block(out: &mut Vec<u8>, head: &str, data: &str) {
    for line in [head, data, "END"] {
        say(out, line);
    }
}

fn stats(from: &Discovery<'_>, out: &mut Vec<u8>) {
    let members = from.list.map_or(0, |list| list.members.len());
    let version = from.list.map_or(0, |list| list.version);
    say(out, &format!("STAT uptime {}", from.uptime));
    say(out, &format!("STAT version {ENGINE}"));
    say(out, &format!("STAT curr_connections {}", from.connections));
    say(out, &format!("STAT cluster_members {members}"));
    say(out, &format!("STAT cluster_version {version}"));
    say(out, "END");
}

fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::catalog::facade::autodiscovery::Member;

    pub(crate) fn list() -> MemberList {
        let member = |last: u8| Member { id: "a".into(), node: None, address: [10, 0, 0, last].into(), port: 11211 };
        MemberList { version: 1_767_225_600, members: vec![member(1), member(2)] }
    }

    /// What a conversation answers, whole or as its bytes come in; with `.` behind it when it was closed.
    pub(crate) fn converse(said: &[u8], list: Option<&MemberList>, at_once: usize) -> Vec<u8> {
        let (mut talk, mut out, mut buffer) = (Talk::default(), Vec::new(), Vec::new());
        let from = Discovery { list, connections: 3, uptime: 60 };
        for bytes in said.chunks(at_once) {
            buffer.extend_from_slice(bytes);
            loop {
                match talk.turn(&buffer, &from, &mut out) {
                    Turn::Took(taken) => drop(buffer.drain(..taken)),
                    Turn::Wait => break,
                    Turn::Close => {
                        out.push(b'.');
                        return out;
                    }
                }
            }
        }
        out
    }

    fn check(said: &str, expected: &str) {
        let list = list();
        for at_once in [usize::MAX, 1, 7] {
            let told = converse(said.as_bytes(), Some(&list), at_once);
            assert_eq!(String::from_utf8_lossy(&told), expected, "{said:?}");
        }
    }

    const BODY: &str = "1767225600\n10.0.0.1|10.0.0.1|11211 10.0.0.2|10.0.0.2|11211\n";

    #[test]
    fn the_list_is_told_byte_for_byte_as_elasticache_does() {
        assert_eq!(BODY.len(), 59);
        let config = format!("CONFIG cluster 0 59\r\n{BODY}\r\nEND\r\n");
        check("config get cluster\r\n", &config);
        check("config get cluster\n", &config);
        check("version\nconfig get cluster\nquit\n", &format!("VERSION 1.6.22\r\n{config}."));
        let value = format!("VALUE AmazonElastiCache:cluster 0 59\r\n{BODY}\r\nEND\r\n");
        check("get AmazonElastiCache:cluster\r\n", &value);
        check("get x AmazonElastiCache:cluster y\r\n", &value);
        check("gets AmazonElastiCache:cluster\r\n", &value.replace(" 59", " 59 1767225600"));
    }

    #[test]
    fn what_is_no_question_for_the_list_is_answered_as_a_memcached_would() {
        check("get x\r\nget x y\r\ngat 0 x\r\n", "END\r\nEND\r\nEND\r\n");
        check("get\r\n\r\nflush_all\r\nincr a 1\r\ndelete a\r\nGET a\r\n", &"ERROR\r\n".repeat(6));
        check(
            "mn\r\nverbosity 1\r\nverbosity 1 noreply\r\nstats items\r\nconfig get other\r\n",
            "MN\r\nOK\r\nEND\r\nEND\r\n",
        );
        let stats = "STAT uptime 60\r\nSTAT version 1.6.22\r\nSTAT curr_connections 3\r\nSTAT cluster_members 2\r\n\
                     STAT cluster_version 1767225600\r\nEND\r\n";
        check("stats\r\n", stats);
        check("quit\r\nversion\r\n", ".");
    }

    #[test]
    fn a_command_that_would_store_is_refused_behind_its_data() {
        let no = "SERVER_ERROR discovery only\r\n";
        check("set a 0 0 9\r\nversion\r\n\r\nmn\r\n", &format!("{no}MN\r\n"));
        check("set a 0 0 2 noreply\r\nxx\r\nmn\r\n", "MN\r\n");
        check("cas a 0 0 0 7\r\n\r\ncas a 0 0 0 7 noreply\r\n\r\nmn\r\n", &format!("{no}MN\r\n"));
        check("ms a 2 T0\r\nxx\r\nconfig set cluster 0 3\r\nabc\r\n", &no.repeat(2));
        check("config delete cluster\r\n", no);
        check("add a 0 0 -1\r\nmn\r\n", "CLIENT_ERROR bad command line format\r\nMN\r\n");
        check("set a 0 0 99999999\r\n", "SERVER_ERROR object too large for cache\r\n.");
        check("set a 0 0\r\n", "ERROR\r\n");
    }

    #[test]
    fn who_says_too_much_or_asks_too_early_is_told_so() {
        check(&"x".repeat(LONGEST), "CLIENT_ERROR line too long\r\n.");
        for question in ["config get cluster\r\n", "get AmazonElastiCache:cluster\r\n"] {
            assert_eq!(converse(question.as_bytes(), None, 99), b"SERVER_ERROR no members yet\r\n");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_all_are_taken_or_waited_for(
            said in proptest::collection::vec(proptest::sample::select(&b"get config cluster set 0123\r\n\x80\x60\0 x"[..]), 0..300),
        ) {
            let list = list();
            let whole = converse(&said, Some(&list), usize::MAX);
            proptest::prop_assert_eq!(whole, converse(&said, Some(&list), 1));
        }
    }
}
