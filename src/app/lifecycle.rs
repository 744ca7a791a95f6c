//! From the first bind to the last goodbye: signals, reload, stop with a deadline.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::build::{self, Agent};
use super::{ABORTED, WRONG_USE};
use super::{autodiscovery, proxies, settings, shutdown, translate};
use crate::cli::AgentArgs;
use crate::config::Config;
use crate::host::sockets::Passed;
use crate::notify::Notify;
use crate::supervisor::{Supervisor, WorkerEnd};
use crate::telemetry::{LogFilter, whole};

/// How long each half may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// What a stop may take beyond the deadlines of its steps.
const AFTER_STOP: Duration = Duration::from_secs(3);

/// The settings that a reload applies.
const LIVE: [&str; 13] = [
    "address-label",
    "allow-name",
    "autodiscovery",
    "checks",
    "explicit",
    "log",
    "network",
    "ordinal",
    "proxy",
    "render",
    "secret",
    "service",
    "tags",
];

/// The signals that mean something here.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What ends or interrupts the agent's life.
pub(super) enum Told {
    Stop(&'static str),
    Reload,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

/// Lives until told to stop, or until a worker ends.
pub(super) async fn run(args: &AgentArgs, config: Config, passed: Passed, log: &LogFilter) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be listened to");
            return ExitCode::FAILURE;
        }
    };
    let mut supervisor = Supervisor::default();
    let agent = match build::build(&config, passed, &mut supervisor).await {
        Ok(agent) => agent,
        Err(error) => {
            tracing::error!(error = whole(&error), "the agent cannot start");
            supervisor.stop(STOP_DEADLINE).await;
            return if error.is_wrong_use() { ExitCode::from(WRONG_USE) } else { ExitCode::FAILURE };
        }
    };
    let mut running = config;
    let code = loop {
        tokio::select! {
            end = supervisor.first_end() => {
                tracing::error!(error = whole(&end), "a worker ended, so does the agent");
                break ExitCode::FAILURE;
            }
            told = signals.next() => match told {
                Told::Reload => running = reload(args, running, &agent, log),
                Told::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    break ExitCode::SUCCESS;
                }
            },
        }
    };
    Notify.stopping();
    let patience = STOP_DEADLINE + proxies::drain(&running);
    supervisor.end_at_the_latest(shutdown::LEAVE + running.dns.ttl + STOP_DEADLINE + patience + AFTER_STOP);
    tokio::select! {
        () = agent.leave_with_host(running.dns.ttl) => {}
        () = stopped_twice(&mut signals) => return ExitCode::from(ABORTED),
    }
    tokio::select! {
        ends = supervisor.stop(patience) => report(&ends, code),
        () = stopped_twice(&mut signals) => ExitCode::from(ABORTED),
    }
}

/// Says which workers did not stop well; one that hangs makes the stop a failure.
pub(super) fn report(ends: &[WorkerEnd], code: ExitCode) -> ExitCode {
    for end in ends {
        tracing::error!(error = whole(end), "a worker did not stop well");
    }
    if ends.iter().any(|end| matches!(end, WorkerEnd::Hangs(_))) { ExitCode::FAILURE } else { code }
}

/// Reads the settings again, and takes what can be taken while the agent runs. Bad ones are told and change nothing.
/// What is returned is what runs, not what was read: what waits for a restart is named each time until it comes.
fn reload(args: &AgentArgs, running: Config, agent: &Agent, log: &LogFilter) -> Config {
    Notify.reloading();
    let taken = settings::read(args).and_then(|read| Ok((settings::taking(&running, &read, &LIVE)?, read)));
    let running = match taken {
        Err(problems) => {
            for problem in &problems.0 {
                tracing::error!(at = problem.at, what = problem.what, "reload refused, settings stay as they were");
            }
            running
        }
        Ok((now, read)) => {
            tracing::info!(applied = ?now.changed_keys(&running), "settings read again");
            let waiting = read.changed_keys(&now);
            if !waiting.is_empty() {
                tracing::warn!(keys = ?waiting, "these settings wait for a restart");
            }
            log.set(&now.log.filter);
            agent.inventory.send_replace(Arc::new(translate::inventory(&now)));
            agent.proxies.send_replace(Arc::new(proxies::of_agent(&now)));
            agent.autodiscoveries.send_replace(Arc::new(autodiscovery::settings(&now, agent.keeps)));
            agent.roles.send_replace(Arc::new(now.ordinals.clone()));
            now
        }
    };
    Notify.ready();
    running
}

pub(super) async fn stopped_twice(signals: &mut Signals) {
    while !matches!(signals.next().await, Told::Stop(_)) {}
    tracing::warn!("told to stop a second time, leaving at once");
}
