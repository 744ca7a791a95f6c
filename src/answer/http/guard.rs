//! Who may ask what: the Host check against DNS rebinding, and who may drain or change a topology.
//!
//! A web page can make a browser send requests to this agent, but it cannot choose the Host of a rebound name, leave
//! out the Origin of a POST, or reach a unix socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, Uri, header};
use sha2::{Digest, Sha256};

use super::error::Problem;
use crate::host::clients::Peer;

/// The secret that drain and topologies ask for over TCP. It is in no log and no error.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// A token's text, as the file has it; blank space around it does not count. `None` when nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Compares digests, so that the time taken tells nothing of the token.
    fn is(&self, offered: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(offered.as_bytes())) == self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a Host names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Address(IpAddr),
    Localhost,
    Other(String),
}

impl Named {
    fn parse(host: &str) -> Self {
        if let Ok(address) = host.parse::<SocketAddr>() {
            return Self::Address(address.ip().to_canonical());
        }
        let name = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) => inside,
            None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
        };
        if let Ok(address) = name.parse::<IpAddr>() {
            return Self::Address(address.to_canonical());
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name == "localhost" { Self::Localhost } else { Self::Other(name) }
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Localhost => true,
            Self::Other(_) => false,
        }
    }
}

/// Everything that a request says of the host it means: the Host header, and the target when it is absolute.
fn named(headers: &HeaderMap, uri: &Uri) -> Vec<Named> {
    let headers =
        headers.get_all(header::HOST).iter().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    headers.chain(uri.authority().map(ToString::to_string)).map(|host| Named::parse(&host)).collect()
}

/// Refuses a request that means a host which is no address, not localhost and not among `allowed`.
pub(in crate::answer) fn check_host(
    peer: Peer,
    headers: &HeaderMap,
    uri: &Uri,
    allowed: &[String],
) -> Result<(), Problem> {
    if !matches!(peer, Peer::Tcp(_)) {
        return Ok(());
    }
    let named = named(headers, uri);
    if named.is_empty() {
        return Err(Problem::bad_request("no Host header", "send the address that you connect to as Host"));
    }
    for host in named {
        if let Named::Other(name) = host {
            let known = allowed.iter().any(|allowed| allowed.trim_end_matches('.').eq_ignore_ascii_case(&name));
            if !known {
                return Err(Problem::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    format!("the Host {name:?} is no address, not localhost and not configured"),
                    "ask by address, or start the agent with --http-host NAME",
                ));
            }
        }
    }
    Ok(())
}

/// Something that HTTP may be asked to do, in words for those who may not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed {
    noun: &'static str,
    command: &'static str,
}

/// Draining this host, and ending that.
pub(super) const DRAIN: Deed = Deed { noun: "drain", command: "wharf drain" };
/// Telling how ambassadors stand.
pub(super) const REPORT: Deed = Deed { noun: "a report", command: "wharf proxy" };
/// Telling how files stand.
pub(super) const RENDERED: Deed = Deed { noun: "a report", command: "wharf render" };
/// Changing a topology.
pub(super) const TOPOLOGY: Deed = Deed { noun: "a topology", command: "wharf topology" };

/// Claiming and freeing the number of a host.
pub(super) const ORDINAL: Deed = Deed { noun: "a number", command: "wharf ordinal" };

/// Forgetting a lost host.
pub(super) const FORGET: Deed = Deed { noun: "forgetting a host", command: "wharf nodes --forget" };

/// Whether this request may do so.
pub(super) fn check_deed(
    peer: Peer,
    headers: &HeaderMap,
    uri: &Uri,
    token: Option<&Token>,
    deed: Deed,
) -> Result<(), Problem> {
    let Peer::Tcp(address) = peer else { return Ok(()) };
    if let Some(token) = token {
        return match bearer(headers) {
            Some(offered) if token.is(offered) => Ok(()),
            Some(_) => Err(Problem::forbidden(
                "the token is not the agent's",
                "send the text of the agent's --http-token-file",
            )),
            None => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                format!("{} needs the token over TCP", deed.noun),
                "send Authorization: Bearer with the text of the agent's --http-token-file, or use the unix socket",
            )),
        };
    }
    let refuse = |why: &str| {
        Err(Problem::forbidden(
            format!("{} is for this host alone: {why}", deed.noun),
            format!(
                "run {} on the host itself, use the unix socket, or start the agent with --http-token-file",
                deed.command
            ),
        ))
    };
    if !address.to_canonical().is_loopback() {
        return refuse("the request comes from another address");
    }
    let hosts = named(headers, uri);
    if hosts.is_empty() || !hosts.iter().all(Named::is_loopback) {
        return refuse("its Host is not loopback");
    }
    if headers.contains_key(header::ORIGIN) {
        return refuse("it was sent by a web page");
    }
    Ok(())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const LOOPBACK: Peer = Peer::Tcp(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value")));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        map
    }

    fn host_is_taken(host: &str) -> bool {
        let allowed = ["core-01.example".to_owned()];
        check_host(LOOPBACK, &headers(&[(header::HOST, host)]), &Uri::from_static("/"), &allowed).is_ok()
    }

    #[test]
    fn hosts_are_addresses_localhost_or_configured() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:5380",
            "10.0.0.5:80",
            "[::1]",
            "[::1]:5380",
            "localhost",
            "LOCALHOST:5380",
            "localhost.",
            "core-01.example",
            "Core-01.example.:5380",
        ] {
            assert!(host_is_taken(good), "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "1270.0.1",
            "core-01.example.evil",
            "evil.example:5380",
            "x@127.0.0.1",
            "127.0.0.1,evil.example",
        ] {
            assert!(!host_is_taken(bad), "{bad}");
        }
    }

    #[test]
    fn every_host_of_a_request_counts() {
        let root = Uri::from_static("/");
        assert!(check_host(LOOPBACK, &HeaderMap::new(), &root, &[]).is_err());
        let two = headers(&[(header::HOST, "127.0.0.1"), (header::HOST, "evil.example")]);
        assert!(check_host(LOOPBACK, &two, &root, &[]).is_err());
        let absolute = Uri::from_static("http://evil.example/v1/services");
        assert!(check_host(LOOPBACK, &headers(&[(header::HOST, "127.0.0.1")]), &absolute, &[]).is_err());
        assert!(check_host(Peer::Unix(0), &headers(&[(header::HOST, "anything")]), &root, &[]).is_ok());
    }

    fn may_drain(peer: &str, pairs: &[(header::HeaderName, &str)], token: Option<&str>) -> bool {
        let peer = if peer == "unix" { Peer::Unix(0) } else { Peer::Tcp(peer.parse().expect("an address")) };
        let token = token.and_then(Token::new);
        check_deed(peer, &headers(pairs), &Uri::from_static("/v1/drain"), token.as_ref(), DRAIN).is_ok()
    }

    #[test]
    fn without_a_token_only_this_host_and_no_web_page_drains() {
        let local = (header::HOST, "127.0.0.1:5380");
        assert!(may_drain("127.0.0.1", std::slice::from_ref(&local), None));
        assert!(may_drain("::ffff:127.0.0.1", &[(header::HOST, "localhost")], None));
        assert!(may_drain("unix", &[], None));
        assert!(!may_drain("10.0.0.9", std::slice::from_ref(&local), None));
        assert!(!may_drain("127.0.0.1", &[(header::HOST, "10.0.0.5:5380")], None));
        assert!(!may_drain("127.0.0.1", &[(header::HOST, "core-01.example")], None));
        assert!(!may_drain("127.0.0.1", &[local.clone(), (header::ORIGIN, "http://127.0.0.1:5380")], None));
        assert!(!may_drain("127.0.0.1", &[local, (header::ORIGIN, "null")], None));
        assert!(!may_drain("127.0.0.1", &[], None));
    }

    #[test]
    fn with_a_token_tcp_needs_it_and_the_unix_socket_does_not() {
        let host = (header::HOST, "10.0.0.5:5380");
        let with = |value| [host.clone(), (header::AUTHORIZATION, value)];
        assert!(may_drain("10.0.0.9", &with("Bearer s3cret"), Some("s3cret\n")));
        assert!(may_drain("10.0.0.9", &with("bearer s3cret"), Some("s3cret")));
        assert!(may_drain("unix", &[], Some("s3cret")));
        for bad in ["Bearer s3cre", "Bearer ", "Basic s3cret", "s3cret", "Bearer S3cret"] {
            assert!(!may_drain("127.0.0.1", &with(bad), Some("s3cret")), "{bad}");
        }
        assert!(!may_drain("127.0.0.1", &[(header::HOST, "127.0.0.1")], Some("s3cret")));
        assert!(Token::new(" \n").is_none());
    }
}
