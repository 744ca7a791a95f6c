//! Which servers are asked: those given, and those that this host uses, read again when they change.
//!
//! A host behind a stub resolver on loopback names only that in `resolv.conf`; its real uplinks stand in the stub's own
//! file. Whatever the files say, we never ask ourselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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
    /// What was given and what the files name.
    named: Vec<SocketAddr>,
    /// Those of them that are not ourselves; `None` before the first look.
    servers: Option<Vec<SocketAddr>>,
}

impl Uplinks {
    pub(super) fn new(given: Vec<Upstream>, own: Vec<SocketAddr>) -> Self {
        let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].map(PathBuf::from).to_vec();
        Self { given, own, files, seen: Vec::new(), looked: None, named: Vec::new(), servers: None }
    }

    /// The servers as they are now.
    pub(super) fn now(&mut self) -> &[SocketAddr] {
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if due {
            self.looked = Some(Instant::now());
            self.look();
        }
        self.servers.as_deref().unwrap_or_default()
    }

    /// Reads what changed. An address may come to this host later: each look tells anew which servers we are ourselves.
    fn look(&mut self) {
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let seen: Vec<_> =
            if self.given.contains(&Upstream::System) { self.files.iter().map(changed).collect() } else { vec![None] };
        if self.seen != seen {
            self.seen = seen;
            self.named = self.read();
        }
        let others = self.named.iter().filter(|server| !is_own(**server, &self.own));
        let servers: Vec<SocketAddr> = others.copied().collect();
        if self.servers.as_ref() != Some(&servers) {
            match servers.as_slice() {
                [] => tracing::warn!(named = ?self.named, "no other server to look foreign names up: SERVFAIL"),
                _ => tracing::info!(?servers, "forwarding foreign names"),
            }
        }
        self.servers = Some(servers);
    }

    /// Every server that is named, once.
    fn read(&self) -> Vec<SocketAddr> {
        let named = self.given.iter().flat_map(|given| match given {
            Upstream::Server(server) => vec![*server],
            Upstream::System => self.system(),
        });
        let mut known = std::collections::HashSet::new();
        named.filter(|server| known.insert(*server)).collect()
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
    let asked = reached(server.ip());
    own.iter().filter(|address| address.port() == server.port()).any(|address| match address.ip().to_canonical() {
        // A socket for all addresses of the newer family may take those of the older too.
        IpAddr::V6(all) if all.is_unspecified() => is_local(asked),
        IpAddr::V4(all) if all.is_unspecified() => asked.is_ipv4() && is_local(asked),
        address => address == asked,
    })
}

/// Where a packet to an address goes: to no address in particular is to this host itself.
fn reached(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// Whether an address is one of this host's: to itself it speaks from that very address. Whether it can be bound tells
/// nothing where the kernel lets any be bound (`ip_nonlocal_bind`).
fn is_local(address: IpAddr) -> bool {
    let any = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let speaks_from = || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(address, DNS_PORT)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    address.is_loopback() || speaks_from() == Some(address)
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
    fn a_server_is_ourselves_however_it_is_written() {
        for (server, own, is) in [
            ("127.0.0.1:53", "127.0.0.1:53", true),
            ("127.0.0.1:54", "127.0.0.1:53", false),
            ("127.0.0.2:53", "127.0.0.1:53", false),
            ("[::ffff:127.0.0.1]:53", "127.0.0.1:53", true),
            ("0.0.0.0:53", "127.0.0.1:53", true),
            ("[::]:53", "[::1]:53", true),
            ("0.0.0.0:53", "0.0.0.0:53", true),
            ("127.0.0.53:53", "0.0.0.0:53", true),
            ("127.0.0.1:53", "[::]:53", true),
            ("[::1]:53", "[::]:53", true),
            ("[::1]:53", "0.0.0.0:53", false),
            ("192.0.2.1:53", "0.0.0.0:53", false),
            ("192.0.2.1:53", "[::]:53", false),
        ] {
            assert_eq!(is_own(socket(server), &[socket(own)]), is, "{server} asked from {own}");
        }
    }

    #[test]
    fn an_own_address_of_this_host_is_ourselves_behind_all_addresses() {
        let out = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:53").map(|()| socket));
        // Without a way out this host has no address but loopback's.
        if let Ok(address) = out.and_then(|socket| socket.local_addr()) {
            assert!(is_own(SocketAddr::new(address.ip(), 53), &[socket("0.0.0.0:53")]));
        }
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
