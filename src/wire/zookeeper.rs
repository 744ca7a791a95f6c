//! ZooKeeper: the mode that `srvr` tells. (`ruok` is answered without a quorum and proves nothing.)

use super::{Connection, Parsed, WireError};

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

    proptest! {
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
