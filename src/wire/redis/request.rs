//! What clients send to a server: commands as arrays of bulk strings, or typed by hand on one line, within bounds.
//!
//! Flaws are told in the server's own words, since clients and people know those.

use std::fmt;

/// The longest command, in bytes: what clients say to a Sentinel takes a few hundred.
pub const LONGEST: usize = 8 * 1024;
/// The most words of one command.
pub const MOST_WORDS: usize = 128;

/// The words of one command.
pub type Words = Vec<Vec<u8>>;

/// Why bytes are no command. Nothing that follows can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// `*` without a number that it may have.
    Count,
    /// `$` without a number that it may have.
    Length,
    /// Something else where `$` was expected.
    Kind(u8),
    /// Quotes without end in a line typed by hand.
    Quotes,
    /// Too long.
    TooBig,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => write!(f, "Protocol error: invalid multibulk length"),
            Self::Length => write!(f, "Protocol error: invalid bulk length"),
            Self::Kind(byte) => write!(f, "Protocol error: expected '$', got '{}'", byte.escape_ascii()),
            Self::Quotes => write!(f, "Protocol error: unbalanced quotes in request"),
            Self::TooBig => write!(f, "Protocol error: too big request"),
        }
    }
}

impl std::error::Error for Flaw {}

/// Reads one command: its words (none, where a line is empty) and its length; nothing when it is not whole yet.
pub fn parse(buffer: &[u8]) -> Result<Option<(Words, usize)>, Flaw> {
    let read = match buffer.first() {
        None => return Ok(None),
        Some(b'*') => array(buffer)?,
        Some(_) => inline(buffer)?,
    };
    match &read {
        Some((_, length)) if *length > LONGEST => Err(Flaw::TooBig),
        None if buffer.len() >= LONGEST => Err(Flaw::TooBig),
        _ => Ok(read),
    }
}

/// A line's text without its end, and what it takes with it.
fn line(buffer: &[u8]) -> Option<(&[u8], usize)> {
    let end = buffer.iter().take(LONGEST).position(|byte| *byte == b'\n')?;
    let text = &buffer[..end];
    Some((text.strip_suffix(b"\r").unwrap_or(text), end + 1))
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn array(buffer: &[u8]) -> Result<Option<(Words, usize)>, Flaw> {
    let Some((head, mut at)) = line(buffer) else { return Ok(None) };
    let count = number(&head[1..]).filter(|count| *count <= MOST_WORDS as i64).ok_or(Flaw::Count)?;
    let mut words = Words::new();
    for _ in 0..count {
        let Some((word, length)) = bulk(&buffer[at..])? else { return Ok(None) };
        words.push(word);
        at += length;
    }
    Ok(Some((words, at)))
}

fn bulk(buffer: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Flaw> {
    match buffer.first() {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => return Err(Flaw::Kind(*other)),
    }
    let Some((head, start)) = line(buffer) else { return Ok(None) };
    let length = number(&head[1..]).and_then(|length| usize::try_from(length).ok()).ok_or(Flaw::Length)?;
    if length > LONGEST {
        return Err(Flaw::Length);
    }
    // What stands where the end of the line should is skipped, as Redis does.
    let Some(body) = buffer.get(start..start + length + 2) else { return Ok(None) };
    Ok(Some((body[..length].to_vec(), start + length + 2)))
}

fn inline(buffer: &[u8]) -> Result<Option<(Words, usize)>, Flaw> {
    let Some((mut rest, length)) = line(buffer) else { return Ok(None) };
    let mut words = Words::new();
    loop {
        rest = rest.trim_ascii_start();
        let Some(first) = rest.first() else { return Ok(Some((words, length))) };
        if words.len() == MOST_WORDS {
            return Err(Flaw::TooBig);
        }
        let (word, after) = match first {
            b'"' | b'\'' => quoted(&rest[1..], *first)?,
            _ => bare(rest)?,
        };
        words.push(word);
        rest = after;
    }
}

fn bare(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Flaw> {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    Ok((word.to_vec(), rest))
}

/// The text up to the closing quote, and what comes after it: a blank, or the line's end.
fn quoted(text: &[u8], quote: u8) -> Result<(Vec<u8>, &[u8]), Flaw> {
    let (mut word, mut at) = (Vec::new(), 0);
    loop {
        match (text.get(at).copied().ok_or(Flaw::Quotes)?, text.get(at + 1)) {
            (b'\\', Some(next)) if quote == b'"' || *next == quote => {
                let (byte, length) = if quote == b'"' { escaped(&text[at + 1..]) } else { (*next, 1) };
                word.push(byte);
                at += 1 + length;
            }
            (byte, after) if byte == quote => {
                let is_over = after.is_none_or(u8::is_ascii_whitespace);
                return if is_over { Ok((word, &text[at + 1..])) } else { Err(Flaw::Quotes) };
            }
            (byte, _) => {
                word.push(byte);
                at += 1;
            }
        }
    }
}

/// What stands for a byte after a backslash within double quotes, and how much of the text it takes.
fn escaped(text: &[u8]) -> (u8, usize) {
    let hex = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    match text.first().copied().unwrap_or_default() {
        b'x' if hex(1).is_some() && hex(2).is_some() => {
            let value = hex(1).unwrap_or_default() * 16 + hex(2).unwrap_or_default();
            (u8::try_from(value).unwrap_or_default(), 3)
        }
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        b'a' => (7, 1),
        b'b' => (8, 1),
        other => (other, 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let (words, length) = parse(text.as_bytes()).expect("a command").expect("whole");
        let words: Vec<_> = words.iter().map(|word| word.escape_ascii().to_string()).collect();
        assert_eq!((words, length), (expected.iter().map(ToString::to_string).collect(), text.len()), "{text:?}");
    }

    #[test]
    fn commands_are_arrays_or_lines() {
        check("*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n", &["PING", "hi"]);
        check("PING\r\n", &["PING"]);
        check("  sentinel   masters \n", &["sentinel", "masters"]);
        check("a \"b c\\x41\\n\\q\" 'd\\'e\\n'\r\n", &["a", "b cA\\nq", "d\\'e\\\\n"]);
        for nothing in ["\r\n", "*0\r\n", "*-1\r\n", "   \r\n"] {
            check(nothing, &[]);
        }
    }

    #[test]
    fn flaws_are_told_in_the_words_of_redis() {
        let cases = [
            ("*a\r\n", "invalid multibulk length"),
            ("*129\r\n", "invalid multibulk length"),
            ("*99999999999999999999\r\n", "invalid multibulk length"),
            ("*1\r\n+PING\r\n", "expected '$', got '+'"),
            ("*1\r\n$a\r\n", "invalid bulk length"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$9000\r\n", "invalid bulk length"),
            ("\"abc\r\n", "unbalanced quotes in request"),
            ("\"abc\"d\r\n", "unbalanced quotes in request"),
            ("'abc\\'\r\n", "unbalanced quotes in request"),
        ];
        for (text, expected) in cases {
            let flaw = parse(text.as_bytes()).expect_err(text).to_string();
            assert_eq!(flaw, format!("Protocol error: {expected}"), "{text:?}");
        }
    }

    #[test]
    fn no_command_is_longer_than_the_bound() {
        let word = "x".repeat(LONGEST / 2);
        let two = format!("*2\r\n${0}\r\n{word}\r\n${0}\r\n{word}\r\n", word.len());
        for text in [
            "x".repeat(LONGEST),
            "*".repeat(LONGEST),
            two,
            format!("*1\r\n${}", "1".repeat(LONGEST)),
            "a ".repeat(129) + "\n",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Flaw::TooBig), "{}", &text[..9]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), is_array in any::<bool>()) {
            if let (Some(first), true) = (bytes.first_mut(), is_array) {
                *first = b'*';
            }
            if let Ok(Some((words, length))) = parse(&bytes) {
                prop_assert!(length > 0 && length <= bytes.len() && words.len() <= MOST_WORDS);
            }
        }

        #[test]
        fn a_command_in_pieces_is_the_command(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 0usize..200,
        ) {
            let mut whole = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                whole.extend(format!("${}\r\n", word.len()).bytes());
                whole.extend(word);
                whole.extend(b"\r\n");
            }
            prop_assert_eq!(parse(&whole[..cut.min(whole.len() - 1)]), Ok(None));
            prop_assert_eq!(parse(&whole), Ok(Some((words, whole.len()))));
        }
    }
}
