//! From a container's facts to the instances that this host means to offer.
//!
//! registrator's rules are the law here, so that who migrates finds the same names, ids, ports and tags; where it was
//! wrong or silent, `docs/migrating-from-registrator.md` says what is done instead. Pure: settings, the host's
//! addresses and other containers are given. Whatever a container says, each of its ports is either offered or skipped
//! with a reason; nothing panics and no text leaves its own label.

mod address;
mod bounds;
mod check;
mod mapping;
mod metadata;
mod ports;
mod secrets;
mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::advertise::Place;
use super::container::Container;
use super::instance::{Instance, Skipped, Withheld};
use crate::model::words::record::Text;

pub use bounds::reserved;
pub use check::{is_wanted_env, problem_of_check};
pub use mapping::instances;
pub use mapping::static_instances;
pub use secrets::SecretRule;
pub use words::parse_duration;

/// Ports of one container that may be offered without a NAME of their own.
pub const MAX_UNNAMED_PORTS: usize = 64;
/// Names that one port may have.
pub const MAX_NAMES: usize = 16;
/// Records that one container may have: one for each name of each of its ports.
pub const MAX_RECORDS: usize = 1024;
/// Tags of one record.
pub const MAX_TAGS: usize = 64;
/// Attributes of one record.
pub const MAX_ATTRS: usize = 64;
/// Bytes of `SERVICE_*` keys and values of one container, environment and labels together.
pub const MAX_SAID: usize = 64 * 1024;
/// Ports of one container that are each shown with the reason why they are not offered, and attributes that are shown
/// as withheld; of more there is only the number.
pub const MAX_SHOWN: usize = 256;
/// What SERVICE_TTL may be.
pub const TTL_BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// What SERVICE_CHECK_INTERVAL may be.
pub const INTERVAL_BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// What SERVICE_CHECK_TIMEOUT may be at most.
pub const MAX_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a port is not offered, as counted.
pub mod kind {
    /// An ambassador of this host listens there.
    pub const AMBASSADOR: &str = "ambassador";
    /// SERVICE_IGNORE.
    pub const IGNORED: &str = "ignored";
    /// `--explicit`, and no SERVICE_NAME.
    pub const NOT_NAMED: &str = "not-named";
    /// Exposed, and not published on the host.
    pub const NOT_PUBLISHED: &str = "not-published";
    /// No address that clients could use.
    pub const NO_ADDRESS: &str = "no-address";
    /// Bound to loopback.
    pub const LOOPBACK: &str = "loopback";
    /// A port that is no port.
    pub const BAD_PORT: &str = "bad-port";
    /// Neither TCP nor UDP.
    pub const PROTOCOL: &str = "protocol";
    /// The address label holds no usable address.
    pub const ADDRESS_LABEL: &str = "address-label";
    /// The container whose network is shared is not there.
    pub const NETWORK_CONTAINER: &str = "network-container";
    /// A name or id with nothing left after slugging, or too long.
    pub const BAD_NAME: &str = "bad-name";
    /// A SERVICE_ label that cannot be read.
    pub const BAD_LABEL: &str = "bad-label";
    /// `--allow-name` does not allow it.
    pub const NAME_NOT_ALLOWED: &str = "name-not-allowed";
    /// A name that means something to those who look others up.
    pub const RESERVED_NAME: &str = "reserved-name";
    /// More ports than one container may offer.
    pub const TOO_MANY_PORTS: &str = "too-many-ports";
    /// More names than one port may have.
    pub const TOO_MANY_NAMES: &str = "too-many-names";
    /// More records than one container may have.
    pub const TOO_MANY_RECORDS: &str = "too-many-records";
    /// More tags than one record may have.
    pub const TOO_MANY_TAGS: &str = "too-many-tags";
    /// More attributes than one record may have.
    pub const TOO_MANY_ATTRS: &str = "too-many-attrs";
    /// More SERVICE_ text than one container may have.
    pub const TOO_MUCH_TEXT: &str = "too-much-text";
    /// A record larger than may be stored.
    pub const RECORD_TOO_LARGE: &str = "record-too-large";
    /// SERVICE_CHECK names no check, and the image's name tells none.
    pub const UNKNOWN_CHECK: &str = "unknown-check";
    /// The container has no ports at all.
    pub const NO_PORTS: &str = "no-ports";
    /// The engine's description of the container could not be had or read.
    pub const INSPECT: &str = "inspect";
    /// Naming itself failed on it.
    pub const PANIC: &str = "panic";

    /// Those that nobody can have meant: whoever started the container is told of them, and so is the cluster.
    pub const SLIPS: [&str; 6] = [BAD_NAME, BAD_LABEL, UNKNOWN_CHECK, RECORD_TOO_LARGE, RESERVED_NAME, PANIC];

    /// The closed set, for metrics.
    pub const ALL: [&str; 25] = [
        AMBASSADOR,
        IGNORED,
        NOT_NAMED,
        NOT_PUBLISHED,
        NO_ADDRESS,
        LOOPBACK,
        BAD_PORT,
        PROTOCOL,
        ADDRESS_LABEL,
        NETWORK_CONTAINER,
        BAD_NAME,
        BAD_LABEL,
        NAME_NOT_ALLOWED,
        RESERVED_NAME,
        TOO_MANY_PORTS,
        TOO_MANY_NAMES,
        TOO_MANY_RECORDS,
        TOO_MANY_TAGS,
        TOO_MANY_ATTRS,
        TOO_MUCH_TEXT,
        RECORD_TOO_LARGE,
        UNKNOWN_CHECK,
        NO_PORTS,
        INSPECT,
        PANIC,
    ];
}

/// How containers are read, already validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The node's name, never empty.
    pub node: Text,
    /// The addresses chosen, and the host's own.
    pub place: Place,
    /// Container address and exposed ports instead of published ones.
    pub internal: bool,
    /// Only ports with a SERVICE_NAME.
    pub explicit: bool,
    /// Tags for every instance.
    pub tags: Vec<Text>,
    /// Networks to prefer, first first.
    pub networks: Vec<String>,
    /// The label that holds a container's address.
    pub address_label: Option<String>,
    /// Which names containers may claim.
    pub allow_names: AllowNames,
    /// Which checks are made.
    pub checks: ChecksMode,
    /// Where SERVICE_CHECK_PASSWORD_FILE is looked for.
    pub secrets_dir: Option<PathBuf>,
    /// Which containers may have which of those files.
    pub secrets: Vec<SecretRule>,
    /// Where ambassadors of this host listen: what they lead to is no instance of this host.
    pub ambassadors: Vec<SocketAddr>,
}

impl Settings {
    /// The defaults of every flag for a node.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            place: Place::default(),
            internal: false,
            explicit: false,
            tags: Vec::new(),
            networks: Vec::new(),
            address_label: None,
            allow_names: AllowNames::default(),
            checks: ChecksMode::Auto,
            secrets_dir: None,
            secrets: Vec::new(),
            ambassadors: Vec::new(),
        }
    }
}

/// `--checks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksMode {
    /// What is asked for, and what the image's name tells.
    #[default]
    Auto,
    /// What is asked for.
    Asked,
    /// None.
    Off,
}

/// `--allow-name`: the names that containers may claim. The default allows every name.
#[derive(Clone, Debug, Default)]
pub struct AllowNames {
    patterns: Vec<String>,
    globs: Option<GlobSet>,
}

impl AllowNames {
    /// Reads the patterns; every one that cannot be read is told.
    pub fn parse<P: AsRef<str>>(patterns: &[P]) -> Result<Self, Vec<String>> {
        let mut builder = GlobSetBuilder::new();
        let mut problems = Vec::new();
        for pattern in patterns.iter().map(AsRef::as_ref) {
            match Glob::new(pattern) {
                Ok(glob) => _ = builder.add(glob),
                Err(error) => problems.push(format!("{pattern:?}: {}", error.kind())),
            }
        }
        let globs = builder.build().map_err(|error| vec![error.to_string()]);
        if !problems.is_empty() {
            return Err(problems);
        }
        let globs = (!patterns.is_empty()).then_some(globs?);
        Ok(Self { patterns: patterns.iter().map(|pattern| pattern.as_ref().to_owned()).collect(), globs })
    }

    /// Whether a dotted name may be claimed.
    pub fn allows(&self, name: &str) -> bool {
        self.globs.as_ref().is_none_or(|globs| globs.is_match(name))
    }

    /// Whether one of the patterns that allow `name` has `word` in so many letters.
    pub fn spells_out(&self, name: &str, word: &str) -> bool {
        let matches = self.globs.iter().flat_map(|globs| globs.matches(name));
        matches.filter_map(|place| self.patterns.get(place)).any(|pattern| pattern.contains(word))
    }
}

impl PartialEq for AllowNames {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

/// What became of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// The ports that are offered.
    pub instances: Vec<Instance>,
    /// The ports that are not, and why; also names of an offered port beyond what it may have.
    pub skipped: Vec<Skipped>,
    /// How many there are beyond [`MAX_SHOWN`], by kind; `skipped` ends with a line for each kind.
    pub further: BTreeMap<&'static str, usize>,
    /// Attributes withheld because their keys speak of secrets.
    pub withheld: Vec<Withheld>,
}

/// A `[[service]]` of the config file: something that runs outside Docker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StaticService {
    /// Its name, dotted; several with commas.
    pub name: Text,
    /// The port that clients connect to.
    pub port: u16,
    /// The address that clients connect to; the advertised one when absent.
    pub address: Option<std::net::IpAddr>,
    /// Its id; `<node>:<name>:<port>[:udp]` when absent.
    pub id: Option<Text>,
    /// Stream or datagrams.
    pub proto: crate::model::words::record::Proto,
    /// Its tags.
    pub tags: Vec<Text>,
    /// Its role, when it is known beforehand.
    pub role: Option<crate::model::words::record::Role>,
    /// SRV weight.
    pub weight: Option<u16>,
    /// SRV priority.
    pub priority: Option<u16>,
    /// How long an answer may be kept.
    pub ttl: Option<Duration>,
    /// The check, as SERVICE_CHECK has it; none when absent.
    pub check: Option<Text>,
    /// Further keys as of `SERVICE_<KEY>`, lower case: `check_interval`, `check_http`, `region`, ….
    pub attrs: BTreeMap<Text, Text>,
}

/// Finds another container by its full id.
pub type Others<'a> = dyn Fn(&str) -> Option<Arc<Container>> + 'a;
