//! What wharf makes of a container beyond registrator's rules, and the laws that hold for any container.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use wharf::model::offer::advertise::{Advertise, HostAddresses, choose};
use wharf::model::offer::container::{Binding, Container, Health, Network, RunState, Scope};
use wharf::model::offer::instance::{CheckKind, Confidant, DockerStanding, FirstProcess, Instance, Secret};
use wharf::model::offer::naming::{self, AllowNames, ChecksMode, Offered, SecretRule, Settings, StaticService, kind};
use wharf::model::words::record::{Proto, Role};

fn host() -> HostAddresses {
    let all = [("eth0", "192.0.2.10"), ("eth0", "2001:db8::10"), ("eth1", "10.1.2.3"), ("lo", "127.0.0.1")];
    HostAddresses {
        interfaces: all.map(|(name, address)| (name.to_owned(), address.parse().unwrap())).into(),
        source_v4: "192.0.2.10".parse().ok(),
        ..HostAddresses::default()
    }
}

fn settings() -> Settings {
    Settings { place: choose(&[], &host()), ..Settings::new("node1") }
}

fn advertising(all: &[&str]) -> Settings {
    let asked: Vec<Advertise> = all.iter().map(|one| one.parse().unwrap()).collect();
    let host = HostAddresses { source_v6: "2001:db8::10".parse().ok(), ..host() };
    Settings { place: choose(&asked, &host), ..Settings::new("node1") }
}

/// A running container: `ports` as `-p` writes them (`[ADDRESS:]HOST:PORT[/udp]`, or `PORT` for one only exposed), env
/// entries with `=` and labels with `:=`.
fn container(image: &str, ports: &[&str], said: &[&str]) -> Container {
    let mut container = Container {
        id: "ab".repeat(32).into(),
        name: "c1".into(),
        image: image.into(),
        state: RunState::Running,
        network_mode: "default".into(),
        ..Container::default()
    };
    let bridge = Network { addresses: vec!["172.17.0.2".parse().unwrap()], ..Network::default() };
    container.networks.insert("bridge".into(), bridge);
    for port in ports {
        let (port, proto) = port.split_once('/').unwrap_or((port, "tcp"));
        let (binding, own) = port.rsplit_once(':').map_or((None, port), |(binding, own)| (Some(binding), own));
        let bindings = container.ports.entry(format!("{own}/{proto}").into()).or_default();
        if let Some(binding) = binding {
            let (host_ip, host_port) = binding.rsplit_once(':').unwrap_or(("0.0.0.0", binding));
            bindings.push(Binding { host_ip: host_ip.into(), host_port: host_port.into() });
        }
    }
    for one in said {
        match one.split_once(":=") {
            Some((key, value)) => _ = container.labels.insert(key.into(), value.into()),
            None => container.env.push((*one).into()),
        }
    }
    container
}

fn offered(container: &Container, settings: &Settings) -> Offered {
    naming::instances(container, &|_| None, settings)
}

fn one(image: &str, ports: &[&str], said: &[&str]) -> Instance {
    only(&container(image, ports, said), &settings())
}

fn only(container: &Container, settings: &Settings) -> Instance {
    let mut offered = offered(container, settings);
    assert_eq!(offered.instances.len(), 1, "{:?}", offered.skipped);
    offered.instances.remove(0)
}

fn names(instance: &Instance) -> Vec<String> {
    instance.services.iter().map(ToString::to_string).collect()
}

fn check_skip(container: &Container, settings: &Settings, kind: &str) {
    let offered = offered(container, settings);
    assert!(offered.instances.is_empty(), "{kind}: offered {:?}", offered.instances);
    assert!(offered.skipped.iter().any(|one| one.kind == kind && !one.reason.is_empty()), "{:?}", offered.skipped);
}

#[test]
fn where_an_ambassador_listens_no_container_is() {
    let mut on_host = container("postgres", &["5432"], &[]);
    on_host.network_mode = "host".into();
    let listening = |at: &str| Settings { ambassadors: vec![at.parse().unwrap()], ..settings() };
    for met in ["192.0.2.10:5432", "0.0.0.0:5432"] {
        check_skip(&on_host, &listening(met), kind::AMBASSADOR);
    }
    for other in ["127.0.0.1:5432", "192.0.2.10:5433", "[::]:5432"] {
        assert_eq!(offered(&on_host, &listening(other)).instances.len(), 1, "{other}");
    }
    // A container's own address is not the host's.
    let internal = Settings { internal: true, ..listening("0.0.0.0:5432") };
    assert_eq!(offered(&container("postgres", &["5432"], &[]), &internal).instances.len(), 1);
}

#[test]
fn a_port_may_have_several_names() {
    assert_eq!(
        names(&one("redis", &["1:6379"], &["SERVICE_NAME=cache, sessions.prod,cache"])),
        ["cache", "sessions.prod"]
    );
    let two = offered(&container("app", &["1:80", "2:81"], &["SERVICE_NAME=a,b", "SERVICE_81_NAME=c"]), &settings());
    assert_eq!(two.instances.iter().map(names).collect::<Vec<_>>(), [vec!["a-80", "b-80"], vec!["c"]]);
}

#[test]
fn sixteen_names_are_kept_and_the_rest_has_a_reason() {
    let many: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let offered = offered(&container("app", &["1:80"], &[&format!("SERVICE_NAME={}", many.join(","))]), &settings());
    assert_eq!(offered.instances[0].services.len(), 16);
    assert_eq!(offered.skipped[0].kind, kind::TOO_MANY_NAMES);
}

#[test]
fn sixty_four_ports_without_a_name_of_their_own() {
    let ports: Vec<String> = (1..=200).map(|port| format!("{port}:{port}")).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let named: Vec<String> = (150..=200).map(|port| format!("SERVICE_{port}_NAME=named-{port}")).collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let offered = offered(&container("app", &ports, &named), &settings());
    assert_eq!(offered.instances.len(), 64 + 51);
    assert_eq!(offered.skipped.iter().filter(|one| one.kind == kind::TOO_MANY_PORTS).count(), 149 - 64);
}

#[test]
fn a_container_has_1024_records_and_the_rest_has_a_reason() {
    let list = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p";
    let named: Vec<String> = (1..=70).map(|port| format!("SERVICE_{port}_NAME={list}")).collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let ports: Vec<String> = (1..=70).map(|port| format!("{port}:{port}")).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let all = offered(&container("app", &ports, &named), &settings());
    assert_eq!(all.instances.iter().map(|one| one.services.len()).sum::<usize>(), 1024);
    assert_eq!(all.skipped.iter().filter(|one| one.kind == kind::TOO_MANY_RECORDS).count(), 70 - 64);
    // The last port has some of its names where there is room for no more.
    let first = [&["SERVICE_1_NAME=a,b,c"][..], &named[1..]].concat();
    let cut = offered(&container("app", &ports, &first), &settings());
    assert_eq!(cut.instances.iter().map(|one| one.services.len()).sum::<usize>(), 1024);
    assert_eq!(cut.instances.last().unwrap().services.len(), 13);
}

#[test]
fn of_ports_without_end_there_is_the_number() {
    let ports: Vec<String> = (1..=65_535).map(|port| port.to_string()).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let offered = offered(&container("app", &ports, &[]), &Settings { internal: true, ..settings() });
    assert_eq!((offered.instances.len(), offered.skipped.len()), (64, naming::MAX_SHOWN + 1));
    let further = 65_535 - 64 - naming::MAX_SHOWN;
    let last = offered.skipped.last().unwrap();
    assert!(last.reason.starts_with(&format!("{further} further ones")), "{last:?}");
    assert_eq!(offered.skipped.len() + offered.further[kind::TOO_MANY_PORTS], 65_535 - 64);
}

#[test]
fn of_more_text_than_64_kib_the_longest_is_left_out() {
    let mut said: Vec<String> =
        (0..4_000).map(|number| format!("SERVICE_9{number}_REGION={}", "x".repeat(20))).collect();
    said.push("SERVICE_NAME=web".into());
    said.push(format!("SERVICE_STORY={}", "x".repeat(10_000)));
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let offered = offered(&container("app", &["1:80"], &said), &settings());
    assert_eq!(names(&offered.instances[0]), ["web"]);
    assert!(offered.instances[0].attrs.is_empty(), "{:?}", offered.instances[0].attrs);
    assert_eq!(offered.skipped.iter().map(|one| one.kind).collect::<Vec<_>>(), [kind::TOO_MUCH_TEXT]);
    let within = format!("SERVICE_STORY={}", "x".repeat(7_000));
    one("app", &["1:80"], &[&within, "SERVICE_NAME=web"]);
}

#[test]
fn a_record_has_64_tags_and_64_attributes() {
    let tags: Vec<String> = (0..80).map(|number| format!("t{number}")).collect();
    let tags = format!("SERVICE_TAGS={}", tags.join(","));
    let mut said: Vec<String> = (0..80).map(|number| format!("SERVICE_A{number}=x")).collect();
    said.push(tags);
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let host = Settings { tags: vec!["host".into()], ..settings() };
    let offered = offered(&container("dns", &["1:53/udp"], &said), &host);
    let instance = &offered.instances[0];
    assert_eq!((instance.tags.len(), instance.attrs.len()), (64, 64));
    assert_eq!(instance.tags[62..].iter().map(|tag| &**tag).collect::<Vec<_>>(), ["host", "udp"]);
    let kinds: Vec<&str> = offered.skipped.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [kind::TOO_MANY_TAGS, kind::TOO_MANY_ATTRS]);
    one("dns", &["1:53"], &["SERVICE_TAGS=a,b", "SERVICE_REGION=eu"]);
}

#[test]
fn names_that_mean_something_are_nobody_s_to_claim() {
    let allowed = |globs: &[&str]| Settings { allow_names: AllowNames::parse(globs).unwrap(), ..settings() };
    for name in ["cfg", "Cfg", " cfg.", "a.cfg", "ns.dns", "NS..dns", "a.b.ns.dns", "apex.dns", "x.apex.dns", "cfg/"] {
        let said = container("app", &["1:80"], &[&format!("SERVICE_NAME={name}")]);
        check_skip(&said, &settings(), kind::RESERVED_NAME);
        check_skip(&said, &allowed(&["*", "*.dns"]), kind::RESERVED_NAME);
        only(&said, &allowed(&["*cfg", "*ns.dns", "{*.apex.dns,apex.dns}"]));
    }
    check_skip(&container("cfg", &["1:80"], &[]), &settings(), kind::RESERVED_NAME);
    for name in ["cfg.web", "dns", "ns", "dns.ns", "mycfg", "xns.dns", "cfg-1"] {
        only(&container("app", &["1:80"], &[&format!("SERVICE_NAME={name}")]), &settings());
    }
    // Neither by the name of a service and the id of its instance together.
    for id in ["ns", "NS", "apex"] {
        let said = ["SERVICE_NAME=dns", &format!("SERVICE_ID={id}")];
        let label = one("app", &["1:80"], &said).label;
        assert!(label.as_str().starts_with(&format!("{}-", id.to_lowercase())), "{label}");
    }
    assert_eq!(one("app", &["1:80"], &["SERVICE_NAME=web", "SERVICE_ID=ns"]).label.as_str(), "ns");
}

#[test]
fn no_instance_is_called_like_what_selects_some() {
    let words = ["instances", "master", "primary", "replica", "replicas", "slave", "slaves", "near", "local", "node"];
    for id in words.into_iter().chain(["any", "_tcp", "PRIMARY", "primary.", ".near"]) {
        let label = one("redis", &["1:6379"], &[&format!("SERVICE_ID={id}")]).label;
        let (_, hash) = label.as_str().rsplit_once('-').unwrap_or_else(|| panic!("{id}: {label}"));
        assert_eq!(hash.len(), 8, "{id}: {label}");
    }
    assert_eq!(one("redis", &["1:6379"], &["SERVICE_ID=primary-1"]).label.as_str(), "primary-1");
    // A service in front of another selects among its instances just so.
    assert_ne!(names(&one("redis", &["1:6379"], &["SERVICE_NAME=primary.redis"])), ["primary.redis"]);
}

#[test]
fn role_priority_weight_and_ttl_are_fields() {
    let said =
        ["SERVICE_ROLE=master", "SERVICE_PRIORITY=5", "SERVICE_WEIGHT=10", "SERVICE_TTL=90s", "SERVICE_REGION=eu"];
    let instance = one("redis", &["1:6379"], &said);
    assert_eq!((instance.role, instance.priority, instance.weight), (Some(Role::Primary), Some(5), Some(10)));
    assert_eq!(instance.ttl, Some(Duration::from_secs(90)));
    assert_eq!(instance.attrs.keys().map(|key| &**key).collect::<Vec<_>>(), ["region"]);
}

#[test]
fn a_bad_label_costs_its_port_only() {
    for bad in [
        "ROLE=king",
        "PRIORITY=70000",
        "WEIGHT=-1",
        "TTL=0",
        "TTL=3601",
        "TTL=soon",
        "CHECK_INTERVAL=99ms",
        "CHECK_INTERVAL=2h",
        "CHECK_TIMEOUT=11s",
        "CHECK_PASSWORD_FILE=../shadow",
    ] {
        let said = [&format!("SERVICE_80_{bad}")[..], "SERVICE_80_CHECK=redis"];
        let offered = offered(&container("app", &["1:80", "2:81"], &said), &settings());
        assert_eq!(offered.instances.iter().map(|one| one.key.port).collect::<Vec<_>>(), [81], "{bad}");
        assert_eq!((&*offered.skipped[0].port, offered.skipped[0].kind), ("80/tcp", kind::BAD_LABEL), "{bad}");
    }
    for good in ["TTL=1", "TTL=1h", "CHECK_INTERVAL=100ms", "CHECK_INTERVAL=1h", "CHECK_TIMEOUT=10s"] {
        one("app", &["1:80"], &[&format!("SERVICE_{good}")]);
    }
}

#[test]
fn text_never_leaves_its_label() {
    for (said, expected) in
        [("team/pg", "team-pg"), ("../../etc", "etc"), ("a..b", "a.b"), ("Größe", "gr-e"), ("x\n y", "x-y")]
    {
        assert_eq!(names(&one("redis", &["1:6379"], &[&format!("SERVICE_NAME={said}")])), [expected], "{said:?}");
    }
    for nothing in ["...", "/", "é", ","] {
        check_skip(
            &container("redis", &["1:6379"], &[&format!("SERVICE_NAME={nothing}")]),
            &settings(),
            kind::BAD_NAME,
        );
    }
    check_skip(&container("redis", &["1:6379"], &["SERVICE_ID=///"]), &settings(), kind::BAD_NAME);
    let long = format!("SERVICE_NAME={}", "abcdefgh.".repeat(40));
    check_skip(&container("redis", &["1:6379"], &[&long]), &settings(), kind::BAD_NAME);
    assert_eq!(one("my.app", &["1:80"], &[]).services[0].to_string(), "my-app");
    assert_eq!(one("redis", &["1:6379"], &["SERVICE_ID=a/b"]).label.as_str(), "a-b");
}

#[test]
fn names_may_be_bounded() {
    let allowed = |globs: &[&str]| Settings { allow_names: AllowNames::parse(globs).unwrap(), ..settings() };
    let said = container("redis", &["1:6379"], &["SERVICE_NAME=cache.prod,web"]);
    assert_eq!(names(&only(&said, &allowed(&["*"]))), ["cache.prod", "web"]);
    let some = offered(&said, &allowed(&["*.prod", "db-*"]));
    assert_eq!(
        (names(&some.instances[0]), some.skipped[0].kind),
        (vec!["cache.prod".to_owned()], kind::NAME_NOT_ALLOWED)
    );
    check_skip(&said, &allowed(&["db"]), kind::NAME_NOT_ALLOWED);
    assert!(AllowNames::parse(&["[", "{a"]).is_err());
}

#[test]
fn secrets_and_checks_never_become_attributes() {
    let said = [
        "SERVICE_DB_PASSWORD=x",
        "SERVICE_TOKEN=x",
        "SERVICE_APIKEY=x",
        "SERVICE_AWS_ACCESS_KEY_ID=x",
        "SERVICE_CHECK=tcp",
        "SERVICE_CHECK_INTERVAL=5s",
        "SERVICE_COMPASS=north",
    ];
    let offered = offered(&container("app", &["1:80"], &said), &settings());
    assert_eq!(offered.instances[0].attrs.keys().map(|key| &**key).collect::<Vec<_>>(), ["compass"]);
    let withheld: Vec<&str> = offered.withheld.iter().map(|withheld| withheld.attr.as_str()).collect();
    assert_eq!(withheld, ["apikey", "aws_access_key_id", "db_password", "token"]);
    let places = offered.withheld.iter().map(|withheld| (&*withheld.container, withheld.port.as_str()));
    assert!(places.clone().all(|place| place == ("c1", "80/tcp")), "{:?}", places.collect::<Vec<_>>());
}

#[test]
fn a_record_larger_than_may_be_stored_is_not_offered() {
    let label = format!("SERVICE_REGION={}", "x".repeat(8 * 1024));
    check_skip(&container("redis", &["1:6379"], &[&label]), &settings(), kind::RECORD_TOO_LARGE);
    one("redis", &["1:6379"], &[&format!("SERVICE_REGION={}", "x".repeat(7 * 1024))]);
}

fn endpoint(ports: &[&str], settings: &Settings) -> String {
    let instance = only(&container("redis", ports, &[]), settings);
    let six = instance.host6.map(|six| format!(" [{six}]")).unwrap_or_default();
    format!("{}:{}{six}", instance.host, instance.port)
}

#[test]
fn bindings_and_advertised_addresses() {
    let both = advertising(&["auto"]);
    assert_eq!(endpoint(&["0.0.0.0:1:6379", ":::1:6379"], &both), "192.0.2.10:1 [2001:db8::10]");
    assert_eq!(endpoint(&[":::1:6379", "0.0.0.0:1:6379"], &both), "192.0.2.10:1 [2001:db8::10]");
    assert_eq!(endpoint(&[":::1:6379"], &both), "2001:db8::10:1");
    assert_eq!(endpoint(&["0.0.0.0:1:6379", ":::2:6379"], &both), "192.0.2.10:1", "another port is another endpoint");
    assert_eq!(endpoint(&["0.0.0.0:1:6379"], &both), "192.0.2.10:1");
    assert_eq!(endpoint(&["127.0.0.1:1:6379", "10.1.2.3:2:6379"], &both), "10.1.2.3:2", "the first that others reach");
    assert_eq!(endpoint(&["10.1.2.3:2:6379"], &advertising(&["203.0.113.7"])), "203.0.113.7:2");
    assert_eq!(endpoint(&["0.0.0.0:2:6379"], &advertising(&["eth1"])), "10.1.2.3:2");
    assert_eq!(endpoint(&["0.0.0.0:2:6379"], &advertising(&["10.0.0.0/8"])), "10.1.2.3:2");
    assert_eq!(endpoint(&["127.0.0.1:2:6379"], &advertising(&["127.0.0.1"])), "127.0.0.1:2");
}

#[test]
fn an_address_is_never_one_that_others_cannot_reach() {
    for (binding, expected) in [
        ("127.0.0.1:1:6379", kind::LOOPBACK),
        ("::1:1:6379", kind::LOOPBACK),
        ("169.254.1.1:1:6379", kind::NO_ADDRESS),
        ("fe80::1:1:6379", kind::NO_ADDRESS),
        ("224.0.0.1:1:6379", kind::NO_ADDRESS),
        ("nonsense:1:6379", kind::NO_ADDRESS),
        ("0.0.0.0:0:6379", kind::BAD_PORT),
        ("0.0.0.0:70000:6379", kind::BAD_PORT),
        (":::1:6379", kind::NO_ADDRESS),
    ] {
        check_skip(&container("redis", &[binding], &[]), &settings(), expected);
    }
    let loopback = container("redis", &["127.0.0.1:1:6379"], &[]);
    check_skip(&loopback, &advertising(&["203.0.113.7"]), kind::LOOPBACK);
    check_skip(&container("redis", &["1:6379"], &[]), &Settings::new("node1"), kind::NO_ADDRESS);
}

#[test]
fn networks_are_chosen_in_order() {
    let mut several = container("redis", &["6379"], &[]);
    several.network_mode = "front".into();
    for (name, addresses) in [("front", "172.20.0.5"), ("back", "172.21.0.9"), ("ingress", "10.255.0.7")] {
        several
            .networks
            .insert(name.into(), Network { addresses: vec![addresses.parse().unwrap()], ..Network::default() });
    }
    let on = |networks: &[&str], container: &Container| {
        let networks = networks.iter().map(|name| (*name).to_owned()).collect();
        only(container, &Settings { internal: true, networks, ..settings() }).host.to_string()
    };
    assert_eq!(on(&[], &several), "172.20.0.5");
    assert_eq!(on(&["back"], &several), "172.21.0.9");
    assert_eq!(on(&["other", "ingress", "back"], &several), "10.255.0.7");
    several.network_mode = "8f2c0d3b9a41".into();
    assert_eq!(on(&[], &several), "172.21.0.9", "the first by name, never ingress");
    several.networks.get_mut("front").unwrap().id = format!("8f2c0d3b9a41{}", "0".repeat(52)).into();
    assert_eq!(on(&[], &several), "172.20.0.5");
    several.networks.retain(|name, _| &**name == "ingress");
    check_skip(&several, &Settings { internal: true, ..settings() }, kind::NO_ADDRESS);
}

#[test]
fn a_shared_network_gives_its_owner_s_address_or_binding() {
    let pod_id = "0b".repeat(32);
    let mut side = container("redis", &[], &[]);
    side.exposed.insert("6379/tcp".into());
    side.network_mode = format!("container:{pod_id}").into();
    let with = |pod: Container| {
        let pod = Arc::new(Container { id: pod_id.as_str().into(), ..pod });
        naming::instances(&side, &move |id| (*id == *pod.id).then(|| pod.clone()), &settings())
    };
    let place = |offered: &Offered| format!("{}:{}", offered.instances[0].host, offered.instances[0].port);
    assert_eq!(place(&with(container("pause", &[], &[]))), "172.17.0.2:6379");
    assert_eq!(place(&with(container("pause", &["16379:6379"], &[]))), "192.0.2.10:16379");
    let on_host = Container { network_mode: "host".into(), ..container("pause", &[], &[]) };
    assert_eq!(place(&with(on_host)), "192.0.2.10:6379");
    let stopped = Container { state: RunState::Stopped, ..container("pause", &[], &[]) };
    assert_eq!(with(stopped).skipped[0].kind, kind::NETWORK_CONTAINER);
    check_skip(&side, &settings(), kind::NETWORK_CONTAINER);
    side.network_mode = "container:".into();
    check_skip(&side, &settings(), kind::NETWORK_CONTAINER);
}

#[test]
fn a_network_without_bindings_gives_the_container_s_address_where_it_reaches_other_hosts() {
    let mut routed = container("redis", &[], &[]);
    routed.exposed.insert("6379/tcp".into());
    routed.network_mode = "lan".into();
    routed.networks = BTreeMap::new();
    let network =
        |address: &str, scope| Network { addresses: vec![address.parse().unwrap()], scope, ..Network::default() };
    let with = |networks: &[(&str, Network)]| Container {
        networks: networks.iter().map(|(name, one)| ((*name).into(), one.clone())).collect(),
        ..routed.clone()
    };
    let (lan, bridge) = (network("10.9.0.5", Scope::Beyond), network("172.20.0.5", Scope::Host));
    let at = |container: &Container, settings: &Settings| only(container, settings).host.to_string();
    assert_eq!(at(&with(&[("lan", lan.clone())]), &settings()), "10.9.0.5");
    let both = with(&[("lan", bridge.clone()), ("other", lan)]);
    let preferring = Settings { networks: vec!["lan".to_owned()], ..settings() };
    assert_eq!(at(&both, &preferring), "10.9.0.5", "never the address that only this host has");

    // What only this host reaches is published with --internal, as registrator does, and under a label's address.
    let confined = with(&[("lan", bridge)]);
    check_skip(&confined, &settings(), kind::NOT_PUBLISHED);
    assert_eq!(at(&confined, &Settings { internal: true, ..settings() }), "172.20.0.5");
    let labelled = Settings { address_label: Some("ip".to_owned()), ..settings() };
    let told = Container { labels: [("ip".into(), "10.32.0.5".into())].into(), ..confined.clone() };
    assert_eq!(at(&told, &labelled), "10.32.0.5");
    let untold = with(&[("lan", network("172.20.0.5", Scope::Untold("GET /networks/x: 403 Forbidden".into())))]);
    let skipped = offered(&untold, &settings()).skipped;
    assert!(skipped[0].kind == kind::NOT_PUBLISHED && skipped[0].reason.contains("403"), "{skipped:?}");
    routed.network_mode = "default".into();
    check_skip(&routed, &settings(), kind::NOT_PUBLISHED);
}

fn check_of(image: &str, ports: &[&str], said: &[&str]) -> (CheckKind, bool) {
    let found = offered(&container(image, ports, said), &settings());
    let port = ports[0].rsplit(':').next().and_then(|port| port.split('/').next()).unwrap();
    let check = &found.instances.iter().find(|one| one.key.port.to_string() == port).unwrap().check;
    (check.kind, check.guessed)
}

#[test]
fn checks_are_asked_for_or_guessed_from_the_image() {
    for (image, ports, said, expected) in [
        ("redis:7", &["1:6379"][..], &[][..], (CheckKind::Redis, true)),
        ("team/valkey", &["1:7000"], &[], (CheckKind::Redis, true)),
        ("memcached", &["1:11211", "2:80"], &[], (CheckKind::Memcached, true)),
        ("app", &["1:6379"], &[], (CheckKind::None, true)),
        ("redis", &["1:26379", "2:80"], &[], (CheckKind::None, true)),
        ("memcached", &["1:11211/udp"], &[], (CheckKind::None, true)),
        ("redis", &["1:6379"], &["SERVICE_CHECK=none"], (CheckKind::None, false)),
        ("app", &["1:80"], &["SERVICE_CHECK=Postgres"], (CheckKind::Postgres, false)),
        ("app", &["1:80"], &["SERVICE_CHECK_HTTP=/health"], (CheckKind::Http, false)),
        ("app", &["1:80"], &["SERVICE_CHECK_TCP=true"], (CheckKind::Tcp, false)),
        ("redis", &["1:6379"], &["SERVICE_CHECK_SCRIPT=true"], (CheckKind::None, false)),
    ] {
        let (kind, guessed) = check_of(image, ports, said);
        assert_eq!(kind, expected.0, "{image} {ports:?} {said:?}");
        assert_eq!(guessed, expected.1 && kind != CheckKind::None, "{image} {ports:?} {said:?}");
    }
    let asked = Settings { checks: ChecksMode::Asked, ..settings() };
    assert_eq!(only(&container("redis", &["1:6379"], &[]), &asked).check.kind, CheckKind::None);
    let off = Settings { checks: ChecksMode::Off, ..settings() };
    assert_eq!(only(&container("redis", &["1:6379"], &["SERVICE_CHECK=redis"]), &off).check.kind, CheckKind::None);
}

#[test]
fn a_check_that_is_not_there_says_so() {
    for said in [
        "SERVICE_CHECK=script",
        "SERVICE_CHECK_SCRIPT=x",
        "SERVICE_CHECK_CMD=x",
        "SERVICE_CHECK_GRPC=x",
        "SERVICE_CHECK_TTL=5s",
    ] {
        let check = one("redis", &["1:6379"], &[said]).check;
        assert_eq!(check.kind, CheckKind::None, "{said}");
        assert!(check.warning.is_some(), "{said}");
    }
    let both = one("redis", &["1:6379"], &["SERVICE_CHECK_HTTP=/", "SERVICE_CHECK_SCRIPT=x"]).check;
    assert_eq!((both.kind, both.warning.is_some()), (CheckKind::Http, true));
}

#[test]
fn a_misspelt_check_makes_nothing_less_safe() {
    for (said, meant) in [("reddis", "redis"), ("Postgress", "postgres"), ("htp", "http"), ("gopher", "")] {
        let said = format!("SERVICE_CHECK={said}");
        let check = one("redis", &["1:6379"], &[&said]).check;
        assert_eq!((check.kind, check.guessed), (CheckKind::Redis, true), "{said}: the image tells one");
        assert!(check.warning.is_some_and(|warning| warning.contains(meant)), "{said}");
        let found = offered(&container("example/web", &["1:80"], &[&said]), &settings());
        let why: Vec<_> = found.skipped.iter().map(|port| (port.kind, port.reason.contains(meant))).collect();
        assert_eq!((found.instances.len(), why), (0, vec![(kind::UNKNOWN_CHECK, true)]), "{said}");
    }
    let blank = one("example/web", &["1:80"], &["SERVICE_CHECK="]).check;
    assert_eq!((blank.kind, blank.warning), (CheckKind::None, None));
    let long = "x".repeat(100_000);
    let found = offered(&container("example/web", &["1:80"], &[&format!("SERVICE_CHECK={long}")]), &settings());
    assert!(found.skipped[0].reason.len() < 200, "a long name is not told whole");
}

#[test]
fn probes_go_where_the_traffic_ends_on_this_host() {
    let target = |ports: &[&str], said: &[&str], settings: &Settings| {
        only(&container("redis", ports, said), settings).check.target.map(|target| target.to_string())
    };
    assert_eq!(target(&["1:6379"], &[], &settings()).as_deref(), Some("192.0.2.10:1"));
    assert_eq!(target(&["10.1.2.3:1:6379"], &[], &settings()).as_deref(), Some("10.1.2.3:1"));
    let foreign = advertising(&["203.0.113.7"]);
    assert_eq!(target(&["1:6379"], &[], &foreign).as_deref(), Some("192.0.2.10:1"), "never to another machine");
    assert_eq!(target(&["10.1.2.3:1:6379"], &[], &foreign).as_deref(), Some("10.1.2.3:1"));
    let internal = Settings { internal: true, ..settings() };
    assert_eq!(target(&["1:6379"], &[], &internal).as_deref(), Some("172.17.0.2:6379"));
    assert_eq!(target(&["1:6379"], &["SERVICE_CHECK=tcp"], &settings()).as_deref(), Some("172.17.0.2:6379"));
    let labelled = Settings { address_label: Some("ip".into()), ..settings() };
    let said = container("redis", &["1:6379"], &["ip:=10.32.0.5/16"]);
    let instance = only(&said, &labelled);
    assert_eq!(instance.host.to_string(), "10.32.0.5");
    assert_eq!(instance.check.target.unwrap().to_string(), "192.0.2.10:1", "a label leads no probe astray");
}

#[test]
fn credentials_come_from_the_official_image_or_from_a_file() {
    let env = ["POSTGRES_PASSWORD=hunter2", "POSTGRES_USER=app"];
    let detail = one("postgres:16", &["1:5432"], &env).check.detail;
    assert_eq!((detail.user.as_deref(), detail.database.as_deref()), (Some("app"), Some("app")));
    assert_eq!(detail.password, Some(Secret::Value("hunter2".into())));
    assert!(!format!("{:?}", one("postgres:16", &["1:5432"], &env)).contains("hunter2"));
    assert_eq!(one("app", &["1:5432"], &[&env[..], &["SERVICE_CHECK=postgres"]].concat()).check.detail.password, None);
    assert_eq!(one("postgres", &["1:5432"], &[]).check.detail.user, None);

    let said = ["SERVICE_CHECK_USER=probe", "SERVICE_CHECK_PASSWORD_FILE=pg"];
    let refused = one("postgres", &["1:5432"], &said).check;
    assert!(refused.warning.is_some() && refused.detail.password.is_none() && refused.kind == CheckKind::Postgres);
    let without_table = Settings { secrets_dir: Some("/etc/wharf/secrets".into()), ..settings() };
    let refused = only(&container("postgres", &["1:5432"], &said), &without_table).check;
    let why =
        "SERVICE_CHECK_PASSWORD_FILE=\"pg\" is refused: no [[secret]] table lets a container called \"c1\" have it";
    assert_eq!((refused.warning.as_deref(), refused.detail.password), (Some(why), None));
    let with = Settings { secrets: vec![SecretRule::new("pg", "c?").unwrap()], ..without_table };
    let detail = only(&container("postgres", &["1:5432"], &said), &with).check.detail;
    assert_eq!(detail.password, Some(Secret::File("/etc/wharf/secrets/pg".into())));
    for bad in ["a/b", "..", "/etc/passwd", "a\\b"] {
        let said = container("postgres", &["1:5432"], &[&format!("SERVICE_CHECK_PASSWORD_FILE={bad}")]);
        check_skip(&said, &with, kind::BAD_LABEL);
    }
}

/// The password file that a container is let have.
fn file_of(container: &Container, rules: &[(&str, &str)]) -> Option<Secret> {
    let secrets = rules.iter().map(|(file, names)| SecretRule::new(file, names).unwrap()).collect();
    only(container, &Settings { secrets_dir: Some("/s".into()), secrets, ..settings() }).check.detail.password
}

#[test]
fn a_containers_name_says_which_file_it_may_have_and_nothing_else_of_it() {
    let said = ["SERVICE_CHECK_PASSWORD_FILE=redis.pw", "SERVICE_NAME=redis-1", "SERVICE_ID=redis-1"];
    let mut thief = container("redis-1", &["1:6379"], &[&said[..], &["SERVICE_CHECK=redis"]].concat());
    thief.labels.insert("com.docker.compose.service".into(), "redis-1".into());
    let rules = [("redis.pw", "redis-*"), ("web.pw", "*")];
    assert_eq!(file_of(&thief, &rules), None);
    for (name, lets) in [("redis-1", true), ("redis", false), ("", false), ("x/redis-1", false), ("redis-1/x", false)] {
        thief.name = name.into();
        assert_eq!(file_of(&thief, &rules), lets.then(|| Secret::File("/s/redis.pw".into())), "{name}");
    }
    thief.name = "redis-1".into();
    assert_eq!(file_of(&thief, &[("other.pw", "redis-*")]), None, "each file by a table of its own");
}

#[test]
fn a_table_of_the_configuration_names_any_file_and_its_own_place() {
    let with = Settings { secrets_dir: Some("/s".into()), ..settings() };
    let attrs = [("check_password_file".into(), "redis.pw".into())].into();
    let service = StaticService { check: Some("redis".into()), attrs, ..table("redis", 6379) };
    let check = naming::static_instances(&service, 0, &with).instances.remove(0).check;
    assert_eq!((check.detail.password, check.confidant), (Some(Secret::File("/s/redis.pw".into())), Confidant::Table));
}

#[test]
fn a_password_goes_to_the_containers_own_address_or_needs_a_proof() {
    let env = ["POSTGRES_PASSWORD=hunter2"];
    let process = FirstProcess { container: "ab".repeat(32).into(), pid: 77 };
    let of = |mode: &str, ports: &[&str], settings: &Settings| {
        let mut postgres = Container { pid: Some(77), ..container("postgres", ports, &env) };
        postgres.network_mode = mode.into();
        if mode == "host" {
            postgres.networks.clear();
            postgres.exposed = ["5432/tcp".into()].into();
        }
        only(&postgres, settings).check
    };
    let own = Confidant::Own("172.17.0.2:5432".parse().unwrap(), process.clone());
    let published = of("default", &["15432:5432"], &settings());
    assert_eq!((published.target.unwrap().to_string(), published.confidant), ("192.0.2.10:15432".into(), own.clone()));
    assert_eq!(of("default", &["5432"], &Settings { internal: true, ..settings() }).confidant, own);
    assert_eq!(of("host", &[], &settings()).confidant, Confidant::OnHost(process));
    let unseen = only(&container("postgres", &["1:5432"], &env), &settings()).check.confidant;
    assert_eq!(unseen, Confidant::Nobody("the engine tells no process of it"));
}

#[test]
fn who_shares_anothers_network_is_told_no_password() {
    let owner = Arc::new(container("pause", &["1:5432"], &[]));
    let mut sharer = Container { pid: Some(77), ..container("postgres", &[], &["POSTGRES_PASSWORD=hunter2"]) };
    (sharer.id, sharer.network_mode) = ("cd".repeat(32).into(), format!("container:{}", owner.id).into());
    sharer.networks.clear();
    sharer.exposed = ["5432/tcp".into()].into();
    let mut offered = naming::instances(&sharer, &|_| Some(owner.clone()), &settings());
    let confidant = offered.instances.remove(0).check.confidant;
    assert_eq!(confidant, Confidant::Nobody("it shares another container's network"));
}

#[test]
fn a_port_bound_to_an_address_that_has_moved_away_is_skipped_until_it_is_back() {
    for image in ["redis", "app"] {
        let bound = container(image, &["192.0.2.77:1:6379"], &[]);
        for explicit in [settings(), advertising(&["192.0.2.10"]), advertising(&["192.0.2.77"])] {
            let offered = offered(&bound, &explicit);
            assert!(offered.instances.is_empty(), "{:?}", offered.instances);
            let skipped = &offered.skipped[0];
            let why = "bound to 192.0.2.77, which is no address of this host now";
            assert_eq!((skipped.kind, skipped.reason.as_str()), (kind::NO_ADDRESS, why));
        }
        let mut back = settings();
        back.place.own.insert("192.0.2.77".parse().unwrap());
        assert_eq!(only(&bound, &back).host.to_string(), "192.0.2.77");
    }
}

#[test]
fn healthchecks_speak_unless_none_was_asked_for() {
    let with = |health, said: &[&str]| {
        let container = Container { health: Some(health), ..container("redis", &["1:6379"], said) };
        only(&container, &settings()).docker
    };
    assert_eq!(with(Health::Unhealthy, &[]), DockerStanding::Unhealthy);
    assert_eq!(with(Health::Starting, &[]), DockerStanding::Starting);
    assert_eq!(with(Health::Unhealthy, &["SERVICE_CHECK=none"]), DockerStanding::Running);
    let paused = Container { state: RunState::Paused, ..container("redis", &["1:6379"], &["SERVICE_CHECK=none"]) };
    assert_eq!(only(&paused, &settings()).docker, DockerStanding::Paused);
}

fn table(name: &str, port: u16) -> StaticService {
    StaticService { name: name.into(), port, ..StaticService::default() }
}

#[test]
fn tables_of_the_config_file_are_instances_like_a_container_s() {
    let service = StaticService {
        tags: vec!["disk".into()],
        check: Some("postgres".into()),
        role: Some(Role::Primary),
        attrs: [("check_interval".into(), "5s".into()), ("region".into(), "eu".into())].into(),
        ..table("db.prod,reports", 5432)
    };
    let offered = naming::static_instances(&service, 0, &settings());
    let instance = &offered.instances[0];
    assert_eq!(names(instance), ["db.prod", "reports"]);
    assert_eq!((instance.host.to_string().as_str(), instance.port), ("192.0.2.10", 5432));
    assert_eq!((&*instance.id, instance.role), ("node1:db.prod,reports:5432", Some(Role::Primary)));
    assert_eq!((instance.check.kind, instance.check.interval), (CheckKind::Postgres, Some(Duration::from_secs(5))));
    assert_eq!(instance.check.target.unwrap().to_string(), "192.0.2.10:5432");
    assert_eq!(instance.attrs.len(), 1);

    let with_a_path = StaticService { attrs: [("check_http".into(), "/health".into())].into(), ..table("shop", 8080) };
    let check = naming::static_instances(&with_a_path, 0, &settings()).instances.remove(0).check;
    assert_eq!((check.kind, check.guessed, check.detail.path.as_deref()), (CheckKind::Http, false, Some("/health")));
    assert_eq!(
        naming::static_instances(&table("redis", 6379), 0, &settings()).instances[0].check.kind,
        CheckKind::None
    );

    let elsewhere =
        StaticService { address: "10.9.9.9".parse().ok(), check: Some("redis".into()), ..table("redis", 6379) };
    let offered = naming::static_instances(&elsewhere, 0, &settings());
    assert_eq!(offered.instances[0].check.kind, CheckKind::None, "a probe never leaves this host");
    assert!(offered.instances[0].check.warning.is_some());

    for (service, expected) in [
        (table("...", 80), kind::BAD_NAME),
        (table("web", 0), kind::BAD_PORT),
        (StaticService { address: "127.0.0.1".parse().ok(), ..table("web", 80) }, kind::LOOPBACK),
        (StaticService { address: "0.0.0.0".parse().ok(), ..table("web", 80) }, kind::NO_ADDRESS),
        (StaticService { ttl: Some(Duration::from_secs(7200)), ..table("web", 80) }, kind::BAD_LABEL),
    ] {
        let offered = naming::static_instances(&service, 0, &settings());
        assert_eq!((offered.instances.len(), offered.skipped[0].kind), (0, expected), "{service:?}");
    }
    let datagrams = naming::static_instances(&StaticService { proto: Proto::Udp, ..table("dns", 53) }, 0, &settings());
    assert_eq!(&*datagrams.instances[0].id, "node1:dns:53:udp");
    assert_eq!(datagrams.instances[0].tags.iter().map(|tag| &**tag).collect::<Vec<_>>(), ["udp"]);
}

fn any_text() -> impl Strategy<Value = String> {
    let ports = prop::sample::select(vec!["80", "443", "6379", "0", "065", "+80"]);
    let keys = prop::sample::select(vec![
        "NAME",
        "ID",
        "TAGS",
        "IGNORE",
        "ROLE",
        "TTL",
        "PRIORITY",
        "CHECK",
        "CHECK_HTTP",
        "CHECK_INTERVAL",
        "UDP_NAME",
        "TCP_ID",
        "REGION",
        "",
        "_",
        "DB_PASSWORD",
    ]);
    prop_oneof![
        any::<String>(),
        (keys.clone(), any::<String>()).prop_map(|(key, value)| format!("SERVICE_{key}={value}")),
        (ports, keys, "[a-z0-9.,/-]{0,80}").prop_map(|(port, key, value)| format!("SERVICE_{port}_{key}={value}")),
    ]
}

fn any_port() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u32..70_000, prop::sample::select(vec!["/tcp", "/udp", "/sctp", "", "/"]))
            .prop_map(|(port, proto)| format!("{port}{proto}")),
        any::<String>(),
    ]
}

fn any_binding() -> impl Strategy<Value = Binding> {
    let addresses = vec!["", "0.0.0.0", "::", "10.1.2.3", "127.0.0.1", "fe80::1", "nonsense", "2001:db8::9"];
    (prop::sample::select(addresses), prop_oneof!["[0-9]{0,6}", any::<String>()])
        .prop_map(|(host_ip, host_port)| Binding { host_ip: host_ip.into(), host_port: host_port.into() })
}

prop_compose! {
    fn any_container()(
        name in any::<String>(),
        image in prop_oneof![any::<String>(), "[a-z/:@.]{0,30}"],
        env in prop::collection::vec(any_text(), 0..8),
        labels in prop::collection::btree_map(any_text(), any::<String>(), 0..8),
        exposed in prop::collection::btree_set(any_port(), 0..8),
        ports in prop::collection::btree_map(any_port(), prop::collection::vec(any_binding(), 0..3), 0..80),
        network_mode in prop_oneof![
            prop::sample::select(vec!["", "default", "host", "none", "back", "container:"]).prop_map(str::to_owned),
            any::<String>(),
        ],
        networks in prop::collection::btree_map("[a-z]{0,8}", prop::collection::vec(any::<std::net::IpAddr>(), 0..3), 0..3),
        paused in any::<bool>(),
    ) -> Container {
        Container {
            id: "ab".repeat(32).into(),
            name: name.into(),
            image: image.into(),
            env: env.into_iter().map(Into::into).collect(),
            labels: labels.into_iter().map(|(key, value)| {
                let key = key.split_once('=').map_or(key.clone(), |(key, _)| key.to_owned());
                (key.into(), value.into())
            }).collect(),
            exposed: exposed.into_iter().map(Into::into).collect(),
            ports: ports.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            network_mode: network_mode.into(),
            networks: networks.into_iter().map(|(name, addresses)| {
                (name.into(), Network { addresses, ..Network::default() })
            }).collect(),
            state: if paused { RunState::Paused } else { RunState::Running },
            ..Container::default()
        }
    }
}

proptest! {
    #[test]
    fn every_port_of_any_container_is_offered_or_has_a_reason(
        container in any_container(),
        internal in any::<bool>(),
        explicit in any::<bool>(),
    ) {
        let settings = Settings { internal, explicit, ..settings() };
        let offered = offered(&container, &settings);
        prop_assert_eq!(&offered, &self::offered(&container, &settings), "the same facts give the same offer");
        for text in container.exposed.iter().chain(container.ports.keys()) {
            let (number, proto) = text.split_once('/').unwrap_or((text, "tcp"));
            let is_offered = offered.instances.iter().any(|one| {
                number.parse() == Ok(one.key.port) && (proto.is_empty() || proto.eq_ignore_ascii_case(one.key.proto.as_str()))
            });
            let shown: String = text.chars().take(80).collect();
            let is_skipped = offered.skipped.iter().any(|one| {
                let same = one.port.split('/').next().and_then(|port| port.parse::<u16>().ok()) == number.parse().ok();
                one.port == shown || (number.parse::<u16>().is_ok() && same)
            });
            prop_assert!(is_offered || is_skipped, "{:?}: {:?}", text, offered);
        }
        prop_assert!(offered.skipped.iter().all(|one| !one.reason.is_empty() && kind::ALL.contains(&one.kind)));
    }

    #[test]
    fn whatever_is_offered_can_be_published_and_reached(container in any_container(), internal in any::<bool>()) {
        let settings = Settings { internal, ..settings() };
        for instance in offered(&container, &settings).instances {
            prop_assert!(wharf::model::offer::advertise::unfit(instance.host).is_none(), "{}", instance.host);
            prop_assert!(instance.host6.is_none_or(|six| six.is_ipv6() && six != instance.host));
            prop_assert!(instance.port > 0 && !instance.services.is_empty() && instance.services.len() <= 16);
            for name in &instance.services {
                prop_assert!(name.to_string().len() + 1 + instance.label.as_str().len() <= 253);
            }
            prop_assert!(instance.attrs.keys().all(|key| !key.starts_with("check_") && !key.contains("password")));
        }
    }
}
