//! Who may ask, and who may write: by address, by name, and no web page.

use std::fmt;
use std::net::IpAddr;

use axum::http::{HeaderMap, Method, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::answer::http::guard;
use crate::host::clients::Peer;
use crate::model::etcd_v2::{Code, Fault};

/// A user and the password, of which nothing is in any log or error.
#[derive(Clone)]
pub struct User {
    name: String,
    digest: [u8; 32],
}

impl User {
    /// A user; blank space around the password does not count. `None` when nothing is left of it.
    pub fn new(name: &str, password: &str) -> Option<Self> {
        let password = password.trim();
        let digest = digest(name, password);
        (!password.is_empty()).then(|| Self { name: name.to_owned(), digest })
    }

    /// Compares digests, so that the time taken tells nothing of the password.
    fn is(&self, headers: &HeaderMap) -> bool {
        basic(headers).is_some_and(|(name, password)| digest(&name, &password) == self.digest)
    }
}

fn digest(name: &str, password: &str) -> [u8; 32] {
    Sha256::digest(format!("{}:{name}:{password}", name.len()).as_bytes()).into()
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The rules of one server.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) allow: Vec<IpNet>,
    pub(super) user: Option<User>,
    pub(super) hosts: Vec<String>,
}

impl Access {
    /// Whether this request is answered.
    pub(super) fn check(&self, peer: Peer, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
        let refused = |why: String| Fault::new(Code::Unauthorized, why);
        let is_allowed = |address: IpAddr| {
            self.allow.is_empty() || self.allow.iter().any(|network| network.contains(&address.to_canonical()))
        };
        if let Peer::Tcp(address) = peer
            && !is_allowed(address)
        {
            return Err(refused(format!("{} is in no network of --etcd-v2-allow", address.to_canonical())));
        }
        guard::check_host(peer, headers, uri, &self.hosts).map_err(|problem| refused(problem.words()))?;
        if self.user.as_ref().is_some_and(|user| !user.is(headers)) {
            return Err(refused("Insufficient credentials".to_owned()).with_status(401));
        }
        let is_reading = [Method::GET, Method::HEAD].contains(method);
        if !is_reading && headers.contains_key(header::ORIGIN) {
            return Err(refused("it was sent by a web page, which writes nothing here".to_owned()));
        }
        Ok(())
    }
}

/// Name and password of the Basic scheme (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    let text = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(text.trim()).ok())??;
    let text = String::from_utf8(text).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn asked(access: &Access, peer: &str, method: &Method, headers: &[(HeaderName, &str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, HeaderValue::from_static("127.0.0.1:4001"));
        for (name, value) in headers {
            map.insert(name.clone(), HeaderValue::from_str(value).expect("a value"));
        }
        let peer = Peer::Tcp(peer.parse().expect("an address"));
        access.check(peer, method, &Uri::from_static("/v2/keys/a"), &map).err().map(|fault| fault.status)
    }

    fn access(allow: &[&str], user: Option<User>) -> Access {
        let allow = allow.iter().map(|network| network.parse().expect("a network")).collect();
        Access { allow, user, hosts: vec![] }
    }

    #[test]
    fn no_web_page_writes_and_no_rebound_name_reads() {
        let open = access(&[], None);
        assert_eq!(asked(&open, "127.0.0.1", &Method::PUT, &[]), None);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:4001"] {
            assert_eq!(asked(&open, "127.0.0.1", &Method::POST, &[(header::ORIGIN, origin)]), Some(403), "{origin}");
        }
        assert_eq!(asked(&open, "127.0.0.1", &Method::GET, &[(header::ORIGIN, "http://evil.example")]), None);
        assert_eq!(asked(&open, "127.0.0.1", &Method::GET, &[(header::HOST, "evil.example")]), Some(403));
    }

    #[test]
    fn addresses_and_passwords_keep_others_out() {
        let here = access(&["10.0.0.0/8", "127.0.0.0/8"], None);
        assert_eq!(asked(&here, "10.1.2.3", &Method::PUT, &[]), None);
        assert_eq!(asked(&here, "::ffff:10.1.2.3", &Method::PUT, &[]), None);
        assert_eq!(asked(&here, "192.0.2.1", &Method::GET, &[]), Some(403));
        let known = access(&[], User::new("app", "s3cret\n"));
        let with = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(asked(&known, "10.1.2.3", &Method::PUT, &[(header::AUTHORIZATION, &with("app:s3cret"))]), None);
        for bad in ["app:s3cre", "root:s3cret", "app", ":", ""] {
            let refused = asked(&known, "10.1.2.3", &Method::GET, &[(header::AUTHORIZATION, &with(bad))]);
            assert_eq!(refused, Some(401), "{bad}");
        }
        assert_eq!(asked(&known, "10.1.2.3", &Method::GET, &[]), Some(401));
        assert!(User::new("app", " \n").is_none());
    }
}
