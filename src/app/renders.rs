//! `wharf render`: what was asked for is brought together with the agent, or the store, and with who renders.
//!
//! A process of its own: it may write where the agent's sandbox is closed. It tells the agent how its files stand, as
//! long as there is one to be told.

use std::collections::BTreeMap;
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
use super::sight::{AgentEyes, DiscoveryEyes, KeyEyes, Picture, StoreEyes};
use super::{ABORTED, WRONG_USE, apart, settings, translate};
use crate::catalog::render::{Builtin, Sight};
use crate::cli::AgentArgs;
use crate::cli::client::Client;
use crate::cli::render::RenderArgs;
use crate::config::{Config, RenderConfig, RenderFrom};
use crate::follow::heads::HeadKeeper;
use crate::follow::mirror::Mirror;
use crate::follow::nodes::Nodes;
use crate::model::publish::local::Overlay;
use crate::model::publish::memory::Resumed;
use crate::model::words::zone::BadZone;
use crate::notify::Notify;
use crate::render::{Handle, Origin, Renders, Table};
use crate::supervisor::{Half, Supervisor};
use crate::telemetry::{LogFilter, whole};

/// How long workers may take to stop: a check or a reload that is under way is waited for.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often the agent is told; it forgets what it was not told again for three times as long.
const TELL: Duration = Duration::from_secs(2);
/// What a reload changes here.
const LIVE: [&str; 2] = ["log", "render"];
/// Which variables templates may read.
const VARIABLE: &str = "WHARF_RENDER_";

/// The settings of the command: its flags, the environment, the file.
pub(super) fn agent_args(args: &RenderArgs) -> AgentArgs {
    let AgentArgs { settings, .. } = AgentArgs::of_environment();
    AgentArgs { config: args.config.clone(), settings: args.settings(settings) }
}

/// The agent that is asked, where the store is not: the one that flags name, else that of the settings.
pub(super) fn agent(args: &RenderArgs, config: &Config) -> Option<Client> {
    let agent = &args.from.agent;
    if !args.from.store.etcd_endpoints.is_empty() {
        None
    } else if agent.address.is_some() || agent.socket.is_some() {
        Some(agent.client_from_env())
    } else {
        Some(apart::agent(config))
    }
}

/// The agent that has the list: the one that flags name, else that of the settings, where they are named and can be
/// read.
pub(super) fn asked(args: &RenderArgs) -> Client {
    let config = args.config.as_ref().and_then(|_| settings::join(&agent_args(args)).ok());
    config.and_then(|config| agent(args, &config)).unwrap_or_else(|| args.from.agent.client_from_env())
}

/// Every table as it is worked on.
pub(super) fn tables(config: &Config) -> Vec<Table> {
    config.renders.iter().map(table).collect()
}

fn table(table: &RenderConfig) -> Table {
    let from = match &table.from {
        RenderFrom::File(path) => Origin::File(path.clone()),
        RenderFrom::Builtin(name) => Origin::Builtin(Builtin::parse(name).expect("the settings take no others")),
    };
    let RenderConfig { name, with, destination, mode, owner, group, check, reload, .. } = table.clone();
    Table {
        name,
        from,
        with,
        destination,
        mode,
        owner,
        group,
        check,
        reload,
        wait: table.wait,
        min: table.min.clone(),
        min_interval: table.min_interval,
        timeout: table.timeout,
        inplace: table.inplace,
        check_in_place: table.check_in_place,
        rollback: table.rollback,
    }
}

/// What is wrong with the templates of these settings.
pub(super) fn template_problems(config: &Config) -> Vec<String> {
    tables(config).iter().filter_map(|table| table.source().err()).collect()
}

/// The variables that templates may read.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(VARIABLE))
        .collect()
}

/// What is seen before anything is.
pub(super) fn blank(config: &Config) -> Sight {
    Sight { standpoint: translate::standpoint(config), has_keys: config.store.etcd.is_some(), ..Sight::default() }
}

/// Lives until told to stop, or until a worker ends.
pub(super) async fn follow(args: &RenderArgs, config: Config, log: &LogFilter) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be listened to");
            return ExitCode::FAILURE;
        }
    };
    if args.config.is_none() {
        tracing::error!("the file with the [[render]] tables is not named: give --config FILE");
        return ExitCode::from(WRONG_USE);
    }
    let mut supervisor = Supervisor::default();
    let running = match build(args, &config, &mut supervisor) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(error = whole(&error), "files cannot be followed");
            return ExitCode::from(WRONG_USE);
        }
    };
    Notify.ready();
    let mut config = config;
    let code = loop {
        tokio::select! {
            end = supervisor.first_end() => {
                tracing::error!(error = whole(&end), "a worker ended, so does the rendering");
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
    supervisor.end_at_the_latest(2 * STOP_DEADLINE);
    tokio::select! {
        ends = supervisor.stop(STOP_DEADLINE) => report(&ends, code),
        () = stopped_twice(&mut signals) => ExitCode::from(ABORTED),
    }
}

/// What runs.
struct Running {
    tables: watch::Sender<Arc<Vec<Table>>>,
    /// Nothing is laid over the catalog: this process offers nothing.
    _overlay: watch::Sender<Arc<Overlay>>,
}

fn build(args: &RenderArgs, config: &Config, supervisor: &mut Supervisor) -> Result<Running, BadZone> {
    let (tables, settings) = watch::channel(Arc::new(tables(config)));
    let (picture, sight) = watch::channel(Arc::new(blank(config)));
    let (renders, asked, handle) = Renders::new(settings, sight, environment());
    let (overlay, overlaid) = watch::channel(Arc::default());
    let stop = supervisor.stop_of(Half::Find);
    let from = match agent(args, config) {
        Some(agent) => {
            let place = agent.place();
            let eyes = AgentEyes { agent, picture: picture.clone() };
            supervisor.spawn("agent", Half::Find, eyes.run(stop.clone()));
            place
        }
        None => {
            see_store(config, &picture, overlaid, supervisor)?;
            translate::store_name(config).to_owned()
        }
    };
    if config.store.etcd.is_some() {
        let store = translate::store(config, &Resumed::default(), false);
        let prefix = config.store.prefix.clone();
        let eyes = KeyEyes { store, prefix, asked: asked.clone(), picture: picture.clone() };
        supervisor.spawn("keys", Half::Find, eyes.run(stop.clone()));
    }
    let eyes = DiscoveryEyes { asked, picture };
    supervisor.spawn("discovery", Half::Find, eyes.run(stop.clone()));
    supervisor.spawn("renders", Half::Find, renders.run(stop.clone()));
    let teller = Teller { agent: agent(args, config).unwrap_or_else(|| apart::agent(config)), handle };
    supervisor.spawn("teller", Half::Find, teller.run(stop));
    tracing::info!(tables = config.renders.len(), from, "files follow the cluster");
    Ok(Running { tables, _overlay: overlay })
}

/// The store is read by this process itself.
fn see_store(
    config: &Config,
    picture: &Picture,
    overlaid: watch::Receiver<Arc<Overlay>>,
    supervisor: &mut Supervisor,
) -> Result<(), BadZone> {
    let zones = translate::zones(config)?;
    let nobody = Resumed::default();
    let store = translate::store(config, &nobody, false);
    let stop = supervisor.stop_of(Half::Find);
    let settings = translate::mirror(config, &zones, &nobody);
    let (mirror, view) = Mirror::new(settings, Arc::clone(&store), overlaid, None, &mut Registry::default());
    let (heads, heads_seen) = HeadKeeper::new(Arc::clone(&store), &config.store.prefix);
    let mirror = mirror.at_most(config.store.max_records as usize);
    let (nodes, node_list) = Nodes::new(store, &config.store.prefix);
    let mirror = mirror.naming(config.store.prefix.clone(), heads_seen, nodes.hosts());
    let eyes = StoreEyes { view, zones, nodes: node_list.nodes, picture: picture.clone() };
    supervisor.spawn("mirror", Half::Find, mirror.run(stop.clone()));
    supervisor.spawn("heads", Half::Find, heads.run(stop.clone()));
    supervisor.spawn("nodes", Half::Find, nodes.run(stop.clone()));
    supervisor.spawn("store", Half::Find, eyes.run(stop));
    Ok(())
}

/// Reads the tables again. Bad ones are told and change nothing.
fn reload(args: &RenderArgs, running: Config, to: &Running, log: &LogFilter) -> Config {
    Notify.reloading();
    let taken = settings::join(&agent_args(args)).and_then(|read| settings::taking(&running, &read, &LIVE));
    let now = taken.unwrap_or_else(|problems| {
        for problem in &problems.0 {
            tracing::error!(at = problem.at, what = problem.what, "reload refused, settings stay as they were");
        }
        running
    });
    tracing::info!(tables = now.renders.len(), "settings read again");
    log.set(&now.log.filter);
    to.tables.send_replace(Arc::new(tables(&now)));
    Notify.ready();
    now
}

/// The worker that tells the agent how the files stand.
struct Teller {
    agent: Client,
    handle: Handle,
}

impl Teller {
    /// Works until told to stop.
    async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let telling = async {
            loop {
                let told = serde_json::to_vec(&self.handle.told()).unwrap_or_default();
                if let Err(error) = self.agent.tell(Method::PUT, "/v1/renders", Bytes::from(told)).await {
                    tracing::debug!(%error, "the agent is not told how the files stand");
                }
                sleep(TELL).await;
            }
        };
        stop.run_until_cancelled(telling).await;
        Ok(())
    }
}
