//! Gives ambassadors what they go by: the catalog, and the words of all nodes on their instances.

use std::collections::BTreeSet;
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
use crate::host::names;
use crate::model::publish::local::Local;
use crate::model::words::zone::Zones;
use crate::proxy::{Handle, Proxies, Sights, Table, Upstream};
use crate::supervisor::{Half, Supervisor};
use crate::view::CatalogView;

/// How often it is looked up where etcd is.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Where it is, of a name that tells no port.
const ETCD: u16 = 2379;
/// The services that etcd's members are found as: by TLS, and without it.
const SECURED: &str = "_etcd-client-ssl";
const PLAIN: &str = "_etcd-client";

/// What ambassadors are made from.
pub(super) struct Inputs<'a> {
    pub(super) view: &'a CatalogView,
    pub(super) zones: &'a Zones,
    pub(super) nodes: &'a watch::Receiver<Arc<Nodes>>,
    /// What this host's own probes see, where they are this process's.
    pub(super) local: Option<watch::Receiver<Arc<Local>>>,
    /// Names that etcd is found by, and where it is besides.
    pub(super) etcd_names: Vec<String>,
    pub(super) etcd: Vec<SocketAddr>,
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
    if !inputs.etcd_names.is_empty() {
        let named = EtcdByName { names: inputs.etcd_names, fixed: inputs.etcd, tables: tables.clone() };
        supervisor.spawn("etcd-names", Half::Find, named.run(stop.clone()));
    }
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
        // Those that are found by name are filled in once they have been looked up.
        ProxyUpstream::Etcd if !etcd_names(config).is_empty() => Upstream::Members(Vec::new(), false),
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

/// The names that etcd is found by: the one whose members speak TLS first.
pub(super) fn etcd_names(config: &Config) -> Vec<String> {
    let endpoints = config.store.etcd.iter().flat_map(|etcd| &etcd.endpoints);
    let domains = endpoints.filter_map(|endpoint| endpoint.strip_prefix("srv://"));
    domains.flat_map(|domain| [SECURED, PLAIN].map(|kind| format!("{kind}._tcp.{domain}."))).collect()
}

/// The worker that looks up where ambassadors to etcd lead, where that is found by name.
struct EtcdByName {
    names: Vec<String>,
    fixed: Vec<SocketAddr>,
    tables: watch::Sender<Arc<Vec<Table>>>,
}

impl EtcdByName {
    /// Works until told to stop. What was found last stands while DNS does not answer.
    async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut changed = self.tables.subscribe();
        let (mut found, mut filled) = ((Vec::new(), false), BTreeSet::new());
        loop {
            found = self.look_up().await.unwrap_or(found);
            let at: Vec<SocketAddr> = self.fixed.iter().chain(&found.0).copied().collect();
            changed.borrow_and_update();
            self.tables.send_if_modified(|tables| fill(tables, &mut filled, &Upstream::Members(at, found.1)));
            changed.borrow_and_update();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_UP) => {}
                _ = changed.changed() => {}
            }
        }
    }

    /// The members, and whether they speak TLS.
    async fn look_up(&self) -> Option<(Vec<SocketAddr>, bool)> {
        for name in &self.names {
            if let Ok(found) = names::look_up(name, ETCD).await
                && !found.is_empty()
            {
                return Some((found, name.starts_with(SECURED)));
            }
        }
        None
    }
}

/// Has the tables that lead to etcd lead there: those that came empty, now or before.
fn fill(tables: &mut Arc<Vec<Table>>, filled: &mut BTreeSet<String>, at: &Upstream) -> bool {
    let mut all = Vec::clone(tables);
    let mut changed = false;
    for table in &mut all {
        let Upstream::Members(addresses, _) = &table.upstream else { continue };
        if addresses.is_empty() {
            filled.insert(table.name.clone());
        }
        if filled.contains(&table.name) && table.upstream != *at {
            table.upstream = at.clone();
            changed = true;
        }
    }
    if changed {
        *tables = Arc::new(all);
    }
    changed
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
