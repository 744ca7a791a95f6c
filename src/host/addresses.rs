//! The host's addresses and the source addresses of its default routes, followed as they change.
//!
//! The source is what the kernel would put into a packet to a documentation address: a connected UDP socket tells,
//! without sending anything. Addresses are read again every few seconds; there is no cheaper way that works in every
//! namespace without privileges. What cannot be read (no descriptor is left, netlink fails) is told apart from what is
//! not there, and stays as it was.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::offer::advertise::{AddressLook, HostAddresses};

/// Follows the host's addresses.
#[derive(Debug)]
pub struct Addresses {
    every: Duration,
    told: watch::Sender<Arc<HostAddresses>>,
}

impl Addresses {
    /// Reads them once, going on from what was known before; [`Self::run`] reads them again and again.
    pub fn new(every: Duration, before: &HostAddresses) -> (Self, watch::Receiver<Arc<HostAddresses>>) {
        let first = before.after(look(), SystemTime::now());
        for address in &first.remembered {
            tracing::warn!(%address, "no default route tells this host's address, going on with the one of before");
        }
        let (told, addresses) = watch::channel(Arc::new(first));
        (Self { every, told }, addresses)
    }

    /// Follows until told to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut every = tokio::time::interval(self.every);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = every.tick() => {}
            }
            let look = look();
            self.told.send_if_modified(|before| {
                let now = before.after(look, SystemTime::now());
                let changed = **before != now;
                if changed {
                    say(before, &now);
                    *before = Arc::new(now);
                }
                changed
            });
        }
    }
}

fn say(before: &HostAddresses, now: &HostAddresses) {
    match (before.unread_since, now.unread_since) {
        (None, Some(_)) => tracing::warn!("this host's addresses cannot be read, what was known of them stands"),
        (Some(_), None) => tracing::info!("this host's addresses can be read again"),
        _ => {}
    }
}

/// The host's addresses as far as they can be read now, with nothing known of before.
pub fn read_addresses() -> HostAddresses {
    HostAddresses::default().after(look(), SystemTime::now())
}

fn look() -> AddressLook {
    let six = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let v4 = source(([192, 0, 2, 1], 9).into(), (Ipv4Addr::UNSPECIFIED, 0).into());
    let v6 = source((six, 9).into(), (Ipv6Addr::UNSPECIFIED, 0).into());
    AddressLook {
        interfaces: interfaces().ok(),
        source_v4: v4.ok().map(|ip| ip.and_then(|ip| if let IpAddr::V4(v4) = ip { Some(v4) } else { None })),
        source_v6: v6.ok().map(|ip| ip.and_then(|ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None })),
    }
}

/// The address that a packet to `documentation` would come from; none without a route.
fn source(documentation: SocketAddr, local: SocketAddr) -> io::Result<Option<IpAddr>> {
    let asked = UdpSocket::bind(local).and_then(|socket| {
        socket.connect(documentation)?;
        socket.local_addr()
    });
    match asked {
        Ok(address) => Ok(Some(address.ip())),
        Err(error) if says_no_route(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the kernel says that there is no way, or none of this family. Prohibiting and black-holing routes have words
/// of their own; any other error is of the asking and says nothing of routes.
fn says_no_route(error: &io::Error) -> bool {
    const WORDS: [Errno; 8] = [
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
        Errno::NETDOWN,
        Errno::ADDRNOTAVAIL,
        Errno::ACCESS,
        Errno::INVAL,
        Errno::AFNOSUPPORT,
        Errno::NODEV,
    ];
    Errno::from_io_error(error).is_some_and(|errno| WORDS.contains(&errno))
}

fn interfaces() -> io::Result<Vec<(String, IpAddr)>> {
    let all = if_addrs::get_if_addrs()?;
    Ok(all.into_iter().map(|one| (one.name.clone(), one.ip())).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_told_apart_from_no_descriptor() {
        let is = |errno: Errno| says_no_route(&io::Error::from(errno));
        assert!(is(Errno::NETUNREACH) && is(Errno::AFNOSUPPORT) && is(Errno::ACCESS));
        assert!(!is(Errno::MFILE) && !is(Errno::NFILE) && !is(Errno::NOBUFS) && !is(Errno::NOMEM) && !is(Errno::PERM));
    }
}
