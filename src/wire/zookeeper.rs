//! ZooKeeper: the mode that `srvr` tells, and a session, granted and closed. (`ruok` is answered without a quorum and
//! proves nothing; a session is a write that a quorum has agreed to.)

use std::time::Duration;

use super::{Connection, Parsed, WireError};

/// What a session asks for: closed at once, it never takes that long. A server may grant another time.
const SESSION: Duration = Duration::from_secs(4);
/// The longest answer to a request for a session, and to its end: real ones have 37 and 16 bytes.
const LONGEST_FRAME: usize = 1024;
/// The request that ends a session, by its number in the protocol.
const CLOSE: i32 = -11;

/// What the server said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It serves.
    Serves(Mode),
    /// It has no quorum, or only serves reads.
    NotServing,
    /// It may not tell: the command is not in its `4lw.commands.whitelist`.
    NotAllowed,
}

/// What a server is in its ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is alone.
    Standalone,
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It follows without a vote.
    Observer,
}

/// Asks.
pub async fn srvr(connection: &mut Connection) -> Result<Reply, WireError> {
    connection.send(b"srvr").await?;
    connection.reply(parse).await
}

/// Asks for a session and closes it: whether it was granted, for reads and writes.
pub async fn session(connection: &mut Connection) -> Result<bool, WireError> {
    connection.send(&connect_request()).await?;
    if !connection.reply_within(LONGEST_FRAME, granted).await? {
        return Ok(false);
    }
    let close = [&1i32.to_be_bytes()[..], &CLOSE.to_be_bytes()].concat();
    connection.send(&framed(&close)).await?;
    connection.reply_within(LONGEST_FRAME, closed).await?;
    Ok(true)
}

/// Version 0, nothing seen, the time, no session before, and an empty password; a read-only server is of no use.
fn connect_request() -> Vec<u8> {
    let time = i32::try_from(SESSION.as_millis()).unwrap_or(i32::MAX);
    let mut request = Vec::with_capacity(45);
    request.extend(0i32.to_be_bytes());
    request.extend(0i64.to_be_bytes());
    request.extend(time.to_be_bytes());
    request.extend(0i64.to_be_bytes());
    request.extend(16i32.to_be_bytes());
    request.extend([0; 16]);
    request.push(0);
    framed(&request)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap_or(i32::MAX);
    [&length.to_be_bytes()[..], body].concat()
}

/// A whole frame's body and its length with the head.
fn frame<'b>(buffer: &'b [u8], expected: &'static str) -> Parsed<&'b [u8]> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*head)).map_err(|_| expected)?;
    if length > LONGEST_FRAME - 4 {
        return Err(expected);
    }
    Ok(rest.get(..length).map(|body| (body, 4 + length)))
}

/// Whether a session was granted: its time and its number are none where it was not.
fn granted(buffer: &[u8]) -> Parsed<bool> {
    const EXPECTED: &str = "ZooKeeper's answer to a request for a session";
    let Some((body, length)) = frame(buffer, EXPECTED)? else { return Ok(None) };
    let (version, rest) = body.split_first_chunk::<4>().ok_or(EXPECTED)?;
    let (time, rest) = rest.split_first_chunk::<4>().ok_or(EXPECTED)?;
    let (number, rest) = rest.split_first_chunk::<8>().ok_or(EXPECTED)?;
    let (size, rest) = rest.split_first_chunk::<4>().ok_or(EXPECTED)?;
    let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| EXPECTED)?;
    if i32::from_be_bytes(*version) != 0 || rest.len() < size || rest.len() > size + 1 {
        return Err(EXPECTED);
    }
    let is_read_only = rest.get(size).is_some_and(|flag| *flag != 0);
    let is_granted = i32::from_be_bytes(*time) > 0 && i64::from_be_bytes(*number) != 0;
    Ok(Some((is_granted && !is_read_only, length)))
}

/// The answer to the end of a session: number 1, and no error.
fn closed(buffer: &[u8]) -> Parsed<()> {
    const EXPECTED: &str = "ZooKeeper's answer to the end of a session";
    let Some((body, length)) = frame(buffer, EXPECTED)? else { return Ok(None) };
    let is_right = body.len() == 16 && body[..4] == 1i32.to_be_bytes() && body[12..] == [0; 4];
    if is_right { Ok(Some(((), length))) } else { Err(EXPECTED) }
}

/// Reads the answer, which ends with the connection: what is looked for comes before.
pub fn parse(buffer: &[u8]) -> Parsed<Reply> {
    const EXPECTED: &str = "ZooKeeper's srvr";
    const LONGEST: usize = 4096;
    const BEGINNINGS: [(&[u8], Option<Reply>); 3] = [
        (b"Zookeeper version: ", None),
        (b"This ZooKeeper instance is not currently serving requests", Some(Reply::NotServing)),
        (b"srvr is not executed because it is not in the whitelist", Some(Reply::NotAllowed)),
    ];
    let agrees = |beginning: &[u8]| buffer.iter().zip(beginning).all(|(byte, wanted)| byte == wanted);
    let Some((beginning, reply)) = BEGINNINGS.iter().find(|(beginning, _)| agrees(beginning)) else {
        return Err(EXPECTED);
    };
    if buffer.len() < beginning.len() {
        return Ok(None);
    }
    if let Some(reply) = reply {
        return Ok(Some((*reply, buffer.len())));
    }
    let window = &buffer[..buffer.len().min(LONGEST)];
    let whole_lines = window.iter().rposition(|byte| *byte == b'\n').map_or(&window[..0], |end| &window[..end]);
    let mode = whole_lines.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Mode: "));
    let reply = match mode.map(<[u8]>::trim_ascii) {
        Some(b"standalone") => Reply::Serves(Mode::Standalone),
        Some(b"leader") => Reply::Serves(Mode::Leader),
        Some(b"follower") => Reply::Serves(Mode::Follower),
        Some(b"observer") => Reply::Serves(Mode::Observer),
        Some(b"read-only") => Reply::NotServing,
        Some(_) => return Err("a mode that is known"),
        None if buffer.len() >= LONGEST => return Err(EXPECTED),
        None => return Ok(None),
    };
    Ok(Some((reply, buffer.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_mode_is_told() {
        let serves = |mode| Ok(Some(Reply::Serves(mode)));
        let cases: [(&str, Result<Option<Reply>, &str>); 9] = [
            ("Zookeeper version: 3.8.0\nLatency: 0\nMode: leader\nNode count: 5\n", serves(Mode::Leader)),
            ("Zookeeper version: 3.8.0\nMode: standalone\n", serves(Mode::Standalone)),
            ("Zookeeper version: 3.8.0\nMode: read-only\n", Ok(Some(Reply::NotServing))),
            ("Zookeeper version: 3.8.0\nMode: lea", Ok(None)),
            ("Zook", Ok(None)),
            ("This ZooKeeper instance is not currently serving requests\n", Ok(Some(Reply::NotServing))),
            ("srvr is not executed because it is not in the whitelist.\n", Ok(Some(Reply::NotAllowed))),
            ("Zookeeper version: 3.8.0\nMode: imok\n", Err("a mode that is known")),
            ("imok", Err("ZooKeeper's srvr")),
        ];
        for (input, expected) in cases {
            assert_eq!(parse(input.as_bytes()).map(|found| found.map(|(reply, _)| reply)), expected, "{input:?}");
        }
        let mut endless = b"Zookeeper version: ".to_vec();
        endless.resize(10_000, b'x');
        assert!(parse(&endless).is_err());
    }

    /// Hex of an answer, and what it says.
    fn check_session(hex: &str, expected: Result<Option<bool>, ()>) {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let told = granted(&bytes).map(|found| found.map(|(granted, _)| granted)).map_err(|_| ());
        assert_eq!(told, expected, "{hex}");
    }

    #[test]
    fn a_session_is_granted_or_not() {
        let password = "00000010000102030405060708090a0b0c0d0e0f";
        check_session(&format!("000000250000000000000fa00100a1b2c3d4e5f6{password}00"), Ok(Some(true)));
        // Before 3.4 there was no word of read-only.
        check_session(&format!("000000240000000000000fa00100a1b2c3d4e5f6{password}"), Ok(Some(true)));
        check_session(&format!("000000250000000000000fa00100a1b2c3d4e5f6{password}01"), Ok(Some(false)));
        check_session(&format!("0000002500000000000000000000000000000000{password}00"), Ok(Some(false)));
        check_session("000000250000000000000fa0", Ok(None));
        check_session("0000", Ok(None));
        for bad in ["ffffffff", "7fffffff", "00000400", "0000000400000000", "5468697320"] {
            check_session(bad, Err(()));
        }
        check_session(&format!("000000250000000100000fa00100a1b2c3d4e5f6{password}00"), Err(()));
        let end = |error: i32| framed(&[&1i32.to_be_bytes()[..], &7i64.to_be_bytes(), &error.to_be_bytes()].concat());
        assert_eq!(closed(&end(0)), Ok(Some(((), 20))));
        assert!(closed(&end(-112)).is_err());
        assert_eq!(connect_request().len(), 49);
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne_where_a_session_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for length in [granted(&bytes).map(|found| found.map(|(_, length)| length)), closed(&bytes).map(|found| found.map(|(_, length)| length))].into_iter().flatten().flatten() {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn any_bytes_are_borne(tail in proptest::collection::vec(any::<u8>(), 0..100), honest in any::<bool>()) {
            let mut bytes = if honest { b"Zookeeper version: 3\n".to_vec() } else { Vec::new() };
            bytes.extend(tail);
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
