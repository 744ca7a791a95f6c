//! mcrouter's file on three hosts, by its own grammar and routes (`tests/mcrouter`): whom a write reaches, and how it
//! follows the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Map, json};

use crate::mcrouter::{Config, Route, read};
use crate::program::{Agent, Options, Server};
use crate::town::{Follow, Town, until};

const KEYS: [&str; 4] = ["user:1", "user:2", "page:/a", "x"];

/// The seed's own routes, over the same pools.
fn of_the_seed(pools: &BTreeMap<String, Vec<String>>) -> Config {
    let both = json!({"type": "AllFastestRoute", "children": ["PoolRoute|peers", "PoolRoute|central"]});
    let file = json!({
        "pools": pools.iter().map(|(name, servers)| (name.clone(), json!({"servers": servers}))).collect::<Map<_, _>>(),
        "route": {
            "type": "OperationSelectorRoute", "default_policy": "PoolRoute|central",
            "operation_policies": {
                "delete": both, "set": both,
                "get": {"type": "WarmUpRoute", "cold": "PoolRoute|local", "warm": "PoolRoute|central"}
            }
        }
    });
    read(&file.to_string()).expect("its grammar is right")
}

/// What must hold of a file, whoever is dead among the peers.
fn holds(config: &Config) {
    let nobody = BTreeSet::new();
    for key in KEYS {
        for operation in ["set", "delete"] {
            let sent = config.send(operation, key, &nobody);
            let reached: BTreeSet<String> = sent.reached.keys().cloned().collect();
            assert!(!sent.failed && reached == config.copies(key), "{operation} {key} reached {reached:?}");
        }
        let central: BTreeSet<&String> = config.pools["central"].iter().collect();
        for (server, bound) in config.send("set", key, &nobody).reached {
            let expected = if central.contains(&server) { None } else { Some(60) };
            assert_eq!(bound, expected, "how long {server} keeps it");
        }
    }
    let Route::ByOperation { by, default } = &config.route else { panic!("{:?}", config.route) };
    assert!(matches!(&by["get"], Route::WarmUp { exptime: Some(60), .. }), "a copy of central's is bounded, too");
    assert_eq!(**default, Route::Pool("central".to_owned()));
    let peers = config.pools.get("peers").cloned().unwrap_or_default();
    // Of the tests' hosts `local` and its peer are one server under one name; without it nothing is served there.
    let others = peers.iter().filter(|peer| !config.pools["local"].contains(peer));
    for dead in others.filter(|_| peers.len() > 1) {
        let sent = config.send("set", "x", &BTreeSet::from([dead.as_str()]));
        assert!(!sent.failed, "{dead} is dead and no write fails");
    }
}

#[test]
fn the_reader_is_strict_and_the_seeds_own_routes_leave_copies_behind() {
    let pools = BTreeMap::from([
        ("local".to_owned(), vec!["127.0.0.1:11212".to_owned()]),
        (
            "peers".to_owned(),
            vec!["10.0.0.1:11212".to_owned(), "10.0.0.2:11212".to_owned(), "10.0.0.3:11212".to_owned()],
        ),
        ("central".to_owned(), vec!["10.0.9.1:11211".to_owned()]),
    ]);
    let seed = of_the_seed(&pools);
    for key in KEYS {
        let sent = seed.send("delete", key, &BTreeSet::new());
        let reached: BTreeSet<String> = sent.reached.into_keys().collect();
        let left: Vec<_> = seed.copies(key).difference(&reached).cloned().collect();
        assert!(left.len() >= 3, "a delete of {key} leaves {left:?}");
    }
    for bad in [
        r#"{"pools": {}, "route": "PoolRoute|x"}"#,
        r#"{"pools": {"x": {"servers": []}}, "route": "PoolRoute|x"}"#,
        r#"{"pools": {"x": {"servers": ["a"]}}, "route": "PoolRoute|x"}"#,
        r#"{"pools": {"x": {"servers": ["a:1"]}}, "route": "HashRoute|x"}"#,
        r#"{"pools": {"x": {"servers": ["a:1"]}}, "route": {"type": "AllSyncRoute", "children": ["PoolRoute|x"], "y": 1}}"#,
        r#"{"pools": {"x": {"servers": ["a:1", "a:1"]}}, "route": "PoolRoute|x"}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

/// One of the seed's hosts: an agent, a memcached beside the application, and mcrouter's file.
struct Host {
    agent: Agent,
    port: u16,
    _memcached: Server,
    follow: Option<Follow>,
    file: String,
}

impl Host {
    fn start(town: &Town, number: usize, central: &str) -> Self {
        let (memcached, port) = Server::memcached();
        let peers = free_address();
        let settings = format!(
            "lease-ttl = '2s'\n[[service]]\nname = 'memcached'\nport = {port}\naddress = '127.0.0.1'\ncheck = 'memcached'\n\
             [[autodiscovery]]\nservice = 'memcached'\nlisten = '{peers}'\nleave-after = '3s'\n"
        );
        let node = format!("host-{number}");
        let flags = vec!["--etcd-endpoints".to_owned(), town.etcd.endpoints().join(",")];
        let options = Options { settings: &settings, flags, node: Some(&node), ..Options::default() };
        let agent = Agent::start_with(&options);
        let file = format!("out/{node}.json");
        let tables = format!(
            "node = '{node}'\netcd-endpoints = ['{}']\nhttp-socket = '{}'\n\
             [[render]]\nbuiltin = 'mcrouter'\ndestination = 'DIR/{file}'\nwait = '50ms:1s'\n\
             [render.with]\nservice = 'memcached'\nlocal = '127.0.0.1:{port}'\ncentral = {central}\n",
            town.etcd.endpoints().join("','"),
            agent.socket().display()
        );
        town.write(&format!("{node}.toml"), &tables);
        let follow = Some(town.follow_with(&format!("{node}.toml")));
        Self { agent, port, _memcached: memcached, follow, file }
    }

    /// What its file names as peers, once it is read.
    fn peers(&self, town: &Town) -> Vec<String> {
        read(&town.read(&self.file)).ok().and_then(|config| config.pools.get("peers").cloned()).unwrap_or_default()
    }
}

fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Every host's file names these hosts' servers, by their ids, and sends deletes to all of them.
fn all_name(town: &Town, files: &[&Host], members: &[u16], what: &str) {
    let expected: Vec<String> = members.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    for host in files {
        let why = || format!("{:?} instead of {expected:?}\n{}", host.peers(town), town.read("log"));
        until(&format!("{} {what}", host.file), || host.peers(town) == expected, why);
        holds(&read(&town.read(&host.file)).unwrap());
    }
}

#[test]
fn each_hosts_file_follows_a_join_a_drain_and_a_loss_and_a_delete_reaches_every_copy() {
    let town = Town::new("");
    // Our own auto-discovery stands for ElastiCache: its members are the central servers.
    let discovery = free_address();
    let settings = format!("[[autodiscovery]]\nservice = 'central'\nlisten = '{discovery}'\nleave-after = '2s'\n");
    let flags = vec!["--etcd-endpoints".to_owned(), town.etcd.endpoints().join(",")];
    let _teller =
        Agent::start_with(&Options { settings: &settings, flags, node: Some("central"), ..Options::default() });
    for number in 1..=2 {
        let value = format!(r#"{{"host":"10.0.9.{number}","port":11211,"id":"c{number}"}}"#);
        town.put(&format!("/services/central/c{number}"), &value);
    }
    let of_discovery = format!("'discovery://{discovery}'");
    let first = Host::start(&town, 1, &of_discovery);
    let second = Host::start(&town, 2, "['10.0.9.1:11211', '10.0.9.2:11211']");
    all_name(&town, &[&first, &second], &[first.port, second.port], "names both");
    for host in [&first, &second] {
        let central = || read(&town.read(&host.file)).unwrap().pools["central"].clone();
        until(
            "central is as it is told",
            || central() == ["10.0.9.1:11211", "10.0.9.2:11211"],
            || format!("{:?}", central()),
        );
    }
    let mut third = Host::start(&town, 3, &of_discovery);
    all_name(&town, &[&first, &second, &third], &[first.port, second.port, third.port], "names the one that joined");
    // A host that is drained leaves at once.
    assert!(second.agent.wharf("drain").status.success());
    all_name(&town, &[&first, &second, &third], &[first.port, third.port], "does not name the one that is drained");
    assert!(second.agent.wharf("undrain").status.success());
    all_name(&town, &[&first, &second, &third], &[first.port, second.port, third.port], "names it again, by its id");
    // One that is lost stays until `leave-after`.
    let lost = Instant::now();
    third.follow.take().unwrap().kill();
    drop(third);
    all_name(&town, &[&first, &second], &[first.port, second.port], "does not name the one that is lost");
    assert!(lost.elapsed() >= Duration::from_secs(3), "it stayed for a while: {:?}", lost.elapsed());
    first.agent.prints("render mcrouter", "what it depends on", |text| text.contains("discovery://"));
}
