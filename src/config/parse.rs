//! Readers for the texts that settings are written in. Each error says what would have been right.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::Forward;
use crate::model::advertise::Advertise;
use crate::model::key::Prefix;
use crate::model::name::{MAX_LABEL, MAX_NAME};

pub(crate) type Parsed<T> = Result<T, String>;

pub(super) fn truth(text: &str) -> Parsed<bool> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Parsed<Duration> {
    let duration = humantime::parse_duration(text).map_err(|_| format!("{text:?} is no time such as 30s or 500ms"))?;
    if duration < least || duration > most {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        return Err(format!("{text} is not between {least} and {most}"));
    }
    Ok(duration)
}

pub(super) fn number(text: &str, least: u32, most: u32) -> Parsed<u32> {
    let number = text.parse::<u32>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{text:?} is no whole number between {least} and {most}"))
}

pub(crate) fn prefix(text: &str) -> Parsed<Prefix> {
    Prefix::parse(text).ok_or_else(|| format!("{text:?} is no key such as /services"))
}

pub(super) fn socket(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| format!("{text:?} is no address with a port, such as 127.0.0.1:5300 or [::1]:53"))
}

pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let bad = || format!("{text:?} is no network such as 10.0.0.0/8, nor an address");
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| bad())
}

pub(super) fn advertise(text: &str) -> Parsed<Advertise> {
    text.parse()
}

pub(super) fn forward(text: &str) -> Parsed<Forward> {
    if text == "system" {
        return Ok(Forward::System);
    }
    let bad = || format!("{text:?} is neither system nor an address, with or without a port");
    let server = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    server.map(Forward::Server).map_err(|_| bad())
}

/// A domain name, lower case and without its final dot.
pub(crate) fn domain(text: &str) -> Parsed<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label_fits = |label: &str| {
        let bytes = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        !label.is_empty() && label.len() <= MAX_LABEL && bytes
    };
    if name.len() <= MAX_NAME && name.split('.').all(label_fits) {
        return Ok(name);
    }
    Err(format!("{text:?} is no domain name such as services.internal"))
}

pub(crate) fn zone(text: &str) -> Parsed<(String, Prefix)> {
    let (name, key) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=PREFIX"))?;
    Ok((domain(name.trim())?, prefix(key.trim())?))
}

/// An etcd endpoint: scheme, host and port, nothing else.
pub(crate) fn endpoint(text: &str) -> Parsed<String> {
    let bad = || format!("{text:?} is no URL such as http://10.0.0.1:2379");
    let text_without_slash = text.strip_suffix('/').unwrap_or(text);
    let (scheme, rest) = match text_without_slash.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err(bad()),
        None => ("http", text_without_slash),
    };
    let clean = !rest.is_empty() && !rest.chars().any(|c| c.is_whitespace() || c.is_control() || "/@?#".contains(c));
    let after_host = rest.rsplit_once(']').map_or(rest, |(_, after)| after);
    let port = after_host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match (clean, port) {
        (true, None) => Ok(format!("{scheme}://{rest}:2379")),
        (true, Some(Ok(port))) if port > 0 => Ok(format!("{scheme}://{rest}")),
        _ => Err(bad()),
    }
}

pub(super) fn docker(text: &str) -> Parsed<String> {
    match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(text.to_owned()),
        Some(("tcp" | "http", host)) if !host.is_empty() => Ok(text.to_owned()),
        None if text.starts_with('/') => Ok(format!("unix://{text}")),
        _ => Err(format!("{text:?} is no engine address such as unix:///var/run/docker.sock or tcp://10.0.0.1:2375")),
    }
}

/// A node's name: it becomes part of keys and ids.
pub(super) fn node(text: &str) -> Parsed<String> {
    let clean = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if text.is_empty() || text.len() > MAX_NAME || !clean || text.starts_with('.') {
        return Err(format!("{text:?} is no host name"));
    }
    Ok(text.to_owned())
}
