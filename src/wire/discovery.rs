//! ElastiCache's auto-discovery, as a client: which servers a cluster has.

use super::{Connection, Parsed, WireError};
use crate::model::words::name::is_host;

/// The most servers that are taken.
const MOST: usize = 1_024;
/// The longest answer.
const LONGEST: usize = 60 * 1024;
/// What stands behind the body.
const END: &[u8] = b"\r\nEND\r\n";
const EXPECTED: &str = "a cluster's configuration";

/// What was answered: the servers, or that this question is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Every server as `host:port`, by its address where there is one.
    Servers(Vec<String>),
    /// It does not know the question.
    Unknown,
}

/// Asks for the servers; one that does not know the newer question is asked the older one.
pub async fn servers(connection: &mut Connection) -> Result<Vec<String>, WireError> {
    for question in [&b"config get cluster\r\n"[..], b"get AmazonElastiCache:cluster\r\n"] {
        connection.send(question).await?;
        if let Reply::Servers(servers) = connection.reply(parse).await? {
            return Ok(servers);
        }
    }
    Err(WireError::Garbled { expected: EXPECTED, got: "an answer that knows neither question".to_owned() })
}

/// Reads an answer: a head that tells the length, the version, the servers, `END`.
pub fn parse(buffer: &[u8]) -> Parsed<Reply> {
    let Some((head, length)) = super::line(buffer, 256, EXPECTED)? else { return Ok(None) };
    if head == b"ERROR" || head == b"END" || head.starts_with(b"CLIENT_ERROR") {
        return Ok(Some((Reply::Unknown, length)));
    }
    let head = std::str::from_utf8(head).map_err(|_| EXPECTED)?;
    let (["CONFIG", "cluster", _, size] | ["VALUE", "AmazonElastiCache:cluster", _, size]) =
        head.split(' ').collect::<Vec<_>>()[..]
    else {
        return Err(EXPECTED);
    };
    let size = size.parse::<usize>().ok().filter(|size| *size <= LONGEST).ok_or(EXPECTED)?;
    let Some(rest) = buffer.get(length..length + size + END.len()) else { return Ok(None) };
    let (body, end) = rest.split_at(size);
    if end != END {
        return Err(EXPECTED);
    }
    let body = std::str::from_utf8(body).map_err(|_| EXPECTED)?;
    let (version, list) = body.split_once('\n').ok_or(EXPECTED)?;
    version.trim().parse::<u64>().map_err(|_| EXPECTED)?;
    let servers = list.split_whitespace().take(MOST).map(server).collect::<Option<Vec<_>>>().ok_or(EXPECTED)?;
    if servers.is_empty() { Err(EXPECTED) } else { Ok(Some((Reply::Servers(servers), length + size + END.len()))) }
}

/// `host|ip|port`.
fn server(text: &str) -> Option<String> {
    let mut parts = text.split('|');
    let (name, address, port) = (parts.next()?, parts.next()?, parts.next()?);
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = if address.is_empty() { name } else { address };
    if parts.next().is_some() || !is_host(host) {
        return None;
    }
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(head: &str, body: &str) -> Vec<u8> {
        format!("{head} 0 {}\r\n{body}\r\nEND\r\n", body.len()).into_bytes()
    }

    #[test]
    fn both_answers_name_the_servers_and_a_part_of_one_nothing() {
        let body = "12\nc-1.example.com|10.0.0.1|11211 c-2.example.com||11212 x|2001:db8::1|1\n";
        let servers = ["10.0.0.1:11211", "c-2.example.com:11212", "[2001:db8::1]:1"].map(str::to_owned).to_vec();
        for head in ["CONFIG cluster", "VALUE AmazonElastiCache:cluster"] {
            let whole = answer(head, body);
            assert_eq!(parse(&whole), Ok(Some((Reply::Servers(servers.clone()), whole.len()))));
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), Ok(None), "{end}");
            }
        }
        assert_eq!(parse(b"ERROR\r\n"), Ok(Some((Reply::Unknown, 7))));
        for bad in [
            "",
            "12\n",
            "x\na|10.0.0.1|1\n",
            "12\na|10.0.0.1\n",
            "12\na|10.0.0.1|0\n",
            "12\na|1 2|1\n",
            "12\na|b\"c|1\n",
        ] {
            assert!(parse(&answer("CONFIG cluster", bad)).is_err(), "{bad:?}");
        }
        assert!(parse(b"CONFIG cluster 0 99999999\r\n").is_err() && parse(b"SERVER_ERROR no members yet\r\n").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&[b"CONFIG cluster 0 20\r\n", &bytes[..]].concat());
            let _ = parse(&bytes);
        }
    }
}
