//! Hears that the host is about to shut down, early enough to withdraw what it offers.
//!
//! logind's *delay* inhibitor is a file descriptor: as long as it is open, a shutdown that has been asked for waits (up
//! to logind's `InhibitDelayMaxSec`). It travels inside [`Shutdown::Coming`] as a [`Hold`]; dropping that lets the
//! shutdown go on. The bus may be away, come late or be restarted: then the watch begins again. A host without logind
//! is asked at SIGTERM by [`system_is_stopping`] instead.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// From a lost or missing bus to the next attempt.
const RETRY: Duration = Duration::from_secs(5);
/// How long the bus may take to answer one call.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// How long the question for the system's state may take: the agent is already stopping then.
const STATE_DEADLINE: Duration = Duration::from_millis(500);
const WHO: &str = "wharf";
const WHY: &str = "Withdraw this host's services before it goes down";

/// What the host has decided.
#[derive(Debug)]
pub enum Shutdown {
    /// It goes down as soon as the hold is dropped, or when logind's patience is over.
    Coming(Hold),
    /// It does not go down after all.
    CalledOff,
}

/// Keeps a shutdown waiting until it is dropped; empty when logind no longer waits for anyone.
#[derive(Debug, Default)]
pub struct Hold(#[allow(dead_code, reason = "it is there to be dropped")] Option<OwnedFd>);

/// Where the bus is.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Address of the bus; the system's own by default.
    pub bus: Option<String>,
}

/// The watch for shutdowns.
#[derive(Debug)]
pub struct ShutdownWatch {
    settings: Settings,
    announce: mpsc::Sender<Shutdown>,
}

/// Why the watch does not stand at the moment.
#[derive(Debug, thiserror::Error)]
enum Away {
    #[error("the system bus cannot be reached")]
    Bus(#[source] zbus::Error),
    #[error("logind does not answer")]
    Logind(#[source] zbus::Error),
    #[error("no answer within {CALL_DEADLINE:?}")]
    Late,
    #[error("the bus closed the connection")]
    Closed,
}

/// The watch itself never fails: a bus that is away is waited for.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownWatchError {
    /// Nobody listens to the announcements any more.
    #[error("nobody hears of a shutdown any more")]
    Unheard,
}

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Logind {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<zbus::OwnedFd>;

    #[zbus(signal)]
    fn prepare_for_shutdown(&self, start: bool) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_shutdown(&self) -> zbus::Result<bool>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
}

impl ShutdownWatch {
    /// A watch that announces on `announce`; a full channel makes it wait, no announcement is dropped.
    pub fn new(settings: Settings, announce: mpsc::Sender<Shutdown>) -> Self {
        Self { settings, announce }
    }

    /// Watches until told to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ShutdownWatchError> {
        let mut told = false;
        loop {
            let away = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                away = self.watch(&mut told) => away,
            };
            if self.announce.is_closed() {
                return Err(ShutdownWatchError::Unheard);
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!(
                    why = &away as &dyn std::error::Error,
                    "no logind: a shutdown will be noticed at SIGTERM only"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Holds an inhibitor and listens; ends when the bus does.
    async fn watch(&self, told: &mut bool) -> Away {
        match self.listen(told).await {
            Ok(()) => Away::Closed,
            Err(away) => away,
        }
    }

    async fn listen(&self, told: &mut bool) -> Result<(), Away> {
        let connection = in_time(CALL_DEADLINE, connect(self.settings.bus.as_deref())).await?.map_err(Away::Bus)?;
        let logind = in_time(CALL_DEADLINE, LogindProxy::new(&connection)).await?.map_err(Away::Logind)?;
        let mut signals = in_time(CALL_DEADLINE, logind.receive_prepare_for_shutdown()).await?.map_err(Away::Logind)?;
        let inhibited = inhibit(&logind).await;
        let under_way = in_time(CALL_DEADLINE, logind.preparing_for_shutdown()).await?.map_err(Away::Logind)?;
        let mut hold = match inhibited {
            Ok(hold) => Some(hold),
            // A shutdown that is under way already takes no new inhibitor.
            Err(_) if under_way => Some(Hold::default()),
            // Whoever runs as a user may listen, but not have a shutdown wait.
            Err(away) => return Err(away),
        };
        *told = false;
        tracing::info!("a shutdown of this host will wait until its services are withdrawn");
        if under_way {
            self.coming(&mut hold).await;
        }
        while let Some(signal) = signals.next().await {
            let Ok(arguments) = signal.args() else { continue };
            if arguments.start {
                self.coming(&mut hold).await;
            } else if hold.is_none() {
                hold = Some(inhibit(&logind).await?);
                let _ = self.announce.send(Shutdown::CalledOff).await;
            }
        }
        Ok(())
    }

    /// Hands the hold on. It is announced once, however often logind says so.
    async fn coming(&self, hold: &mut Option<Hold>) {
        if let Some(hold) = hold.take() {
            tracing::info!("this host is about to shut down");
            let _ = self.announce.send(Shutdown::Coming(hold)).await;
        }
    }
}

async fn connect(bus: Option<&str>) -> zbus::Result<zbus::Connection> {
    let builder = match bus {
        Some(address) => zbus::connection::Builder::address(address),
        None => zbus::connection::Builder::system(),
    };
    builder.method_timeout(CALL_DEADLINE).build().await
}

async fn inhibit(logind: &LogindProxy<'_>) -> Result<Hold, Away> {
    let fd = in_time(CALL_DEADLINE, logind.inhibit("shutdown", WHO, WHY, "delay")).await?.map_err(Away::Logind)?;
    Ok(Hold(Some(fd.into())))
}

async fn in_time<T>(deadline: Duration, work: impl Future<Output = T>) -> Result<T, Away> {
    tokio::time::timeout(deadline, work).await.map_err(|_| Away::Late)
}

/// Whether the whole system is on its way down, as its service manager says. Without one it is not.
pub async fn system_is_stopping() -> bool {
    let asked = tokio::time::timeout(STATE_DEADLINE, async {
        let connection = connect(None).await?;
        SystemdProxy::new(&connection).await?.system_state().await
    });
    match asked.await {
        Ok(Ok(state)) => state == "stopping",
        _ => state_without_bus().await.is_some_and(|state| state == "stopping"),
    }
}

/// `systemctl` reaches the service manager without a bus.
async fn state_without_bus() -> Option<String> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let ask = tokio::task::spawn_blocking(|| std::process::Command::new("systemctl").arg("is-system-running").output());
    let output = tokio::time::timeout(STATE_DEADLINE, ask).await.ok()?.ok()?.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_bus_the_watch_waits_and_stops_when_told() {
        let (announce, mut heard) = mpsc::channel(1);
        let bus = Some("unix:path=/nowhere/bus".to_owned());
        let stop = CancellationToken::new();
        let watch = tokio::spawn(ShutdownWatch::new(Settings { bus }, announce).run(stop.clone()));
        let quiet = tokio::time::timeout(10 * RETRY, heard.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        stop.cancel();
        assert!(matches!(watch.await, Ok(Ok(()))));
    }
}
