//! Tells systemd that the agent moves, and only while it does.
//!
//! A timer of its own would beat on while everything else stands still. So each beat is earned: a question is asked of
//! the agent's own DNS socket, from outside as a client would, and of its HTTP through a door of its own. A crowd of
//! clients must not keep the watchdog out, so it takes no turn among them (by TCP it is known by its own address); the
//! very loops and handlers answer it that answer them. And no worker may be stuck in one turn ([`Pulses`]). Without a
//! watchdog in the unit nothing of this runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::dns::Insider;
use crate::host::clients::Door;
use crate::notify::Notify;
use crate::pulse::Pulses;

/// How often a UDP question is repeated within one check: a full socket buffer may swallow one.
const TRIES: u32 = 4;
/// The question's type: SOA, which every served zone has.
const SOA: u16 = 6;

/// Where the agent can be asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From one beat to the next; [`Notify::watchdog_period`].
    pub period: Duration,
    /// The addresses that DNS is answered on.
    pub dns: Vec<SocketAddr>,
    /// The zone to ask for.
    pub domain: String,
    /// Who is told where DNS is asked from.
    pub insider: Insider,
    /// The way to HTTP.
    pub http: Option<Door>,
}

/// The watchdog's keeper.
#[derive(Debug)]
pub struct Watchdog {
    settings: Settings,
    pulses: Pulses,
    notify: Notify,
}

/// What does not move.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Still {
    /// No answer over UDP.
    #[error("DNS over UDP does not answer on {0}")]
    Udp(SocketAddr),
    /// No answer over TCP.
    #[error("DNS over TCP does not answer on {0}")]
    Tcp(SocketAddr),
    /// No answer over HTTP.
    #[error("HTTP does not answer")]
    Http,
    /// Workers in one turn for too long.
    #[error("stuck: {}", .0.join(", "))]
    Stuck(Vec<&'static str>),
}

/// It never ends on its own.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {}

impl Watchdog {
    /// A keeper that asks where `settings` say.
    pub fn new(settings: Settings, pulses: Pulses, notify: Notify) -> Self {
        Self { settings, pulses, notify }
    }

    /// Beats until told to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WatchdogError> {
        let mut ticks = tokio::time::interval(self.settings.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut moved = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let found = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                found = check(&self.settings, &self.pulses) => found,
            };
            match found {
                Ok(()) => self.notify.alive(),
                Err(ref still) if moved => {
                    tracing::error!(why = %still, "the agent does not move: systemd will restart it unless that ends");
                }
                Err(_) => {}
            }
            moved = found.is_ok();
        }
    }
}

/// Asks everything once, within one period.
async fn check(settings: &Settings, pulses: &Pulses) -> Result<(), Still> {
    let stuck = pulses.stuck(settings.period);
    if !stuck.is_empty() {
        return Err(Still::Stuck(stuck));
    }
    let deadline = settings.period;
    let dns = reachable(&settings.dns);
    let udp = async {
        let Some(at) = dns else { return Ok(()) };
        let asked = timeout(deadline, ask_udp(at, &settings.domain, deadline / TRIES)).await;
        if matches!(asked, Ok(Ok(()))) { Ok(()) } else { Err(Still::Udp(at)) }
    };
    let tcp = async {
        let Some(at) = dns else { return Ok(()) };
        let asked = timeout(deadline, ask_tcp(at, &settings.domain, &settings.insider)).await;
        if matches!(asked, Ok(Ok(()))) { Ok(()) } else { Err(Still::Tcp(at)) }
    };
    let http = async {
        let Some(door) = &settings.http else { return Ok(()) };
        let asked = timeout(deadline, ask_http(door)).await;
        if matches!(asked, Ok(Ok(()))) { Ok(()) } else { Err(Still::Http) }
    };
    tokio::try_join!(udp, tcp, http).map(|_| ())
}

/// An address that is this host's own at the moment, loopback first. A socket may be bound to one that is not here yet
/// (`FreeBind`); a question to it would leave the host.
fn reachable(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let mut own: Vec<SocketAddr> = addresses.iter().copied().map(local).collect();
    own.sort_by_key(|at| !at.ip().is_loopback());
    own.into_iter().find(|at| std::net::UdpSocket::bind((at.ip(), 0)).is_ok())
}

/// A wildcard is asked on loopback.
fn local(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, at.port())
}

async fn ask_udp(at: SocketAddr, domain: &str, patience: Duration) -> std::io::Result<()> {
    let socket = UdpSocket::bind((at.ip(), 0)).await?;
    socket.connect(at).await?;
    let id = rand::random();
    let question = question(id, domain);
    let mut reply = [0; 512];
    loop {
        socket.send(&question).await?;
        let answered = async {
            loop {
                let length = socket.recv(&mut reply).await?;
                if answers(&reply[..length], id) {
                    return Ok(());
                }
            }
        };
        if let Ok(done) = timeout(patience, answered).await {
            return done;
        }
    }
}

async fn ask_tcp(at: SocketAddr, domain: &str, insider: &Insider) -> std::io::Result<()> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(at.ip(), 0))?;
    insider.asks_from(socket.local_addr()?);
    let mut stream = socket.connect(at).await?;
    let id = rand::random();
    let question = question(id, domain);
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    if answers(&reply, id) { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

async fn ask_http(door: &Door) -> std::io::Result<()> {
    let mut stream = door.enter().await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    // Whatever it says of the cluster, it has been said by a loop that turns.
    if status.starts_with(b"HTTP/1.1 ") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// A question without any extras (RFC 1035, 4.1).
fn question(id: u16, domain: &str) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in domain.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        packet.push(u8::try_from(label.len()).unwrap_or(63));
        packet.extend(label);
    }
    packet.push(0);
    packet.extend(SOA.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

/// Any reply to this very question will do, a refusal too: a loop that turns has sent it.
fn answers(reply: &[u8], id: u16) -> bool {
    reply.len() >= 12 && reply[..2] == id.to_be_bytes() && reply[2] & 0x80 != 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::host::clients::{Bounds, Clients, Counts, Listener};

    const PERIOD: Duration = Duration::from_millis(300);

    /// A server that says yes to whatever it is asked, by UDP and TCP, as long as `moving` tells it to.
    async fn echo() -> (SocketAddr, tokio::task::JoinHandle<()>, tokio::task::JoinHandle<()>) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(at).await.unwrap();
        let by_udp = tokio::spawn(async move {
            let mut packet = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut packet).await.unwrap();
                packet[2] |= 0x80;
                udp.send_to(&packet[..length], from).await.unwrap();
            }
        });
        let by_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut packet).await.unwrap();
                packet[2] |= 0x80;
                stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
                stream.write_all(&packet).await.unwrap();
            }
        });
        (at, by_udp, by_tcp)
    }

    fn settings(dns: SocketAddr) -> Settings {
        Settings {
            period: PERIOD,
            dns: vec![dns],
            domain: "services.internal".into(),
            insider: Insider::default(),
            http: None,
        }
    }

    #[tokio::test]
    async fn a_beat_is_earned_by_answers_over_udp_and_tcp() {
        let (at, by_udp, by_tcp) = echo().await;
        let pulses = Pulses::default();
        assert_eq!(check(&settings(at), &pulses).await, Ok(()));
        by_udp.abort();
        let _ = by_udp.await;
        assert_eq!(check(&settings(at), &pulses).await, Err(Still::Udp(at)));
        by_tcp.abort();
    }

    #[tokio::test]
    async fn a_loop_that_does_not_answer_earns_none() {
        let (at, by_udp, by_tcp) = echo().await;
        by_tcp.abort();
        let _ = by_tcp.await;
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let bounds = Bounds { clients: 1, drain: PERIOD };
        let (_never_served, door) = Clients::new(listener, bounds, Counts::default());
        let quiet = Settings { http: Some(door), dns: vec![], ..settings(at) };
        assert_eq!(check(&settings(at), &Pulses::default()).await, Err(Still::Tcp(at)));
        assert_eq!(check(&quiet, &Pulses::default()).await, Err(Still::Http));
        by_udp.abort();
    }

    #[test]
    fn loopback_is_asked_first_and_addresses_of_others_are_not() {
        let addresses = ["192.0.2.53:53", "0.0.0.0:5300"].map(|at| at.parse().unwrap());
        assert_eq!(reachable(&addresses), Some("127.0.0.1:5300".parse().unwrap()));
        assert_eq!(reachable(&addresses[..1]), None);
    }
}
