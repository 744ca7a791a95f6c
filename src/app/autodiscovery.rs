//! Auto-discovery's workers, how their settings are changed, and the record by which clients find an agent that serves
//! it.

use std::convert::Infallible;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::build::Ground;
use crate::answer::autodiscovery::{AutodiscoveryServer, Handle, Inputs, Settings};
use crate::catalog::facade::api::Nodes;
use crate::config::{AutodiscoveryConfig, Config};
use crate::follow::members::MemberKeeper;
use crate::model::offer::naming::StaticService;
use crate::state::members::KeptMembers;
use crate::supervisor::{Half, Supervisor};
use crate::view::CatalogView;

/// Where their settings are changed, and how they stand.
pub(super) struct Autodiscoveries {
    pub(super) tables: watch::Sender<Arc<Vec<Settings>>>,
    pub(super) handle: Handle,
}

/// Starts them. The store's lists are followed from the first table on.
pub(super) async fn start(
    config: &Config,
    ground: &Ground,
    view: &CatalogView,
    nodes: &watch::Receiver<Arc<Nodes>>,
    supervisor: &mut Supervisor,
    registry: &mut Registry,
) -> Autodiscoveries {
    let stop = supervisor.stop_of(Half::Find);
    let (keeper, lists) = MemberKeeper::new(Arc::clone(&ground.store), &config.store.prefix);
    let inputs = Inputs {
        store: Arc::clone(&ground.store),
        prefix: config.store.prefix.clone(),
        view: view.clone(),
        zones: Arc::new(ground.zones.clone()),
        nodes: nodes.clone(),
        lists,
    };
    let (tables, settings) = watch::channel(Arc::new(settings(config, ground.state.writable())));
    let (server, handle) = AutodiscoveryServer::start(settings.clone(), inputs, registry).await;
    supervisor.spawn("members", Half::Find, follow(keeper, settings, stop.clone()));
    supervisor.spawn("autodiscovery", Half::Find, server.run(stop));
    Autodiscoveries { tables, handle }
}

/// Every table as its workers take it.
pub(super) fn settings(config: &Config, keeps: bool) -> Vec<Settings> {
    let settings = |table: &AutodiscoveryConfig| Settings {
        service: table.service.clone(),
        listen: table.listen,
        leave_after: table.leave_after,
        tls: table.tls.clone(),
        kept: keeps.then(|| KeptMembers::new(&config.store.state_dir, &table.service)),
    };
    config.autodiscoveries.iter().map(settings).collect()
}

/// Follows the lists of the store once there is a table: who has none asks for nothing.
async fn follow(
    keeper: MemberKeeper,
    mut tables: watch::Receiver<Arc<Vec<Settings>>>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let asked = async { tables.wait_for(|tables| !tables.is_empty()).await.is_ok() };
    if stop.run_until_cancelled(asked).await == Some(true) {
        return keeper.run(stop).await;
    }
    stop.cancelled().await;
    Ok(())
}

/// What clients are given to ask, `memcached.cfg` for `memcached`: an instance like any other, of each host that serves
/// it to others.
pub(super) fn endpoints(config: &Config) -> impl Iterator<Item = StaticService> {
    let is_for_others = |table: &&AutodiscoveryConfig| !table.listen.ip().is_loopback() && table.listen.port() > 0;
    config.autodiscoveries.iter().filter(is_for_others).map(|table| {
        let ip = table.listen.ip();
        // Behind TLS it is enough that it accepts: nobody but us listens there.
        let check = if table.tls.is_some() { "tcp" } else { "memcached" };
        StaticService {
            name: format!("{}.cfg", table.service).into(),
            port: table.listen.port(),
            address: (!ip.is_unspecified()).then_some(ip),
            check: Some(check.into()),
            ..StaticService::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Raw, Surroundings};

    fn told(table: &str) -> Vec<(String, u16, Option<String>, String)> {
        let text = format!("[[autodiscovery]]\nservice = 'cache.prod'\n{table}");
        let here = Surroundings { hostname: "core-01".to_owned(), ..Surroundings::default() };
        let config = Config::load(&Raw::default(), Some(("wharf.toml", &text)), &here).expect("valid settings");
        let told = |service: StaticService| {
            let address = service.address.map(|address| address.to_string());
            (service.name.to_string(), service.port, address, service.check.unwrap_or_default().to_string())
        };
        endpoints(&config).map(told).collect()
    }

    #[test]
    fn who_serves_others_is_found_by_name() {
        let found = |address: Option<&str>, check: &str| {
            vec![("cache.prod.cfg".to_owned(), 11311, address.map(str::to_owned), check.to_owned())]
        };
        assert_eq!(told("listen = '0.0.0.0:11311'"), found(None, "memcached"));
        assert_eq!(told("listen = '10.0.0.7:11311'"), found(Some("10.0.0.7"), "memcached"));
        assert_eq!(told("listen = '0.0.0.0:11311'\ntls-cert = 'c'\ntls-key = 'k'"), found(None, "tcp"));
        for nobody in ["", "listen = '127.0.0.1:11311'", "listen = '[::1]:11311'", "listen = '0.0.0.0:0'"] {
            assert_eq!(told(nobody), [], "{nobody}");
        }
    }
}
