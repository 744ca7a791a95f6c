//! Which server is to be master and which are to follow it: as somebody asks for it, and as it was brought about.
//!
//! What is asked for is the seed's JSON, `{"master":{"address":A[,"port":P]},"slaves":[…]}`. Unknown fields are
//! ignored, a port may be null, and the master may stand among the slaves, as those programs had it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::server::Position;
use crate::model::words::record::Role;

/// Servers one topology may name: more would be one operation's connections without end.
pub const MAX_SERVERS: usize = 64;
/// The longest JSON that is read.
pub const MAX_TEXT: usize = 64 * 1024;
/// The longest address, as of any DNS name.
const MAX_ADDRESS: usize = 253;

/// Where somebody says that a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// An IP address, a host name, or a name with SRV records.
    pub address: String,
    /// The port, where it is not to be looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The topology somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// Who is to take writes.
    pub master: Address,
    /// Who is to follow; the master is not among them.
    pub slaves: Vec<Address>,
}

/// Why a text is no topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTopology {
    /// It is too long to be one.
    #[error("the topology is longer than 64 KiB")]
    TooLong,
    /// It is no JSON.
    #[error("the topology is no JSON: {0}")]
    NoJson(String),
    /// A part is missing or of another kind.
    #[error("the topology needs {0}")]
    Needs(&'static str),
    /// An address cannot be one.
    #[error("{at}: {what}")]
    Address {
        /// Which one.
        at: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Too many servers.
    #[error("the topology names more than {MAX_SERVERS} servers")]
    TooMany,
}

impl Desired {
    /// Reads the seed's JSON.
    pub fn parse(text: &[u8]) -> Result<Self, BadTopology> {
        if text.len() > MAX_TEXT {
            return Err(BadTopology::TooLong);
        }
        let value: Value = serde_json::from_slice(text).map_err(|error| BadTopology::NoJson(error.to_string()))?;
        let object = value.as_object().ok_or(BadTopology::Needs("an object"))?;
        let master = object.get("master").ok_or(BadTopology::Needs("\"master\""))?;
        let slaves = object.get("slaves").and_then(Value::as_array);
        let slaves = slaves.ok_or(BadTopology::Needs("\"slaves\", an array (it may be empty)"))?;
        if slaves.len() > MAX_SERVERS {
            return Err(BadTopology::TooMany);
        }
        let master = Address::read("master", master)?;
        let mut followers: Vec<Address> = Vec::with_capacity(slaves.len());
        for (index, slave) in slaves.iter().enumerate() {
            let slave = Address::read(&format!("slaves[{index}]"), slave)?;
            if slave != master && !followers.contains(&slave) {
                followers.push(slave);
            }
        }
        Ok(Self { master, slaves: followers })
    }

    /// The one in which `master` is master, and whoever else `applied` has follows it.
    pub fn successor(service: &str, applied: &Applied, master: &str) -> Self {
        let address = |name: &str| Address { address: format!("{name}.{service}"), port: None };
        let others = applied.replicas.iter().chain([&applied.master.name]).filter(|name| *name != master);
        Self { master: address(master), slaves: others.map(|name| address(name)).collect() }
    }

    /// The JSON that is kept in the store.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers always encode")
    }
}

impl Address {
    fn read(at: &str, value: &Value) -> Result<Self, BadTopology> {
        let bad = |what| BadTopology::Address { at: at.to_owned(), what };
        let object = value.as_object().ok_or_else(|| bad("is no object with an \"address\""))?;
        let address = object.get("address").and_then(Value::as_str).ok_or_else(|| bad("needs a text \"address\""))?;
        let address = address.strip_suffix('.').unwrap_or(address);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if address.is_empty() || address.len() > MAX_ADDRESS || !address.bytes().all(is_plain) {
            return Err(bad("its address is neither an IP address nor a name"));
        }
        let port = match object.get("port") {
            None | Some(Value::Null) => None,
            Some(port) => {
                let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
                Some(port.ok_or_else(|| bad("its port is not 1 to 65535"))?)
            }
        };
        Ok(Self { address: address.to_ascii_lowercase(), port })
    }
}

/// A server of a topology: who it is, and where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// The instance's name within its service.
    pub name: String,
    /// The address the registry has for it, never the one that a server tells of itself (NAT).
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its `run_id` when it was written down.
    pub run: String,
    /// Where it was in which history.
    pub position: Position,
}

/// The topology that was brought about last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// Grows by one with every master.
    pub epoch: u64,
    /// The operation that brought it about.
    pub number: u64,
    /// The store's revision when the operator who wrote this took the hold.
    pub held: i64,
    /// Who takes writes.
    pub master: Server,
    /// Who has nothing that the master has not.
    pub replicas: Vec<String>,
    /// RFC 3339 time since when.
    pub since: String,
}

impl Applied {
    /// Reads a stored value; what is none says why.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// Writes the value that is stored.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers always encode")
    }

    /// What `name` counts as.
    pub fn role_of(&self, name: &str) -> Option<Role> {
        if self.master.name == name {
            return Some(Role::Primary);
        }
        self.has_replica(name).then_some(Role::Replica)
    }

    /// Whether `name` is counted among the replicas.
    pub fn has_replica(&self, name: &str) -> bool {
        self.replicas.iter().any(|replica| replica == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = Desired::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }

    #[test]
    fn the_seeds_json_is_read() {
        let text =
            br#"{"master":{"address":"core-01.redis-1.docker"},"slaves":[{"address":"10.0.0.2","port":6380,"x":1},
            {"address":"Core-01.redis-1.docker.","port":null},{"address":"10.0.0.2","port":6380}],"more":[]}"#;
        let desired = Desired::parse(text).expect("a topology");
        assert_eq!(desired.master, Address { address: "core-01.redis-1.docker".to_owned(), port: None });
        assert_eq!(desired.slaves, [Address { address: "10.0.0.2".to_owned(), port: Some(6380) }]);
        assert_eq!(Desired::parse(&desired.encode()), Ok(desired));
    }

    #[test]
    fn what_is_no_topology_says_why() {
        refused("{", "no JSON");
        refused("[]", "an object");
        refused("{}", "\"master\"");
        refused(r#"{"master":{"address":"a"}}"#, "\"slaves\"");
        refused(r#"{"master":"a","slaves":[]}"#, "master: is no object");
        refused(r#"{"master":{"address":"a"},"slaves":[{"address":""}]}"#, "slaves[0]: its address");
        refused(r#"{"master":{"address":"a b"},"slaves":[]}"#, "neither");
        refused(r#"{"master":{"address":"a\r\nREPLICAOF"},"slaves":[]}"#, "neither");
        for port in ["0", "65536", "-1", "1.5", "\"6379\""] {
            refused(&format!(r#"{{"master":{{"address":"a","port":{port}}},"slaves":[]}}"#), "its port");
        }
        let many = vec![r#"{"address":"a"}"#; 65].join(",");
        refused(&format!(r#"{{"master":{{"address":"a"}},"slaves":[{many}]}}"#), "more than 64");
        refused(&" ".repeat(MAX_TEXT + 1), "longer");
    }

    #[test]
    fn fields_of_other_builds_are_ignored() {
        let applied = Applied::decode(br#"{"epoch":3,"master":{"name":"a","new":1},"newer":{}}"#).expect("applied");
        assert_eq!((applied.epoch, applied.master.name.as_str()), (3, "a"));
        assert_eq!(Applied::decode(&applied.encode()).expect("applied"), applied);
    }
}
