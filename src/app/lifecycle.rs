//! From the first bind to the last goodbye: signals, reload, stop with a deadline.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::settings;
use crate::cli::AgentArgs;
use crate::config::Config;
use crate::notify::Notify;
use crate::supervisor::Supervisor;
use crate::telemetry::LogFilter;

/// How long each half may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// What a second signal exits with, as a shell would show it.
const ABORTED: i32 = 130;

/// The signals that mean something here.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What ends or interrupts the agent's life.
enum Told {
    Stop(&'static str),
    Reload,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
