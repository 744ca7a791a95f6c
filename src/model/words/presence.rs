//! Presence in the older layout: of each instance four keys with bare values,
//! `<prefix>/<service>/instances/<instance>/{host,port,private_ip,public_ip}`, and `<prefix>/<service>/master`, which
//! names one of them.
//!
//! An instance whose attribute `layout` is `instances` is published so besides its record. The record says it, too: who
//! takes a record away, or over, knows by it that there are four more keys. A bare value names no owner, so they belong
//! to whoever has the record.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::record::{MAX_HOST, Record, Text};

/// The attribute that asks for a layout besides the record.
pub const LAYOUT: &str = "layout";
/// What it says for this one.
pub const INSTANCES: &str = "instances";
/// The attribute with the address that clients outside reach the host by, where it has another one there.
pub const PUBLIC_IP: &str = "public_ip";
/// The longest value that is read.
const MAX_VALUE: usize = MAX_HOST;

/// One of an instance's four keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Address or name that a client connects to.
    Host,
    /// The port there.
    Port,
    /// The address within the network.
    PrivateIp,
    /// The address from outside.
    PublicIp,
}

impl Field {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 4] = [Self::Host, Self::Port, Self::PrivateIp, Self::PublicIp];

    fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Port => "port",
            Self::PrivateIp => "private_ip",
            Self::PublicIp => "public_ip",
        }
    }
}

/// What a key of this layout is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'k> {
    /// One of an instance's four; with the key that its record has, or would have.
    Of(String, Field),
    /// The name of the one that leads; with the service's path.
    Master(&'k str),
}

impl<'k> Part<'k> {
    /// Reads a key of a tree, `below` whose prefix at least one label of a service must come first.
    pub fn of(key: &'k str, prefix: &str) -> Option<Self> {
        let is_service =
            |path: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'));
        let (above, last) = key.rsplit_once('/')?;
        if last == "master" {
            return is_service(above).then_some(Self::Master(above));
        }
        let field = Field::ALL.into_iter().find(|field| field.as_str() == last)?;
        let (above, instance) = above.rsplit_once('/')?;
        let service = above.strip_suffix("/instances").filter(|service| is_service(service))?;
        (!instance.is_empty()).then(|| Self::Of(format!("{service}/{instance}"), field))
    }
}

/// Whether an instance with these attributes is published in this layout, too.
pub fn is_asked(attrs: &BTreeMap<Text, Text>) -> bool {
    attrs.get(LAYOUT).is_some_and(|layout| &**layout == INSTANCES)
}

/// What is wrong with a layout that is asked for, if anything is.
pub fn flaw(layout: &str) -> Option<&'static str> {
    (layout != INSTANCES).then_some("the only other layout is \"instances\"")
}

/// The keys besides a record's own, and what they hold; none unless the record asks for them.
pub fn beside(key: &str, record: &Record) -> Vec<(String, String)> {
    if !is_asked(&record.attrs) {
        return Vec::new();
    }
    let Some((service, instance)) = key.rsplit_once('/') else { return Vec::new() };
    let public = record.attrs.get(PUBLIC_IP).unwrap_or(&record.host);
    Field::ALL
        .into_iter()
        .map(|field| {
            let value = match field {
                Field::Host | Field::PrivateIp => record.host.to_string(),
                Field::Port => record.port.to_string(),
                Field::PublicIp => public.to_string(),
            };
            (format!("{service}/{INSTANCES}/{instance}/{}", field.as_str()), value)
        })
        .collect()
}

/// What is known of one instance from its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present(BTreeMap<Field, Text>);

impl Present {
    /// Takes one value; one that is too long or no text is none.
    pub fn put(&mut self, field: Field, value: &[u8]) {
        let text = std::str::from_utf8(value).ok().map(str::trim).filter(|text| text.len() <= MAX_VALUE);
        match text.filter(|text| !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace())) {
            Some(text) => drop(self.0.insert(field, text.into())),
            None => self.delete(field),
        }
    }

    /// A key of it went.
    pub fn delete(&mut self, field: Field) {
        self.0.remove(&field);
    }

    /// Whether nothing is known any more.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The record that the keys amount to, once there are a port and somewhere to connect to: the address within the
    /// network, else the host, else the address from outside.
    pub fn record(&self) -> Option<Record> {
        let port = self.0.get(&Field::Port)?.parse().ok().filter(|port| *port > 0)?;
        let address = |field| self.0.get(&field).filter(|text| text.parse::<IpAddr>().is_ok());
        let host =
            address(Field::PrivateIp).or_else(|| self.0.get(&Field::Host)).or_else(|| address(Field::PublicIp))?;
        Some(Record { host: host.clone(), port, ..Record::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_layout_are_told_from_others() {
        let check = |key: &str, expected: Option<Part<'_>>| assert_eq!(Part::of(key, "/services"), expected, "{key}");
        check("/services/postgres/master", Some(Part::Master("/services/postgres")));
        let port = Part::Of("/services/prod/pg/2".to_owned(), Field::Port);
        check("/services/prod/pg/instances/2/port", Some(port));
        for none in [
            "/services/master",
            "/services//master",
            "/services/instances/2/host",
            "/services/postgres/instances/2",
            "/services/postgres/instances//host",
            "/services/postgres/2/host",
            "/services/postgres/instances/2/state",
            "/servicesx/postgres/master",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn what_is_published_reads_back_as_the_same_endpoint() {
        let attrs = BTreeMap::from([(LAYOUT.into(), INSTANCES.into()), (PUBLIC_IP.into(), "203.0.113.7".into())]);
        let record = Record { host: "10.0.0.1".into(), port: 5432, attrs, ..Record::default() };
        let keys = beside("/services/postgres/2", &record);
        assert_eq!(keys[3], ("/services/postgres/instances/2/public_ip".to_owned(), "203.0.113.7".to_owned()));
        let mut present = Present::default();
        for (key, value) in &keys {
            let Some(Part::Of(own, field)) = Part::of(key, "/services") else { panic!("{key}") };
            assert_eq!(own, "/services/postgres/2");
            present.put(field, value.as_bytes());
        }
        let read = present.record().expect("all there");
        assert_eq!((&*read.host, read.port), ("10.0.0.1", 5432));
        assert_eq!(beside("/services/postgres/2", &Record::default()), []);
    }

    #[test]
    fn an_instance_is_there_once_it_can_be_connected_to() {
        let mut present = Present::default();
        present.put(Field::Host, b"core-01.example.com\n");
        assert_eq!(present.record(), None);
        for no_port in [&b"0"[..], b"70000", b"", b"x", b"\xff", &[b'1'; 300]] {
            present.put(Field::Port, no_port);
            assert_eq!(present.record(), None);
        }
        present.put(Field::Port, b"5432");
        assert_eq!(present.record().map(|record| record.host), Some("core-01.example.com".into()));
        present.put(Field::PublicIp, b"203.0.113.7");
        present.put(Field::PrivateIp, b"no address");
        assert_eq!(present.record().map(|record| record.host), Some("core-01.example.com".into()));
        present.put(Field::PrivateIp, b"10.0.0.1");
        assert_eq!(present.record().map(|record| record.host), Some("10.0.0.1".into()));
        Field::ALL.into_iter().for_each(|field| present.delete(field));
        assert!(present.is_empty());
    }
}
