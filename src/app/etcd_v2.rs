//! The server of etcd's v2 API, where it is asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::build::{BuildError, Ground};
use crate::answer::etcd_v2::{EtcdV2Server, Settings, User};
use crate::catalog::facade::etcd_v2::Standing;
use crate::config::{Config, EtcdV2Config};
use crate::supervisor::{Half, Supervisor};

/// Where it listens, and how it stands.
pub(super) struct Started {
    pub(super) address: Option<SocketAddr>,
    pub(super) standing: watch::Receiver<Standing>,
}

/// Starts it where there is to be one.
pub(super) async fn start(
    config: &Config,
    ground: &Ground,
    supervisor: &mut Supervisor,
    registry: &mut Registry,
) -> Result<Started, BuildError> {
    let (tell, standing) = watch::channel(Standing::default());
    let Some(table) = &config.etcd_v2 else { return Ok(Started { address: None, standing }) };
    let settings = Settings {
        listen: table.listen,
        scope: table.scope.clone(),
        allow: table.allow.clone(),
        user: user(table)?,
        hosts: config.http.hosts.clone(),
        prefix: config.store.prefix.clone(),
        node: config.node.clone(),
    };
    let server = EtcdV2Server::bind(settings, Arc::clone(&ground.store), tell, registry).await;
    let server = server.map_err(BuildError::EtcdV2)?;
    let address = server.address();
    supervisor.spawn("etcd-v2", Half::Find, server.run(supervisor.stop_of(Half::Find)));
    Ok(Started { address, standing })
}

fn user(table: &EtcdV2Config) -> Result<Option<User>, BuildError> {
    let Some((name, file)) = &table.user else { return Ok(None) };
    let unreadable = |source| BuildError::EtcdV2Password { file: file.clone(), source };
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let user = User::new(name, &text).ok_or_else(|| BuildError::EmptyEtcdV2Password(file.clone()))?;
    Ok(Some(user))
}
