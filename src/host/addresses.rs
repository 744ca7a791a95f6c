//! The host's addresses and the source addresses of its default routes, followed as they change.
//!
//! The source is what the kernel would put into a packet to a documentation address: a connected UDP socket tells,
//! without sending anything. Addresses are read again every few seconds; there is no cheaper way that works in every
//! namespace without privileges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::advertise::HostAddresses;

/// Follows the host's addresses.
#[derive(Debug)]
pub struct Addresses {
    every: Duration,
    told: watch::Sender<Arc<HostAddresses>>,
}

impl Addresses {
    /// Reads them once; [`Self::run`] reads them again and again.
    pub fn new(every: Duration) -> (Self, watch::Receiver<Arc<HostAddresses>>) {
        let (told, addresses) = watch::channel(Arc::new(read_addresses()));
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
            let now = read_addresses();
            self.told.send_if_modified(|before| {
                let changed = **before != now;
                if changed {
                    *before = Arc::new(now);
                }
                changed
            });
        }
    }
}

/// The host's addresses now; what cannot be read is left out.
pub fn read_addresses() -> HostAddresses {
    let source = |documentation: SocketAddr, local: SocketAddr| {
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(documentation).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let v4 = source(([192, 0, 2, 1], 9).into(), (Ipv4Addr::UNSPECIFIED, 0).into());
    let six: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let v6 = source((six, 9).into(), (Ipv6Addr::UNSPECIFIED, 0).into());
    HostAddresses {
        interfaces: interfaces(),
        source_v4: v4.and_then(|ip| if let IpAddr::V4(v4) = ip { Some(v4) } else { None }),
        source_v6: v6.and_then(|ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None }),
    }
}

fn interfaces() -> Vec<(String, IpAddr)> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    all.into_iter().map(|one| (one.name.clone(), one.ip())).collect()
}
