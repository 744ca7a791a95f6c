//! A record: what is published for one instance, as one JSON object.
//!
//! SkyDNS's fields keep SkyDNS's meaning, so either side reads the other's values; as there, they may be written with
//! capitals (`{"Host":"10.0.0.1"}`, as in SkyDNS's own README). Fields that are not known are
//! ignored when reading. A value that is plain `host:port` (registrator's layout) is a record without an owner. What
//! cannot be read is a [`BadRecord`] that says why; it costs that one value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::plain::plain;

/// Text that is often the same in many records and then shared.
pub type Text = Arc<str>;

/// The longest value that is read or written, in bytes.
pub const MAX_RECORD: usize = 8 * 1024;

/// The most tags of a record, and the most attrs.
pub const MAX_EACH: usize = 64;
/// The longest host: a DNS name has no more.
pub const MAX_HOST: usize = 255;
/// The longest time that an answer may be kept (RFC 2181, 8), in seconds.
pub const MAX_TTL: u32 = i32::MAX as u32;
/// How much of a reason is kept and told.
const MAX_REASON: usize = 160;

/// What a port speaks below the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// A stream.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Proto {
    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an instance is among its kind, where the kind has one that others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one that takes writes.
    Primary,
    /// One that follows it.
    Replica,
}

impl Role {
    /// `primary` or `replica`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }

    /// Reads a role by its own name or the older ones: `master`, `slave`, also in plural.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "primary" | "master" => Some(Self::Primary),
            "replica" | "replicas" | "slave" | "slaves" => Some(Self::Replica),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One published record. Unset fields are left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Address or name that a client connects to.
    #[serde(alias = "Host", alias = "HOST", skip_serializing_if = "is_empty", deserialize_with = "null_is_unset")]
    pub host: Text,
    /// The same instance's address of the other family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host6: Option<Text>,
    /// Port that a client connects to; 0 is none.
    #[serde(alias = "Port", alias = "PORT", skip_serializing_if = "is_zero", deserialize_with = "null_is_unset")]
    pub port: u16,
    /// SRV priority.
    #[serde(alias = "Priority", alias = "PRIORITY", skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// SRV weight.
    #[serde(alias = "Weight", alias = "WEIGHT", skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Seconds that an answer may be kept.
    #[serde(alias = "Ttl", alias = "TTL", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// TXT content.
    #[serde(alias = "Text", alias = "TEXT", skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// SkyDNS's group: records of another group are left out of an answer.
    #[serde(alias = "Group", alias = "GROUP", skip_serializing_if = "Option::is_none")]
    pub group: Option<Text>,
    /// Labels to strip from the SRV target.
    #[serde(
        alias = "TargetStrip",
        alias = "Targetstrip",
        alias = "TARGETSTRIP",
        skip_serializing_if = "Option::is_none"
    )]
    pub targetstrip: Option<u8>,
    /// The host is a mail exchanger.
    #[serde(alias = "Mail", alias = "MAIL", skip_serializing_if = "is_false", deserialize_with = "null_is_unset")]
    pub mail: bool,
    /// registrator's id, or SERVICE_ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// The service's dotted name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Text>,
    /// The host that offers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Text>,
    /// Where that host is, from large to small.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::site::lenient")]
    pub site: Option<Text>,
    /// The agent that published it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Text>,
    /// Stream or datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Primary, replica, or neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Tags, in the order given.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_unset")]
    pub tags: Vec<Text>,
    /// Attributes given on the container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_unset")]
    pub attrs: BTreeMap<Text, Text>,
    /// 12 hex digits of the container's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Text>,
    /// The image as named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Text>,
    /// RFC 3339 time since when it has been serving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Text>,
}

/// Why a value is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRecord(Text);

impl BadRecord {
    /// A reason, which may quote the value: it is cut, and safe to print.
    pub fn new(reason: &str) -> Self {
        let cut: String = reason.chars().take(MAX_REASON).collect();
        Self((*plain(&cut)).into())
    }
}

impl Record {
    /// Reads a value of the tree.
    pub fn decode(value: &[u8]) -> Result<Self, BadRecord> {
        if value.len() > MAX_RECORD {
            return Err(BadRecord::new(&format!("{} bytes, more than {MAX_RECORD}", value.len())));
        }
        let text = std::str::from_utf8(value).map_err(|_| BadRecord::new("not UTF-8"))?;
        let record = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| BadRecord::new(&error.to_string()))?
        } else {
            Self::from_host_port(text.trim())?
        };
        record.within_bounds()
    }

    fn within_bounds(mut self) -> Result<Self, BadRecord> {
        let bad = |reason: &str| Err(BadRecord::new(reason));
        if self.tags.len() > MAX_EACH {
            return bad(&format!("{} tags, more than {MAX_EACH}", self.tags.len()));
        }
        if self.attrs.len() > MAX_EACH {
            return bad(&format!("{} attrs, more than {MAX_EACH}", self.attrs.len()));
        }
        if self.host.len().max(self.host6.as_ref().map_or(0, |host| host.len())) > MAX_HOST {
            return bad(&format!("a host of more than {MAX_HOST} bytes"));
        }
        self.ttl = self.ttl.map(|ttl| ttl.min(MAX_TTL));
        Ok(self)
    }

    /// Writes the value that is stored.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and string maps always encode")
    }

    /// `host:port` with nothing else, as registrator's etcd layout has it.
    fn from_host_port(text: &str) -> Result<Self, BadRecord> {
        let bad = || BadRecord::new("neither a JSON object nor host:port");
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = !host.is_empty() && !host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/');
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        if !plain {
            return Err(bad());
        }
        Ok(Self { host: host.into(), port, ..Self::default() })
    }
}

/// As SkyDNS reads it, `null` leaves a field unset.
fn null_is_unset<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

fn is_empty(text: &Text) -> bool {
    text.is_empty()
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skydns_values_are_records() {
        let record =
            Record::decode(br#"{"host":"10.0.0.1","port":8080,"priority":20,"unknown":[1]}"#).expect("a record");
        assert_eq!((&*record.host, record.port, record.priority), ("10.0.0.1", 8080, Some(20)));
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn skydns_fields_may_be_written_with_capitals() {
        let value = br#"{"Host":"10.0.0.1","Port":80,"Priority":1,"WEIGHT":2,"TTL":3,"Text":"t","Group":"g","TargetStrip":1,"Mail":true}"#;
        let plain = br#"{"host":"10.0.0.1","port":80,"priority":1,"weight":2,"ttl":3,"text":"t","group":"g","targetstrip":1,"mail":true}"#;
        assert_eq!(Record::decode(value), Record::decode(plain));
        assert_eq!(&*Record::decode(value).expect("a record").host, "10.0.0.1");
    }

    #[test]
    fn null_is_unset() {
        let nothing = br#"{"host":null,"port":null,"mail":null,"tags":null,"attrs":null,"ttl":null,"role":null}"#;
        assert_eq!(Record::decode(nothing), Ok(Record::default()));
    }

    #[test]
    fn a_site_that_is_none_costs_no_record() {
        for (site, expected) in
            [(r#""r/z""#, Some("r/z")), ("7", None), ("null", None), (r#""/""#, None), (r#"{"a":[1]}"#, None)]
        {
            let record = Record::decode(format!(r#"{{"host":"10.0.0.1","site":{site}}}"#).as_bytes()).expect(site);
            assert_eq!((&*record.host, record.site.as_deref()), ("10.0.0.1", expected));
        }
    }

    #[test]
    fn plain_host_port_is_a_record_without_owner() {
        let record = Record::decode(b"192.0.2.10:10000").expect("a record");
        assert_eq!((&*record.host, record.port, record.owner), ("192.0.2.10", 10000, None));
        let six = Record::decode(b"[2001:db8::5]:6379").expect("a record");
        assert_eq!((&*six.host, six.port), ("2001:db8::5", 6379));
    }

    #[test]
    fn what_is_no_record_says_why() {
        for bad in [&b"{"[..], b"[]", b"true", b"", b"\xff", b"host", b"host:0", b"host:70000", br#"{"port":70000}"#] {
            assert!(Record::decode(bad).is_err(), "{bad:?}");
        }
        assert!(Record::decode(&vec![b'x'; MAX_RECORD + 1]).is_err());
        for number in ["-1", "65536", "1e400", "1.5", "99999999999999999999", "-9223372036854775808", "\"7\"", "{}"] {
            for field in ["port", "priority", "weight", "ttl", "targetstrip"] {
                let value = format!(r#"{{"host":"10.0.0.1","{field}":{number}}}"#);
                let fits = field == "ttl" && number == "65536";
                assert_eq!(Record::decode(value.as_bytes()).is_ok(), fits, "{value}");
            }
        }
    }

    #[test]
    fn a_reason_is_short_and_safe_to_print() {
        for field in ["role", "proto"] {
            let value = format!(r#"{{"{field}":"a\u001b[31m\n{}"}}"#, "x".repeat(4_000));
            let reason = Record::decode(value.as_bytes()).expect_err("none").to_string();
            assert!(reason.len() < 8 * MAX_REASON && !reason.chars().any(char::is_control), "{reason:?}");
        }
    }

    #[test]
    fn a_record_over_a_bound_is_none() {
        let tags = |count: usize| format!(r#"{{"tags":[{}]}}"#, vec![r#""t""#; count].join(","));
        let attrs = |count: usize| {
            let all: Vec<_> = (0..count).map(|number| format!(r#""{number}":"""#)).collect();
            format!(r#"{{"attrs":{{{}}}}}"#, all.join(","))
        };
        let host = |length: usize| format!(r#"{{"host":"{}"}}"#, "h".repeat(length));
        let plain = |length: usize| format!("{}:80", "h".repeat(length));
        for (bound, value) in [(64, &tags as &dyn Fn(usize) -> String), (64, &attrs), (255, &host), (255, &plain)] {
            assert!(Record::decode(value(bound).as_bytes()).is_ok(), "{}", value(bound));
            assert!(Record::decode(value(bound + 1).as_bytes()).is_err(), "{}", value(bound + 1));
        }
    }

    #[test]
    fn a_ttl_of_more_than_31_bits_is_the_longest() {
        let record = Record::decode(br#"{"host":"10.0.0.1","ttl":4294967295}"#).expect("a record");
        assert_eq!(record.ttl, Some(0x7fff_ffff));
    }
}
