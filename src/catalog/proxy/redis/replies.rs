//! Counts a server's replies in a stream of bytes, in both versions of the protocol.

/// The longest line of a reply that is read: errors and statuses are lines.
const MAX_LINE: usize = 64 * 1024;
/// Bytes of an error that are kept.
const KEPT: usize = 64;

/// What has come whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The answer to a command.
    Good,
    /// The same, and it is an error that begins so.
    Error(Vec<u8>),
    /// What the server says unasked.
    Push,
}

/// The bytes are no replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoReply;

/// What is known of a stream so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies {
    line: Vec<u8>,
    /// Bytes of a text that are still to come, with its end of line.
    text: u64,
    /// Values of the reply that are still to come; none between two.
    values: u64,
    kind: Option<Reply>,
}

impl Replies {
    /// Whether the stream stands between two replies.
    pub(crate) fn is_between(&self) -> bool {
        self.values == 0 && self.text == 0 && self.line.is_empty()
    }

    /// Reads to the end of the next reply, or of the bytes; how far that is, and the reply.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Reply>), NoReply> {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..])?;
            if self.values == 0 && self.text == 0 && self.line.is_empty() {
                return Ok((at, self.kind.take()));
            }
        }
        Ok((at, None))
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, NoReply> {
        if self.text > 0 {
            let used = usize::try_from(self.text).unwrap_or(usize::MAX).min(bytes.len());
            self.text -= used as u64;
            return Ok(used);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(bytes.len(), |end| end + 1);
        if self.line.len() + used > MAX_LINE {
            return Err(NoReply);
        }
        self.line.extend_from_slice(&bytes[..used]);
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.head(line.trim_ascii_end())?;
        }
        Ok(used)
    }

    fn head(&mut self, line: &[u8]) -> Result<(), NoReply> {
        let (kind, rest) = line.split_first().ok_or(NoReply)?;
        if self.values == 0 {
            self.values = 1;
            self.kind = Some(match kind {
                b'-' => Reply::Error(rest[..rest.len().min(KEPT)].to_vec()),
                b'>' => Reply::Push,
                _ => Reply::Good,
            });
        }
        let length = || if rest == b"-1" { Some(None) } else { number(rest).map(Some) };
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => self.values -= 1,
            b'$' | b'=' | b'!' => {
                self.text = length().ok_or(NoReply)?.map_or(Some(0), |length| length.checked_add(2)).ok_or(NoReply)?;
                self.values -= 1;
            }
            b'*' | b'~' | b'>' => self.more(length().ok_or(NoReply)?.unwrap_or(0), 1)?,
            b'%' => self.more(pairs(length().ok_or(NoReply)?)?, 1)?,
            // What is said of the value that comes after it.
            b'|' => self.more(pairs(length().ok_or(NoReply)?)?, 0)?,
            _ => return Err(NoReply),
        }
        Ok(())
    }

    fn more(&mut self, values: u64, own: u64) -> Result<(), NoReply> {
        self.values = (self.values - own).checked_add(values).ok_or(NoReply)?;
        Ok(())
    }
}

fn pairs(length: Option<u64>) -> Result<u64, NoReply> {
    length.unwrap_or(0).checked_mul(2).ok_or(NoReply)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8], piece: usize) -> Result<Vec<Reply>, NoReply> {
        let (mut replies, mut found) = (Replies::default(), Vec::new());
        for mut bytes in text.chunks(piece) {
            while !bytes.is_empty() {
                let (used, reply) = replies.read(bytes)?;
                found.extend(reply);
                bytes = &bytes[used..];
            }
        }
        assert!(replies.is_between() || piece > text.len());
        Ok(found)
    }

    #[test]
    fn every_kind_is_one_reply_whatever_it_holds() {
        for (text, expected) in [
            ("+OK\r\n", Reply::Good),
            ("-ERR no\r\n", Reply::Error(b"ERR no".to_vec())),
            ("$3\r\na\r\n\r\n", Reply::Good),
            ("$-1\r\n", Reply::Good),
            ("*-1\r\n", Reply::Good),
            ("*0\r\n", Reply::Good),
            ("*2\r\n*2\r\n:1\r\n$0\r\n\r\n-ERR\r\n", Reply::Good),
            ("%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n", Reply::Good),
            (">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n", Reply::Push),
            ("|1\r\n+ttl\r\n:3\r\n#t\r\n", Reply::Good),
        ] {
            for piece in 1..=text.len() {
                assert_eq!(all(text.as_bytes(), piece), Ok(vec![expected.clone()]), "{text} by {piece}");
            }
        }
    }

    #[test]
    fn what_cannot_be_counted_is_no_reply() {
        for text in ["HTTP/1.1\r\n", "\r\n", "*x\r\n", "$?\r\n", "%9223372036854775808\r\n"] {
            assert_eq!(all(text.as_bytes(), 100), Err(NoReply), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes: Vec<u8>) {
            let mut replies = Replies::default();
            let mut rest = &bytes[..];
            while let Ok((used, _)) = replies.read(rest) && used > 0 {
                rest = &rest[used..];
            }
        }
    }
}
