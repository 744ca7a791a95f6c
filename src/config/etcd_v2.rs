//! Where etcd's v2 API is served, of what, and to whom.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::parse::{self, Parsed, Problems, given};
use super::raw::Raw;
use crate::model::etcd_v2::{NodePath, Scope};

/// What is served where nobody says otherwise: what the programs of that time wrote.
const USUAL: [&str; 3] = ["/services", "/config", "/skydns"];

/// The `--etcd-v2` settings, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdV2Config {
    /// Where.
    pub listen: SocketAddr,
    /// What.
    pub scope: Scope,
    /// Who may ask; empty is everyone.
    pub allow: Vec<IpNet>,
    /// Whom one has to be, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// The settings, and what is wrong with them by key; nothing where it is not served.
pub(super) fn read(raw: &Raw) -> (Option<EtcdV2Config>, Problems) {
    let mut problems = Problems::new();
    let listen = given("etcd-v2", raw.etcd_v2.as_deref(), parse::socket, &mut problems);
    let roots = all("etcd-v2-prefix", raw.etcd_v2_prefix.as_deref(), root, &mut problems);
    let allow = all("etcd-v2-allow", raw.etcd_v2_allow.as_deref(), parse::network, &mut problems);
    let user = given("etcd-v2-user", raw.etcd_v2_user.as_deref(), user, &mut problems);
    let lacks_listener = raw.etcd_v2.is_none();
    for (key, is_given) in [
        ("etcd-v2-prefix", raw.etcd_v2_prefix.is_some()),
        ("etcd-v2-allow", raw.etcd_v2_allow.is_some()),
        ("etcd-v2-user", raw.etcd_v2_user.is_some()),
    ] {
        if is_given && lacks_listener {
            problems.push((key, "the address to serve on is missing: give --etcd-v2 too".to_owned()));
        }
    }
    let is_for_all = raw.etcd_v2_allow.is_none() && raw.etcd_v2_user.is_none();
    if listen.is_some_and(|listen| !listen.ip().to_canonical().is_loopback()) && is_for_all {
        let what = "beyond loopback anybody could write: give --etcd-v2-allow or --etcd-v2-user too";
        problems.push(("etcd-v2", what.to_owned()));
    }
    let roots =
        if raw.etcd_v2_prefix.is_some() { roots } else { USUAL.iter().filter_map(|key| root(key).ok()).collect() };
    let config = listen.map(|listen| EtcdV2Config { listen, scope: Scope::new(roots), allow, user });
    (config.filter(|_| problems.is_empty()), problems)
}

fn all<T>(
    key: &'static str,
    texts: Option<&[String]>,
    read: impl Fn(&str) -> Parsed<T>,
    problems: &mut Problems,
) -> Vec<T> {
    if texts.is_some_and(<[String]>::is_empty) {
        problems.push((key, "an empty list serves nobody".to_owned()));
    }
    texts.unwrap_or_default().iter().filter_map(|text| given(key, Some(text.trim()), &read, problems)).collect()
}

/// A key below which is served; the slash alone is all of them.
fn root(text: &str) -> Parsed<NodePath> {
    let path = if text == "/" { "/" } else { &parse::prefix(text)?.to_string() };
    let path = NodePath::parse(path)?;
    if path.is_ours() { Err("/wharf is where nodes and locks are kept".to_owned()) } else { Ok(path) }
}

fn user(text: &str) -> Parsed<(String, PathBuf)> {
    let bad = || format!("{text:?} is not NAME:FILE");
    let (name, file) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    Ok((name.to_owned(), parse::path(file)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(listen: &str, prefix: Option<&str>, allow: Option<&str>, user: Option<&str>) -> Raw {
        let list = |text: &str| vec![text.to_owned()];
        Raw {
            etcd_v2: (!listen.is_empty()).then(|| listen.to_owned()),
            etcd_v2_prefix: prefix.map(list),
            etcd_v2_allow: allow.map(list),
            etcd_v2_user: user.map(str::to_owned),
            ..Raw::default()
        }
    }

    #[test]
    fn it_is_served_where_it_is_asked_for() {
        assert_eq!(read(&Raw::default()), (None, vec![]));
        let (config, problems) = read(&raw("127.0.0.1:4001", None, None, None));
        assert_eq!(problems, []);
        assert_eq!(config.map(|config| config.scope.to_string()).as_deref(), Some("/config, /services, /skydns"));
        for good in [
            raw("[::1]:4001", Some("/"), None, None),
            raw("0.0.0.0:4001", Some("/a/b"), Some("10.0.0.0/8"), None),
            raw("10.0.0.1:4001", None, None, Some("app:/etc/wharf/v2")),
        ] {
            assert!(read(&good).0.is_some(), "{good:?}");
        }
    }

    #[test]
    fn what_would_let_anybody_write_is_refused() {
        for (bad, key) in [
            (raw("0.0.0.0:4001", None, None, None), "etcd-v2"),
            (raw("10.0.0.1:4001", None, None, None), "etcd-v2"),
            (raw("here", None, None, None), "etcd-v2"),
            (raw("127.0.0.1:1", Some("services"), None, None), "etcd-v2-prefix"),
            (raw("127.0.0.1:1", Some("/wharf/x"), None, None), "etcd-v2-prefix"),
            (raw("127.0.0.1:1", None, Some("all"), None), "etcd-v2-allow"),
            (raw("127.0.0.1:1", None, None, Some("app")), "etcd-v2-user"),
            (raw("", None, None, Some("app:/f")), "etcd-v2-user"),
        ] {
            let (config, problems) = read(&bad);
            assert!(config.is_none() && problems.iter().any(|(at, _)| *at == key), "{bad:?}: {problems:?}");
        }
    }
}
