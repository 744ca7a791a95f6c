//! SkyDNS's behaviour as data: reads `tests/data/skydns_cases.json` and compares replies with what it expects, as the
//! file's `about` says. It knows nothing of how a reply was got: from the model, or over a socket.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod compare;

use serde_json::{Map, Value};

/// One suite of questions over one set of records.
pub struct Suite {
    /// The whole suite as it stands in the file.
    pub value: Value,
}

/// One record to be loaded.
pub struct Service {
    /// Its key in the store.
    pub path: String,
    /// Its value.
    pub value: String,
    /// It hangs on a lease of so many seconds.
    pub lease: Option<u64>,
}

/// Every suite of questions; tables for single functions are left out.
pub fn suites() -> Vec<Suite> {
    let all: Value = serde_json::from_str(include_str!("../../data/skydns_cases.json")).unwrap();
    let suites = all["suites"].as_array().unwrap().iter();
    suites.filter(|suite| suite["kind"] == "dns").map(|suite| Suite { value: suite.clone() }).collect()
}

/// The records of the outside world, as `name TYPE ttl data`.
pub fn upstream() -> Vec<compare::Expected> {
    let all: Value = serde_json::from_str(include_str!("../../data/skydns_cases.json")).unwrap();
    all["upstream_fixture"].as_array().unwrap().iter().map(compare::Expected::read).collect()
}

impl Suite {
    /// Its name.
    pub fn id(&self) -> &str {
        self.value["id"].as_str().unwrap()
    }

    /// It needs a set-up beyond one server.
    pub fn manual(&self) -> bool {
        self.value["manual"] == true
    }

    /// The TTL that the expectations take for the server's own.
    pub fn default_ttl(&self) -> u32 {
        u32::try_from(self.value["server"]["default_ttl"].as_u64().unwrap_or(3600)).unwrap()
    }

    /// The zones to serve and their prefixes: the suite's own first, then the reverse trees.
    pub fn zones(&self) -> Vec<(String, String)> {
        let zones = self.value["server"]["zones"].as_array().unwrap().iter().map(|zone| zone.as_str().unwrap());
        zones.chain(["in-addr.arpa.", "ip6.arpa."]).map(|zone| (zone.to_owned(), path_of(zone))).collect()
    }

    /// The records to load.
    pub fn services(&self) -> Vec<Service> {
        let listed = self.value["services"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|value| service(value["path"].as_str().unwrap().to_owned(), value.as_object().unwrap()));
        listed.chain(self.generated()).collect()
    }

    fn generated(&self) -> Vec<Service> {
        let Some(template) = self.value["generate"].as_object() else { return Vec::new() };
        let from = template.get("from").and_then(Value::as_u64).unwrap_or(0);
        let count = template["count"].as_u64().unwrap();
        let numbered = |number: u64| {
            let text = Value::Object(template.clone()).to_string().replace("{i}", &number.to_string());
            let value: Value = serde_json::from_str(&text).unwrap();
            service(path_of(value["key"].as_str().unwrap()), value.as_object().unwrap())
        };
        (from..from + count).map(numbered).collect()
    }

    /// The questions.
    pub fn queries(&self) -> Vec<Query> {
        let queries = self.value["queries"].as_array().unwrap().iter();
        queries.map(|query| Query { value: query.clone(), default_ttl: self.default_ttl() }).collect()
    }
}

fn service(path: String, fields: &Map<String, Value>) -> Service {
    let lease = fields.get("lease").and_then(Value::as_u64);
    if let Some(raw) = fields.get("raw") {
        return Service { path, value: raw.as_str().unwrap().to_owned(), lease };
    }
    let not_stored = ["key", "path", "lease", "port_var", "source_host", "count", "from"];
    let stored = fields.iter().filter(|(name, _)| !not_stored.contains(&name.as_str()));
    let value: Map<String, Value> = stored.map(|(name, value)| (name.clone(), value.clone())).collect();
    Service { path, value: Value::Object(value).to_string(), lease }
}

/// A name's path below `/skydns`.
pub fn path_of(name: &str) -> String {
    let labels = name.trim_end_matches('.').split('.').rev();
    labels.fold("/skydns".to_owned(), |path, label| format!("{path}/{label}"))
}

/// One question and what is expected of its answer.
pub struct Query {
    /// The question as it stands in the file.
    pub value: Value,
    default_ttl: u32,
}

impl Query {
    /// Its name within the file.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// The name asked for.
    pub fn qname(&self) -> &str {
        self.text("qname")
    }

    /// The type asked for.
    pub fn qtype(&self) -> &str {
        self.text("qtype")
    }

    /// The class asked for.
    pub fn qclass(&self) -> &str {
        self.value["qclass"].as_str().unwrap_or("IN")
    }

    /// Whether it says so in its tags.
    pub fn is_tagged(&self, tag: &str) -> bool {
        self.value["tags"].as_array().into_iter().flatten().any(|own| own == tag)
    }

    /// The design leaves it out.
    pub fn skipped(&self) -> bool {
        self.value["wharf"]["skip"] == true
    }

    /// `udp` or `tcp`, when only one of them is meant.
    pub fn transport(&self) -> Option<&str> {
        self.value["transport"].as_str()
    }

    /// The payload size to say in EDNS.
    pub fn bufsize(&self) -> Option<u16> {
        self.value["bufsize"].as_u64().map(|size| u16::try_from(size).unwrap())
    }

    /// Whether the question carries OPT.
    pub fn edns(&self) -> bool {
        self.bufsize().is_some() || self.wants_dnssec()
    }

    /// Whether the question sets DO.
    pub fn wants_dnssec(&self) -> bool {
        self.value["do"] == true
    }

    /// Every outcome that is right: the question's own, or those that the design lays over it.
    pub fn accepted(&self) -> Vec<Value> {
        let Some(accept) = self.value["wharf"]["accept"].as_array() else { return vec![self.value.clone()] };
        let lay = |over: &Value| {
            let mut laid = self.value.clone();
            for (name, value) in over.as_object().unwrap() {
                laid[name] = value.clone();
            }
            laid
        };
        accept.iter().map(lay).collect()
    }

    /// The TTL that the expectations take for the server's own.
    pub fn default_ttl(&self) -> u32 {
        self.default_ttl
    }

    fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap()
    }
}
