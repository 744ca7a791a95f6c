//! Which address and port clients are told, and where a probe of this host goes.
//!
//! With published ports that is the binding's address, or the advertised one for a wildcard (an `--advertise` that is
//! not `auto` overrules both); with `--internal` the container's own. A probe goes where the traffic ends on this host
//! and never to another machine: a port bound to an address that has moved away is not offered until it is back.

use std::net::{IpAddr, SocketAddr};

use super::super::advertise::{Advertised, Place, unfit};
use super::super::container::{Binding, Container, Network, Scope};
use super::ports::{Candidate, Way};
use super::{Others, Settings, kind};

/// The way to one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) host: IpAddr,
    pub(super) host6: Option<IpAddr>,
    pub(super) port: u16,
    /// Where a probe goes.
    pub(super) target: Option<SocketAddr>,
    /// The container's own address and port, for checks that must not meet a proxy.
    pub(super) own: Option<SocketAddr>,
}

/// Why there is no way: the counted kind and the words.
pub(super) type NoWay = (&'static str, String);

/// Finds the way to a port.
pub(super) fn reach(
    container: &Container,
    port: &Candidate<'_>,
    others: &Others<'_>,
    settings: &Settings,
) -> Result<Reach, NoWay> {
    let place = &settings.place;
    let reach = match port.way {
        Way::Bound(bindings) => {
            let own = own_addresses(container, settings).first().map(|own| SocketAddr::new(*own, port.number));
            published(bindings, place).map(|reach| Reach { own, ..reach })
        }
        Way::Host => on_host(port.number, place),
        Way::Shared(other) => shared(other, port, others, settings),
        Way::Direct => beyond_host(container, port.number, settings),
        Way::Internal => on_network(container, port.number, settings),
        Way::Unpublished => Err((kind::NOT_PUBLISHED, "exposed, but not published on the host".to_owned())),
        Way::Nowhere => Err((kind::NO_ADDRESS, "the container has no network".to_owned())),
    };
    let shares = matches!(port.way, Way::Shared(_));
    match label_address(container, settings)? {
        Some(address) if !shares && port.way.counts() => Ok(labelled(address, port, reach.ok())),
        _ => reach,
    }
}

/// A port at which an ambassador of this host listens is none of a container, whatever its image exposes: whoever came
/// would be led round for ever.
pub(super) fn is_no_ambassador(reach: &Reach, ambassadors: &[SocketAddr], place: &Place) -> Result<(), NoWay> {
    let is_here = |host: IpAddr| place.addresses().any(|own| own == host) || host.is_loopback();
    let leads = |host: IpAddr, listener: &SocketAddr| {
        let is_everywhere = listener.ip().is_unspecified() && listener.is_ipv4() == host.is_ipv4() && is_here(host);
        listener.port() == reach.port && (listener.ip() == host || is_everywhere)
    };
    let hosts = [Some(reach.host), reach.host6].into_iter().flatten();
    let met = hosts.flat_map(|host| ambassadors.iter().find(|listener| leads(host, listener))).next();
    met.map_or(Ok(()), |listener| Err((kind::AMBASSADOR, format!("an ambassador of this host listens on {listener}"))))
}

/// The address that `--address-label` points at, when the container has that label.
fn label_address(container: &Container, settings: &Settings) -> Result<Option<IpAddr>, NoWay> {
    let Some(label) = &settings.address_label else { return Ok(None) };
    let Some(text) = container.labels.get(label.as_str()).filter(|text| !text.is_empty()) else { return Ok(None) };
    let address = text.rsplit_once('/').map_or(&**text, |(address, _)| address);
    let bad = |why: &str| (kind::ADDRESS_LABEL, format!("label {label}={:?}: {why}", shorten(text)));
    let address: IpAddr = address.trim().parse().map_err(|_| bad("no address"))?;
    match unfit(address) {
        Some(why) if !(address.is_loopback() && settings.place.allows_loopback()) => {
            Err(bad(&format!("a {why} address")))
        }
        _ => Ok(Some(address.to_canonical())),
    }
}

/// The labelled address with the port that the way has; the probe stays with what this host is known to have.
fn labelled(address: IpAddr, port: &Candidate<'_>, reach: Option<Reach>) -> Reach {
    let number = match port.way {
        Way::Bound(bindings) => bindings.iter().find_map(|b| host_port(b).ok()).unwrap_or(port.number),
        _ => port.number,
    };
    Reach {
        host: address,
        host6: None,
        port: reach.map_or(number, |reach| reach.port),
        target: reach.and_then(|reach| reach.target),
        own: reach.and_then(|reach| reach.own),
    }
}

fn host_port(binding: &Binding) -> Result<u16, NoWay> {
    let number = binding.host_port.parse::<u16>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| (kind::BAD_PORT, format!("host port {:?} is no port", shorten(&binding.host_port))))
}

/// The first binding that clients can use, with the same port's address of the other family.
pub(super) fn published(bindings: &[Binding], place: &Place) -> Result<Reach, NoWay> {
    let mut first: Option<Reach> = None;
    let mut problem = None;
    for binding in bindings {
        match bound(binding, place) {
            Ok(ways) => ways.into_iter().for_each(|way| first = Some(joined(first, way))),
            Err(why) => _ = problem.get_or_insert(why),
        }
    }
    let none = || (kind::NOT_PUBLISHED, "exposed, but not published on the host".to_owned());
    first.ok_or_else(|| problem.unwrap_or_else(none))
}

/// Adds a further way: only the other family of the same port says anything new. IPv4 comes first.
fn joined(first: Option<Reach>, way: Reach) -> Reach {
    match first {
        None => way,
        Some(one) if one.host6.is_some() || one.port != way.port || one.host.is_ipv4() == way.host.is_ipv4() => one,
        Some(one) if one.host.is_ipv4() => Reach { host6: Some(way.host), ..one },
        Some(one) => Reach { host6: Some(one.host), ..way },
    }
}

/// What one binding says: one address, or one of each family for a binding without address.
fn bound(binding: &Binding, place: &Place) -> Result<Vec<Reach>, NoWay> {
    let port = host_port(binding)?;
    let text = binding.host_ip.trim();
    let (addresses, target) = if text.is_empty() {
        (both(place), place.probe_address(place.v4.is_none() && place.v6.is_some()))
    } else {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        let address: IpAddr =
            text.parse().map_err(|_| (kind::NO_ADDRESS, format!("bound to {:?}, no address", shorten(text))))?;
        bound_to(address.to_canonical(), place)?
    };
    if addresses.is_empty() {
        return Err((kind::NO_ADDRESS, "no address to advertise is known yet".to_owned()));
    }
    let target = Some(SocketAddr::new(target, port));
    Ok(addresses.into_iter().map(|host| Reach { host, host6: None, port, target, own: None }).collect())
}

/// The addresses clients are told for a port bound to `address`, and where its probe goes.
fn bound_to(address: IpAddr, place: &Place) -> Result<(Vec<IpAddr>, IpAddr), NoWay> {
    let (same, other) = if address.is_ipv4() { (place.v4, place.v6) } else { (place.v6, place.v4) };
    let asked = |one: Option<Advertised>| one.filter(|advertised| advertised.explicit).map(|one| one.address);
    let overruled = asked(same).or(if same.is_none() { asked(other) } else { None });
    if address.is_unspecified() {
        let told = overruled.or(same.map(|one| one.address));
        return Ok((told.into_iter().collect(), place.probe_address(address.is_ipv6())));
    }
    if address.is_loopback() && !place.allows_loopback() {
        return Err((kind::LOOPBACK, format!("bound to {address}: no other host could connect to it")));
    }
    if !place.may_be_own(address) {
        return Err((kind::NO_ADDRESS, format!("bound to {address}, which is no address of this host now")));
    }
    match (overruled, unfit(address)) {
        (Some(told), _) => Ok((vec![told], address)),
        (None, Some(why)) => Err((kind::NO_ADDRESS, format!("bound to {address}, a {why} address"))),
        (None, None) => Ok((vec![address], address)),
    }
}

fn both(place: &Place) -> Vec<IpAddr> {
    place.addresses().collect()
}

/// A port of the host itself.
fn on_host(port: u16, place: &Place) -> Result<Reach, NoWay> {
    let mut addresses = place.addresses();
    let host = addresses.next().ok_or((kind::NO_ADDRESS, "no address to advertise is known yet".to_owned()))?;
    let target = Some(SocketAddr::new(place.probe_address(host.is_ipv6()), port));
    Ok(Reach { host, host6: addresses.next(), port, target, own: None })
}

/// The container's own address, where its network reaches beyond this host.
fn beyond_host(container: &Container, port: u16, settings: &Settings) -> Result<Reach, NoWay> {
    let addresses = addresses_on(container, settings, |network| network.scope == Scope::Beyond);
    if addresses.is_empty() {
        return Err((kind::NOT_PUBLISHED, why_not_beyond(container)));
    }
    at_one_of(&addresses, port)
}

fn why_not_beyond(container: &Container) -> String {
    let untold = container.networks.values().find_map(|network| match &network.scope {
        Scope::Untold(why) => Some(why),
        Scope::Host | Scope::Beyond => None,
    });
    match untold {
        Some(why) => format!(
            "exposed, but not published on the host; the engine does not tell whether its network reaches other hosts ({})",
            shorten(why)
        ),
        None => "exposed, but not published on the host, and its network reaches no other host".to_owned(),
    }
}

/// The container's own address.
fn on_network(container: &Container, port: u16, settings: &Settings) -> Result<Reach, NoWay> {
    at_one_of(&own_addresses(container, settings), port)
}

fn at_one_of(addresses: &[IpAddr], port: u16) -> Result<Reach, NoWay> {
    let Some(first) = addresses.first().copied() else {
        return Err((kind::NO_ADDRESS, "the container has no address that others can use".to_owned()));
    };
    let v6 = addresses.iter().copied().find(IpAddr::is_ipv6);
    let host = addresses.iter().copied().find(IpAddr::is_ipv4).unwrap_or(first);
    let own = Some(SocketAddr::new(host, port));
    Ok(Reach { host, host6: v6.filter(|six| *six != host), port, target: own, own })
}

/// A port of another container's network.
fn shared(id: &str, port: &Candidate<'_>, others: &Others<'_>, settings: &Settings) -> Result<Reach, NoWay> {
    let missing = |why: &str| (kind::NETWORK_CONTAINER, format!("shares the network of {:?}, {why}", shorten(id)));
    let by_id = id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !by_id {
        return Err(missing("which is no container id"));
    }
    let other = others(id).filter(|other| other.runs()).ok_or_else(|| missing("which does not run here"))?;
    let bindings = other.ports.get(port.text).filter(|bindings| !bindings.is_empty() && !settings.internal);
    match &*other.network_mode {
        "host" => on_host(port.number, &settings.place),
        mode if mode.starts_with("container:") => Err(missing("which shares another's")),
        _ => match bindings {
            Some(bindings) => {
                let own = own_addresses(&other, settings).first().map(|own| SocketAddr::new(*own, port.number));
                published(bindings, &settings.place).map(|reach| Reach { own, ..reach })
            }
            None => on_network(&other, port.number, settings),
        },
    }
}

const NOT_CHOSEN: [&str; 4] = ["ingress", "docker_gwbridge", "host", "none"];

/// The container's usable addresses on the network that counts: a preferred one, else NetworkMode's, else the first by
/// name; never swarm's own unless preferred.
pub(super) fn own_addresses(container: &Container, settings: &Settings) -> Vec<IpAddr> {
    addresses_on(container, settings, |_| true)
}

/// The same among the networks that fit.
fn addresses_on(container: &Container, settings: &Settings, fits: impl Fn(&Network) -> bool) -> Vec<IpAddr> {
    let mode = match &*container.network_mode {
        "" | "default" => "bridge",
        mode => mode,
    };
    let by_id = |id: &str| mode.len() >= 12 && id.starts_with(mode);
    let preferred = settings.networks.iter().filter_map(|name| container.networks.get(name.as_str()));
    let of_mode = container.networks.get(mode).into_iter();
    let of_mode = of_mode.chain(container.networks.values().filter(|network| by_id(&network.id)));
    let rest = container.networks.iter().filter(|(name, _)| !NOT_CHOSEN.contains(&&***name)).map(|(_, one)| one);
    let usable = preferred.chain(of_mode).chain(rest).filter(|network| fits(network)).map(|network| {
        let addresses = network.addresses.iter().copied().map(|address| address.to_canonical());
        addresses.filter(|address| unfit(*address).is_none()).collect::<Vec<_>>()
    });
    usable.into_iter().find(|addresses| !addresses.is_empty()).unwrap_or_default()
}

/// Text for a reason: not the 64 KiB that somebody wrote.
pub(super) fn shorten(text: &str) -> &str {
    match text.char_indices().nth(80) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
