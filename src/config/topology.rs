//! One `[[topology]]` table: a service whose Redis servers this agent may give a master.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Component, Path};
use std::time::Duration;

use ipnet::IpNet;

use serde::{Deserialize, Serialize};

use super::parse::{self, Parsed, Problems, given};
use super::text::{list, scalar};
use crate::model::offer::naming::reserved;
use crate::model::words::name::ServiceName;

/// One `[[topology]]` table of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawTopology {
    /// The service.
    #[serde(deserialize_with = "scalar")]
    pub service: Option<String>,
    /// Another name under which Sentinel's clients ask for it.
    #[serde(deserialize_with = "scalar")]
    pub alias: Option<String>,
    /// The networks that its servers may be in.
    #[serde(deserialize_with = "list")]
    pub servers: Option<Vec<String>>,
    /// The ACL user to be.
    #[serde(deserialize_with = "scalar")]
    pub user: Option<String>,
    /// The file with its password, within `--check-secrets`.
    #[serde(deserialize_with = "scalar")]
    pub password_file: Option<String>,
    /// How long writes may be held.
    #[serde(deserialize_with = "scalar")]
    pub max_pause: Option<String>,
    /// Whether the servers speak TLS.
    #[serde(deserialize_with = "scalar")]
    pub tls: Option<String>,
    /// What a drain does with a master on this host, `stay` or `switch`.
    #[serde(deserialize_with = "scalar")]
    pub on_drain: Option<String>,
    /// Where the two endpoints of the programs before are served, `PUT /master` and `PUT /dns`.
    #[serde(deserialize_with = "scalar")]
    pub seed_http: Option<String>,
}

/// What writes may be held for: less than a network's own jitter gives up for nothing, more makes clients ask again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// The longest alias, as of a name of DNS.
const MAX_ALIAS: usize = 253;
const USUAL_PAUSE: Duration = Duration::from_millis(200);

/// A `[[topology]]` table, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyConfig {
    /// The service.
    pub service: String,
    /// Another name under which Sentinel's clients ask for it.
    pub alias: Option<String>,
    /// Where its servers may be.
    pub servers: Vec<IpNet>,
    /// The ACL user to be.
    pub user: Option<String>,
    /// A bare name within `--check-secrets`.
    pub password_file: Option<String>,
    /// How long writes may be held.
    pub max_pause: Duration,
    /// Whether the servers speak TLS.
    pub tls: bool,
    /// Whether a host that is drained or goes down gives its master away first.
    pub gives_away: bool,
    /// Where `PUT /master` and `PUT /dns` are served.
    pub seed_http: Option<SocketAddr>,
}

/// One table, and what is wrong with it by key; `None` only with at least one problem.
pub(super) fn read(table: &RawTopology, has_secrets: bool) -> (Option<TopologyConfig>, Problems) {
    let mut problems = Problems::new();
    let config = fields(table, has_secrets, &mut problems);
    (config.filter(|_| problems.is_empty()), problems)
}

/// Services that more than one table names.
pub(super) fn twins(tables: &[TopologyConfig]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    tables.iter().map(|table| table.service.as_str()).filter(|service| !seen.insert(*service)).collect()
}

/// Aliases that are also another table's, or another table's service.
pub(super) fn twin_aliases(tables: &[TopologyConfig]) -> BTreeSet<&str> {
    let services = tables.iter().map(|table| table.service.as_str());
    let mut seen: BTreeSet<&str> = services.collect();
    tables.iter().filter_map(|table| table.alias.as_deref()).filter(|alias| !seen.insert(*alias)).collect()
}

fn fields(table: &RawTopology, has_secrets: bool, problems: &mut Problems) -> Option<TopologyConfig> {
    if table.service.is_none() {
        problems.push(("service", "is needed".to_owned()));
    }
    let service = given("service", table.service.as_deref(), service, problems);
    let alias = given("alias", table.alias.as_deref(), alias, problems);
    let servers: Vec<IpNet> = table
        .servers
        .iter()
        .flatten()
        .filter_map(|text| given("servers", Some(text), parse::network, problems))
        .collect();
    if table.servers.as_ref().is_none_or(Vec::is_empty) {
        problems.push(("servers", "is needed: the networks that the servers may be in".to_owned()));
    }
    let password_file = given("password-file", table.password_file.as_deref(), bare, problems);
    if password_file.is_some() && !has_secrets {
        problems.push(("password-file", "is a name within --check-secrets, which is not given".to_owned()));
    }
    if table.user.is_some() && table.password_file.is_none() {
        problems.push(("user", "needs a password-file".to_owned()));
    }
    let pause = |text: &str| parse::duration(text, PAUSE.0, PAUSE.1);
    let max_pause = given("max-pause", table.max_pause.as_deref(), pause, problems).unwrap_or(USUAL_PAUSE);
    let tls = given("tls", table.tls.as_deref(), parse::truth, problems).unwrap_or(false);
    let gives_away = given("on-drain", table.on_drain.as_deref(), on_drain, problems).unwrap_or(false);
    let seed_http = given("seed-http", table.seed_http.as_deref(), parse::socket, problems);
    let (service, user) = (service?, table.user.clone());
    Some(TopologyConfig { service, alias, servers, user, password_file, max_pause, tls, gives_away, seed_http })
}

/// A service's own name, without what selects of it.
pub(super) fn service(text: &str) -> Parsed<String> {
    let name = ServiceName::parse(text).ok_or_else(|| format!("{text:?} is no service name"))?;
    match reserved(text) {
        Some(word) => {
            Err(format!("{text:?} is no service's name: {word} means something else to those who look names up"))
        }
        None => Ok(name.to_string()),
    }
}

fn on_drain(text: &str) -> Parsed<bool> {
    match text {
        "switch" => Ok(true),
        "stay" => Ok(false),
        _ => Err(format!("{text:?} is neither stay nor switch")),
    }
}

/// What Sentinel takes for the name of a master.
fn alias(text: &str) -> Parsed<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_name = !text.is_empty() && text.len() <= MAX_ALIAS && text.bytes().all(is_plain);
    is_name
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is no name of letters, digits, dots, hyphens and _"))
}

fn bare(text: &str) -> Parsed<String> {
    let mut parts = Path::new(text).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no bare name within --check-secrets")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> (Option<TopologyConfig>, Vec<String>) {
        let (config, problems) = read(&toml::from_str(text).expect("a table"), true);
        (config, problems.into_iter().map(|(key, what)| format!("{key}: {what}")).collect())
    }

    #[test]
    fn a_table_says_which_service_and_where_its_servers_may_be() {
        let (config, problems) = table("service = \"redis-1\"\nservers = [\"10.0.0.0/8\"]\n");
        let config = config.expect("valid");
        assert!(problems.is_empty());
        assert_eq!((config.service.as_str(), config.max_pause), ("redis-1", Duration::from_millis(200)));
    }

    #[test]
    fn what_is_wrong_is_told_at_once() {
        let (config, problems) =
            table("service = \"Redis One\"\nuser = \"wharf\"\nmax-pause = \"1h\"\npassword-file = \"../x\"");
        assert_eq!(config, None);
        for name in ["cfg", "a.cfg", "ns.dns", ""] {
            let (config, _) = table(&format!("service = \"{name}\"\nservers = [\"10.0.0.0/8\"]\n"));
            assert_eq!(config, None, "{name}");
        }
        for key in ["service", "servers", "max-pause", "password-file"] {
            assert!(problems.iter().any(|problem| problem.starts_with(key)), "{key}: {problems:?}");
        }
        let (config, _) =
            read(&toml::from_str("service=\"a\"\nservers=[\"::/0\"]\npassword-file=\"x\"").expect("a table"), false);
        assert_eq!(config, None, "a password file without --check-secrets");
    }

    #[test]
    fn an_alias_means_one_service() {
        let of = |service: &str, alias: &str| {
            let (config, problems) =
                table(&format!("service = \"{service}\"\nservers = [\"::/0\"]\nalias = \"{alias}\"\n"));
            config.unwrap_or_else(|| panic!("{problems:?}"))
        };
        assert!(twin_aliases(&[of("a", "mymaster"), of("b", "other")]).is_empty());
        assert_eq!(twin_aliases(&[of("a", "mymaster"), of("b", "mymaster")]), BTreeSet::from(["mymaster"]));
        assert_eq!(twin_aliases(&[of("a", "b"), of("b", "c")]), BTreeSet::from(["b"]));
        for bad in ["", "my master", "a/b"] {
            let (config, _) = table(&format!("service = \"a\"\nservers = [\"::/0\"]\nalias = \"{bad}\"\n"));
            assert_eq!(config, None, "{bad}");
        }
    }

    #[test]
    fn two_tables_of_one_service_are_seen() {
        let (config, _) = table("service = \"redis-1\"\nservers = [\"10.0.0.0/8\"]\n");
        let config = config.expect("valid");
        assert!(twins(std::slice::from_ref(&config)).is_empty());
        assert_eq!(twins(&[config.clone(), config]), BTreeSet::from(["redis-1"]));
    }
}
