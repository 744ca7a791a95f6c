//! Which servers are asked: those given, and those that this host uses, read again when they change.
//!
//! A host behind a stub resolver on loopback names only that in `resolv.conf`; its real uplinks stand in the stub's own
//! file. Whatever the files say, we never ask ourselves.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::Upstream;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
const DNS_PORT: u16 = 53;

/// The servers to ask.
#[derive(Debug)]
pub(super) struct Uplinks {
    given: Vec<Upstream>,
    own: Vec<SocketAddr>,
    /// The host's file, then those of stubs.
    files: Vec<PathBuf>,
    seen: Vec<Option<SystemTime>>,
    looked: Option<Instant>,
    servers: Vec<SocketAddr>,
}

impl Uplinks {
    pub(super) fn new(given: Vec<Upstream>, own: Vec<SocketAddr>) -> Self {
        let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].map(PathBuf::from).to_vec();
        Self { given, own, files, seen: Vec::new(), looked: None, servers: Vec::new() }
    }

    /// The servers as they are now.
    pub(super) fn now(&mut self) -> &[SocketAddr] {
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if due {
            self.looked = Some(Instant::now());
            self.look();
        }
        &self.servers
    }

    fn look(&mut self) {
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let seen: Vec<_> =
            if self.given.contains(&Upstream::System) { self.files.iter().map(changed).collect() } else { vec![None] };
        if self.seen == seen {
            return;
        }
        self.seen = seen;
        let mut servers: Vec<SocketAddr> = Vec::new();
        for given in &self.given {
            match given {
                Upstream::Server(server) => servers.push(*server),
                Upstream::System => servers.extend(self.system()),
            }
        }
        servers.retain(|server| !is_own(*server, &self.own));
        let mut known = std::collections::HashSet::new();
        servers.retain(|server| known.insert(*server));
        if servers != self.servers {
            tracing::info!(?servers, "forwarding foreign names");
        }
        self.servers = servers;
    }

    fn system(&self) -> Vec<SocketAddr> {
        let texts = self.files.iter().filter_map(|path| std::fs::read_to_string(path).ok());
        let listed: Vec<Vec<SocketAddr>> = texts.map(|text| servers(&text)).collect();
        let real = listed.iter().find(|servers| servers.iter().any(|server| !server.ip().is_loopback()));
        real.or(listed.first()).cloned().unwrap_or_default()
    }
}

/// The servers that a `resolv.conf` names.
fn servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| address(rest.trim())).map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

fn address(text: &str) -> Option<IpAddr> {
    text.split(['%', ' ', '\t', '#', ';']).next()?.parse().ok()
}

/// Whether asking this server would be asking ourselves.
fn is_own(server: SocketAddr, own: &[SocketAddr]) -> bool {
    own.iter().any(|address| {
        let everywhere = address.ip().is_unspecified() && is_local(server.ip());
        address.port() == server.port() && (address.ip() == server.ip() || everywhere)
    })
}

/// Whether an address is one of this host's: only those can be bound.
fn is_local(address: IpAddr) -> bool {
    address.is_unspecified() || UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn uplinks(files: &[&str], own: &str) -> (tempfile::TempDir, Uplinks) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut uplinks = Uplinks::new(vec![Upstream::System], vec![socket(own)]);
        uplinks.files = (0..files.len()).map(|number| dir.path().join(number.to_string())).collect();
        for (path, text) in uplinks.files.iter().zip(files) {
            std::fs::write(path, text).expect("written");
        }
        (dir, uplinks)
    }

    #[test]
    fn the_hosts_servers_are_asked() {
        let text =
            "# made by hand\nsearch lan\nnameserver 192.0.2.53\nnameserver 2001:db8::53%eth0 # spare\nnameserver x\n";
        let (_dir, mut uplinks) = uplinks(&[text], "127.0.0.1:5300");
        assert_eq!(uplinks.now(), [socket("192.0.2.53:53"), socket("[2001:db8::53]:53")]);
    }

    #[test]
    fn behind_a_stub_its_own_uplinks_are_asked() {
        let (_dir, mut uplinks) = uplinks(&["nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n"], "127.0.0.1:5300");
        assert_eq!(uplinks.now(), [socket("192.0.2.1:53")]);
    }

    #[test]
    fn we_never_ask_ourselves() {
        let (_dir, mut one) = uplinks(&["nameserver 127.0.0.1\nnameserver 192.0.2.1\n"], "127.0.0.1:53");
        assert_eq!(one.now(), [socket("192.0.2.1:53")]);
        let (_dir, mut wildcard) = uplinks(&["nameserver 127.0.0.1\nnameserver 192.0.2.1\n"], "0.0.0.0:53");
        assert_eq!(wildcard.now(), [socket("192.0.2.1:53")]);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let (_dir, mut uplinks) = uplinks(&["nameserver 192.0.2.1\n"], "127.0.0.1:53");
        assert_eq!(uplinks.now(), [socket("192.0.2.1:53")]);
        std::fs::write(&uplinks.files[0], "nameserver 192.0.2.2\n").expect("written");
        let file = std::fs::File::options().write(true).open(&uplinks.files[0]).expect("there");
        file.set_modified(SystemTime::now() + Duration::from_secs(5)).expect("set");
        uplinks.looked = None;
        assert_eq!(uplinks.now(), [socket("192.0.2.2:53")]);
    }
}
