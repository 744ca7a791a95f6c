//! mcrouter's file, held to a strict reader of its grammar and to a small model of its routes.
//!
//! mcrouter itself cannot be installed here. The reader takes what its documentation describes of the routes that are
//! used, and nothing else: a route, a property or a pool that it does not know is an error. The model sends a request
//! down the routes and notes which servers it reaches, as the documentation has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::program::{Agent, Options, Server};
use crate::town::{Follow, Town, until};

/// A route, as far as its kind is known here.
#[derive(Clone, Debug, PartialEq)]
enum Route {
    /// Hashes the key to one server of a pool.
    Pool(String),
    /// Asks all of its children and takes the slowest answer: a failure of one is a failure of the request.
    AllSync(Vec<Route>),
    /// Asks all of its children and takes the first good answer.
    AllFastest(Vec<Route>),
    /// One server of a pool.
    Server(String),
    /// Bounds the time that values live.
    Bounded(Box<Route>, u64),
    /// Reads `cold`, and where that misses `warm`, which then fills `cold` for so long; writes go to `cold`.
    WarmUp { cold: Box<Route>, warm: Box<Route>, exptime: Option<u64> },
    /// A route for each operation.
    ByOperation { default: Box<Route>, by: BTreeMap<String, Route> },
}

/// The file, read.
#[derive(Debug)]
struct Config {
    pools: BTreeMap<String, Vec<String>>,
    route: Route,
}

/// Operations that a policy may be for.
const OPERATIONS: [&str; 9] = ["get", "gets", "set", "add", "delete", "incr", "decr", "touch", "metaget"];

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    let strange = object.keys().find(|key| !known.contains(&key.as_str()));
    strange.map_or(Ok(()), |key| Err(format!("{key} is no property of it: {object:?}")))
}

fn read(text: &str) -> Result<Config, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let file = file.as_object().ok_or("no object")?;
    only(file, &["pools", "route"])?;
    let mut pools = BTreeMap::new();
    for (name, pool) in file["pools"].as_object().ok_or("no pools")? {
        let pool = pool.as_object().ok_or("no pool")?;
        only(pool, &["servers"])?;
        let servers = pool["servers"].as_array().ok_or("no servers")?;
        let servers = servers.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() || servers.iter().collect::<BTreeSet<_>>().len() < servers.len() {
            return Err(format!("{name} has no server, or one twice"));
        }
        pools.insert(name.clone(), servers);
    }
    let route = route(&file["route"], &pools)?;
    Ok(Config { pools, route })
}

/// `host:port`, an IPv6 address in brackets.
fn server(value: &Value) -> Result<String, String> {
    let text = value.as_str().ok_or("a server is text")?;
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text} has no port"))?;
    let is_host = host.parse::<std::net::Ipv4Addr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|six| six.parse::<std::net::Ipv6Addr>().is_ok())
        || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_host && is_port { Ok(text.to_owned()) } else { Err(format!("{text} is no server")) }
}

fn pool(name: &str, pools: &BTreeMap<String, Vec<String>>) -> Result<Vec<Route>, String> {
    let servers = pools.get(name).ok_or_else(|| format!("no pool {name}"))?;
    Ok(servers.iter().cloned().map(Route::Server).collect())
}

/// A route is text, `KIND|ARGUMENT` or `KIND|Pool|NAME`, or an object with its `type`.
fn route(value: &Value, pools: &BTreeMap<String, Vec<String>>) -> Result<Route, String> {
    if let Some(text) = value.as_str() {
        return match text.split('|').collect::<Vec<_>>()[..] {
            ["PoolRoute", name] => pool(name, pools).map(|_| Route::Pool(name.to_owned())),
            ["AllSyncRoute", "Pool", name] => pool(name, pools).map(Route::AllSync),
            ["AllFastestRoute", "Pool", name] => pool(name, pools).map(Route::AllFastest),
            _ => Err(format!("{text} is no route")),
        };
    }
    let object = value.as_object().ok_or_else(|| format!("{value} is no route"))?;
    let part = |name: &str| object.get(name).ok_or_else(|| format!("{name} is missing: {value}"));
    let children = || {
        let children = part("children")?.as_array().ok_or("children is a list")?;
        children.iter().map(|child| route(child, pools)).collect::<Result<Vec<_>, String>>()
    };
    match part("type")?.as_str().ok_or("type is text")? {
        "AllSyncRoute" => only(object, &["type", "children"]).and_then(|()| children().map(Route::AllSync)),
        "AllFastestRoute" => only(object, &["type", "children"]).and_then(|()| children().map(Route::AllFastest)),
        "ModifyExptimeRoute" => {
            only(object, &["type", "action", "exptime", "target"])?;
            let exptime = part("exptime")?.as_u64().ok_or("exptime is a number")?;
            if part("action")? != "min" {
                return Err("action is min here".to_owned());
            }
            Ok(Route::Bounded(Box::new(route(part("target")?, pools)?), exptime))
        }
        "WarmUpRoute" => {
            only(object, &["type", "cold", "warm", "exptime"])?;
            let exptime = object.get("exptime").map(|time| time.as_u64().ok_or("exptime is a number")).transpose()?;
            let (cold, warm) = (route(part("cold")?, pools)?, route(part("warm")?, pools)?);
            Ok(Route::WarmUp { cold: Box::new(cold), warm: Box::new(warm), exptime })
        }
        "OperationSelectorRoute" => {
            only(object, &["type", "default_policy", "operation_policies"])?;
            let mut by = BTreeMap::new();
            for (operation, policy) in part("operation_policies")?.as_object().ok_or("policies are an object")? {
                if !OPERATIONS.contains(&operation.as_str()) {
                    return Err(format!("no operation {operation}"));
                }
                by.insert(operation.clone(), route(policy, pools)?);
            }
            Ok(Route::ByOperation { default: Box::new(route(part("default_policy")?, pools)?), by })
        }
        other => Err(format!("no route {other}")),
    }
}

/// Which servers a request reached, each with the bound on a value's time there, and whether it failed.
#[derive(Debug, Default)]
struct Sent {
    reached: BTreeMap<String, Option<u64>>,
    failed: bool,
}

/// All of the children are asked, whatever one says.
fn asked(children: &[Route], ask: &mut impl FnMut(&Route) -> bool) -> Vec<bool> {
    children.iter().map(ask).collect()
}

impl Config {
    /// A write or a delete of a key, while some servers are dead.
    fn send(&self, operation: &str, key: &str, dead: &BTreeSet<&str>) -> Sent {
        let mut sent = Sent::default();
        sent.failed = !self.ask(&self.route, operation, key, dead, None, &mut sent.reached);
        sent
    }

    /// Whether it goes well.
    fn ask(
        &self,
        route: &Route,
        operation: &str,
        key: &str,
        dead: &BTreeSet<&str>,
        bound: Option<u64>,
        reached: &mut BTreeMap<String, Option<u64>>,
    ) -> bool {
        let mut ask = |route: &Route, bound| self.ask(route, operation, key, dead, bound, reached);
        match route {
            Route::ByOperation { default, by } => ask(by.get(operation).unwrap_or(default), bound),
            Route::AllSync(children) => asked(children, &mut |child| ask(child, bound)).iter().all(|one| *one),
            Route::AllFastest(children) => asked(children, &mut |child| ask(child, bound)).iter().any(|one| *one),
            Route::Bounded(target, most) => ask(target, Some(bound.map_or(*most, |bound| bound.min(*most)))),
            Route::WarmUp { cold, .. } => ask(cold, bound),
            Route::Pool(name) => {
                let servers = &self.pools[name];
                let place = key.bytes().fold(5381_usize, |hash, byte| hash.wrapping_mul(33) ^ usize::from(byte));
                ask(&Route::Server(servers[place % servers.len()].clone()), bound)
            }
            Route::Server(server) => {
                let is_alive = !dead.contains(server.as_str());
                if is_alive {
                    reached.insert(server.clone(), bound);
                }
                is_alive
            }
        }
    }

    /// Every server that may hold a copy of a key: this host's, its peers', and the central one that has it.
    fn copies(&self, key: &str) -> BTreeSet<String> {
        let mut central = BTreeMap::new();
        self.ask(&Route::Pool("central".to_owned()), "get", key, &BTreeSet::new(), None, &mut central);
        let near = ["local", "peers"].iter().flat_map(|pool| self.pools.get(*pool).cloned().unwrap_or_default());
        near.chain(central.into_keys()).collect()
    }
}

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
