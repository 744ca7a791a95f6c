//! From settings as written to a [`Config`], with every problem on the way.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::autodiscovery::{self, AutodiscoveryConfig};
use super::etcd_v2::{self, EtcdV2Config};
use super::exhibitor::{self, ExhibitorConfig};
use super::file::Origins;
use super::ordinal;
use super::parse::{self, Parsed};
use super::proxy::{self, ProxyConfig};
use super::raw::Raw;
use super::render::{self, RenderConfig};
use super::service;
use super::topology::{self, TopologyConfig};
use super::{
    Config, DnsConfig, EtcdConfig, HttpConfig, LogConfig, OfferConfig, ProbeConfig, Problem, SentinelConfig,
    StoreConfig, Surroundings,
};
use crate::model::offer::advertise::Advertise;
use crate::model::offer::naming::{AllowNames, ChecksMode, SecretRule, StaticService};
use crate::model::words::ordinal::RoleName;
use crate::model::words::site::Site;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const PRIVATE: [&str; 8] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

/// Reads everything; `None` only together with at least one problem.
pub(super) fn validate(
    raw: &Raw,
    origins: &Origins,
    surroundings: &Surroundings,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let mut reader = Reader { origins, surroundings, problems };
    let store = reader.store(raw);
    let node = reader.node(raw);
    let site = raw.site.as_deref().map(|text| reader.kept("site", Site::parse(text)));
    let offer = reader.offer(raw);
    let probe = reader.probe(raw);
    let dns = reader.dns(raw);
    let http = reader.http(raw);
    let sentinel = reader.sentinel(raw);
    let etcd_v2 = reader.etcd_v2(raw);
    let log = reader.log(raw);
    let topologies = reader.topologies(raw);
    let proxies = reader.proxies(raw);
    let proxy_apart = reader.one("proxy-apart", raw.proxy_apart.as_ref(), "false", parse::truth);
    let autodiscoveries = reader.autodiscoveries(raw);
    let ordinals = reader.ordinals(raw);
    let exhibitor = reader.exhibitor(raw, &ordinals);
    let renders = reader.renders(raw);
    Some(Config {
        written: raw.clone(),
        origins: origins.clone(),
        node: node?,
        site: site.map_or(Some(None), |site| site.map(Some))?,
        offer: offer?,
        probe: probe?,
        store: store?,
        dns: dns?,
        http: http?,
        sentinel: sentinel?,
        etcd_v2,
        log: log?,
        topologies,
        proxies,
        proxy_apart: proxy_apart?,
        autodiscoveries,
        ordinals,
        exhibitor,
        runtime_dir: reader.runtime_dir(),
        renders,
    })
}

/// Reads settings one by one and keeps what is wrong with them.
struct Reader<'a> {
    origins: &'a Origins,
    surroundings: &'a Surroundings,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, key: &str, what: impl Into<String>) {
        self.problems.push(Problem { at: self.origins.place(key), what: what.into() });
    }

    fn kept<T>(&mut self, key: &str, parsed: Parsed<T>) -> Option<T> {
        parsed.map_err(|what| self.problem(key, what)).ok()
    }

    /// One setting, or its default; `None` when it cannot be read.
    fn one<T>(
        &mut self,
        key: &str,
        text: Option<&String>,
        default: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<T> {
        let parsed = parse(text.map_or(default, String::as_str));
        self.kept(key, parsed)
    }

    /// Every readable element of a list, or of its default.
    fn all<T>(
        &mut self,
        key: &str,
        texts: Option<&Vec<String>>,
        default: &[&str],
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Vec<T> {
        let parsed: Vec<Parsed<T>> = match texts {
            Some(texts) => texts.iter().map(|text| parse(text.trim())).collect(),
            None => default.iter().map(|text| parse(text)).collect(),
        };
        parsed.into_iter().filter_map(|parsed| self.kept(key, parsed)).collect()
    }

    fn node(&mut self, raw: &Raw) -> Option<String> {
        if raw.node.is_none() && self.surroundings.contained {
            self.problem("node", "in a container with a network of its own the node's name must be given");
            return None;
        }
        let etcd = raw.etcd_endpoints.is_some() || raw.store.as_deref() == Some("etcd");
        let node = self.one("node", raw.node.as_ref(), &self.surroundings.hostname, parse::node)?;
        if etcd && (node == "localhost" || node.starts_with("localhost.")) {
            self.problem("node", format!("{node:?} names every host; give this one a name of its own"));
            return None;
        }
        Some(node)
    }

    fn offer(&mut self, raw: &Raw) -> Option<OfferConfig> {
        if raw.advertise.is_none() && self.surroundings.contained {
            self.problem("advertise", "in a container with a network of its own the host's address must be given");
        }
        let advertise = self.all("advertise", raw.advertise.as_ref(), &["auto"], parse::advertise);
        self.one_per_family(&advertise);
        let internal = self.one("internal", raw.internal.as_ref(), "false", parse::truth);
        let explicit = self.one("explicit", raw.explicit.as_ref(), "false", parse::truth);
        let docker = self.docker(raw);
        let allow_names = self.allow_names(raw);
        let services = self.services(raw);
        Some(OfferConfig {
            docker: docker?,
            internal: internal?,
            explicit: explicit?,
            advertise,
            tags: raw.tags.clone().unwrap_or_default(),
            network: raw.network.clone(),
            address_label: raw.address_label.clone(),
            allow_names,
            services,
        })
    }

    /// The engine: the one that is named, else the one that the engine's own client would take.
    fn docker(&mut self, raw: &Raw) -> Option<String> {
        let told = self.surroundings.environment.get("DOCKER_HOST").filter(|uri| !uri.is_empty());
        match (&raw.docker, told) {
            (None, Some(uri)) => {
                let at = "--docker (from DOCKER_HOST)".to_owned();
                parse::docker(uri).map_err(|what| self.problems.push(Problem { at, what })).ok()
            }
            (named, _) => self.one("docker", named.as_ref(), "unix:///var/run/docker.sock", parse::docker),
        }
    }

    fn allow_names(&mut self, raw: &Raw) -> AllowNames {
        let patterns = raw.allow_name.as_deref().unwrap_or_default();
        AllowNames::parse(patterns).unwrap_or_else(|problems| {
            for what in problems {
                self.problem("allow-name", what);
            }
            AllowNames::default()
        })
    }

    fn services(&mut self, raw: &Raw) -> Vec<StaticService> {
        let mut services = Vec::new();
        for (position, table) in raw.service.iter().enumerate() {
            let (service, problems) = service::read(table);
            for (key, what) in problems {
                self.problem(&format!("service[{}].{key}", position + 1), what);
            }
            services.extend(service);
        }
        services
    }

    fn topologies(&mut self, raw: &Raw) -> Vec<TopologyConfig> {
        let mut topologies = Vec::new();
        for (position, table) in raw.topology.iter().enumerate() {
            let (topology, problems) = topology::read(table, raw.check_secrets.is_some());
            for (key, what) in problems {
                self.problem(&format!("topology[{}].{key}", position + 1), what);
            }
            topologies.extend(topology);
        }
        for twin in topology::twins(&topologies) {
            self.problem("topology", format!("{twin} has more than one table"));
        }
        for alias in topology::twin_aliases(&topologies) {
            self.problem("topology", format!("the alias {alias} means more than one service"));
        }
        topologies
    }

    fn proxies(&mut self, raw: &Raw) -> Vec<ProxyConfig> {
        let mut proxies = Vec::new();
        for (position, table) in raw.proxy.iter().enumerate() {
            let (proxy, problems) = proxy::read(table);
            for (key, what) in problems {
                self.problem(&format!("proxy[{}].{key}", position + 1), what);
            }
            proxies.extend(proxy);
        }
        for twin in proxy::twins(&proxies) {
            self.problem("proxy", format!("{twin} is the name of more than one table"));
        }
        proxies
    }

    fn autodiscoveries(&mut self, raw: &Raw) -> Vec<AutodiscoveryConfig> {
        let mut tables = Vec::new();
        for (position, table) in raw.autodiscovery.iter().enumerate() {
            let (read, problems) = autodiscovery::read(table);
            for (key, what) in problems {
                self.problem(&format!("autodiscovery[{}].{key}", position + 1), what);
            }
            tables.extend(read);
        }
        for twin in autodiscovery::twins(&tables) {
            self.problem("autodiscovery", format!("{twin} has more than one table"));
        }
        tables
    }

    fn ordinals(&mut self, raw: &Raw) -> BTreeSet<RoleName> {
        let (roles, problems) = ordinal::read(&raw.ordinal);
        for (key, what) in problems {
            self.problem(&key, what);
        }
        roles
    }

    fn exhibitor(&mut self, raw: &Raw, roles: &BTreeSet<RoleName>) -> Option<ExhibitorConfig> {
        let (config, problems) = exhibitor::read(raw, roles);
        for (key, what) in problems {
            self.problem(key, what);
        }
        config
    }

    fn etcd_v2(&mut self, raw: &Raw) -> Option<EtcdV2Config> {
        let (config, problems) = etcd_v2::read(raw);
        for (key, what) in problems {
            self.problem(key, what);
        }
        config
    }

    fn renders(&mut self, raw: &Raw) -> Vec<RenderConfig> {
        let mut tables = Vec::new();
        for (position, table) in raw.render.iter().enumerate() {
            let (read, problems) = render::read(table);
            for (key, what) in problems {
                self.problem(&format!("render[{}].{key}", position + 1), what);
            }
            tables.extend(read);
        }
        for twin in render::twins(&tables) {
            self.problem("render", twin);
        }
        tables
    }

    fn one_per_family(&mut self, advertise: &[Advertise]) {
        let family = |six: bool| {
            let of = |choice: &&Advertise| match choice {
                Advertise::Address(address) => address.is_ipv6() == six,
                Advertise::Network(network) => network.addr().is_ipv6() == six,
                Advertise::Auto | Advertise::Interface(_) => false,
            };
            advertise.iter().filter(of).count()
        };
        if family(false) > 1 || family(true) > 1 || advertise.len() > 2 {
            self.problem("advertise", "at most one for IPv4 and one for IPv6");
        }
    }

    fn probe(&mut self, raw: &Raw) -> Option<ProbeConfig> {
        let checks = self.one("checks", raw.checks.as_ref(), "auto", |text| match text {
            "auto" => Ok(ChecksMode::Auto),
            "asked" => Ok(ChecksMode::Asked),
            "off" => Ok(ChecksMode::Off),
            _ => Err(format!("{text:?} is neither auto, asked nor off")),
        });
        let interval = self.one("probe-interval", raw.probe_interval.as_ref(), "2s", |text| {
            parse::duration(text, 100 * MILLISECOND, HOUR)
        });
        let timeout = self.one("probe-timeout", raw.probe_timeout.as_ref(), "500ms", |text| {
            parse::duration(text, MILLISECOND, 10 * SECOND)
        });
        let fall = self.one("probe-fall", raw.probe_fall.as_ref(), "3", |text| parse::number(text, 1, 1000));
        let rise = self.one("probe-rise", raw.probe_rise.as_ref(), "2", |text| parse::number(text, 1, 1000));
        let secrets = self.path("check-secrets", raw.check_secrets.as_ref());
        let rules = self.secrets(raw);
        let (checks, interval, timeout) = (checks?, interval?, timeout?);
        Some(ProbeConfig { checks, secrets, rules, interval, timeout, fall: fall?, rise: rise? })
    }

    fn secrets(&mut self, raw: &Raw) -> Vec<SecretRule> {
        if !raw.secret.is_empty() && raw.check_secrets.is_none() {
            self.problem("secret", "the directory of these files is missing: give --check-secrets too");
        }
        let mut rules = Vec::new();
        for (position, table) in raw.secret.iter().enumerate() {
            let at = |key: &str| format!("secret[{}].{key}", position + 1);
            for (key, given) in [("file", &table.file), ("container", &table.container)] {
                if given.is_none() {
                    self.problem(&at(key), "is needed");
                }
            }
            let (Some(file), Some(container)) = (&table.file, &table.container) else { continue };
            match SecretRule::new(file, container) {
                Ok(rule) => rules.push(rule),
                Err((key, what)) => self.problem(&at(key), what),
            }
        }
        rules
    }

    fn store(&mut self, raw: &Raw) -> Option<StoreConfig> {
        let state = self.surroundings.environment.get("STATE_DIRECTORY").and_then(|dirs| dirs.split(':').next());
        let state = state.filter(|dir| !dir.is_empty()).unwrap_or("/var/lib/wharf");
        let prefix = self.one("prefix", raw.prefix.as_ref(), "/services", parse::prefix);
        if prefix.as_ref().is_some_and(|prefix| format!("{prefix}/").starts_with("/wharf/")) {
            self.problem("prefix", "/wharf is where nodes and locks are kept");
        }
        let max_records = self
            .one("max-records", raw.max_records.as_ref(), "1000000", |text| parse::number(text, 1_000, 100_000_000));
        let lease_ttl =
            self.one("lease-ttl", raw.lease_ttl.as_ref(), "30s", |text| parse::duration(text, 2 * SECOND, HOUR));
        let withdraw_on_stop = self.one("on-stop", raw.on_stop.as_ref(), "keep", |text| match text {
            "keep" => Ok(false),
            "withdraw" => Ok(true),
            _ => Err(format!("{text:?} is neither keep nor withdraw")),
        });
        let patroni = self.all("patroni", raw.patroni.as_ref(), &[], parse::prefix);
        let etcd = self.etcd(raw);
        let state_dir = self.one("state-dir", raw.state_dir.as_ref(), state, parse::path);
        Some(StoreConfig {
            patroni,
            etcd: etcd?,
            prefix: prefix?,
            lease_ttl: lease_ttl?,
            max_records: max_records?,
            state_dir: state_dir?,
            withdraw_on_stop: withdraw_on_stop?,
        })
    }

    /// `Some(None)` is the embedded store.
    fn etcd(&mut self, raw: &Raw) -> Option<Option<EtcdConfig>> {
        let endpoints = self.all("etcd-endpoints", raw.etcd_endpoints.as_ref(), &[], parse::endpoint);
        let given = raw.etcd_endpoints.as_ref().is_some_and(|endpoints| !endpoints.is_empty());
        let wanted = match raw.store.as_deref() {
            None => given,
            Some("etcd") => true,
            Some("embedded") => false,
            Some(other) => {
                self.problem("store", format!("{other:?} is neither embedded nor etcd"));
                return None;
            }
        };
        if !wanted {
            return Some(None);
        }
        if !given {
            self.problem("etcd-endpoints", "with --store etcd at least one endpoint must be given");
        }
        let ca = self.path("etcd-ca", raw.etcd_ca.as_ref());
        let certificate = self.path("etcd-cert", raw.etcd_cert.as_ref());
        let identity = match (certificate, self.path("etcd-key", raw.etcd_key.as_ref())) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => self.lone("etcd-cert", "its key is missing: give --etcd-key too"),
            (None, Some(_)) => self.lone("etcd-key", "its certificate is missing: give --etcd-cert too"),
        };
        let password = self.path("etcd-password-file", raw.etcd_password_file.as_ref());
        let user = match (raw.etcd_user.clone(), password) {
            (Some(user), Some(file)) => Some((user, file)),
            (None, None) => None,
            (Some(_), None) => self.lone("etcd-user", "its password is missing: give --etcd-password-file too"),
            (None, Some(_)) => self.lone("etcd-password-file", "its user is missing: give --etcd-user too"),
        };
        Some(Some(EtcdConfig { endpoints, ca, identity, user }))
    }

    fn path(&mut self, key: &str, text: Option<&String>) -> Option<PathBuf> {
        let parsed = parse::path(text?);
        self.kept(key, parsed)
    }

    fn lone<T>(&mut self, key: &str, what: &str) -> Option<T> {
        self.problem(key, what);
        None
    }

    fn dns(&mut self, raw: &Raw) -> Option<DnsConfig> {
        let zone_time = |text: &str| parse::duration(text, SECOND, 24 * HOUR);
        let domain = self.one("domain", raw.domain.as_ref(), "services.internal", parse::domain);
        let ttl = self.one("dns-ttl", raw.dns_ttl.as_ref(), "5s", zone_time);
        let negative_ttl = self.one("negative-ttl", raw.negative_ttl.as_ref(), "5s", zone_time);
        let rate_limit =
            self.one("rate-limit", raw.rate_limit.as_ref(), "100", |text| parse::number(text, 0, 1_000_000));
        let near_priority = self.one("near-priority", raw.near_priority.as_ref(), "false", parse::truth);
        let listen = self.all("dns", raw.dns.as_ref(), &["127.0.0.1:5300"], parse::socket);
        if raw.dns.as_ref().is_some_and(Vec::is_empty) {
            self.problem("dns", "at least one address");
        }
        let zones = self.all("zone", raw.zone.as_ref(), &[], parse::zone);
        let forward = self.all("forward", raw.forward.as_ref(), &[], parse::forward);
        let forward_allow = self.all("forward-allow", raw.forward_allow.as_ref(), &PRIVATE, parse::network);
        let allow = self.all("allow", raw.allow.as_ref(), &[], parse::network);
        Some(DnsConfig {
            domain: domain?,
            zones,
            listen,
            ttl: ttl?,
            negative_ttl: negative_ttl?,
            forward,
            forward_allow,
            allow,
            near_priority: near_priority?,
            rate_limit: rate_limit?,
        })
    }

    fn runtime_dir(&self) -> Option<PathBuf> {
        let runtime = self.surroundings.environment.get("RUNTIME_DIRECTORY").and_then(|dirs| dirs.split(':').next());
        runtime.filter(|dir| !dir.is_empty()).map(PathBuf::from)
    }

    fn http(&mut self, raw: &Raw) -> Option<HttpConfig> {
        let socket = self.runtime_dir().map(|dir| dir.join("http.sock"));
        let given = raw.http_socket.as_ref().map(|path| parse::unix_socket(path));
        let given = given.and_then(|parsed| self.kept("http-socket", parsed));
        let hosts = self.all("http-host", raw.http_host.as_ref(), &[], parse::domain);
        Some(HttpConfig {
            listen: self.one("http", raw.http.as_ref(), "127.0.0.1:5380", parse::socket)?,
            socket: given.or(socket),
            token_file: self.path("http-token-file", raw.http_token_file.as_ref()),
            hosts,
        })
    }

    /// `Some(None)` where it is not spoken.
    fn sentinel(&mut self, raw: &Raw) -> Option<Option<SentinelConfig>> {
        let password_file = self.path("sentinel-password-file", raw.sentinel_password_file.as_ref());
        let Some(address) = &raw.sentinel else {
            if password_file.is_some() {
                self.problem("sentinel-password-file", "nobody is asked for it: give --sentinel too");
            }
            return Some(None);
        };
        let listen = self.kept("sentinel", parse::socket(address))?;
        Some(Some(SentinelConfig { listen, password_file }))
    }

    fn log(&mut self, raw: &Raw) -> Option<LogConfig> {
        let filter = self.one("log", raw.log.as_ref(), "info", |text| {
            let read = text.parse::<tracing_subscriber::filter::Targets>();
            read.map(|_| text.to_owned()).map_err(|_| format!("{text:?} is no filter such as info or wharf=debug"))
        });
        let json = self.one("log-format", raw.log_format.as_ref(), "text", |text| match text {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err(format!("{text:?} is neither text nor json")),
        });
        Some(LogConfig { filter: filter?, json: json? })
    }
}
