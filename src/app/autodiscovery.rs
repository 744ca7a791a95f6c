//! Auto-discovery's workers, and the record by which clients find an agent that serves it.

use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::build::Ground;
use crate::answer::autodiscovery::{AutodiscoveryError, AutodiscoveryServer, Inputs, Settings};
use crate::catalog::facade::api::Nodes;
use crate::config::{AutodiscoveryConfig, Config};
use crate::follow::members::MemberKeeper;
use crate::model::offer::naming::StaticService;
use crate::state::members::KeptMembers;
use crate::supervisor::{Half, Supervisor};
use crate::view::CatalogView;

/// Starts them where there is a table; tells where they listen.
pub(super) async fn start(
    config: &Config,
    ground: &Ground,
    view: &CatalogView,
    nodes: &watch::Receiver<Arc<Nodes>>,
    supervisor: &mut Supervisor,
    registry: &mut Registry,
) -> Result<Vec<SocketAddr>, AutodiscoveryError> {
    if config.autodiscoveries.is_empty() {
        return Ok(Vec::new());
    }
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
    let settings = |table: &AutodiscoveryConfig| Settings {
        service: table.service.clone(),
        listen: table.listen,
        leave_after: table.leave_after,
        tls: table.tls.clone(),
        kept: ground.state.writable().then(|| KeptMembers::new(&config.store.state_dir, &table.service)),
    };
    let settings = config.autodiscoveries.iter().map(settings).collect();
    let server = AutodiscoveryServer::bind(settings, &inputs, registry).await?;
    let addresses = server.addresses();
    supervisor.spawn("members", Half::Find, keeper.run(stop.clone()));
    supervisor.spawn("autodiscovery", Half::Find, server.run(stop));
    Ok(addresses)
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
