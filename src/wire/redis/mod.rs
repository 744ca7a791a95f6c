//! Redis and Valkey: `PING`, and what `INFO` tells of replication and of cluster mode.
//!
//! All commands go out in one write and all answers are read in order. A server that refuses the first command may
//! well answer the others (`LOADING` refuses PING but not INFO), so a refusal is a [`Word`], not an error.

pub mod operator;
pub mod reply;
pub mod request;

use super::{Connection, Parsed, WireError, line};

/// A login.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The user of Redis 6's access lists; without one, the one password of all.
    pub user: Option<&'a str>,
    /// The password.
    pub password: &'a str,
}

/// What the server said to PING.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// `PONG`.
    Pong,
    /// It reads its data set.
    Loading,
    /// It wants a login, or this login may not ask.
    NoAuth,
    /// It is a replica, its primary is gone, and it does not serve stale data.
    MasterDown,
    /// It has no room for another client.
    Full,
    /// It serves reads, and refuses writes because it cannot save.
    ReadOnly,
    /// It refused for another reason, in its own words.
    Refused(String),
}

/// What a server says of its own place in replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// `role:`, when it was told: true for a replica.
    pub replica: Option<bool>,
    /// `master_link_status:up`, or no replica.
    pub link_down: bool,
    /// `master_sync_in_progress:1`.
    pub syncing: bool,
    /// `cluster_enabled:1`.
    pub cluster: bool,
}

/// All that one exchange tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The answer to PING.
    pub word: Word,
    /// The answer to INFO, as far as it was given.
    pub replication: Replication,
    /// Why the login was refused, when it was.
    pub login_refused: bool,
}

/// One answer of the protocol, as far as a probe cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `+…`
    Simple(Vec<u8>),
    /// `-…`
    Error(Vec<u8>),
    /// `$…`, or nothing for the null one.
    Bulk(Vec<u8>),
}

/// Asks how the server is.
pub async fn ask(connection: &mut Connection, login: Option<Login<'_>>) -> Result<Reply, WireError> {
    let mut request = Vec::with_capacity(160);
    if let Some(login) = login {
        match login.user {
            Some(user) => command(&mut request, &["AUTH", user, login.password]),
            None => command(&mut request, &["AUTH", login.password]),
        }
    }
    command(&mut request, &["PING"]);
    command(&mut request, &["INFO", "replication"]);
    command(&mut request, &["INFO", "cluster"]);
    let mut login_refused = false;
    if login.is_some() {
        connection.send_secret(&request).await?;
        if let Answer::Error(text) = connection.reply(parse).await? {
            let word = unechoed(word(Answer::Error(text))?);
            if word == Word::Full || word == Word::Refused("DENIED".to_owned()) {
                // Said on connecting, before any command, and then it closes.
                return Ok(Reply { word, replication: Replication::default(), login_refused: false });
            }
            login_refused = true;
        }
    } else {
        connection.send(&request).await?;
    }
    let word = word(connection.reply(parse).await?)?;
    let word = if login.is_some() { unechoed(word) } else { word };
    let mut replication = Replication::default();
    if matches!(word, Word::Full | Word::Refused(_)) {
        // It closes after these.
        return Ok(Reply { word, replication, login_refused });
    }
    for _ in ["replication", "cluster"] {
        if let Answer::Bulk(text) = connection.reply(parse).await? {
            replication.read(&text);
        }
    }
    Ok(Reply { word, replication, login_refused })
}

/// Writes a command as an array of bulk strings.
fn command(request: &mut Vec<u8>, words: &[&str]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
}

/// Reads one answer.
pub fn parse(buffer: &[u8]) -> Parsed<Answer> {
    const EXPECTED: &str = "a Redis reply";
    // The kind is told by the first byte: garbage is known as such at once, however slowly it comes.
    if buffer.first().is_some_and(|kind| !b"+-$".contains(kind)) {
        return Err(EXPECTED);
    }
    let Some((head, start)) = line(buffer, 512, EXPECTED)? else { return Ok(None) };
    let (Some(kind), rest) = (head.first(), head.get(1..).unwrap_or_default()) else { return Err(EXPECTED) };
    match kind {
        b'+' => Ok(Some((Answer::Simple(rest.to_vec()), start))),
        b'-' => Ok(Some((Answer::Error(rest.to_vec()), start))),
        _ if rest == b"-1" => Ok(Some((Answer::Bulk(Vec::new()), start))),
        _ => {
            let length = std::str::from_utf8(rest).ok().and_then(|digits| digits.parse::<u32>().ok());
            let length = length.filter(|length| *length < 1 << 20).ok_or(EXPECTED)? as usize;
            let Some(body) = buffer.get(start..start + length + 2) else { return Ok(None) };
            if &body[length..] != b"\r\n" {
                return Err(EXPECTED);
            }
            Ok(Some((Answer::Bulk(body[..length].to_vec()), start + length + 2)))
        }
    }
}

/// What an answer to PING means.
fn word(answer: Answer) -> Result<Word, WireError> {
    let text = match answer {
        Answer::Simple(text) if text.eq_ignore_ascii_case(b"PONG") => return Ok(Word::Pong),
        Answer::Error(text) => text,
        Answer::Simple(text) | Answer::Bulk(text) => {
            // Not quoted: with a login on the way it might be an echo of it.
            let got = format!("{} other bytes", text.len());
            return Err(WireError::Garbled { expected: "PONG", got });
        }
    };
    let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    Ok(match code {
        b"LOADING" => Word::Loading,
        b"NOAUTH" | b"NOPERM" | b"WRONGPASS" => Word::NoAuth,
        b"MASTERDOWN" => Word::MasterDown,
        b"MISCONF" => Word::ReadOnly,
        // Redis before 6 says it without a code.
        _ if text.starts_with(b"ERR operation not permitted") => Word::NoAuth,
        _ if text.starts_with(b"ERR max number of clients") => Word::Full,
        _ => Word::Refused(code.escape_ascii().to_string().chars().take(40).collect()),
    })
}

/// The word of a server that was told a password: its own words may be an echo of it.
fn unechoed(word: Word) -> Word {
    match word {
        Word::Refused(code) if code != "DENIED" => Word::Refused("in other words".to_owned()),
        word => word,
    }
}

impl Replication {
    /// Takes what a section of INFO tells.
    pub fn read(&mut self, section: &[u8]) {
        for line in section.split(|byte| *byte == b'\n').take(200) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line {
                b"role:master" => self.replica = Some(false),
                b"role:slave" | b"role:replica" => self.replica = Some(true),
                b"master_link_status:down" => self.link_down = true,
                b"master_sync_in_progress:1" => self.syncing = true,
                b"cluster_enabled:1" => self.cluster = true,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let cases: [(&[u8], Parsed<Answer>); 8] = [
            (b"+PONG\r\n", Ok(Some((Answer::Simple(b"PONG".to_vec()), 7)))),
            (b"-LOADING x\r\n+", Ok(Some((Answer::Error(b"LOADING x".to_vec()), 12)))),
            (b"$3\r\nabc\r\n", Ok(Some((Answer::Bulk(b"abc".to_vec()), 9)))),
            (b"$3\r\nabc\r", Ok(None)),
            (b"$-1\r\n", Ok(Some((Answer::Bulk(Vec::new()), 5)))),
            (b"$3\r\nabcde", Err("a Redis reply")),
            (b"$99999999999\r\n", Err("a Redis reply")),
            (b"HTTP/1.1 400", Err("a Redis reply")),
        ];
        for (input, expected) in cases {
            assert_eq!(parse(input), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn refusals_have_their_meanings() {
        let cases = [
            ("LOADING Redis is loading the dataset in memory", Word::Loading),
            ("NOAUTH Authentication required.", Word::NoAuth),
            ("NOPERM this user has no permissions to run the 'ping' command", Word::NoAuth),
            ("ERR operation not permitted", Word::NoAuth),
            ("MASTERDOWN Link with MASTER is down", Word::MasterDown),
            ("ERR max number of clients reached", Word::Full),
            ("MISCONF Redis is configured to save RDB snapshots", Word::ReadOnly),
            ("DENIED Redis is running in protected mode", Word::Refused("DENIED".to_owned())),
        ];
        for (text, expected) in cases {
            assert_eq!(word(Answer::Error(text.into())).expect("a word"), expected, "{text}");
        }
        assert!(word(Answer::Simple(b"OK".to_vec())).is_err());
    }

    #[test]
    fn info_tells_role_link_and_cluster() {
        let mut replica = Replication::default();
        replica.read(
            b"# Replication\r\nrole:slave\r\nmaster_host:x\r\nmaster_link_status:down\r\nmaster_sync_in_progress:1\r\n",
        );
        replica.read(b"# Cluster\r\ncluster_enabled:0\r\n");
        assert_eq!(replica, Replication { replica: Some(true), link_down: true, syncing: true, cluster: false });
        let mut primary = Replication::default();
        primary.read(b"role:master\r\n");
        primary.read(b"cluster_enabled:1\r\n");
        assert_eq!(primary, Replication { replica: Some(false), cluster: true, ..Replication::default() });
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 0usize..4) {
            if let (Some(first), Some(kind)) = (bytes.first_mut(), b"+-$".get(kind)) {
                *first = *kind;
            }
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
            Replication::default().read(&bytes);
        }

        #[test]
        fn a_reply_in_pieces_is_the_reply(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let mut whole = format!("${}\r\n", body.len()).into_bytes();
            whole.extend_from_slice(&body);
            whole.extend_from_slice(b"\r\n");
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(parse(&whole[..cut]), Ok(None));
            prop_assert_eq!(parse(&whole), Ok(Some((Answer::Bulk(body), whole.len()))));
        }
    }
}
