//! Settings that are fine one by one and cannot be served together.

use std::net::{IpAddr, SocketAddr};

use super::{Config, DnsConfig, Forward, HttpConfig, OfferConfig, ProxyUpstream, TopologyConfig};
use crate::model::offer::advertise::Advertise;
use crate::model::offer::naming::StaticService;
use crate::model::words::record::Proto;
use crate::model::words::zone::Zones;

/// Every conflict, by the setting that has to give way.
pub(super) fn all(config: &Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    listening(&config.dns, &config.http, &mut found);
    seeds(config, &mut found);
    sentinel(config, &mut found);
    proxies(config, &mut found);
    autodiscovery(config, &mut found);
    facades(config, &mut found);
    forwarding(&config.dns, &mut found);
    sockets(&config.offer, &config.http, &mut found);
    patroni(config, &mut found);
    tables(&config.offer, &mut found);
    let others = config.dns.zones.iter().cloned();
    if let Err(bad) = Zones::new(&config.dns.domain, config.store.prefix.clone(), others) {
        found.push(("zone", bad.to_string()));
    }
    found
}

type Found = Vec<(&'static str, String)>;

/// A tree is of records, or of Patroni's keys.
fn patroni(config: &Config, found: &mut Found) {
    let own = config.store.prefix.below();
    for namespace in &config.store.patroni {
        let below = namespace.below();
        if below.starts_with(&own) || own.starts_with(&below) || below.starts_with("/wharf/") {
            found.push(("patroni", format!("{namespace} is where wharf keeps its own")));
        }
    }
}

/// No address can be bound twice.
fn listening(dns: &DnsConfig, http: &HttpConfig, found: &mut Found) {
    for (place, address) in dns.listen.iter().enumerate() {
        // DNS keeps the two families apart, so that [::]:53 and 0.0.0.0:53 may be given both.
        let same_family = |other: &&SocketAddr| other.is_ipv4() == address.is_ipv4();
        if let Some(other) = dns.listen[..place].iter().filter(same_family).find(|other| overlap(**other, *address)) {
            found.push(("dns", format!("{address} cannot be answered on beside {other}")));
        }
        if overlap(*address, http.listen) {
            found.push(("http", format!("{} cannot be served on beside DNS on {address}", http.listen)));
        }
    }
}

/// Nor by the endpoints of a topology.
fn seeds(config: &Config, found: &mut Found) {
    let of = |table: &TopologyConfig| table.seed_http;
    let sentinel = config.sentinel.as_ref().map(|sentinel| sentinel.listen);
    for (place, address) in config.topologies.iter().enumerate().filter_map(|(place, table)| Some((place, of(table)?)))
    {
        let others = config.topologies[..place].iter().filter_map(of);
        let taken = config.dns.listen.iter().copied().chain([config.http.listen]).chain(others).chain(sentinel);
        for other in taken.filter(|other| overlap(*other, address)) {
            found.push(("topology", format!("seed-http {address} cannot be served on beside {other}")));
        }
    }
}

/// Nor by Sentinel's protocol.
fn sentinel(config: &Config, found: &mut Found) {
    let Some(address) = config.sentinel.as_ref().map(|sentinel| sentinel.listen) else { return };
    for other in config.dns.listen.iter().copied().chain([config.http.listen]).filter(|other| overlap(*other, address))
    {
        found.push(("sentinel", format!("{address} cannot be served on beside {other}")));
    }
}

/// Nor by auto-discovery.
fn autodiscovery(config: &Config, found: &mut Found) {
    let sentinel = config.sentinel.as_ref().map(|sentinel| sentinel.listen);
    let seeds = config.topologies.iter().filter_map(|table| table.seed_http);
    let own = config.dns.listen.iter().copied().chain([config.http.listen]);
    let proxies = config.proxies.iter().flat_map(|table| table.listen.iter().copied());
    let taken: Vec<_> = own.chain(sentinel).chain(seeds).chain(proxies).collect();
    for (place, table) in config.autodiscoveries.iter().enumerate() {
        let before = config.autodiscoveries[..place].iter().map(|table| table.listen);
        for other in taken.iter().copied().chain(before).filter(|other| overlap(*other, table.listen)) {
            found.push(("autodiscovery", format!("{} cannot be served on beside {other}", table.listen)));
        }
    }
}

/// Nor by Exhibitor's API, nor by etcd's v2 API.
fn facades(config: &Config, found: &mut Found) {
    let exhibitor = config.exhibitor.as_ref().map(|table| ("exhibitor", table.listen));
    let etcd_v2 = config.etcd_v2.as_ref().map(|table| ("etcd-v2", table.listen));
    let sentinel = config.sentinel.as_ref().map(|sentinel| sentinel.listen);
    let seeds = config.topologies.iter().filter_map(|table| table.seed_http);
    let proxies = config.proxies.iter().flat_map(|table| table.listen.iter().copied());
    let lists = config.autodiscoveries.iter().map(|table| table.listen);
    let own = config.dns.listen.iter().copied().chain([config.http.listen]);
    let mut taken: Vec<SocketAddr> = own.chain(sentinel).chain(seeds).chain(proxies).chain(lists).collect();
    for (key, address) in exhibitor.into_iter().chain(etcd_v2) {
        for other in taken.iter().filter(|other| overlap(**other, address)) {
            found.push((key, format!("{address} cannot be served on beside {other}")));
        }
        taken.push(address);
    }
}

/// Nor by ambassadors; and what they listen on is no instance of this host, or it would lead to itself.
fn proxies(config: &Config, found: &mut Found) {
    let seeds = config.topologies.iter().filter_map(|table| table.seed_http);
    let sentinel = config.sentinel.as_ref().map(|sentinel| sentinel.listen);
    let mut taken: Vec<SocketAddr> =
        config.dns.listen.iter().copied().chain([config.http.listen]).chain(seeds).chain(sentinel).collect();
    for (place, table) in config.proxies.iter().enumerate() {
        let at = format!("table {}: ", place + 1);
        for address in &table.listen {
            for other in taken.iter().filter(|other| overlap(**other, *address)) {
                found.push(("proxy", format!("{at}{address} cannot be listened on beside {other}")));
            }
            for service in config.offer.services.iter().filter(|service| is_at(service, *address, &config.offer)) {
                found.push(("proxy", format!("{at}{address} is where the service {} is", service.name)));
            }
            taken.push(*address);
        }
        if table.upstream == ProxyUpstream::Etcd && etcd_addresses(config).is_none() {
            let what = "upstream \"etcd\" needs --etcd-endpoints that are addresses, localhost, or srv://";
            found.push(("proxy", format!("{at}{what}")));
        }
    }
}

/// Whether a `[[service]]` table means what is listened on there. One without an address is at the advertised one.
fn is_at(service: &StaticService, listen: SocketAddr, offer: &OfferConfig) -> bool {
    let is_advertised = offer.advertise.contains(&Advertise::Address(listen.ip()));
    let is_named = service.address.map_or(is_advertised, |address| address == listen.ip());
    let is_there = is_named || listen.ip().is_unspecified();
    service.port == listen.port() && service.proto != Proto::Udp && is_there
}

/// Where the store is, as addresses, but for what is found by name as it goes.
pub(super) fn etcd_addresses(config: &Config) -> Option<Vec<SocketAddr>> {
    let address = |endpoint: &String| {
        let (_, authority) = endpoint.split_once("://")?;
        authority.replace("localhost", "127.0.0.1").parse().ok()
    };
    let etcd = config.store.etcd.as_ref()?;
    etcd.endpoints.iter().filter(|endpoint| !endpoint.starts_with("srv://")).map(address).collect()
}

/// Whether the one address takes in the other. A port that is chosen is free.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes_in = |wide: IpAddr, narrow: IpAddr| {
        wide == narrow || (wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4()))
    };
    one.port() == other.port() && one.port() != 0 && (takes_in(one.ip(), other.ip()) || takes_in(other.ip(), one.ip()))
}

/// Our own addresses are left out of those that are asked; one of them must be left.
fn forwarding(dns: &DnsConfig, found: &mut Found) {
    let own = |forward: &Forward| match forward {
        Forward::System => false,
        Forward::Server(server) => dns.listen.iter().any(|address| {
            let everywhere = address.ip().is_unspecified() && server.ip().is_loopback();
            address.port() == server.port() && (address.ip() == server.ip() || everywhere)
        }),
    };
    if !dns.forward.is_empty() && dns.forward.iter().all(own) {
        found.push(("forward", "this is where the agent itself answers: name another resolver, or system".to_owned()));
    }
}

/// The engine's socket is not for us to replace.
fn sockets(offer: &OfferConfig, http: &HttpConfig, found: &mut Found) {
    let engine = offer.docker.strip_prefix("unix://");
    if let Some(socket) = http.socket.as_deref().filter(|socket| engine.is_some_and(|path| *socket == path)) {
        found.push(("http-socket", format!("{} is the engine's own socket", socket.display())));
    }
}

fn tables(offer: &OfferConfig, found: &mut Found) {
    for (place, service) in offer.services.iter().enumerate() {
        if let Some(first) = offer.services[..place].iter().position(|other| other == service) {
            let what = format!("[[service]] table {} says the same as table {}", place + 1, first + 1);
            found.push(("service", what));
        }
    }
}
