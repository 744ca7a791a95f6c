//! Tells where a client's commands begin and end in a stream of bytes, and what their first words are.
//!
//! Nothing is kept of a long value but its length, so that a client cannot make an ambassador hoard.

/// Words of a command that are kept.
pub(super) const KEPT_WORDS: usize = 16;
/// Bytes of one word that are kept.
const KEPT_BYTES: usize = 1024;
/// The longest line: what Redis takes of a command typed by hand.
const MAX_LINE: usize = 64 * 1024;

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its first words.
    pub(crate) words: Vec<Vec<u8>>,
    /// Some of it was not kept.
    pub(crate) is_cut: bool,
}

/// The bytes are no commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRequest;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between two commands.
    #[default]
    Between,
    /// In the line that begins one.
    Line,
    /// Before the length of a word, with so many words to come.
    Length(u64),
    /// In a word with so many bytes to come, and its end of line.
    Word { words: u64, bytes: u64 },
}

/// What is known of a stream so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    state: State,
    line: Vec<u8>,
    request: Request,
}

impl Requests {
    /// Whether the stream stands between two commands.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Between
    }

    /// So many of the bytes that come next belong to the command that has begun.
    pub(crate) fn within(&self) -> usize {
        match self.state {
            State::Word { bytes, .. } => usize::try_from(bytes).unwrap_or(usize::MAX),
            State::Between | State::Line | State::Length(_) => 1,
        }
    }

    /// Reads to the end of the next command, or of the bytes; how far that is, and the command.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Request>), NoRequest> {
        let mut at = 0;
        while at < bytes.len() {
            let (used, is_whole) = self.step(&bytes[at..])?;
            at += used;
            if is_whole {
                self.state = State::Between;
                return Ok((at, Some(std::mem::take(&mut self.request))));
            }
        }
        Ok((at, None))
    }

    fn step(&mut self, bytes: &[u8]) -> Result<(usize, bool), NoRequest> {
        if let State::Word { words, bytes: left } = self.state {
            return Ok(self.word(bytes, words, left));
        }
        if self.is_between() {
            self.state = State::Line;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(bytes.len(), |end| end + 1);
        if self.line.len() + used > MAX_LINE {
            return Err(NoRequest);
        }
        self.line.extend_from_slice(&bytes[..used]);
        if end.is_none() {
            return Ok((used, false));
        }
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        self.line(text.strip_suffix(b"\r").unwrap_or(text)).map(|is_whole| (used, is_whole))
    }

    fn line(&mut self, text: &[u8]) -> Result<bool, NoRequest> {
        if let State::Length(words) = self.state {
            let bytes = text.strip_prefix(b"$").and_then(number).ok_or(NoRequest)?;
            if self.request.words.len() < KEPT_WORDS {
                self.request.words.push(Vec::new());
            }
            self.request.is_cut |= bytes > KEPT_BYTES as u64;
            self.state = State::Word { words, bytes: bytes.checked_add(2).ok_or(NoRequest)? };
            return Ok(false);
        }
        let Some(count) = text.strip_prefix(b"*") else { return self.typed(text) };
        let words = if count == b"-1" { 0 } else { number(count).ok_or(NoRequest)? };
        self.request.is_cut |= words > KEPT_WORDS as u64;
        self.state = State::Length(words);
        Ok(words == 0)
    }

    /// A command typed by hand. With quotes in it, its words are not these.
    fn typed(&mut self, text: &[u8]) -> Result<bool, NoRequest> {
        if text.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
            return Err(NoRequest);
        }
        let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        self.request.words = words.take(KEPT_WORDS).map(<[u8]>::to_vec).collect();
        self.request.is_cut = text.len() > KEPT_BYTES;
        Ok(true)
    }

    fn word(&mut self, bytes: &[u8], words: u64, left: u64) -> (usize, bool) {
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        // The last two are the end of the line.
        let own = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX).min(used);
        let count = self.request.words.len();
        if (count < KEPT_WORDS || !self.request.is_cut)
            && let Some(word) = self.request.words.last_mut()
        {
            let room = KEPT_BYTES.saturating_sub(word.len()).min(own);
            word.extend_from_slice(&bytes[..room]);
        }
        let left = left - used as u64;
        if left > 0 {
            self.state = State::Word { words, bytes: left };
            return (used, false);
        }
        self.state = State::Length(words - 1);
        (used, words == 1)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Request {
    /// The command again, as it is sent.
    pub(crate) fn encode(words: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
        bytes
    }

    /// A word of it in capitals.
    pub(crate) fn word(&self, place: usize) -> Vec<u8> {
        self.words.get(place).map(|word| word.to_ascii_uppercase()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pieces: &[&[u8]]) -> Result<Vec<Request>, NoRequest> {
        let (mut requests, mut found) = (Requests::default(), Vec::new());
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let (used, request) = requests.read(piece)?;
                found.extend(request);
                piece = &piece[used..];
            }
        }
        Ok(found)
    }

    #[test]
    fn long_values_leave_their_beginning_and_lines_are_commands() {
        let long = vec![b'x'; 3_000];
        let text = Request::encode(&[b"SET".to_vec(), b"a".to_vec(), long]);
        let found = all(&[&text, b"PING\r\n", b"*0\r\n"]).expect("commands");
        assert_eq!((found[0].words[2].len(), found[0].is_cut), (KEPT_BYTES, true));
        assert_eq!((found[1].word(0), found[1].is_cut, found[2].words.len()), (b"PING".to_vec(), false, 0));
    }

    #[test]
    fn what_cannot_be_counted_is_no_command() {
        for text in ["*x\r\n", "*1\r\n+a\r\n", "*1\r\n$-1\r\n", "*1\r\n$18446744073709551615\r\n", "set a \"b c\"\r\n"]
        {
            assert_eq!(all(&[text.as_bytes()]), Err(NoRequest), "{text}");
        }
    }

    proptest! {
        #[test]
        fn commands_in_pieces_are_the_commands(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..20),
            cut in 1usize..60,
        ) {
            let text = [Request::encode(&words), Request::encode(&[b"PING".to_vec()])].concat();
            let found = all(&text.chunks(cut).collect::<Vec<_>>()).expect("commands");
            prop_assert_eq!(found.len(), 2);
            prop_assert_eq!(found[0].is_cut, words.len() > KEPT_WORDS);
            if !found[0].is_cut {
                prop_assert_eq!(&found[0].words, &words);
            }
        }

        #[test]
        fn any_bytes_are_borne(bytes: Vec<u8>) {
            let _ = all(&[&bytes]);
        }
    }
}
