//! `wharf proxy`: the ambassadors as a process of their own, so that an agent's restart touches no connection.
//!
//! It reads the store by itself: an agent that is away changes nothing. What only an agent knows (its own probes,
//! before the store does) it does not see. It tells the agent how it stands, as long as there is one to be told.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::lifecycle::{Signals, Told, report, stopped_twice};
use super::proxies::{self, Ambassadors, Inputs};
use super::{ABORTED, WRONG_USE, build, settings, translate};
use crate::cli::AgentArgs;
use crate::cli::client::Client;
use crate::cli::place::ConnectArgs;
use crate::config::{Config, ProxyUpstream};
use crate::follow::heads::HeadKeeper;
use crate::follow::mirror::Mirror;
use crate::follow::nodes::Nodes;
use crate::host::fdstore::Left;
use crate::host::sockets::Passed;
use crate::model::publish::local::Overlay;
use crate::model::publish::memory::Resumed;
use crate::model::words::zone::BadZone;
use crate::notify::Notify;
use crate::proxy::Handle;
use crate::supervisor::{Half, Supervisor};
use crate::telemetry::{LogFilter, whole};

/// How long workers may take to stop, beside the time that connections have.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How often the agent is told; it forgets what it was not told again for three times as long.
const TELL: Duration = Duration::from_secs(2);
/// What a reload changes here.
const LIVE: [&str; 2] = ["log", "proxy"];

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
enum ApartError {
    #[error("zones cannot be served")]
    Zone(#[from] BadZone),
    #[error(
        "services are found in etcd here: give --etcd-endpoints, or let the agent serve its [[proxy]] tables itself"
    )]
    Embedded,
}

/// What runs.
struct Running {
    ambassadors: Ambassadors,
    /// Nothing is laid over the catalog: this process offers nothing.
    _overlay: watch::Sender<Arc<Overlay>>,
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
    let running = match build(&config, proxies::taken_up(passed.left), &mut supervisor) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(error = whole(&error), "the ambassadors cannot start");
            return ExitCode::from(WRONG_USE);
        }
    };
    Notify.ready();
    let mut config = config;
    let code = loop {
        tokio::select! {
            end = supervisor.first_end() => {
                tracing::error!(error = whole(&end), "a worker ended, so do the ambassadors");
                break ExitCode::FAILURE;
            }
            told = signals.next() => match told {
                Told::Reload => config = reload(args, config, &running, log),
                Told::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    break ExitCode::SUCCESS;
                }
            },
        }
    };
    Notify.stopping();
    let patience = STOP_DEADLINE + proxies::drain(&config);
    supervisor.end_at_the_latest(patience + STOP_DEADLINE);
    tokio::select! {
        ends = supervisor.stop(patience) => report(&ends, code),
        () = stopped_twice(&mut signals) => ExitCode::from(ABORTED),
    }
}

fn build(config: &Config, left: Option<Left>, supervisor: &mut Supervisor) -> Result<Running, ApartError> {
    let is_found = |upstream: &ProxyUpstream| matches!(upstream, ProxyUpstream::Service { .. });
    if config.store.etcd.is_none() && config.proxies.iter().any(|table| is_found(&table.upstream)) {
        return Err(ApartError::Embedded);
    }
    let zones = translate::zones(config)?;
    let nobody = Resumed::default();
    let store = translate::store(config, &nobody, false);
    let stop = supervisor.stop_of(Half::Find);
    let mut registry = Registry::default();
    let (overlay, overlaid) = watch::channel(Arc::default());
    let settings = translate::mirror(config, &zones, &nobody);
    let (mirror, view) = Mirror::new(settings, Arc::clone(&store), overlaid, None, &mut registry);
    let (heads, heads_seen) = HeadKeeper::new(Arc::clone(&store), &config.store.prefix);
    let mirror = mirror.at_most(config.store.max_records as usize);
    let mirror = mirror.laying(build::patroni(config, &store, supervisor));
    let (nodes, node_list) = Nodes::new(store, &config.store.prefix);
    let mirror = mirror.naming(config.store.prefix.clone(), heads_seen, nodes.hosts());
    let (etcd_names, etcd) = (proxies::etcd_names(config), config.etcd_addresses().unwrap_or_default());
    let inputs = Inputs { view: &view, zones: &zones, nodes: &node_list.nodes, local: None, etcd_names, etcd };
    let ambassadors = proxies::start(proxies::tables(config), left, inputs, supervisor, &mut registry);
    supervisor.spawn("mirror", Half::Find, mirror.run(stop.clone()));
    supervisor.spawn("heads", Half::Find, heads.run(stop.clone()));
    supervisor.spawn("nodes", Half::Find, nodes.run(stop.clone()));
    let teller = Teller { agent: agent(config), handle: ambassadors.handle.clone() };
    supervisor.spawn("teller", Half::Find, teller.run(stop));
    tracing::info!(tables = config.proxies.len(), store = translate::store_name(config), "ambassadors serve");
    Ok(Running { ambassadors, _overlay: overlay })
}

/// Reads the tables again. Bad ones are told and change nothing.
fn reload(args: &AgentArgs, running: Config, to: &Running, log: &LogFilter) -> Config {
    Notify.reloading();
    let taken = settings::read(args).and_then(|read| settings::taking(&running, &read, &LIVE));
    let now = taken.unwrap_or_else(|problems| {
        for problem in &problems.0 {
            tracing::error!(at = problem.at, what = problem.what, "reload refused, settings stay as they were");
        }
        running
    });
    tracing::info!(tables = now.proxies.len(), "settings read again");
    log.set(&now.log.filter);
    to.ambassadors.tables.send_replace(Arc::new(proxies::tables(&now)));
    Notify.ready();
    now
}

/// The agent of this host, as the same settings place it.
pub(super) fn agent(config: &Config) -> Client {
    let socket = config.http.socket.clone();
    let address = socket.is_none().then(|| config.http.listen.to_string());
    let token = config.http.token_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    ConnectArgs { address, socket }.client(|_| None).with_token(token.map(|token| token.trim().to_owned()))
}

/// The worker that tells the agent how the ambassadors stand.
struct Teller {
    agent: Client,
    handle: Handle,
}

impl Teller {
    /// Works until told to stop.
    async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let telling = async {
            loop {
                let told = serde_json::to_vec(&self.handle.reported()).unwrap_or_default();
                if let Err(error) = self.agent.tell(Method::PUT, "/v1/proxies", Bytes::from(told)).await {
                    tracing::debug!(%error, "the agent is not told how the ambassadors stand");
                }
                sleep(TELL).await;
            }
        };
        stop.run_until_cancelled(telling).await;
        Ok(())
    }
}
