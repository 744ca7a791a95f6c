//! Which of this host's addresses clients are told: `--advertise ADDR|IFACE|CIDR|auto`, one per family.
//!
//! Pure: the host's addresses and the source addresses of its default routes are given. `auto` yields to the address a
//! port is bound to, every other form overrules it, as registrator's `-ip` did. A route that goes takes no address that
//! an interface still has, and what cannot be read is as it was ([`HostAddresses::after`]).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::SystemTime;

use ipnet::IpNet;

/// One `--advertise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertise {
    /// The source address of the default route.
    Auto,
    /// This address, whoever has it.
    Address(IpAddr),
    /// The first address of this interface.
    Interface(String),
    /// The host's first address inside this network.
    Network(IpNet),
}

/// What is known of this host's addresses now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// Every address by interface, in the system's order.
    pub interfaces: Vec<(String, IpAddr)>,
    /// The source address of the IPv4 default route.
    pub source_v4: Option<Ipv4Addr>,
    /// The source address of the IPv6 default route.
    pub source_v6: Option<Ipv6Addr>,
    /// Since when some of this could not be read again.
    pub unread_since: Option<SystemTime>,
    /// Those of the source addresses that are known from before a restart alone: no route has told them since.
    pub remembered: Vec<IpAddr>,
}

/// One look at the host's addresses. An outer `None` is what could not be read, an inner one what is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressLook {
    /// Every address by interface.
    pub interfaces: Option<Vec<(String, IpAddr)>>,
    /// The source address of the IPv4 default route.
    pub source_v4: Option<Option<Ipv4Addr>>,
    /// The source address of the IPv6 default route.
    pub source_v6: Option<Option<Ipv6Addr>>,
}

impl HostAddresses {
    /// What is known before the first look: the source addresses of before a restart.
    pub fn remembered(source_v4: Option<Ipv4Addr>, source_v6: Option<Ipv6Addr>) -> Self {
        let remembered = source_v4.map(IpAddr::V4).into_iter().chain(source_v6.map(IpAddr::V6)).collect();
        Self { source_v4, source_v6, remembered, ..Self::default() }
    }

    /// What is known after a further look at `now`.
    pub fn after(&self, look: AddressLook, now: SystemTime) -> Self {
        let unread = look.interfaces.is_none() || look.source_v4.is_none() || look.source_v6.is_none();
        let interfaces = look.interfaces.unwrap_or_else(|| self.interfaces.clone());
        let had = |address: IpAddr| interfaces.iter().any(|(_, one)| *one == address);
        let source_v4 =
            look.source_v4.flatten().or(self.source_v4.filter(|v4| look.source_v4.is_none() || had((*v4).into())));
        let source_v6 =
            look.source_v6.flatten().or(self.source_v6.filter(|v6| look.source_v6.is_none() || had((*v6).into())));
        let unread_since = unread.then(|| self.unread_since.unwrap_or(now));
        let told = [look.source_v4.flatten().map(IpAddr::V4), look.source_v6.flatten().map(IpAddr::V6)];
        let used = [source_v4.map(IpAddr::V4), source_v6.map(IpAddr::V6)];
        let is_old = |address: &&IpAddr| used.contains(&Some(**address)) && !told.contains(&Some(**address));
        let remembered = self.remembered.iter().filter(is_old).copied().collect();
        Self { interfaces, source_v4, source_v6, unread_since, remembered }
    }
}

/// The addresses chosen, and what is needed to know whether another address is this host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The IPv4 address clients are told.
    pub v4: Option<Advertised>,
    /// The IPv6 address clients are told.
    pub v6: Option<Advertised>,
    /// Every address of this host.
    pub own: BTreeSet<IpAddr>,
    /// The source address of the IPv4 default route.
    pub source_v4: Option<Ipv4Addr>,
    /// The source address of the IPv6 default route.
    pub source_v6: Option<Ipv6Addr>,
    /// Since when the addresses could not be read again.
    pub unread_since: Option<SystemTime>,
    /// Source addresses that are known from before a restart alone.
    pub remembered: Vec<IpAddr>,
}

/// A chosen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The address.
    pub address: IpAddr,
    /// Somebody asked for it; `auto` did not find it.
    pub explicit: bool,
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return explicit_fits(address).map(|()| Self::Address(address));
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return network_fits(network.trunc()).map(Self::Network);
        }
        // No interface is called so, but many an address is mistyped so.
        let like_address = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let fits = !like_address && !text.is_empty() && text.len() <= 15 && text != "." && text != "..";
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':') {
            return Ok(Self::Interface(text.to_owned()));
        }
        Err(format!("{text:?} is no address, network, interface name or auto"))
    }
}

fn explicit_fits(address: IpAddr) -> Result<(), String> {
    match unfit(address) {
        Some(why) if why != LOOPBACK => Err(format!("{address} is {why}: no client could connect to it")),
        _ => Ok(()),
    }
}

fn network_fits(network: IpNet) -> Result<IpNet, String> {
    match (unfit(network.network()), unfit(network.broadcast())) {
        (Some(first), Some(last)) if first == last && first != LOOPBACK => {
            Err(format!("{network} is {first}: no client could connect to an address of it"))
        }
        _ => Ok(network),
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
            Self::Network(network) => network.fmt(f),
        }
    }
}

const LOOPBACK: &str = "loopback";

/// Why an address is of no use to clients elsewhere: `unspecified`, `loopback`, `link-local`, `multicast`.
pub fn unfit(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    if address.is_unspecified() {
        return Some("unspecified");
    }
    if address.is_loopback() {
        return Some(LOOPBACK);
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let multicast = address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    match (link_local, multicast) {
        (true, _) => Some("link-local"),
        (_, true) => Some("multicast"),
        _ => None,
    }
}

/// Whether the whole internet may route to the address: neither private, shared, documentation nor local.
pub fn is_public(address: IpAddr) -> bool {
    if unfit(address).is_some() {
        return false;
    }
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            !(v4.is_private() || v4.is_documentation() || shared || benchmark || a == 0 || a >= 240)
        }
        IpAddr::V6(v6) => {
            let documentation = v6.segments()[0] == 0x2001 && v6.segments()[1] == 0xdb8;
            !(v6.is_unique_local() || documentation)
        }
    }
}

/// Chooses one address per family. Nothing asked is `auto`; of two that give the same family the first counts.
pub fn choose(asked: &[Advertise], host: &HostAddresses) -> Place {
    let auto = [Advertise::Auto];
    let asked = if asked.is_empty() { &auto[..] } else { asked };
    let mut place = Place {
        own: host.interfaces.iter().map(|(_, address)| address.to_canonical()).collect(),
        source_v4: host.source_v4,
        source_v6: host.source_v6,
        unread_since: host.unread_since,
        remembered: host.remembered.clone(),
        ..Place::default()
    };
    for one in asked {
        let explicit = *one != Advertise::Auto;
        for address in candidates(one, host) {
            let slot = if address.is_ipv4() { &mut place.v4 } else { &mut place.v6 };
            slot.get_or_insert(Advertised { address, explicit });
        }
    }
    place
}

fn candidates(asked: &Advertise, host: &HostAddresses) -> Vec<IpAddr> {
    let fit = |address: &IpAddr| unfit(*address).is_none();
    match asked {
        Advertise::Address(address) => vec![address.to_canonical()],
        Advertise::Auto => {
            let sources = [host.source_v4.map(IpAddr::V4), host.source_v6.map(IpAddr::V6)];
            sources.into_iter().flatten().filter(fit).collect()
        }
        Advertise::Interface(name) => {
            let usable = |address: &IpAddr| fit(address) || (name == "lo" && address.is_loopback());
            host.interfaces.iter().filter(|(of, _)| of == name).map(|(_, address)| *address).filter(usable).collect()
        }
        Advertise::Network(network) => {
            let usable = |address: &IpAddr| fit(address) || address.is_loopback();
            let inside = host.interfaces.iter().map(|(_, address)| *address).filter(|a| network.contains(a));
            inside.filter(usable).collect()
        }
    }
}

impl Place {
    /// Whether an address is one of this host's.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.contains(&address.to_canonical())
    }

    /// The same, as long as none of this host's addresses is known.
    pub fn may_be_own(&self, address: IpAddr) -> bool {
        self.own.is_empty() || self.is_own(address)
    }

    /// Whether any address is known.
    pub fn is_known(&self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }

    /// Whether somebody asked for a loopback address, so that loopback may be published.
    pub fn allows_loopback(&self) -> bool {
        let asked = |one: &Option<Advertised>| one.is_some_and(|a| a.explicit && a.address.is_loopback());
        asked(&self.v4) || asked(&self.v6)
    }

    /// The addresses chosen, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        [self.v4, self.v6].into_iter().flatten().map(|advertised| advertised.address)
    }

    /// Public addresses that nobody asked for.
    pub fn public_by_auto(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let found = [self.v4, self.v6].into_iter().flatten().filter(|advertised| !advertised.explicit);
        found.map(|advertised| advertised.address).filter(|address| is_public(*address))
    }

    /// Where a probe of a wildcard binding goes: the advertised address if it is this host's, else the default route's
    /// source, else loopback.
    pub fn probe_address(&self, v6: bool) -> IpAddr {
        let (advertised, source, loopback) = if v6 {
            (self.v6, self.source_v6.map(IpAddr::V6), IpAddr::V6(Ipv6Addr::LOCALHOST))
        } else {
            (self.v4, self.source_v4.map(IpAddr::V4), IpAddr::V4(Ipv4Addr::LOCALHOST))
        };
        let own = advertised.map(|one| one.address).filter(|address| self.is_own(*address));
        own.or(source).unwrap_or(loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostAddresses {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        HostAddresses {
            interfaces: vec![
                ("lo".into(), address("127.0.0.1")),
                ("lo".into(), address("::1")),
                ("eth0".into(), address("fe80::1")),
                ("eth0".into(), address("10.0.0.5")),
                ("eth0".into(), address("2001:db8::5")),
                ("eth1".into(), address("192.168.7.5")),
                ("docker0".into(), address("172.17.0.1")),
            ],
            source_v4: Some(Ipv4Addr::new(10, 0, 0, 5)),
            source_v6: "2001:db8::5".parse().ok(),
            ..HostAddresses::default()
        }
    }

    #[test]
    fn a_source_of_before_a_restart_counts_while_an_interface_has_it_and_until_a_route_tells() {
        let (v4, other) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(192, 168, 7, 5));
        let six: Ipv6Addr = "2001:db8::5".parse().expect("an address");
        let look = |source_v4, source_v6| AddressLook {
            interfaces: Some(host().interfaces),
            source_v4: Some(source_v4),
            source_v6: Some(source_v6),
        };
        let now = SystemTime::UNIX_EPOCH;
        let chosen = |known: &HostAddresses| {
            let place = choose(&[], known);
            (place.addresses().collect::<Vec<_>>(), place.remembered)
        };
        let both: Vec<IpAddr> = vec![v4.into(), six.into()];
        let first = HostAddresses::remembered(Some(v4), Some(six)).after(look(None, None), now);
        assert_eq!(chosen(&first), (both.clone(), both.clone()));
        let told = first.after(look(Some(v4), None), now);
        assert_eq!(chosen(&told), (both, vec![six.into()]));
        let moved = told.after(look(Some(other), None), now);
        assert_eq!(chosen(&moved), (vec![other.into(), six.into()], vec![six.into()]));
        let gone = HostAddresses::remembered(Some(Ipv4Addr::new(10, 9, 9, 9)), None).after(look(None, None), now);
        assert_eq!(chosen(&gone), (Vec::new(), Vec::new()));
    }

    /// What `auto` chooses after the looks, each as `[INTERFACES] [V4] [V6]`: `?` could not be read, `-` is not there.
    fn check_looks(looks: &[&str], expected: &str) {
        let mut known = HostAddresses::default();
        for (number, look) in looks.iter().enumerate() {
            let parts: Vec<&str> = look.split(' ').collect();
            let [interfaces, v4, v6] = parts[..] else { panic!("{look}") };
            let all =
                |text: &str| text.split(',').filter_map(|one| Some(("eth0".to_owned(), one.parse().ok()?))).collect();
            let look = AddressLook {
                interfaces: (interfaces != "?").then(|| all(interfaces)),
                source_v4: (v4 != "?").then(|| v4.parse().ok()),
                source_v6: (v6 != "?").then(|| v6.parse().ok()),
            };
            known = known.after(look, SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64));
        }
        let place = choose(&[], &known);
        let mut shown: Vec<String> = place.addresses().map(|address| address.to_string()).collect();
        let since = known.unread_since.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        shown.extend(since.map(|since| format!("unread@{}", since.as_secs())));
        assert_eq!(shown.join(" "), expected, "{looks:?}");
    }

    #[test]
    fn a_route_that_goes_takes_no_address_that_an_interface_still_has() {
        check_looks(&["10.0.0.5 10.0.0.5 -", "10.0.0.5 - -"], "10.0.0.5");
        check_looks(&["10.0.0.5,fd00::5 10.0.0.5 fd00::5", "10.0.0.5,fd00::5 - -", "10.0.0.5 - -"], "10.0.0.5");
        check_looks(&["10.0.0.5 10.0.0.5 -", "- - -"], "");
        check_looks(&["10.0.0.5 - -"], "");
    }

    #[test]
    fn another_default_route_is_followed() {
        check_looks(
            &["10.0.0.5,10.9.0.5 10.0.0.5 -", "10.0.0.5,10.9.0.5 - -", "10.0.0.5,10.9.0.5 10.9.0.5 -"],
            "10.9.0.5",
        );
    }

    #[test]
    fn addresses_that_cannot_be_read_are_as_before_and_their_age_is_known() {
        check_looks(&["10.0.0.5 10.0.0.5 -", "? ? ?", "? ? ?"], "10.0.0.5 unread@1");
        check_looks(&["10.0.0.5 10.0.0.5 -", "10.0.0.5 ? -"], "10.0.0.5 unread@1");
        check_looks(&["10.0.0.5 10.0.0.5 -", "? - -"], "10.0.0.5 unread@1");
        check_looks(&["10.0.0.5,10.9.0.5 10.0.0.5 -", "? 10.9.0.5 -"], "10.9.0.5 unread@1");
        check_looks(&["10.0.0.5 10.0.0.5 -", "? ? ?", "10.0.0.5 10.0.0.5 -"], "10.0.0.5");
        check_looks(&["? ? ?"], "unread@0");
    }

    fn check(asked: &[&str], v4: Option<&str>, v6: Option<&str>) {
        let parsed: Vec<Advertise> = asked.iter().map(|text| text.parse().expect("an --advertise")).collect();
        let place = choose(&parsed, &host());
        let shown = |one: Option<Advertised>| one.map(|advertised| advertised.address.to_string());
        assert_eq!((shown(place.v4).as_deref(), shown(place.v6).as_deref()), (v4, v6), "{asked:?}");
    }

    #[test]
    fn every_form_chooses_one_address_per_family() {
        check(&[], Some("10.0.0.5"), Some("2001:db8::5"));
        check(&["auto"], Some("10.0.0.5"), Some("2001:db8::5"));
        check(&["203.0.113.7"], Some("203.0.113.7"), None);
        check(&["203.0.113.7", "auto"], Some("203.0.113.7"), Some("2001:db8::5"));
        check(&["eth1"], Some("192.168.7.5"), None);
        check(&["192.168.0.0/16", "2001:db8::/32"], Some("192.168.7.5"), Some("2001:db8::5"));
        check(&["eth9"], None, None);
        check(&["lo"], Some("127.0.0.1"), Some("::1"));
        check(&["127.0.0.1"], Some("127.0.0.1"), None);
    }

    #[test]
    fn addresses_nobody_can_reach_are_refused() {
        for bad in [
            "0.0.0.0",
            "::",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "",
            "a/b",
            "no such name",
            "999.1.2.3",
            "10.0.0",
            "1.2.3.4.5",
            "10.0.0.1.",
            "7",
            "10.0.0.1/33",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "ff00::/8",
        ] {
            assert!(bad.parse::<Advertise>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_public_address_found_by_auto_is_told_apart() {
        let mut host = host();
        host.source_v4 = Some(Ipv4Addr::new(93, 184, 216, 34));
        let found: Vec<IpAddr> = choose(&[], &host).public_by_auto().collect();
        assert_eq!(found, [IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34))]);
        let asked = [Advertise::Address(IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34)))];
        assert_eq!(choose(&asked, &host).public_by_auto().count(), 0);
    }

    #[test]
    fn probes_of_a_foreign_advertised_address_stay_on_this_host() {
        let place = choose(&["203.0.113.7".parse().expect("an address")], &host());
        assert_eq!(place.probe_address(false).to_string(), "10.0.0.5");
        let place = choose(&["eth1".parse().expect("a name")], &host());
        assert_eq!(place.probe_address(false).to_string(), "192.168.7.5");
    }
}
