//! One `[[proxy]]` table: a local port that leads to the right server of a service.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use serde::{Deserialize, Serialize};

use super::parse::{self, Parsed, Problems, given};
use super::text::{list, scalar};
use crate::catalog::proxy::{Balance, OnChange, Protocol, SendProxy};
use crate::model::words::name::Label;
use crate::model::words::record::Role;

/// One `[[proxy]]` table of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawProxy {
    /// Its name.
    #[serde(deserialize_with = "scalar")]
    pub name: Option<String>,
    /// Where it listens.
    #[serde(deserialize_with = "list")]
    pub listen: Option<Vec<String>>,
    /// The service that it leads to.
    #[serde(deserialize_with = "scalar")]
    pub service: Option<String>,
    /// What it leads to instead: `etcd`, or addresses.
    #[serde(deserialize_with = "list")]
    pub upstream: Option<Vec<String>>,
    /// Only endpoints of this role.
    #[serde(deserialize_with = "scalar")]
    pub role: Option<String>,
    /// Only endpoints with this tag.
    #[serde(deserialize_with = "scalar")]
    pub tag: Option<String>,
    /// Only endpoints on this node.
    #[serde(deserialize_with = "scalar")]
    pub node: Option<String>,
    /// Whether endpoints on this host are taken before others.
    #[serde(deserialize_with = "scalar")]
    pub near: Option<String>,
    /// How long a connection may wait for an endpoint.
    #[serde(deserialize_with = "scalar")]
    pub wait: Option<String>,
    /// `least`, `round-robin` or `first`.
    #[serde(deserialize_with = "scalar")]
    pub balance: Option<String>,
    /// The networks whose clients may connect.
    #[serde(deserialize_with = "list")]
    pub allow: Option<Vec<String>>,
    /// Connections on which nothing moves for so long are closed.
    #[serde(deserialize_with = "scalar")]
    pub timeout: Option<String>,
    /// `off`, `v1` or `v2`.
    #[serde(deserialize_with = "scalar")]
    pub send_proxy: Option<String>,
    /// Connections at a time.
    #[serde(deserialize_with = "scalar")]
    pub max_connections: Option<String>,
    /// `tcp` or `redis`.
    #[serde(deserialize_with = "scalar")]
    pub protocol: Option<String>,
    /// `cut` or `keep` connections whose endpoint is not right any more.
    #[serde(deserialize_with = "scalar")]
    pub on_change: Option<String>,
    /// How long connections may go on when the table ends.
    #[serde(deserialize_with = "scalar")]
    pub drain: Option<String>,
}

/// Networks whose clients may connect unless the table says otherwise: this host's, its containers', and its site's.
const ALLOW: [&str; 4] = ["127.0.0.0/8", "::1/128", "172.16.0.0/12", "fc00::/7"];
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longer, and whoever waits has given up.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// A service manager that stops a program kills it sooner or later.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);
/// Ports that one table may have.
const MAX_LISTEN: usize = 16;
/// Addresses that one table may lead to.
const MAX_UPSTREAM: usize = 64;
const MAX_CONNECTIONS: u32 = 1_000_000;

/// A `[[proxy]]` table, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where connections go.
    pub upstream: ProxyUpstream,
    /// How long a connection may wait for an endpoint.
    pub wait: Duration,
    /// Which of several endpoints one takes.
    pub balance: Balance,
    /// Who may connect.
    pub allow: Vec<IpNet>,
    /// Idle connections are closed after so long.
    pub timeout: Duration,
    /// What is spoken.
    pub protocol: Protocol,
    /// What is sent ahead of a connection's bytes.
    pub send_proxy: SendProxy,
    /// Connections at a time.
    pub max_connections: u32,
    /// What becomes of connections whose endpoint is not right any more.
    pub on_change: OnChange,
    /// How long connections may go on when the table ends.
    pub drain: Duration,
}

/// Where the connections of a table go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyUpstream {
    /// To the store's own endpoints.
    Etcd,
    /// To these.
    Addresses(Vec<SocketAddr>),
    /// To endpoints of a service.
    Service {
        /// Its name.
        service: String,
        /// Those of this role only.
        role: Option<Role>,
        /// Those with this tag only.
        tag: Option<String>,
        /// Those on this node only.
        node: Option<String>,
        /// Those on this host first.
        near: bool,
    },
}

/// One table, and what is wrong with it by key; `None` only with at least one problem.
pub(super) fn read(table: &RawProxy) -> (Option<ProxyConfig>, Problems) {
    let mut problems = Problems::new();
    let config = fields(table, &mut problems);
    (config.filter(|_| problems.is_empty()), problems)
}

/// Names that more than one table has.
pub(super) fn twins(tables: &[ProxyConfig]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    tables.iter().map(|table| table.name.as_str()).filter(|name| !seen.insert(*name)).collect()
}

fn fields(table: &RawProxy, problems: &mut Problems) -> Option<ProxyConfig> {
    let name = needed("name", table.name.as_deref(), name, problems);
    let listen = addresses("listen", table.listen.as_ref(), MAX_LISTEN, problems);
    if table.listen.as_ref().is_none_or(Vec::is_empty) {
        problems.push(("listen", "is needed: at least one address with a port".to_owned()));
    }
    let upstream = upstream(table, problems);
    let has_role = matches!(upstream, Some(ProxyUpstream::Service { role: Some(_), .. }));
    let usual = if has_role { OnChange::Cut } else { OnChange::Keep };
    let time = |least, most| move |text: &str| parse::duration(text, least, most);
    let wait = given("wait", table.wait.as_deref(), time(Duration::ZERO, LONGEST_WAIT), problems);
    let timeout = given("timeout", table.timeout.as_deref(), time(Duration::from_secs(1), 30 * DAY), problems);
    let drain = given("drain", table.drain.as_deref(), time(Duration::ZERO, LONGEST_DRAIN), problems);
    let most = |text: &str| parse::number(text, 1, MAX_CONNECTIONS);
    let max_connections = given("max-connections", table.max_connections.as_deref(), most, problems);
    let balance = given("balance", table.balance.as_deref(), balance, problems);
    let allow = allow(table, problems);
    let send_proxy = given("send-proxy", table.send_proxy.as_deref(), send_proxy, problems);
    let on_change = given("on-change", table.on_change.as_deref(), on_change, problems);
    let protocol = given("protocol", table.protocol.as_deref(), protocol, problems).unwrap_or_default();
    if protocol == Protocol::Redis && send_proxy.is_some_and(|sent| sent != SendProxy::Off) {
        problems.push(("send-proxy", "is what no Redis server reads: off with protocol \"redis\"".to_owned()));
    }
    Some(ProxyConfig {
        name: name?,
        listen,
        upstream: upstream?,
        wait: wait.unwrap_or(Duration::from_secs(5)),
        balance: balance.unwrap_or_default(),
        allow,
        timeout: timeout.unwrap_or(60 * MINUTE),
        protocol,
        send_proxy: send_proxy.unwrap_or_default(),
        max_connections: max_connections.unwrap_or(8_000),
        on_change: on_change.unwrap_or(usual),
        drain: drain.unwrap_or_default(),
    })
}

/// Either a service with what selects of it, or an upstream.
fn upstream(table: &RawProxy, problems: &mut Problems) -> Option<ProxyUpstream> {
    let role = given("role", table.role.as_deref(), role, problems);
    let near = given("near", table.near.as_deref(), parse::truth, problems).unwrap_or(false);
    let tag = given("tag", table.tag.as_deref(), slug, problems);
    let node = given("node", table.node.as_deref(), slug, problems);
    match (&table.service, &table.upstream) {
        (Some(text), None) => {
            let service = given("service", Some(text), super::topology::service, problems)?;
            Some(ProxyUpstream::Service { service, role, tag, node, near })
        }
        (None, Some(list)) if list.len() == 1 && list[0] == "etcd" => without_selectors(table, problems),
        (None, Some(_)) => {
            without_selectors(table, problems);
            let to = addresses("upstream", table.upstream.as_ref(), MAX_UPSTREAM, problems);
            Some(ProxyUpstream::Addresses(to))
        }
        (Some(_), Some(_)) => {
            problems.push(("upstream", "is given beside a service: one of both".to_owned()));
            None
        }
        (None, None) => {
            problems.push(("service", "is needed, or an upstream".to_owned()));
            None
        }
    }
}

fn without_selectors(table: &RawProxy, problems: &mut Problems) -> Option<ProxyUpstream> {
    let given = [("role", &table.role), ("tag", &table.tag), ("node", &table.node), ("near", &table.near)];
    for (key, _) in given.iter().filter(|(_, value)| value.is_some()) {
        problems.push((key, "selects endpoints of a service, and none is given".to_owned()));
    }
    Some(ProxyUpstream::Etcd)
}

fn allow(table: &RawProxy, problems: &mut Problems) -> Vec<IpNet> {
    let texts: Vec<&str> = match &table.allow {
        Some(texts) => texts.iter().map(String::as_str).collect(),
        None => ALLOW.to_vec(),
    };
    texts.into_iter().filter_map(|text| given("allow", Some(text), parse::network, problems)).collect()
}

fn addresses(key: &'static str, list: Option<&Vec<String>>, most: usize, problems: &mut Problems) -> Vec<SocketAddr> {
    let texts = list.map(Vec::as_slice).unwrap_or_default();
    if texts.len() > most {
        problems.push((key, format!("{} addresses, more than {most}", texts.len())));
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for text in texts {
        let Some(address) = given(key, Some(text), address, problems) else { continue };
        if addresses.contains(&address) {
            problems.push((key, format!("{address} is there twice")));
        }
        addresses.push(address);
    }
    addresses
}

fn needed<T>(key: &'static str, text: Option<&str>, read: fn(&str) -> Parsed<T>, problems: &mut Problems) -> Option<T> {
    if text.is_none() {
        problems.push((key, "is needed".to_owned()));
    }
    given(key, text, read, problems)
}

/// It stands in metrics and log lines.
fn name(text: &str) -> Parsed<String> {
    let is_label = Label::slug(text).is_some_and(|label| label.as_str() == text);
    if is_label { Ok(text.to_owned()) } else { Err(format!("{text:?} is no name such as postgres or redis-1")) }
}

fn address(text: &str) -> Parsed<SocketAddr> {
    let address = parse::socket(text)?;
    if address.port() == 0 { Err(format!("{text:?} has no port")) } else { Ok(address) }
}

fn slug(text: &str) -> Parsed<String> {
    Label::slug(text).map(|label| label.as_str().to_owned()).ok_or_else(|| format!("{text:?} is no name"))
}

fn role(text: &str) -> Parsed<Role> {
    Role::parse(text).ok_or_else(|| format!("{text:?} is neither primary nor replica"))
}

fn balance(text: &str) -> Parsed<Balance> {
    match text {
        "least" => Ok(Balance::Least),
        "round-robin" => Ok(Balance::RoundRobin),
        "first" => Ok(Balance::First),
        _ => Err(format!("{text:?} is neither least, round-robin nor first")),
    }
}

fn send_proxy(text: &str) -> Parsed<SendProxy> {
    match text {
        "off" | "false" => Ok(SendProxy::Off),
        "v1" => Ok(SendProxy::V1),
        "v2" => Ok(SendProxy::V2),
        _ => Err(format!("{text:?} is neither off, v1 nor v2")),
    }
}

fn on_change(text: &str) -> Parsed<OnChange> {
    match text {
        "cut" => Ok(OnChange::Cut),
        "keep" => Ok(OnChange::Keep),
        _ => Err(format!("{text:?} is neither cut nor keep")),
    }
}

fn protocol(text: &str) -> Parsed<Protocol> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "redis" => Ok(Protocol::Redis),
        _ => Err(format!("{text:?} is neither tcp nor redis")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> (Option<ProxyConfig>, Vec<String>) {
        let (config, problems) = read(&toml::from_str(text).expect("a table"));
        (config, problems.into_iter().map(|(key, what)| format!("{key}: {what}")).collect())
    }

    #[test]
    fn a_table_with_a_role_cuts_and_one_without_keeps() {
        let text = "name = 'postgres'\nlisten = ['127.0.0.1:5432', '172.17.0.1:5432']\nservice = 'postgres'\n";
        let (config, problems) = table(&format!("{text}role = 'master'\nwait = '3s'\nsend-proxy = 'v2'\n"));
        let config = config.unwrap_or_else(|| panic!("{problems:?}"));
        assert_eq!((config.on_change, config.wait, config.listen.len()), (OnChange::Cut, Duration::from_secs(3), 2));
        assert_eq!((config.max_connections, config.allow.len(), config.send_proxy), (8_000, 4, SendProxy::V2));
        assert_eq!(table(text).0.map(|config| config.on_change), Some(OnChange::Keep));
        let (config, _) = table(&format!("{text}role = 'primary'\non-change = 'keep'\n"));
        assert_eq!(config.map(|config| config.on_change), Some(OnChange::Keep));
    }

    #[test]
    fn an_upstream_stands_for_a_service() {
        let of = |text: &str| table(&format!("name = 'etcd'\nlisten = '127.0.0.1:2379'\n{text}\n"));
        assert_eq!(of("upstream = 'etcd'").0.map(|config| config.upstream), Some(ProxyUpstream::Etcd));
        let two = of("upstream = ['10.0.0.1:80', '10.0.0.2:80']").0.map(|config| config.upstream);
        assert!(matches!(two, Some(ProxyUpstream::Addresses(to)) if to.len() == 2));
        for wrong in [
            "",
            "upstream = 'etcd'\nservice = 'etcd'",
            "upstream = 'etcd'\nrole = 'primary'",
            "upstream = ['nowhere:80']",
            "upstream = ['10.0.0.1:0']",
            "upstream = ['10.0.0.1:80', '10.0.0.1:80']",
        ] {
            let (config, problems) = of(wrong);
            assert!(config.is_none() && !problems.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_once() {
        let (config, problems) = table(concat!(
            "name = 'My Port'\nlisten = ['127.0.0.1']\nservice = 'Re dis'\nrole = 'king'\nwait = '1h'\n",
            "balance = 'best'\nallow = ['all']\ntimeout = '1ms'\nsend-proxy = 'v3'\nmax-connections = 0\n",
            "on-change = 'ask'\nprotocol = 'udp'\ndrain = '2h'\nnear = 'x'\n"
        ));
        assert_eq!(config, None);
        for key in [
            "name",
            "listen",
            "service",
            "role",
            "wait",
            "balance",
            "allow",
            "timeout",
            "send-proxy",
            "max-connections",
            "on-change",
            "protocol",
            "drain",
            "near",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(key)), "{key}: {problems:?}");
        }
    }
}
