//! The same requests get the same replies from a real etcd with its v2 API and from this program, over etcd by two
//! agents and over the embedded store; and who watches is told the same. But for indexes, moments, and the order of
//! what was not asked for in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value};

use super::ask::{Told, escaped, form, try_ask};
use super::{Ground, PATIENCE};

/// Nodes that sequences play with, below a directory of their own.
const PATHS: [&str; 10] = ["", "/a", "/b", "/a/b", "/a/b/c", "/b/d", "/_h", "/_h/x", "/a/_i", "/a/b/c/d"];
const VALUES: [&str; 5] = ["x", "y", "", "z z<&>\"", "größe"];
const LENGTH: usize = 40;

/// One that is asked: real etcd, or agents of one store, each request by any of them.
struct World {
    addresses: Vec<String>,
    /// Names given in order, by when they were seen first.
    names: BTreeMap<String, usize>,
    /// The last index of each path.
    indexes: BTreeMap<&'static str, u64>,
    /// The index of the first change.
    first: u64,
    /// Directories that were seen with a TTL.
    timed: BTreeSet<String>,
}

/// A request, with `{index}` where a world's own index of the path goes.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    path: &'static str,
    query: String,
    form: Option<String>,
}

impl World {
    fn new(addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        Self { addresses, names: BTreeMap::new(), indexes: BTreeMap::new(), first: 0, timed: BTreeSet::new() }
    }

    fn ask(&mut self, base: &str, request: &Request, random: &mut StdRng) -> (u16, Value) {
        let at = self.addresses[random.random_range(0..self.addresses.len())].clone();
        let index = self.indexes.get(request.path).copied().unwrap_or(3).to_string();
        let fill = |text: &str| text.replace("{index}", &index);
        let target = format!("{base}{}{}", request.path, fill(&request.query));
        let form = request.form.as_deref().map(fill);
        let told = try_ask(&at, request.method, &target, form.as_deref(), PATIENCE);
        let told = told.unwrap_or_else(|| panic!("{at} never replied to {request:?}"));
        if told.status < 300 && request.method != "GET" {
            self.first = if self.first == 0 { told.index() } else { self.first };
            if told.body["node"]["dir"] == true && form.as_deref().is_some_and(|form| form.contains("ttl=")) {
                self.forget_indexes_below(request.path);
            }
            if request.method == "PUT" && told.modified() > 0 {
                self.indexes.insert(request.path, told.modified());
            }
        }
        self.note_times(&told.body["node"]);
        (told.status, self.plain(told.body))
    }

    /// What is in a directory with a TTL ends with it, and shows a time of its own only when that is sooner.
    fn note_times(&mut self, node: &Value) {
        if node["dir"] == true && node.get("ttl").is_some() {
            self.timed.extend(node["key"].as_str().map(|key| format!("{key}/")));
        }
        node["nodes"].as_array().into_iter().flatten().for_each(|node| self.note_times(node));
    }

    fn is_timed_from_above(&self, node: &Map<String, Value>) -> bool {
        let key = node.get("key").and_then(Value::as_str).unwrap_or_default();
        self.timed.iter().any(|directory| key.starts_with(directory))
    }

    /// A directory's new time moves the indexes of what is in it, as the page of deviations says.
    fn forget_indexes_below(&mut self, directory: &str) {
        let below = |path: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        self.indexes.retain(|path, _| !below(path));
    }

    /// A reply without what may differ.
    fn plain(&mut self, value: Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(self.plain_fields(fields)),
            Value::Array(mut nodes) => {
                nodes.sort_by_key(|node| node["key"].as_str().map(str::to_owned));
                Value::Array(nodes.into_iter().map(|node| self.plain(node)).collect())
            }
            Value::String(text) => Value::String(self.plain_text(&text)),
            other => other,
        }
    }

    fn plain_fields(&mut self, fields: Map<String, Value>) -> Map<String, Value> {
        let from_above = self.is_timed_from_above(&fields);
        let plain = |(name, value): (String, Value)| {
            let told = match name.as_str() {
                "modifiedIndex" | "createdIndex" | "index" => {
                    Value::Bool(value.as_u64().is_some_and(|index| index > 0))
                }
                "expiration" => Value::Bool(true),
                _ => self.plain(value),
            };
            (name, told)
        };
        fields
            .into_iter()
            .filter(|(name, _)| !(from_above && ["ttl", "expiration"].contains(&name.as_str())))
            .map(plain)
            .collect()
    }

    /// Names that were given in order become their number; indexes that were compared are left out.
    fn plain_text(&mut self, text: &str) -> String {
        let is_name = |part: &&str| part.len() == 20 && part.bytes().all(|byte| byte.is_ascii_digit());
        let known = self.names.len();
        let part = |part: &str| match Some(part).filter(is_name) {
            Some(name) => format!("#{}", self.names.entry(name.to_owned()).or_insert(known)),
            None => part.to_owned(),
        };
        let text = text.split('/').map(part).collect::<Vec<_>>().join("/");
        if !text.starts_with('[') {
            return text;
        }
        let is_index = |word: &str| word.trim_matches(['[', ']']).bytes().all(|byte| byte.is_ascii_digit());
        let word = |word: &str| if is_index(word) { "#".to_owned() } else { word.to_owned() };
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// What one is told who watches all of it from the first change on, until nothing more comes.
    fn events(&mut self, base: &str, count: Option<usize>) -> Vec<String> {
        let (mut events, mut since) = (Vec::new(), self.first);
        while count.is_none_or(|count| events.len() < count) && since > 0 {
            let target = format!("{base}?wait=true&recursive=true&waitIndex={since}");
            // Real etcd is asked until it is silent; ours has to tell as much, and is waited for.
            let patience = if count.is_none() { Duration::from_millis(400) } else { PATIENCE };
            let at = self.addresses[events.len() % self.addresses.len()].clone();
            let Some(told) = try_ask(&at, "GET", &target, None, patience) else { break };
            assert!(told.modified() >= since, "{told:?}");
            since = told.modified() + 1;
            events.extend(self.event(&told));
        }
        events
    }

    /// History tells etcd's watchers of hidden nodes, too; ours are not told.
    fn event(&mut self, told: &Told) -> Option<String> {
        let node = |name: &str| {
            let node = &told.body[name];
            let text = |field: &str| node[field].to_string();
            format!("{} {} {}", text("key"), text("dir"), text("value"))
        };
        let is_hidden = told.body["node"]["key"].as_str().is_some_and(|key| key.contains("/_"));
        let text = format!("{} {} was {}", told.action(), node("node"), node("prevNode"));
        let parts: Vec<&str> = text.split('"').collect();
        let plain: Vec<String> = parts.into_iter().map(|part| self.plain_text(part)).collect();
        (!is_hidden).then(|| plain.join("\""))
    }
}

fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    from[random.random_range(0..from.len())]
}

fn request(random: &mut StdRng) -> Request {
    let path = pick(random, &PATHS);
    match random.random_range(0..100) {
        0..20 => {
            let query = pick(random, &["", "?sorted=true", "?recursive=true&sorted=true", "?recursive=t&quorum=true"]);
            Request { method: "GET", path, query: query.to_owned(), form: None }
        }
        20..65 => Request { method: "PUT", path, query: String::new(), form: Some(fields(random)) },
        65..75 => {
            let mut fields = vec![("value", pick(random, &VALUES))];
            fields.extend(random.random_bool(0.1).then_some(("ttl", "100")));
            fields.extend(random.random_bool(0.1).then_some(("dir", "true")));
            Request { method: "POST", path, query: String::new(), form: Some(form(&fields)) }
        }
        _ => {
            let queries =
                ["", "", "?dir=true", "?recursive=true", "?recursive=1", "?prevValue=x", "?prevIndex={index}"];
            Request { method: "DELETE", path, query: pick(random, &queries).to_owned(), form: None }
        }
    }
}

/// The fields of a PUT, right or wrong.
fn fields(random: &mut StdRng) -> String {
    let mut fields: Vec<(&str, String)> = Vec::new();
    let mut may = |random: &mut StdRng, share: f64, name: &'static str, values: &[&str]| {
        if random.random_bool(share) {
            fields.push((name, pick(random, values).to_owned()));
        }
    };
    may(random, 0.1, "refresh", &["true", "false"]);
    may(random, 0.85, "value", &VALUES);
    may(random, 0.15, "dir", &["true"]);
    may(random, 0.2, "ttl", &["100", "200", "100", "200", "", "soon", "-1"]);
    may(random, 0.3, "prevExist", &["true", "false"]);
    may(random, 0.15, "prevValue", &["x", "y", "x", "y", ""]);
    may(random, 0.1, "prevIndex", &["{index}", "{index}", "7", "x"]);
    may(random, 0.1, "noValueOnSuccess", &["true", "maybe"]);
    let plain = |(name, value): &(&str, String)| {
        let value = if value == "{index}" { value.clone() } else { escaped(value) };
        format!("{name}={value}")
    };
    fields.iter().map(plain).collect::<Vec<_>>().join("&")
}

/// One sequence of requests, sent to every world.
fn check(seed: u64, worlds: &mut [World]) {
    let mut random = StdRng::seed_from_u64(seed);
    let base = format!("/s{seed:x}");
    let mut sent = Vec::new();
    for world in &mut *worlds {
        *world = World::new(&[]).of(world);
    }
    for _ in 0..LENGTH {
        let request = request(&mut random);
        let told: Vec<_> = worlds.iter_mut().map(|world| world.ask(&base, &request, &mut random)).collect();
        sent.push(request);
        for other in &told[1..] {
            assert_eq!(told[0], *other, "WHARF_SEED={seed}, after {sent:#?}: etcd's own reply is the left one");
        }
    }
    let (real, ours) = worlds.split_first_mut().unwrap();
    let seen = real.events(&base, None);
    for world in ours {
        assert_eq!(seen, world.events(&base, Some(seen.len())), "WHARF_SEED={seed}: events after {sent:#?}");
    }
}

impl World {
    /// Its addresses are another's.
    fn of(self, other: &Self) -> Self {
        Self { addresses: other.addresses.clone(), ..self }
    }
}

#[test]
fn requests_get_the_replies_and_the_events_that_etcd_gives() {
    let ground = Ground::start("/");
    let mut worlds = [
        World::new(&[&ground.real()]),
        World::new(&[&ground.agents[0].address("etcd_v2"), &ground.agents[1].address("etcd_v2")]),
        World::new(&[&ground.embedded.address("etcd_v2")]),
    ];
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let from: u64 = given("WHARF_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let most: u64 = given("WHARF_HISTORIES").unwrap_or(if std::env::var("WHARF_DRILL").is_ok() { 300 } else { 12 });
    eprintln!("sequences of requests: {most} from WHARF_SEED={from}");
    (from..from + most).for_each(|seed| check(seed, &mut worlds));
}
