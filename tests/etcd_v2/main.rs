//! etcd's v2 API as its clients know it: held against a real etcd that still has it, and asked by the programs that
//! were written for it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs, unreachable_pub)]

mod ask;
mod clients;
#[path = "../etcd/mod.rs"]
mod etcd;
mod import;
mod kept;
mod law;
#[path = "../program/mod.rs"]
mod program;
mod registrator;
#[path = "../support/skydns/mod.rs"]
mod skydns;
mod trouble;
mod waits;

use std::time::{Duration, Instant};

use ask::{PATIENCE, delete, get, put, request};
use etcd::{Cluster, Options};
use program::Agent;

/// A real etcd that has its v2 API, two agents on its v3 one, and one with the embedded store.
pub struct Ground {
    pub cluster: Cluster,
    pub agents: Vec<Agent>,
    pub embedded: Agent,
}

impl Ground {
    pub fn start(prefix: &str) -> Self {
        let cluster = cluster();
        let agents = ["core-01", "core-02"].map(|node| agent(&cluster, node, prefix)).into();
        let embedded = start("core-03", &flags(prefix), "");
        Self { cluster, agents, embedded }
    }

    pub fn real(&self) -> String {
        format!("127.0.0.1:{}", self.cluster.members[0].client)
    }
}

pub fn cluster() -> Cluster {
    Cluster::start_with(1, Options { flags: vec!["--enable-v2".to_owned()], ..Options::default() })
}

/// An agent on this cluster.
pub fn agent(cluster: &Cluster, node: &'static str, prefix: &str) -> Agent {
    let mut flags = flags(prefix);
    flags.extend(["--etcd-endpoints".to_owned(), cluster.endpoints().join(",")]);
    start(node, &flags, "")
}

fn flags(prefix: &str) -> Vec<String> {
    let flags = ["--etcd-v2", "127.0.0.1:0", "--etcd-v2-prefix", prefix, "--lease-ttl", "5s"];
    flags.map(str::to_owned).to_vec()
}

pub fn start(node: &'static str, flags: &[String], settings: &str) -> Agent {
    let options = program::Options { flags: flags.to_vec(), node: Some(node), settings, ..Default::default() };
    Agent::start_with(&options)
}

/// Waits until it is so.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn only_what_is_below_the_prefixes_is_served() {
    let agent = start("core-01", &flags("/services,/config"), "");
    let at = agent.address("etcd_v2");
    assert_eq!(put(&at, "/services/a", &[("value", "1")]).status, 201);
    assert_eq!(put(&at, "/config/a/b", &[("value", "1")]).status, 201);
    for outside in ["/", "", "/other", "/servicesx", "/services/../other", "/services%2F..%2Fother", "/wharf/services"]
    {
        for told in
            [get(&at, outside), put(&at, outside, &[("value", "1")]), delete(&at, &format!("{outside}?recursive=true"))]
        {
            assert_eq!((told.status, told.code()), (403, 110), "{outside}: {told:?}");
        }
        let wait = get(&at, &format!("{outside}?wait=true"));
        assert_eq!((wait.status, wait.code()), (403, 110), "{outside}");
    }
}

#[test]
fn no_web_page_writes_and_no_rebound_name_reads() {
    let agent = start("core-01", &flags("/services"), "");
    let at = agent.address("etcd_v2");
    let head = "Content-Type: application/x-www-form-urlencoded\r\nOrigin: http://evil.example\r\n";
    for method in ["PUT", "POST", "DELETE"] {
        let told = request(&at, method, "/v2/keys/services/a", head, "value=1", PATIENCE).unwrap();
        assert_eq!((told.status, told.code()), (403, 110), "{method}");
    }
    assert_eq!(get(&at, "/services/a").status, 404);
    let rebound = request(&at, "GET", "/v2/keys/services", "Host: evil.example\r\n", "", PATIENCE).unwrap();
    assert_eq!(rebound.status, 403);
    let open = request(&at, "OPTIONS", "/v2/keys/services", "Origin: http://evil.example\r\n", "", PATIENCE).unwrap();
    assert!(open.header("access-control-allow-origin").is_none(), "{open:?}");
}

#[test]
fn who_is_not_allowed_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("v2");
    std::fs::write(&file, "s3cret\n").unwrap();
    let mut known = flags("/services");
    known.extend(["--etcd-v2-user".to_owned(), format!("app:{}", file.display())]);
    let agent = start("core-01", &known, "");
    let at = agent.address("etcd_v2");
    let told = get(&at, "/services");
    assert_eq!((told.status, told.code()), (401, 110));
    let head = "Authorization: Basic YXBwOnMzY3JldA==\r\n";
    assert_eq!(request(&at, "GET", "/v2/keys/services", head, "", PATIENCE).unwrap().status, 404);
    let mut elsewhere = flags("/services");
    elsewhere.extend(["--etcd-v2-allow".to_owned(), "10.0.0.0/8".to_owned()]);
    let agent = start("core-01", &elsewhere, "");
    let told = get(&agent.address("etcd_v2"), "/services");
    assert_eq!((told.status, told.code()), (403, 110));
    let refused = program::wharf().args(["check-config", "--node", "a", "--etcd-v2", "0.0.0.0:4001"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn bodies_are_bounded_and_what_is_no_key_is_refused() {
    let agent = start("core-01", &flags("/services"), "");
    let at = agent.address("etcd_v2");
    let (fits, large) = ("v".repeat(1_000_000), "v".repeat(1_100_000));
    assert_eq!(put(&at, "/services/a", &[("value", &fits)]).status, 201);
    assert_eq!(get(&at, "/services/a").value(), fits);
    let told = put(&at, "/services/b", &[("value", &large)]);
    assert!((400..500).contains(&told.status), "{}", told.head);
    for bad in ["/services/a%00", "/services/%ff", "/services/%zz", &format!("/services{}", "/a".repeat(100))] {
        let told = put(&at, bad, &[("value", "1")]);
        assert_eq!((told.status, told.code()), (400, 209), "{bad}");
    }
    for method in ["PATCH", "OPTIONS"] {
        assert_eq!(request(&at, method, "/v2/keys/services", "", "", PATIENCE).unwrap().status, 405, "{method}");
    }
}

#[test]
fn clients_find_the_one_member_by_the_address_they_asked() {
    let agent = start("core-01", &flags("/services"), "");
    let at = agent.address("etcd_v2");
    let ask = |path: &str| request(&at, "GET", path, "", "", PATIENCE).unwrap();
    let url = format!("http://{at}");
    assert_eq!(ask("/v2/members").body["members"][0]["clientURLs"][0], url.as_str());
    assert_eq!(ask("/v2/machines").text, url);
    assert_eq!(ask("/v2/stats/self").body["leaderInfo"]["leader"], ask("/v2/members/leader").body["id"]);
    assert_eq!(ask("/health").body["health"], "true");
    assert!(ask("/version").body["etcdserver"].is_string());
    assert_eq!(ask("/v2/nothing").status, 404);
}

#[test]
fn what_is_made_without_a_time_outlasts_a_restart_of_the_embedded_store() {
    let mut agent = start("core-01", &flags("/config"), "");
    let at = agent.address("etcd_v2");
    assert_eq!(put(&at, "/config/redis-1/topology", &[("value", "{}")]).status, 201);
    assert_eq!(put(&at, "/config/empty", &[("dir", "true")]).status, 201);
    let before = get(&at, "/config/redis-1/topology");
    agent.restart();
    let at = latest(&agent);
    assert_eq!(get(&at, "/config/redis-1/topology").body, before.body);
    assert_eq!(get(&at, "/config/empty").body["node"]["dir"], true);
}

/// Where an agent that was started anew listens, which it says further down in its log.
pub fn latest(agent: &Agent) -> String {
    let log = agent.log();
    log.rsplit("etcd_v2=[").next().and_then(|rest| rest.split(']').next()).unwrap().to_owned()
}

/// An answer of etcd holds 64 MiB: the page that a reader asks for must not be one that he cannot take.
#[test]
fn values_of_the_largest_size_keep_nobody_from_reading() {
    let cluster = cluster();
    let one = agent(&cluster, "core-01", "/services,/config");
    let at = one.address("etcd_v2");
    let value = "v".repeat(1_000_000);
    for number in 0..70 {
        assert_eq!(put(&at, &format!("/services/large/{number}"), &[("value", &value)]).status, 201);
    }
    assert_eq!(put(&at, "/services/redis/a", &[("value", "127.0.0.1:6379")]).status, 201);
    let two = agent(&cluster, "core-02", "/services");
    two.prints("services redis -o hostport", "what is beside them", |shown| shown.trim() == "127.0.0.1:6379");
    let told = get(&two.address("etcd_v2"), "/services/large?recursive=true");
    assert_eq!((told.status, told.code()), (500, 300), "an answer is bounded");
    assert_eq!(get(&at, "/services/large/7").value().len(), value.len());
    assert_eq!(delete(&at, "/services/large?recursive=true").status, 200);
}
