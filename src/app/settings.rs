//! Reads the settings from where they are: the file, the environment, the host's name; and the files that they name.
//!
//! `wharf agent` and `wharf check-config` both begin here, so that what the one calls valid the other starts with.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::cli::AgentArgs;
use crate::config::{AutodiscoveryConfig, Config, Forward, Problem, Problems, Surroundings, TopologyConfig};
use crate::docker;
use crate::host::Secrets;

/// Reads everything anew and joins it; all problems at once.
pub(super) fn read(args: &AgentArgs) -> Result<Config, Problems> {
    let config = join(args)?;
    let problems = on_this_host(&config);
    if problems.is_empty() { Ok(config) } else { Err(Problems::new(problems)) }
}

/// The settings that run with those of `new` that can be changed while they do.
pub(super) fn taking(running: &Config, new: &Config, live: &[&str]) -> Result<Config, Problems> {
    running.taking(new, live, &surroundings())
}

/// What stands against these settings on this host: files that are not there, addresses of others.
fn on_this_host(config: &Config) -> Vec<Problem> {
    let mut found: Vec<(&str, String)> = Vec::new();
    if let Some(engine) = config.offer.engine()
        && let Err(bad) = engine.parse::<docker::Endpoint>()
    {
        found.push(("docker", bad.to_string()));
    }
    if let Some(etcd) = &config.store.etcd {
        let (certificate, key) = etcd.identity.as_ref().map(|(one, other)| (one, other)).unzip();
        let password = etcd.user.as_ref().map(|(_, file)| file);
        let pem = |file: Option<&PathBuf>, kind| file.and_then(|file| unusable(file, Some(kind)));
        found.extend(pem(etcd.ca.as_ref(), CERTIFICATE).map(|what| ("etcd-ca", what)));
        found.extend(pem(certificate, CERTIFICATE).map(|what| ("etcd-cert", what)));
        found.extend(pem(key, KEY).map(|what| ("etcd-key", what)));
        found.extend(password.and_then(|file| unusable(file, None)).map(|what| ("etcd-password-file", what)));
    }
    if let Some(file) = &config.http.token_file {
        found.extend(unusable(file, None).map(|what| ("http-token-file", what)));
    }
    if let Some(sentinel) = &config.sentinel {
        let file = sentinel.password_file.as_ref();
        found.extend(file.and_then(|file| unusable(file, None)).map(|what| ("sentinel-password-file", what)));
        let bound = UdpSocket::bind((sentinel.listen.ip(), 0));
        if bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
            found.push(("sentinel", format!("{} is no address of this host", sentinel.listen.ip())));
        }
    }
    if let Some(socket) = &config.http.socket {
        found.extend(no_room(socket).map(|what| ("http-socket", what)));
    }
    if UdpSocket::bind((config.http.listen.ip(), 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
        found.push(("http", format!("{} is no address of this host", config.http.listen.ip())));
    }
    if !config.dns.forward.is_empty() && config.dns.forward.iter().all(|to| is_own(to, &config.dns.listen)) {
        found.push(("forward", "these are addresses of this host on which the agent itself answers".to_owned()));
    }
    if let Some(exhibitor) = &config.exhibitor
        && UdpSocket::bind((exhibitor.listen.ip(), 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
    {
        found.push(("exhibitor", format!("{} is no address of this host", exhibitor.listen.ip())));
    }
    for (place, table) in config.autodiscoveries.iter().enumerate() {
        found.extend(unheard(table).map(|what| ("autodiscovery", format!("table {}: {what}", place + 1))));
    }
    for (place, table) in config.topologies.iter().enumerate() {
        found.extend(hindered(config, table).map(|what| ("topology", format!("table {}: {what}", place + 1))));
    }
    found.into_iter().map(|(key, what)| config.problem(key, what)).collect()
}

/// What stands against a `[[topology]]` table here.
fn hindered(config: &Config, table: &TopologyConfig) -> Option<String> {
    if let Some(name) = &table.password_file
        && let Err(error) = Secrets::new(config.probe.secrets.clone()).read_now(Path::new(name))
    {
        return Some(format!("password-file {name}: {error}"));
    }
    let seed = table.seed_http?;
    let is_strange = |error: std::io::Error| error.kind() == ErrorKind::AddrNotAvailable;
    UdpSocket::bind((seed.ip(), 0)).is_err_and(is_strange).then(|| format!("{} is no address of this host", seed.ip()))
}

/// What stands against an `[[autodiscovery]]` table here.
fn unheard(table: &AutodiscoveryConfig) -> Option<String> {
    if let Some((certificate, key)) = &table.tls
        && let Some(what) = unusable(certificate, Some(CERTIFICATE)).or_else(|| unusable(key, Some(KEY)))
    {
        return Some(what);
    }
    let is_strange = |error: std::io::Error| error.kind() == ErrorKind::AddrNotAvailable;
    let bound = UdpSocket::bind((table.listen.ip(), 0));
    bound.is_err_and(is_strange).then(|| format!("{} is no address of this host", table.listen.ip()))
}

/// Whether a question forwarded there comes back to the agent, which answers on every address of this host.
fn is_own(to: &Forward, listen: &[SocketAddr]) -> bool {
    let Forward::Server(server) = to else { return false };
    let everywhere = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == server.port();
    listen.iter().any(everywhere) && UdpSocket::bind((server.ip(), 0)).is_ok()
}

const CERTIFICATE: &str = "CERTIFICATE-----";
const KEY: &str = "PRIVATE KEY-----";

/// Why a file is of no use: it cannot be read, holds nothing, or no PEM of this kind.
fn unusable(file: &Path, pem: Option<&str>) -> Option<String> {
    let name = file.display();
    match fs::read(file) {
        Err(error) => Some(format!("{name} cannot be read: {error}")),
        Ok(bytes) if bytes.trim_ascii().is_empty() => Some(format!("{name} is empty")),
        Ok(bytes) => {
            let kind = pem.filter(|kind| !bytes.windows(kind.len()).any(|text| text == kind.as_bytes()))?;
            Some(format!("{name} holds no {}", kind.trim_end_matches('-').to_ascii_lowercase()))
        }
    }
}

/// Why no socket can be made there.
fn no_room(socket: &Path) -> Option<String> {
    let name = socket.display();
    let folder = socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The service manager makes the folders below /run (RuntimeDirectory=) when it starts the agent.
    if !folder.is_dir() && !folder.starts_with("/run") && !folder.starts_with("/var/run") {
        return Some(format!("{name} cannot be made: {} is no directory", folder.display()));
    }
    let taken = fs::symlink_metadata(socket).is_ok_and(|there| !there.file_type().is_socket());
    taken.then(|| format!("{name} is there already and is no socket"))
}

/// Reads and joins it, without a look at this host.
pub(super) fn join(args: &AgentArgs) -> Result<Config, Problems> {
    let file = args.config.as_deref().map(|path| (path.display().to_string(), fs::read_to_string(path)));
    match file {
        None => Config::load(&args.settings, None, &surroundings()),
        Some((name, Ok(text))) => Config::load(&args.settings, Some((&name, &text)), &surroundings()),
        Some((name, Err(error))) => {
            let mut problems = vec![Problem { at: name, what: error.to_string() }];
            let flags = Config::load(&args.settings, None, &surroundings());
            problems.extend(flags.err().map_or_else(Vec::new, |more| more.0));
            Err(Problems::new(problems))
        }
    }
}

/// The host as the defaults see it.
fn surroundings() -> Surroundings {
    Surroundings {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        contained: contained(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    }
}

/// In a container, and on a network of its own: its uplink is one end of a pair whose other end is elsewhere.
fn contained() -> bool {
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists());
    marked && uplink().is_some_and(|interface| is_pair(&interface))
}

/// The interface of the default route.
fn uplink() -> Option<String> {
    let routes = fs::read_to_string("/proc/net/route").ok()?;
    let default = routes.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    default
        .filter(|fields| fields.get(1) == Some(&"00000000"))
        .find_map(|fields| fields.first().map(ToString::to_string))
}

fn is_pair(interface: &str) -> bool {
    let number = |name: &str| fs::read_to_string(format!("/sys/class/net/{interface}/{name}")).ok();
    matches!((number("iflink"), number("ifindex")), (Some(peer), Some(own)) if peer.trim() != own.trim())
}
