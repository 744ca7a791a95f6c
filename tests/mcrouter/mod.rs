//! mcrouter's file, held to a strict reader of its grammar and to a small model of its routes.
//!
//! mcrouter itself cannot be installed here. The reader takes what its documentation describes of the routes that are
//! used, and nothing else: a route, a property or a pool that it does not know is an error. The model sends a request
//! down the routes and notes which servers it reaches, as the documentation has it.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test program uses its own part

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// A route, as far as its kind is known here.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
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
pub struct Config {
    pub pools: BTreeMap<String, Vec<String>>,
    pub route: Route,
}

/// Operations that a policy may be for.
const OPERATIONS: [&str; 9] = ["get", "gets", "set", "add", "delete", "incr", "decr", "touch", "metaget"];

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    let strange = object.keys().find(|key| !known.contains(&key.as_str()));
    strange.map_or(Ok(()), |key| Err(format!("{key} is no property of it: {object:?}")))
}

pub fn read(text: &str) -> Result<Config, String> {
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
pub struct Sent {
    pub reached: BTreeMap<String, Option<u64>>,
    pub failed: bool,
}

/// All of the children are asked, whatever one says.
fn asked(children: &[Route], ask: &mut impl FnMut(&Route) -> bool) -> Vec<bool> {
    children.iter().map(ask).collect()
}

impl Config {
    /// A write or a delete of a key, while some servers are dead.
    pub fn send(&self, operation: &str, key: &str, dead: &BTreeSet<&str>) -> Sent {
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
    pub fn copies(&self, key: &str) -> BTreeSet<String> {
        let mut central = BTreeMap::new();
        self.ask(&Route::Pool("central".to_owned()), "get", key, &BTreeSet::new(), None, &mut central);
        let near = ["local", "peers"].iter().flat_map(|pool| self.pools.get(*pool).cloned().unwrap_or_default());
        near.chain(central.into_keys()).collect()
    }
}
