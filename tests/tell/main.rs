//! What people read when something is wrong: each test breaks one thing and looks where somebody would look. The log,
//! one documented command and the page's first screen each name the culprit, the cause and the next step.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../browser_driver/mod.rs"]
mod browser_driver;
#[path = "../engine/mod.rs"]
mod engine;
#[path = "../etcd/mod.rs"]
mod etcd;
#[path = "../program/mod.rs"]
mod program;

use browser_driver::Browser;
use engine::{Engine, container};
use etcd::Cluster;
use program::{Agent, Options, Server, told, wharf};
use serde_json::{Value, json};

/// So many lines are what somebody sees of a log.
const SCREEN: usize = 20;

/// An agent of a cluster.
fn agent(cluster: &Cluster, node: &str, settings: &str) -> Agent {
    let flags = vec![format!("--etcd-endpoints={}", cluster.endpoints().join(",")), "--lease-ttl=3s".to_owned()];
    Agent::start_with(&Options {
        node: Some(node),
        flags,
        settings,
        engine: Some("none".to_owned()),
        ..Options::default()
    })
}

/// Waits until the last lines of the log have all of these in one.
fn logs(agent: &Agent, words: &[&str]) {
    agent.until(&format!("the log's last lines have {words:?}"), |agent| {
        let log = agent.log();
        let last = log.lines().rev().take(SCREEN).find(|line| words.iter().all(|word| line.contains(word)));
        last.is_some()
    });
}

/// Waits until a command prints all of these.
fn prints(agent: &Agent, line: &str, words: &[&str]) -> String {
    agent.prints(line, &format!("{words:?}"), |text| words.iter().all(|word| text.contains(word)))
}

/// Waits until the page's first screen shows all of these.
fn shows(agent: &Agent, words: &[&str]) {
    let mut browser = Browser::start();
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": false}),
    );
    browser.open(&format!("http://{}/", agent.address("http")));
    for word in words {
        // What stands below the window is not on the first screen.
        let seen = format!(
            "[...document.querySelectorAll('main *')].some((one) => one.textContent.includes({}) && \
             one.getBoundingClientRect().top < innerHeight && one.offsetParent !== null)",
            json!(word)
        );
        browser.until(&seen);
    }
}

fn cache(port: u16) -> String {
    format!("[[service]]\nname = \"cache\"\nport = {port}\naddress = \"127.0.0.1\"\ncheck = \"memcached\"\n")
}

#[test]
fn an_agent_killed_for_good_is_missed_by_name_until_it_is_forgotten() {
    let cluster = Cluster::start(1);
    let (_server, port) = Server::memcached();
    let stays = agent(&cluster, "core-01", "");
    let dies = agent(&cluster, "core-02", &cache(port));
    prints(&stays, "services", &["cache", "core-02"]);
    prints(&stays, "nodes", &["core-02"]);
    drop(dies);
    logs(&stays, &["WARN", "core-02 is lost", "cache", "wharf nodes --forget core-02"]);
    let text = prints(&stays, "nodes", &["core-02", "LOST", "ago", "cache"]);
    assert!(!text.contains("core-01  LOST"), "{text}");
    shows(&stays, &["core-02", "lost", "cache", "its agent has gone without a word", "wharf nodes --forget core-02"]);
    // One that starts later knows it, too.
    let late = agent(&cluster, "core-03", "");
    prints(&late, "nodes", &["core-02", "LOST", "cache"]);
    let (code, _, complaint) = told(&late.wharf("nodes --forget core-01"));
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("core-01 lives"), "{complaint}");
    assert_eq!(told(&late.wharf("nodes --forget core-02")).0, Some(0));
    for agent in [&stays, &late] {
        agent.until("it is forgotten", |agent| !told(&agent.wharf("nodes --all")).1.contains("core-02"));
    }
}

#[test]
fn an_agent_that_stops_is_no_loss() {
    let cluster = Cluster::start(1);
    let stays = agent(&cluster, "core-01", "");
    let stops = agent(&cluster, "core-02", "");
    prints(&stays, "nodes", &["core-02"]);
    stops.terminate();
    let text = prints(&stays, "nodes --all", &["core-02", "stopped"]);
    assert!(!text.contains("LOST"), "{text}");
    assert!(!told(&stays.wharf("nodes")).1.contains("core-02"));
    assert!(!stays.log().contains("is lost"), "{}", stays.log());
}

#[test]
fn etcd_behind_a_wrong_scheme_is_told_with_its_endpoint_and_why() {
    let cluster = Cluster::start(1);
    let wrong = cluster.endpoints()[0].replace("http://", "https://");
    let flags = vec![format!("--etcd-endpoints={wrong}")];
    let agent = Agent::start_with(&Options { flags, engine: Some("none".to_owned()), ..Options::default() });
    logs(&agent, &["WARN", "etcd is away since", &wrong, "is it http://?"]);
    prints(&agent, "explain", &["etcd is away for", &wrong, "is it http://?"]);
    shows(&agent, &["etcd is away for", &wrong, "is it http://?"]);
}

#[test]
fn etcd_that_is_not_there_is_told_as_such() {
    let flags = vec!["--etcd-endpoints=http://127.0.0.1:9".to_owned()];
    let agent = Agent::start_with(&Options { flags, engine: Some("none".to_owned()), ..Options::default() });
    logs(&agent, &["etcd is away since", "http://127.0.0.1:9: connection refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misspelt_check_is_never_offered_unchecked() {
    let engine = Engine::start().await;
    let labelled = |number, image: &str, port| -> Value {
        let mut container = container(number, image, port, 10_000 + u16::try_from(number).unwrap());
        container["Config"]["Labels"] = json!({"SERVICE_CHECK": "reddis"});
        container
    };
    engine.add(labelled(1, "example/queue", 7000));
    engine.add(labelled(2, "redis", 6379));
    let wharf::docker::Endpoint::Unix(socket) = engine.endpoint() else { panic!("a unix socket") };
    tokio::task::block_in_place(|| {
        let engine = Some(format!("unix://{}", socket.display()));
        let agent = Agent::start_with(&Options { engine, advertise: Some("192.0.2.7"), ..Options::default() });
        let what = "there is no check \"reddis\"; did you mean redis?";
        logs(&agent, &["WARN", "c1 7000/tcp is not offered", what]);
        logs(&agent, &["WARN", "c2", what, "the redis check is made"]);
        prints(&agent, "explain c1", &["not offered", what]);
        prints(&agent, "explain c2", &["warning", what, "guessed from the image redis"]);
        prints(&agent, "nodes", &["c1:7000/tcp", "skipped", what]);
        shows(&agent, &["c1:7000/tcp", "skipped", what]);
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wharf.toml");
    std::fs::write(&file, "[[service]]\nname = \"queue\"\nport = 7000\ncheck = \"reddis\"\n").unwrap();
    let checked = wharf().arg("check-config").arg("--config").arg(&file).output().unwrap();
    let (code, _, complaint) = told(&checked);
    assert_eq!(code, Some(2), "{complaint}");
    assert!(complaint.contains("service[1].check: there is no check \"reddis\"; did you mean redis?"), "{complaint}");
}

#[test]
fn two_hosts_with_one_name_are_told_of_each_other() {
    let cluster = Cluster::start(1);
    let [one, other] = ["", ""].map(|settings| agent(&cluster, "core-01", settings));
    for agent in [&one, &other] {
        logs(agent, &["WARN", "2 agents are called core-01", "give each its own --node"]);
        prints(agent, "nodes", &["several agents are called core-01: give each its own --node"]);
    }
    shows(&one, &["core-01", "2 agents are called so", "give each its own --node"]);
}

#[test]
fn a_redis_service_without_a_primary_is_named() {
    let replica = "[[service]]\nname = \"redis\"\nport = 7000\naddress = \"192.0.2.9\"\nrole = \"replica\"\n";
    let agent =
        Agent::start_with(&Options { settings: replica, engine: Some("none".to_owned()), ..Options::default() });
    logs(&agent, &["WARN", "redis has no primary, only replicas", "wharf services redis"]);
    shows(&agent, &["redis", "no primary", "none is primary (1 replica)", "wharf topology switch redis"]);
    let mut resolve = wharf();
    resolve.args(["resolve", "primary.redis", "--dns", &agent.address("dns")]);
    resolve.env("WHARF_AGENT", format!("unix:{}", agent.socket().display()));
    let (code, _, complaint) = told(&resolve.output().unwrap());
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("none is primary (1 endpoints, 1 replicas)"), "{complaint}");
}

#[test]
fn a_server_that_goes_down_is_a_warning_with_its_name_and_why() {
    let (server, port) = Server::memcached();
    let agent =
        Agent::start_with(&Options { settings: &cache(port), engine: Some("none".to_owned()), ..Options::default() });
    logs(&agent, &["published /services/cache/", &format!("at 127.0.0.1:{port}")]);
    server.freeze();
    logs(&agent, &["WARN", "cache core-01:cache:", "down: no answer within 500ms, withdrawn"]);
    logs(&agent, &["withdrawn /services/cache/"]);
    let log = agent.log();
    assert!(!log.contains("Some("), "{log}");
    let text = prints(&agent, "explain cache", &["down"]);
    assert!(text.contains(&format!("memcached at 127.0.0.1:{port} every 2s")), "{text}");
}

#[test]
fn one_service_is_drained_with_its_reason_and_stays_so_through_a_restart() {
    let ((_one, web), (_other, cache)) = (Server::memcached(), Server::memcached());
    let table = |name: &str, port| {
        format!("[[service]]\nname = \"{name}\"\nport = {port}\naddress = \"127.0.0.1\"\ncheck = \"memcached\"\n")
    };
    let settings = table("web", web) + &table("cache", cache);
    let mut agent =
        Agent::start_with(&Options { settings: &settings, engine: Some("none".to_owned()), ..Options::default() });
    prints(&agent, "services", &["web", "cache"]);
    let (code, _, complaint) = told(&agent.wharf("drain wbe"));
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("nothing called \"wbe\" is offered by this host"), "{complaint}");
    let (code, said, complaint) = told(&agent.wharf("drain web --reason kernel"));
    assert_eq!((code, said.contains("web is not offered by this host")), (Some(0), true), "{complaint}");
    let drained = |agent: &Agent| {
        agent.until("web is withdrawn and cache is not", |agent| {
            let services = told(&agent.wharf("services")).1;
            !services.contains("web") && services.contains("cache")
        });
        prints(
            agent,
            "explain web",
            &["web is drained for", "(kernel)", "wharf undrain web", "drained, so not published"],
        );
        prints(agent, "nodes", &["web", "drained", "kernel"]);
    };
    drained(&agent);
    shows(&agent, &["web", "drained", "kernel"]);
    agent.restart();
    drained(&agent);
    assert_eq!(told(&agent.wharf("undrain cache")).0, Some(1), "cache is not drained");
    assert_eq!(told(&agent.wharf("undrain web")).0, Some(0));
    prints(&agent, "services", &["web", "cache"]);
}

#[test]
fn a_host_without_an_engine_complains_of_none() {
    let agent = Agent::start_with(&Options { engine: Some("none".to_owned()), ..Options::default() });
    let text = told(&agent.wharf("explain")).1;
    assert!(!text.contains("Docker"), "{text}");
    assert!(!agent.log().contains("engine is away"), "{}", agent.log());
}

#[test]
fn what_runs_elsewhere_is_explained_with_the_host_to_ask() {
    let cluster = Cluster::start(1);
    let (server, port) = Server::memcached();
    let here = agent(&cluster, "core-01", "");
    let _there = agent(&cluster, "core-02", &cache(port));
    prints(
        &here,
        "explain cache",
        &["cache is not on core-01, but on core-02", "ready", "ssh core-02 wharf explain cache"],
    );
    server.freeze();
    prints(&here, "explain cache", &["down", "no answer within 500ms"]);
    assert_eq!(told(&here.wharf("explain nothing")).0, Some(1));
}

#[test]
fn a_variable_that_decides_is_named() {
    let mut check = wharf();
    check.arg("check-config").env("WHARF_DNS", "nowhere");
    let (code, _, complaint) = told(&check.output().unwrap());
    assert_eq!(code, Some(2));
    assert!(complaint.contains("--dns (from WHARF_DNS)"), "{complaint}");
    let mut services = wharf();
    services.arg("services").env("WHARF_AGENT", "127.0.0.1:9");
    let (code, _, complaint) = told(&services.output().unwrap());
    assert_eq!(code, Some(3));
    assert!(complaint.contains("127.0.0.1:9 (from WHARF_AGENT)"), "{complaint}");
}

#[test]
fn an_interface_that_is_not_there_is_told_with_those_that_are() {
    let agent =
        Agent::start_with(&Options { advertise: Some("eth9"), engine: Some("none".to_owned()), ..Options::default() });
    logs(&agent, &["WARN", "no address to advertise yet", "eth9", "lo 127.0.0.1"]);
}
