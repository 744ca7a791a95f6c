//! What systemd is told: ready, reloading, stopping, a line of status, and that the agent still moves.
//!
//! Without a notify socket every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The line to systemd.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notify;

impl Notify {
    /// Sockets are bound and answers are at hand.
    pub fn ready(self) {
        send(&[NotifyState::Ready]);
    }

    /// The configuration is being read again; `ready` ends it.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(_) => send(&[NotifyState::Reloading]),
        }
    }

    /// The agent is on its way out.
    pub fn stopping(self) {
        send(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`.
    pub fn status(self, text: &str) {
        send(&[NotifyState::Status(text)]);
    }

    /// The agent moves.
    pub fn alive(self) {
        send(&[NotifyState::Watchdog]);
    }

    /// What is guarded may go on for so long without another word; nothing is guarded when there is none. Longer than
    /// systemd's clock of a word counts is not watched.
    pub fn alive_for(self, left: Option<Duration>) {
        let micros = left.and_then(|left| u32::try_from(left.as_micros()).ok()).unwrap_or(0);
        send(&[NotifyState::WatchdogUsec(micros), NotifyState::Watchdog]);
    }

    /// How often `alive` is due, when systemd watches.
    pub fn watchdog_period(self) -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|timeout| timeout / 3)
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd does not listen");
    }
}
