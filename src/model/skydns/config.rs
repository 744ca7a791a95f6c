//! `/skydns/config`, SkyDNS's settings, in this program's flags. Whoever may write the key chose what it says: a flag
//! is told only for what reads as one.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::words::name::{MAX_LABEL, MAX_NAME};

/// The domain that SkyDNS serves where nothing names another.
const DOMAIN: &str = "skydns.local";
/// The longest time that `--dns-ttl` takes, in seconds.
const LONGEST_TTL: u64 = 86_400;
/// The most settings that are told, and how much of a value is: SkyDNS has 20.
const MOST: usize = 40;
const MOST_TEXT: usize = 120;

/// What one of SkyDNS's settings is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// SkyDNS's name for it.
    pub setting: String,
    /// What it says.
    pub says: String,
    /// Flags of `wharf agent` that do the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// What there is to know, where no flag does it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub note: &'static str,
}

/// SkyDNS's settings in this program's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The domain.
    pub domain: String,
    /// One for each setting, the domain first.
    pub advice: Vec<Advice>,
    /// Why the settings cannot be read, if they cannot.
    pub unread: Option<String>,
}

/// What the value of `<prefix>/config` says; SkyDNS's own defaults where there is none.
pub fn told(value: Option<&str>, prefix: &str) -> Told {
    let (settings, unread) = match value.map(serde_json::from_str::<Map<String, Value>>) {
        None => (Map::new(), None),
        Some(Ok(settings)) => (settings, None),
        Some(Err(error)) => (Map::new(), Some(cut(&error.to_string()))),
    };
    let (domain, named) = match settings.get("domain").map(|value| (value, domain(value))) {
        None => (DOMAIN.to_owned(), "unset"),
        Some((_, Some(domain))) => (domain, ""),
        Some((_, None)) => (DOMAIN.to_owned(), "no domain name"),
    };
    let says = settings.get("domain").map_or_else(|| named.to_owned(), shown);
    let flags = vec![zone(&domain, prefix)];
    let note = if named == "no domain name" { "no domain name: SkyDNS's default is taken" } else { "" };
    let mut advice = vec![Advice { setting: "domain".to_owned(), says, flags, note }];
    let others = settings.iter().filter(|(name, _)| *name != "domain").take(MOST);
    advice.extend(others.map(|(name, value)| of(name, value)));
    if value.is_some() && unread.is_none() && forwards_by_default(&settings) {
        let flags = vec!["--forward system".to_owned()];
        advice.push(Advice { setting: "nameservers".to_owned(), says: "unset".to_owned(), flags, note: "" });
    }
    Told { domain, advice, unread }
}

/// The flag that serves a name's tree below a prefix.
pub fn zone(domain: &str, prefix: &str) -> String {
    let path = domain.split('.').rev().fold(prefix.to_owned(), |path, label| format!("{path}/{label}"));
    format!("--zone {domain}={path}")
}

/// SkyDNS forwards to the servers of resolv.conf unless it is told not to.
fn forwards_by_default(settings: &Map<String, Value>) -> bool {
    let named = settings.get("nameservers").and_then(Value::as_array).is_some_and(|servers| !servers.is_empty());
    !named && settings.get("no_rec") != Some(&Value::Bool(true))
}

fn of(name: &str, value: &Value) -> Advice {
    let (flags, note) = match name {
        "dns_addr" => (address(value).map(|at| format!("--dns {at}")), "no address with a port"),
        "nameservers" => (servers(value).map(|all| format!("--forward {all}")), "no addresses: --forward names them"),
        "ttl" => (seconds(value).map(|ttl| format!("--dns-ttl {ttl}s")), "not 1 s to 1 day: --dns-ttl is 5s"),
        "min_ttl" => (seconds(value).map(|ttl| format!("--negative-ttl {ttl}s")), "not 1 s to 1 day"),
        "no_rec" if *value == Value::Bool(true) => (None, "nothing is forwarded without --forward"),
        "no_rec" => (None, "--forward"),
        "systemd" => (None, "sockets that systemd passes are taken: wharf.socket"),
        "hostmaster" => (None, "SOA says hostmaster. and the zone"),
        "priority" => (None, "10 where a record has none"),
        "round_robin" | "ns_rotate" => (None, "always"),
        "rcache" | "rcache_ttl" | "scache" => (None, "not needed: answers are made from memory"),
        "read_timeout" => (None, "no query waits for the store"),
        "ndot" | "ndots" => (None, "names in a zone are never forwarded"),
        "local" => (None, "not there: node.service names a host's own"),
        "dnssec" => (None, "not there: a signing server in front"),
        _ => (None, "no setting of SkyDNS"),
    };
    let note = if flags.is_some() { "" } else { note };
    Advice { setting: cut(name), says: shown(value), flags: flags.into_iter().collect(), note }
}

/// A domain name, in lower case and without its final dot.
fn domain(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let fits = |label: &str| !label.is_empty() && label.len() <= MAX_LABEL && label.bytes().all(is_part);
    (name.len() <= MAX_NAME && name.split('.').all(fits)).then_some(name)
}

fn address(value: &Value) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
}

/// Servers with commas between; one without its port is asked at 53.
fn servers(value: &Value) -> Option<String> {
    let server = |value: &Value| {
        let text = value.as_str()?;
        text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)))
    };
    let all: Option<Vec<SocketAddr>> = value.as_array()?.iter().take(MOST).map(server).collect();
    let all: Vec<String> = all?.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| all.join(","))
}

fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().filter(|seconds| (1..=LONGEST_TTL).contains(seconds))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => cut(text),
        Value::Array(all) => cut(&all.iter().take(MOST).map(shown).collect::<Vec<_>>().join(",")),
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(value: Option<&str>) -> Vec<String> {
        told(value, "/skydns").advice.into_iter().flat_map(|advice| advice.flags).collect()
    }

    #[test]
    fn settings_are_told_as_flags() {
        let all = r#"{"dns_addr":"127.0.0.1:5354","domain":"Cluster.Local.","nameservers":["8.8.8.8:53","8.8.4.4"],
            "ttl":3600,"min_ttl":30,"round_robin":true,"dnssec":"Kcluster.local"}"#;
        assert_eq!(
            flags(Some(all)),
            [
                "--zone cluster.local=/skydns/local/cluster",
                "--dns 127.0.0.1:5354",
                "--negative-ttl 30s",
                "--forward 8.8.8.8:53,8.8.4.4:53",
                "--dns-ttl 3600s",
            ]
        );
    }

    #[test]
    fn every_setting_of_skydns_is_known() {
        for name in [
            "dns_addr",
            "systemd",
            "domain",
            "local",
            "hostmaster",
            "dnssec",
            "round_robin",
            "ns_rotate",
            "nameservers",
            "no_rec",
            "read_timeout",
            "priority",
            "ttl",
            "min_ttl",
            "scache",
            "rcache",
            "rcache_ttl",
            "ndot",
        ] {
            let told = told(Some(&format!(r#"{{"{name}":1}}"#)), "/skydns");
            let own = told.advice.iter().find(|advice| advice.setting == name).expect(name);
            assert_ne!(own.note, "no setting of SkyDNS", "{name}");
        }
        assert_eq!(told(Some(r#"{"wat":1}"#), "/skydns").advice[1].note, "no setting of SkyDNS");
    }

    #[test]
    fn where_there_are_none_the_defaults_are_told() {
        let default = "--zone skydns.local=/skydns/local/skydns";
        assert_eq!(flags(None), [default]);
        assert_eq!(flags(Some("{}")), [default, "--forward system"]);
        assert_eq!(flags(Some(r#"{"no_rec":true}"#)), [default]);
        assert_eq!(flags(Some(r#"{"nameservers":[]}"#)), [default, "--forward system"]);
        let broken = told(Some("{"), "/skydns");
        assert!(broken.unread.is_some() && broken.domain == "skydns.local");
    }

    #[test]
    fn what_is_no_value_of_a_flag_never_becomes_one() {
        for hostile in [
            r#"{"domain":"a b; rm -rf /"}"#,
            r#"{"domain":7,"dns_addr":"$(id):53","nameservers":["8.8.8.8:53","`id`"],"ttl":-1,"min_ttl":1e9}"#,
            r#"{"ttl":0,"nameservers":"8.8.8.8:53","dns_addr":null}"#,
        ] {
            let told = flags(Some(hostile));
            assert!(
                told.iter().all(|flag| flag.starts_with("--zone skydns") || flag == "--forward system"),
                "{told:?}"
            );
        }
        let many: String = (0..10_000).map(|number| format!(r#""{number}":"{}","#, "x".repeat(300))).collect();
        let told = told(Some(&format!("{{{many}\"ttl\":1}}")), "/skydns");
        assert!(told.advice.len() <= MOST + 2 && told.advice.iter().all(|advice| advice.says.len() <= MOST_TEXT));
    }
}
