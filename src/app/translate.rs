//! From the settings as validated to those that each worker is built with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::autodiscovery;
use super::build::BuildError;
use crate::answer::{dns, http, sentinel};
use crate::catalog::facade::sentinel::SentinelPassword;
use crate::cli::VERSION;
use crate::config::{Config, Forward, SentinelConfig, TopologyConfig};
use crate::docker;
use crate::follow::keep::{self, own_records};
use crate::follow::mirror;
use crate::host::identity;
use crate::host::sockets::Passed;
use crate::model::health::Rules;
use crate::model::offer::advertise::Place;
use crate::model::offer::naming;
use crate::model::publish::memory::{Here, Resumed};
use crate::model::publish::node::AgentFacts;
use crate::model::words::known::{self, KnownHost};
use crate::model::words::site::Standpoint;
use crate::model::words::zone::{BadZone, Zones};
use crate::offer::{inventory, probe, registrar};
use crate::state::items::{KeptItem, KeptItems, KeptStore};
use crate::store::embedded::Embedded;
use crate::store::etcd::{self, Etcd};
use crate::store::{Item, Store};

pub(super) fn zones(config: &Config) -> Result<Zones, BadZone> {
    Zones::new(&config.dns.domain, config.store.prefix.clone(), config.dns.zones.iter().cloned())
}

/// Where questions are answered.
pub(super) fn standpoint(config: &Config) -> Standpoint {
    Standpoint::new(&config.node, config.site.clone(), config.dns.near_priority)
}

/// Where and what this agent is, for what it remembers.
pub(super) fn here(config: &Config) -> Here {
    Here {
        node: config.node.as_str().into(),
        prefix: config.store.prefix.as_str().into(),
        machine: identity::machine_id(),
        boot: identity::boot_id(),
    }
}

/// What stays on record of this host, and under which key.
pub(super) fn known(config: &Config, resumed: &Resumed, place: &Place) -> (String, KnownHost) {
    let own = KnownHost {
        node: config.node.as_str().into(),
        owner: resumed.owner.clone(),
        machine: identity::machine_id(),
        version: VERSION.into(),
        addresses: place.addresses().collect(),
        started: known::time(SystemTime::now()),
        ..KnownHost::default()
    };
    (config.store.prefix.known_key(&config.node, &resumed.owner), own)
}

pub(super) fn store(config: &Config, resumed: &Resumed, writable: bool) -> Arc<dyn Store> {
    let Some(etcd) = &config.store.etcd else { return Arc::new(kept_embedded(config, resumed, writable)) };
    Arc::new(Etcd::new(etcd::Settings {
        endpoints: etcd.endpoints.clone(),
        ca: etcd.ca.clone(),
        identity: etcd.identity.clone(),
        user: etcd.user.clone(),
        lease_ttl: config.store.lease_ttl,
        probe: config.store.prefix.below(),
    }))
}

/// The store in this process. It goes on from what this agent had published when it stopped, as etcd would have kept
/// it: for as long as the lease, and not across a boot.
fn embedded(config: &Config, resumed: &Resumed) -> Embedded {
    // A lease that a cluster has granted is none of this store's.
    let ours = |lease: &i64| resumed.cluster.is_none() && (1..i64::MAX).contains(lease);
    let Some(lease) = resumed.lease.filter(ours) else { return Embedded::new() };
    let own = own_records(&kept_catalog(config), None, &resumed.owner);
    if own.items.is_empty() || own.age > config.store.lease_ttl + keep::EVERY {
        return Embedded::new();
    }
    let items = own.items.into_iter().map(|(item, _)| item);
    Embedded::restored(own.revision, lease, config.store.lease_ttl, items)
}

/// The same, with what hangs on no lease kept in the state directory. What is there and cannot be read is left as it
/// is.
fn kept_embedded(config: &Config, resumed: &Resumed, writable: bool) -> Embedded {
    let store = embedded(config, resumed);
    let file = KeptItems::new(&config.store.state_dir);
    let kept = match file.read() {
        Ok(kept) if writable => kept,
        Ok(_) => return store,
        Err(error) => {
            tracing::error!(%error, "what the store kept cannot be read, and nothing more is kept: see store.json in the state directory");
            return store;
        }
    };
    let item = |item: KeptItem| Item {
        key: item.key,
        value: item.value.into(),
        lease: 0,
        revision: item.revision,
        created: item.created,
    };
    let write = move |revision, items: Vec<Item>| {
        let item = |item: Item| KeptItem {
            key: item.key,
            value: item.value.to_vec(),
            revision: item.revision,
            created: item.created,
        };
        file.write(KeptStore { revision, items: items.into_iter().map(item).collect() })
    };
    store.keeping(kept.revision, kept.items.into_iter().map(item), write)
}

pub(super) fn docker(config: &Config) -> Result<Option<docker::Settings>, BuildError> {
    let Some(engine) = config.offer.engine() else { return Ok(None) };
    Ok(Some(docker::Settings::new(engine.parse()?)))
}

pub(super) fn inventory(config: &Config) -> inventory::Settings {
    let offer = &config.offer;
    inventory::Settings {
        naming: naming::Settings {
            internal: offer.internal,
            explicit: offer.explicit,
            tags: offer.tags.iter().map(|tag| tag.as_str().into()).collect(),
            networks: offer.network.iter().cloned().collect(),
            address_label: offer.address_label.clone(),
            allow_names: offer.allow_names.clone(),
            checks: config.probe.checks,
            secrets_dir: config.probe.secrets.clone(),
            secrets: config.probe.rules.clone(),
            ambassadors: config.proxies.iter().flat_map(|table| table.listen.iter().copied()).collect(),
            ..naming::Settings::new(&config.node)
        },
        advertise: offer.advertise.clone(),
        services: offer.services.iter().cloned().chain(autodiscovery::endpoints(config)).collect(),
    }
}

pub(super) fn probe(config: &Config) -> probe::Settings {
    probe::Settings {
        interval: config.probe.interval,
        timeout: config.probe.timeout,
        rules: Rules { rise: config.probe.rise, fall: config.probe.fall },
        secrets_dir: config.probe.secrets.clone(),
    }
}

/// The file that the catalog is kept in.
pub(super) fn kept_catalog(config: &Config) -> PathBuf {
    config.store.state_dir.join("catalog")
}

pub(super) fn registrar(config: &Config, resumed: &Resumed, writable: bool) -> registrar::Settings {
    let withdraw = config.store.withdraw_on_stop || !writable;
    // Without a lease to take over there is nothing of before to go on from.
    let kept = resumed.lease.map(|_| own_records(&kept_catalog(config), resumed.cluster, &resumed.owner).items);
    let kept = kept.into_iter().flatten().map(|(_, record)| record);
    registrar::Settings {
        node: config.node.as_str().into(),
        prefix: config.store.prefix.clone(),
        lease_ttl: config.store.lease_ttl,
        on_stop: if withdraw { registrar::OnStop::Withdraw } else { registrar::OnStop::Keep },
        agent: AgentFacts {
            version: VERSION.into(),
            addresses: Vec::new(),
            site: config.site.as_ref().map(|site| site.text().clone()),
            sentinel: config.sentinel.as_ref().map(|sentinel| sentinel.listen).filter(|at| at.port() > 0),
            machine: identity::derived_machine_id(),
            ordinals: BTreeMap::new(),
            started: SystemTime::now(),
        },
        resumed: resumed.clone(),
        kept: kept.collect(),
        seed: rand::random(),
    }
}

pub(super) fn mirror(config: &Config, zones: &Zones, resumed: &Resumed) -> mirror::Settings {
    mirror::Settings {
        prefixes: zones.prefixes().into_iter().cloned().collect(),
        node: config.node.as_str().into(),
        owner: resumed.owner.clone(),
        lease_ttl: config.store.lease_ttl,
    }
}

pub(super) fn http(config: &Config) -> Result<http::Settings, BuildError> {
    let token = match &config.http.token_file {
        None => None,
        Some(file) => {
            let unreadable = |source| BuildError::Token { file: file.clone(), source };
            let text = std::fs::read_to_string(file).map_err(unreadable)?;
            Some(http::Token::new(&text).ok_or_else(|| BuildError::EmptyToken(file.clone()))?)
        }
    };
    Ok(http::Settings {
        listen: vec![config.http.listen],
        socket: config.http.socket.clone(),
        token,
        hosts: config.http.hosts.clone(),
        version: VERSION.to_owned(),
        standpoint: standpoint(config),
        probe_interval: config.probe.interval,
        exhibitor: config.exhibitor.as_ref().map(|exhibitor| http::Exhibitor {
            listen: exhibitor.listen,
            service: exhibitor.service.clone(),
            ordinal: exhibitor.ordinal.clone(),
        }),
        seeds: config.topologies.iter().filter_map(|table| Some((table.seed_http?, table.service.clone()))).collect(),
    })
}

/// Nothing where Sentinel's protocol is not spoken.
pub(super) fn sentinel(config: &Config, owner: &str) -> Result<Option<sentinel::Settings>, BuildError> {
    let Some(SentinelConfig { listen, password_file }) = &config.sentinel else { return Ok(None) };
    let password = match password_file {
        None => None,
        Some(file) => {
            let unreadable = |source| BuildError::SentinelPassword { file: file.clone(), source };
            let text = std::fs::read_to_string(file).map_err(unreadable)?;
            Some(SentinelPassword::new(&text).ok_or_else(|| BuildError::EmptySentinelPassword(file.clone()))?)
        }
    };
    let named = |table: &TopologyConfig| Some((table.alias.clone()?, table.service.clone()));
    Ok(Some(sentinel::Settings {
        listen: *listen,
        password,
        owner: owner.into(),
        version: VERSION.into(),
        aliases: config.topologies.iter().filter_map(named).collect(),
    }))
}

pub(super) fn dns(config: &Config, zones: Zones, passed: Passed) -> dns::Settings {
    let upstream = |forward: &Forward| match forward {
        Forward::System => dns::Upstream::System,
        Forward::Server(at) => dns::Upstream::Server(*at),
    };
    let udp = passed.udp.into_iter().map(OwnedFd::from);
    dns::Settings {
        listen: config.dns.listen.clone(),
        passed: udp.chain(passed.tcp.into_iter().map(OwnedFd::from)).collect(),
        zones,
        ttl: config.dns.ttl,
        negative_ttl: config.dns.negative_ttl,
        forward: config.dns.forward.iter().map(upstream).collect(),
        standpoint: standpoint(config),
        forward_allow: config.dns.forward_allow.clone(),
        allow: config.dns.allow.clone(),
        rate_limit: config.dns.rate_limit,
    }
}

/// The store in words.
pub(super) fn store_name(config: &Config) -> String {
    match &config.store.etcd {
        Some(etcd) => format!("etcd at {}", etcd.endpoints.join(", ")),
        None => "embedded".to_owned(),
    }
}

/// What to type to see an answer; NAME stands for a service.
pub(super) fn dig_line(at: SocketAddr, domain: &str) -> String {
    let ip = if at.ip().is_unspecified() { "127.0.0.1".to_owned() } else { at.ip().to_string() };
    format!("dig @{ip} -p {} SRV NAME.{domain}", at.port())
}
