//! Gives ambassadors what they go by: the catalog, and the words of all nodes on their instances.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::translate;
use crate::catalog::facade::api::Nodes;
use crate::catalog::proxy::{Reports, Wanted};
use crate::config::{Config, ProxyConfig, ProxyUpstream};
use crate::host::fdstore::{self, Left};
use crate::model::publish::local::Local;
use crate::model::words::zone::Zones;
use crate::proxy::{Handle, Proxies, Sights, Table, Upstream};
use crate::supervisor::{Half, Supervisor};
use crate::view::CatalogView;

/// What ambassadors are made from.
pub(super) struct Inputs<'a> {
    pub(super) view: &'a CatalogView,
    pub(super) zones: &'a Zones,
    pub(super) nodes: &'a watch::Receiver<Arc<Nodes>>,
    /// What this host's own probes see, where they are this process's.
    pub(super) local: Option<watch::Receiver<Arc<Local>>>,
}

/// Where their settings are changed, and how they stand.
pub(super) struct Ambassadors {
    pub(super) tables: watch::Sender<Arc<Vec<Table>>>,
    pub(super) handle: Handle,
}

/// Starts them.
pub(super) fn start(
    tables: Vec<Table>,
    left: Option<Left>,
    inputs: Inputs<'_>,
    supervisor: &mut Supervisor,
    registry: &mut Registry,
) -> Ambassadors {
    let stop = supervisor.stop_of(Half::Find);
    let (reports, told) = watch::channel(Arc::default());
    let reporter = Reporter { nodes: inputs.nodes.clone(), local: inputs.local, reports };
    supervisor.spawn("reports", Half::Find, reporter.run(stop.clone()));
    let sights = Sights { view: inputs.view.clone(), zones: Arc::new(inputs.zones.clone()), reports: told };
    let (tables, settings) = watch::channel(Arc::new(tables));
    let (proxies, handle) = Proxies::start(settings, sights, left, registry);
    supervisor.spawn("proxies", Half::Find, proxies.run(stop));
    Ambassadors { tables, handle }
}

/// What the process before has left; the service manager is told that it is taken.
pub(super) fn taken_up(left: Vec<OwnedFd>) -> Option<Left> {
    if left.is_empty() {
        return None;
    }
    let left = fdstore::take(left);
    fdstore::forget();
    if left.is_none() {
        tracing::warn!("what the process before has left is not whole: its connections are reset");
    }
    left
}

/// Every table that the agent serves.
pub(super) fn of_agent(config: &Config) -> Vec<Table> {
    if config.proxy_apart { Vec::new() } else { tables(config) }
}

/// Every table as the worker takes it.
pub(super) fn tables(config: &Config) -> Vec<Table> {
    config.proxies.iter().map(|table| of(config, table)).collect()
}

/// The longest time that connections have when all of this ends.
pub(super) fn drain(config: &Config) -> Duration {
    config.proxies.iter().map(|table| table.drain).max().unwrap_or_default()
}

fn of(config: &Config, table: &ProxyConfig) -> Table {
    let upstream = match &table.upstream {
        ProxyUpstream::Etcd => Upstream::Members(config.etcd_addresses().unwrap_or_default(), is_etcd_secured(config)),
        ProxyUpstream::Addresses(addresses) => Upstream::Fixed(addresses.clone()),
        ProxyUpstream::Service { service, role, tag, node, near } => Upstream::Service(Wanted {
            service: service.clone(),
            role: *role,
            tag: tag.clone(),
            node: node.clone(),
            near: near.then(|| translate::standpoint(config)),
        }),
    };
    Table {
        name: table.name.clone(),
        listen: table.listen.clone(),
        upstream,
        wait: table.wait,
        balance: table.balance,
        allow: table.allow.clone(),
        idle: table.timeout,
        protocol: table.protocol,
        send_proxy: table.send_proxy,
        max_connections: table.max_connections as usize,
        on_change: table.on_change,
        drain: table.drain,
    }
}

fn is_etcd_secured(config: &Config) -> bool {
    let endpoints = config.store.etcd.as_ref().map(|etcd| etcd.endpoints.as_slice()).unwrap_or_default();
    endpoints.iter().any(|endpoint| endpoint.starts_with("https:"))
}

/// The worker that gathers what nodes say.
struct Reporter {
    nodes: watch::Receiver<Arc<Nodes>>,
    local: Option<watch::Receiver<Arc<Local>>>,
    reports: watch::Sender<Arc<Reports>>,
}

impl Reporter {
    /// Works until told to stop.
    async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            let reports = self.gather();
            self.reports.send_if_modified(|told| {
                let is_new = **told != reports;
                if is_new {
                    *told = Arc::new(reports);
                }
                is_new
            });
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.nodes.changed() => {}
                Ok(()) = changed(&mut self.local) => {}
                else => {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
        }
    }

    /// This host's word is taken from its probes: it is there with the store away, and seconds before its record.
    fn gather(&mut self) -> Reports {
        let local = self.local.as_mut().map(|local| Arc::clone(&local.borrow_and_update()));
        let nodes = Arc::clone(&self.nodes.borrow_and_update());
        let own = local.as_ref().map(|local| &local.owner);
        let mut reports = Reports::of(nodes.nodes.iter().filter(|node| Some(&node.owner) != own));
        reports.are_read = !nodes.stale;
        if let Some(local) = &local {
            for shown in &local.instances {
                let at = SocketAddr::new(shown.instance.host, shown.instance.port);
                reports.add(&local.owner, at, shown.state.as_str());
            }
            if local.drained.is_some() {
                reports.drain(&local.owner);
            }
        }
        reports
    }
}

async fn changed(local: &mut Option<watch::Receiver<Arc<Local>>>) -> Result<(), watch::error::RecvError> {
    match local {
        Some(local) => local.changed().await,
        None => std::future::pending().await,
    }
}
