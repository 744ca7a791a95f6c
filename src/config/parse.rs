//! Readers for the texts that settings are written in. Each error says what would have been right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Forward;
use crate::model::offer::advertise::{Advertise, unfit};
use crate::model::words::key::Prefix;
use crate::model::words::name::{Label, MAX_LABEL, MAX_NAME, ServiceName};

pub(crate) type Parsed<T> = Result<T, String>;

/// What is wrong with a table, by key.
pub(super) type Problems = Vec<(&'static str, String)>;

/// A key's value, where it is given and right; what is wrong with it is noted.
pub(super) fn given<T>(
    key: &'static str,
    text: Option<&str>,
    read: impl Fn(&str) -> Parsed<T>,
    problems: &mut Problems,
) -> Option<T> {
    read(text?).map_err(|what| problems.push((key, what))).ok()
}

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
    let bad = |_| format!("{text:?} is no address with a port, such as 127.0.0.1:5300 or [::1]:53");
    let address: SocketAddr = text.parse().map_err(bad)?;
    match (unfit(address.ip()), address) {
        (Some("multicast"), _) => Err(format!("{text:?} is multicast: nothing can be served on it")),
        (Some("link-local"), SocketAddr::V6(six)) if six.scope_id() == 0 => {
            Err(format!("{text:?} needs its interface: write [address%number]:port"))
        }
        _ => Ok(address),
    }
}

/// A path; an empty one is a mistake wherever one is wanted.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() || text.contains('\0') { Err(format!("{text:?} is no path")) } else { Ok(PathBuf::from(text)) }
}

/// A path at which a unix socket can be bound: the kernel takes some 100 bytes (unix(7)), and a name beside it comes
/// first.
pub(super) fn unix_socket(text: &str) -> Parsed<PathBuf> {
    const LONGEST: usize = 90;
    let path = path(text)?;
    if text.len() > LONGEST {
        return Err(format!("{text:?} is longer than the {LONGEST} bytes that a socket's path may have"));
    }
    if path.file_name().is_none() || text.ends_with('/') {
        return Err(format!("{text:?} names a directory, not a socket in it"));
    }
    Ok(path)
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
    let server: SocketAddr = server.map_err(|_| bad())?;
    let asks_nobody = matches!(unfit(server.ip()), Some("unspecified" | "multicast")) || server.port() == 0;
    if asks_nobody { Err(format!("{text:?} is no address that can be asked")) } else { Ok(Forward::Server(server)) }
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
    let bad = || format!("{text:?} is no URL such as http://10.0.0.1:2379 or srv://example.com");
    let text_without_slash = text.strip_suffix('/').unwrap_or(text);
    if let Some(domain) = text_without_slash.strip_prefix("srv://") {
        let is_name = ServiceName::parse(&domain.to_ascii_lowercase()).is_some() && domain.parse::<IpAddr>().is_err();
        return if is_name { Ok(format!("srv://{domain}")) } else { Err(bad()) };
    }
    let (scheme, rest) = match text_without_slash.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err(bad()),
        None => ("http", text_without_slash),
    };
    let (host, port) = authority(rest).ok_or_else(bad)?;
    Ok(format!("{scheme}://{host}:{}", port.unwrap_or(2379)))
}

/// Host and port of a URL, the host as it is written there: a name, an address, an IPv6 address in brackets.
fn authority(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        None => None,
        Some(port) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            Some(port.parse::<u16>().ok().filter(|port| digits && *port > 0)?)
        }
    };
    let inside = host.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
    let fits = match inside {
        Some(inside) => inside?.parse::<Ipv6Addr>().is_ok(),
        None => host_fits(host),
    };
    fits.then_some((host, port))
}

/// Whether it is a host's name or IPv4 address; what merely looks like an address is a slip.
fn host_fits(host: &str) -> bool {
    let like_address = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if like_address { host.parse::<Ipv4Addr>().is_ok() } else { domain(host).is_ok() }
}

/// The engine's address, or `none` for a host without one.
pub(super) fn docker(text: &str) -> Parsed<String> {
    match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(text.to_owned()),
        Some(("tcp" | "http", host)) if authority(host.trim_end_matches('/')).is_some() => Ok(text.to_owned()),
        None if text == "none" => Ok(text.to_owned()),
        None if text.starts_with('/') => Ok(format!("unix://{text}")),
        _ => Err(format!(
            "{text:?} is no engine address such as unix:///var/run/docker.sock or tcp://10.0.0.1:2375, nor \"none\""
        )),
    }
}

/// A node's name: it becomes part of keys and ids.
pub(super) fn node(text: &str) -> Parsed<String> {
    let clean = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if text.len() > MAX_NAME || !clean || text.starts_with('.') || Label::slug(text).is_none() {
        return Err(format!("{text:?} is no host name"));
    }
    Ok(text.to_owned())
}
