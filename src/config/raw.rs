//! Settings as people write them: flags, `WHARF_*` variables and the keys of a TOML file, all as text.
//!
//! One struct serves the three sources, so a setting cannot exist in one and be missing in another. Nothing is judged
//! here but the shape; `validate` reads the text, and then tells every problem at once.

use serde::{Deserialize, Serialize};

use super::autodiscovery::RawAutodiscovery;
use super::ordinal::RawOrdinal;
use super::proxy::RawProxy;
use super::render::RawRender;
use super::service::RawService;
use super::text::{list, scalar};
use super::topology::RawTopology;

/// Every setting of the agent, as written. `None` is not given.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Raw {
    /// Name of this host among the nodes [default: the hostname]
    #[arg(long, env = "WHARF_NODE", value_name = "NAME", help_heading = "Offer")]
    #[serde(deserialize_with = "scalar")]
    pub node: Option<String>,

    /// Address that clients of this host's services connect to: an address, an interface, a CIDR or auto, one per
    /// family [default: auto]
    #[arg(
        long,
        env = "WHARF_ADVERTISE",
        value_name = "ADDR|IFACE|CIDR|auto",
        value_delimiter = ',',
        help_heading = "Offer"
    )]
    #[serde(deserialize_with = "list")]
    pub advertise: Option<Vec<String>>,

    /// Docker engine to watch [default: $DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, env = "WHARF_DOCKER", value_name = "URI", help_heading = "Offer")]
    #[serde(deserialize_with = "scalar")]
    pub docker: Option<String>,

    /// Offer the containers' own addresses and exposed ports instead of published ones
    #[arg(long, env = "WHARF_INTERNAL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Offer")]
    #[serde(deserialize_with = "scalar")]
    pub internal: Option<String>,

    /// Offer only ports that have a SERVICE_NAME
    #[arg(long, env = "WHARF_EXPLICIT", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Offer")]
    #[serde(deserialize_with = "scalar")]
    pub explicit: Option<String>,

    /// Tags that every instance of this host gets
    #[arg(long, env = "WHARF_TAGS", value_name = "TAG", value_delimiter = ',', help_heading = "Offer")]
    #[serde(deserialize_with = "list")]
    pub tags: Option<Vec<String>>,

    /// Network to take the address from, for containers on several
    #[arg(long, env = "WHARF_NETWORK", value_name = "NAME", help_heading = "Offer")]
    #[serde(deserialize_with = "scalar")]
    pub network: Option<String>,

    /// Label of a container that holds the address to publish
    #[arg(long, env = "WHARF_ADDRESS_LABEL", value_name = "LABEL", help_heading = "Offer")]
    #[serde(deserialize_with = "scalar")]
    pub address_label: Option<String>,

    /// Names that containers of this host may claim [default: *]
    #[arg(long, env = "WHARF_ALLOW_NAME", value_name = "GLOB", value_delimiter = ',', help_heading = "Offer")]
    #[serde(deserialize_with = "list")]
    pub allow_name: Option<Vec<String>>,

    /// Where this host is, from large to small, such as us-west-2/us-west-2a/rack-7
    #[arg(long, env = "WHARF_SITE", value_name = "PATH", help_heading = "Offer")]
    #[serde(deserialize_with = "scalar")]
    pub site: Option<String>,

    /// Which instances are probed: auto (asked or guessed), asked (by label only) or off [default: auto]
    #[arg(long, env = "WHARF_CHECKS", value_name = "auto|asked|off", help_heading = "Probes")]
    #[serde(deserialize_with = "scalar")]
    pub checks: Option<String>,

    /// Directory with the password files that SERVICE_CHECK_PASSWORD_FILE may name
    #[arg(long, env = "WHARF_CHECK_SECRETS", value_name = "DIR", help_heading = "Probes")]
    #[serde(deserialize_with = "scalar")]
    pub check_secrets: Option<String>,

    /// Time from one probe's start to the next [default: 2s]
    #[arg(long, env = "WHARF_PROBE_INTERVAL", value_name = "TIME", help_heading = "Probes")]
    #[serde(deserialize_with = "scalar")]
    pub probe_interval: Option<String>,

    /// Time a probe may take [default: 500ms]
    #[arg(long, env = "WHARF_PROBE_TIMEOUT", value_name = "TIME", help_heading = "Probes")]
    #[serde(deserialize_with = "scalar")]
    pub probe_timeout: Option<String>,

    /// Failures in a row that take an instance down [default: 3]
    #[arg(long, env = "WHARF_PROBE_FALL", value_name = "N", help_heading = "Probes")]
    #[serde(deserialize_with = "scalar")]
    pub probe_fall: Option<String>,

    /// Successes in a row that bring it up again [default: 2]
    #[arg(long, env = "WHARF_PROBE_RISE", value_name = "N", help_heading = "Probes")]
    #[serde(deserialize_with = "scalar")]
    pub probe_rise: Option<String>,

    /// Where records are kept [default: etcd when endpoints are given, else embedded]
    #[arg(long, env = "WHARF_STORE", value_name = "embedded|etcd", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub store: Option<String>,

    /// etcd endpoints, such as http://10.0.0.1:2379, or srv://example.com to find them by DNS
    #[arg(long, env = "WHARF_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',', help_heading = "Store")]
    #[serde(deserialize_with = "list")]
    pub etcd_endpoints: Option<Vec<String>>,

    /// Authorities that may have signed etcd's certificate, as PEM
    #[arg(long, env = "WHARF_ETCD_CA", value_name = "FILE", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub etcd_ca: Option<String>,

    /// Client certificate for etcd, as PEM; read again when it changes
    #[arg(long, env = "WHARF_ETCD_CERT", value_name = "FILE", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub etcd_cert: Option<String>,

    /// Key of the client certificate, as PEM
    #[arg(long, env = "WHARF_ETCD_KEY", value_name = "FILE", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub etcd_key: Option<String>,

    /// User to log in to etcd as
    #[arg(long, env = "WHARF_ETCD_USER", value_name = "NAME", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub etcd_user: Option<String>,

    /// File with that user's password
    #[arg(long, env = "WHARF_ETCD_PASSWORD_FILE", value_name = "FILE", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub etcd_password_file: Option<String>,

    /// Root of the tree of records [default: /services]
    #[arg(long, env = "WHARF_PREFIX", value_name = "KEY", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub prefix: Option<String>,

    /// How long this node's records outlive it [default: 30s]
    #[arg(long, env = "WHARF_LEASE_TTL", value_name = "TIME", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub lease_ttl: Option<String>,

    /// Most records taken from the store; beyond, the owner with most loses its newest [default: 1000000]
    #[arg(long, env = "WHARF_MAX_RECORDS", value_name = "N", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub max_records: Option<String>,

    /// Directory for what must outlive a restart [default: $STATE_DIRECTORY, else /var/lib/wharf]
    #[arg(long, env = "WHARF_STATE_DIR", value_name = "DIR", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub state_dir: Option<String>,

    /// What becomes of the records when the agent is stopped [default: keep]
    #[arg(long, env = "WHARF_ON_STOP", value_name = "keep|withdraw", help_heading = "Store")]
    #[serde(deserialize_with = "scalar")]
    pub on_stop: Option<String>,

    /// DNS name of the prefix [default: services.internal]
    #[arg(long, env = "WHARF_DOMAIN", value_name = "NAME", help_heading = "DNS")]
    #[serde(deserialize_with = "scalar")]
    pub domain: Option<String>,

    /// Further zone and the prefix it shows; several prefixes of one zone are joined
    #[arg(long, env = "WHARF_ZONE", value_name = "NAME=PREFIX", value_delimiter = ',', help_heading = "DNS")]
    #[serde(deserialize_with = "list")]
    pub zone: Option<Vec<String>>,

    /// Addresses to answer DNS on, UDP and TCP [default: 127.0.0.1:5300]
    #[arg(long, env = "WHARF_DNS", value_name = "ADDR", value_delimiter = ',', help_heading = "DNS")]
    #[serde(deserialize_with = "list")]
    pub dns: Option<Vec<String>>,

    /// How long a client may keep an answer [default: 5s]
    #[arg(long, env = "WHARF_DNS_TTL", value_name = "TIME", help_heading = "DNS")]
    #[serde(deserialize_with = "scalar")]
    pub dns_ttl: Option<String>,

    /// Prefer what is near to this host in every SRV answer, by its priorities
    #[arg(long, env = "WHARF_NEAR_PRIORITY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "DNS")]
    #[serde(deserialize_with = "scalar")]
    pub near_priority: Option<String>,

    /// How long a client may keep a "no such name" [default: 5s]
    #[arg(long, env = "WHARF_NEGATIVE_TTL", value_name = "TIME", help_heading = "DNS")]
    #[serde(deserialize_with = "scalar")]
    pub negative_ttl: Option<String>,

    /// Resolvers for names that are not ours; system is what this host uses
    #[arg(long, env = "WHARF_FORWARD", value_name = "ADDR|system", value_delimiter = ',', help_heading = "DNS")]
    #[serde(deserialize_with = "list")]
    pub forward: Option<Vec<String>>,

    /// Clients that may have names forwarded [default: loopback and private networks]
    #[arg(long, env = "WHARF_FORWARD_ALLOW", value_name = "CIDR", value_delimiter = ',', help_heading = "DNS")]
    #[serde(deserialize_with = "list")]
    pub forward_allow: Option<Vec<String>>,

    /// Clients that may ask at all [default: everyone who reaches the socket]
    #[arg(long, env = "WHARF_ALLOW", value_name = "CIDR", value_delimiter = ',', help_heading = "DNS")]
    #[serde(deserialize_with = "list")]
    pub allow: Option<Vec<String>>,

    /// UDP answers a second to one network outside --forward-allow; 0 means no limit [default: 100]
    #[arg(long, env = "WHARF_RATE_LIMIT", value_name = "N", help_heading = "DNS")]
    #[serde(deserialize_with = "scalar")]
    pub rate_limit: Option<String>,

    /// Address to serve HTTP on [default: 127.0.0.1:5380]
    #[arg(long, env = "WHARF_HTTP", value_name = "ADDR", help_heading = "HTTP")]
    #[serde(deserialize_with = "scalar")]
    pub http: Option<String>,

    /// Unix socket to serve HTTP on [default: $RUNTIME_DIRECTORY/http.sock when that is set]
    #[arg(long, env = "WHARF_HTTP_SOCKET", value_name = "PATH", help_heading = "HTTP")]
    #[serde(deserialize_with = "scalar")]
    pub http_socket: Option<String>,

    /// File with the token that is needed to drain or to change a topology over TCP
    #[arg(long, env = "WHARF_HTTP_TOKEN_FILE", value_name = "FILE", help_heading = "HTTP")]
    #[serde(deserialize_with = "scalar")]
    pub http_token_file: Option<String>,

    /// Host names, besides addresses and localhost, under which HTTP may be asked
    #[arg(long, env = "WHARF_HTTP_HOST", value_name = "NAME", value_delimiter = ',', help_heading = "HTTP")]
    #[serde(deserialize_with = "list")]
    pub http_host: Option<Vec<String>>,

    /// Root of what Patroni keeps in the store, such as /service: each of its scopes is a service
    #[arg(long, env = "WHARF_PATRONI", value_name = "PREFIX", value_delimiter = ',', help_heading = "Store")]
    #[serde(deserialize_with = "list")]
    pub patroni: Option<Vec<String>>,

    /// Address to speak Redis Sentinel's protocol on, such as 127.0.0.1:26379
    #[arg(long, env = "WHARF_SENTINEL", value_name = "ADDR", help_heading = "Sentinel")]
    #[serde(deserialize_with = "scalar")]
    pub sentinel: Option<String>,

    /// File with the password that its clients must give
    #[arg(long, env = "WHARF_SENTINEL_PASSWORD_FILE", value_name = "FILE", help_heading = "Sentinel")]
    #[serde(deserialize_with = "scalar")]
    pub sentinel_password_file: Option<String>,

    /// Address to serve Exhibitor's API on, such as 0.0.0.0:8181
    #[arg(long, env = "WHARF_EXHIBITOR", value_name = "ADDR", help_heading = "Exhibitor")]
    #[serde(deserialize_with = "scalar")]
    pub exhibitor: Option<String>,

    /// Service whose instances are the ensemble [default: zookeeper]
    #[arg(long, env = "WHARF_EXHIBITOR_SERVICE", value_name = "NAME", help_heading = "Exhibitor")]
    #[serde(deserialize_with = "scalar")]
    pub exhibitor_service: Option<String>,

    /// Role whose numbers give their order [default: that of the only `[[ordinal]]` table, else by host name]
    #[arg(long, env = "WHARF_EXHIBITOR_ORDINAL", value_name = "ROLE", help_heading = "Exhibitor")]
    #[serde(deserialize_with = "scalar")]
    pub exhibitor_ordinal: Option<String>,
    /// Address to serve etcd's v2 API on, such as 127.0.0.1:4001
    #[arg(long, env = "WHARF_ETCD_V2", value_name = "ADDR", help_heading = "etcd v2")]
    #[serde(deserialize_with = "scalar")]
    pub etcd_v2: Option<String>,

    /// Keys below which it is served [default: /services,/config,/skydns]
    #[arg(long, env = "WHARF_ETCD_V2_PREFIX", value_name = "KEY", value_delimiter = ',', help_heading = "etcd v2")]
    #[serde(deserialize_with = "list")]
    pub etcd_v2_prefix: Option<Vec<String>>,

    /// Clients that may ask it [default: everyone who reaches the socket]
    #[arg(long, env = "WHARF_ETCD_V2_ALLOW", value_name = "CIDR", value_delimiter = ',', help_heading = "etcd v2")]
    #[serde(deserialize_with = "list")]
    pub etcd_v2_allow: Option<Vec<String>>,

    /// User that its clients must log in as, and the file with the password
    #[arg(long, env = "WHARF_ETCD_V2_USER", value_name = "NAME:FILE", help_heading = "etcd v2")]
    #[serde(deserialize_with = "scalar")]
    pub etcd_v2_user: Option<String>,

    /// What is logged, as in wharf=debug [default: info]
    #[arg(long, env = "WHARF_LOG", value_name = "FILTER", help_heading = "Log")]
    #[serde(deserialize_with = "scalar")]
    pub log: Option<String>,

    /// How it is written [default: text]
    #[arg(long, env = "WHARF_LOG_FORMAT", value_name = "text|json", help_heading = "Log")]
    #[serde(deserialize_with = "scalar")]
    pub log_format: Option<String>,

    /// Leave the `[[proxy]]` tables to `wharf proxy`, which reads the same file [default: false]
    #[arg(long, env = "WHARF_PROXY_APART", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Ambassadors")]
    #[serde(deserialize_with = "scalar")]
    pub proxy_apart: Option<String>,

    /// `[[service]]`: what runs outside Docker.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<RawService>,

    /// `[[secret]]`: which containers may have which password file.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret: Vec<RawSecret>,

    /// `[[topology]]`: whose Redis servers this agent may give a master.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology: Vec<RawTopology>,

    /// `[[proxy]]`: local ports that lead to services.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxy: Vec<RawProxy>,

    /// `[[autodiscovery]]`: whose members this agent tells to clients of ElastiCache.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub autodiscovery: Vec<RawAutodiscovery>,

    /// `[[ordinal]]`: in which roles this host has a number.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ordinal: Vec<RawOrdinal>,
    /// `[[render]]`: files that `wharf render` writes.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub render: Vec<RawRender>,
}

/// One `[[secret]]` table of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawSecret {
    /// A bare file name inside `--check-secrets`.
    #[serde(deserialize_with = "scalar")]
    pub file: Option<String>,
    /// A pattern of container names.
    #[serde(deserialize_with = "scalar")]
    pub container: Option<String>,
}
