//! Commands that ask no agent's HTTP: etcd itself, and DNS.
#![allow(clippy::unwrap_used, missing_docs)]

mod command;
mod etcd;
mod program;
mod side;

use std::net::SocketAddr;
use std::time::Duration;

use command::{Written, eventually, run, run_into};
use etcd::Cluster;
use program::{Agent, Options, told};
use prometheus_client::registry::Registry;
use side::NOBODY;
use tokio_util::sync::CancellationToken;
use wharf::answer::dns::{DnsServer, Settings};
use wharf::catalog::index::Catalog;
use wharf::cli::exit::Exit;
use wharf::model::words::key::Prefix;
use wharf::model::words::zone::Zones;
use wharf::view::CatalogView;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_wait_and_nodes_ask_etcd_itself() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(1));
    let at = format!("--etcd-endpoints {}", cluster.endpoints().join(","));
    cluster.ctl(&["put", "/services/redis/a", r#"{"host":"10.88.0.1","port":6379,"role":"primary"}"#]);
    cluster.ctl(&["put", "/services/broken/a", "{"]);
    cluster.ctl(&["put", "/wharf/services/nodes/core-01/o1", r#"{"node":"core-01","states":{"ready":1}}"#]);

    let ran = run(&format!("services -o hostport {at}")).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "10.88.0.1:6379\n"), "{}", ran.err);
    assert_eq!(run(&format!("services broken {at}")).await.exit, Exit::NotMet);
    assert!(run(&format!("nodes {at}")).await.out.contains("core-01"));

    let (out, err) = (Written::default(), Written::default());
    let line = format!("wait redis --count 2 --timeout 60s -o hostport {at}");
    let waiting = tokio::spawn({
        let (out, err) = (out.clone(), err.clone());
        async move { run_into(&line, &out, &err, false).await }
    });
    eventually("it says how far it is", || err.text().contains("1 of 2 ready")).await;
    cluster.ctl(&["put", "/services/redis/b", "10.88.0.2:6379"]);
    assert_eq!(waiting.await.unwrap(), Exit::Done);
    assert_eq!(out.text(), "10.88.0.1:6379\n10.88.0.2:6379\n");
}

#[test]
fn the_store_itself_tells_the_same_as_an_agent() {
    let cluster = Cluster::start(1);
    for (key, value) in [
        ("/services/redis/a", r#"{"host":"10.88.0.1","port":6379,"role":"primary","node":"core-02","owner":"o1"}"#),
        ("/services/redis/b", r#"{"host":"10.88.0.2","port":6379,"role":"primary","tags":["blue","\u001b[2J"]}"#),
        ("/services/prod/cache/a", "10.88.0.3:11211"),
        ("/skydns/local/skydns/rails/1", r#"{"host":"10.88.0.4","port":80}"#),
        ("/older/redis/c", "10.88.0.5:6379"),
        ("/services/broken/a", "{"),
        ("/elsewhere/redis/x", "10.88.0.6:6379"),
        ("/wharf/services/nodes/core-02/o1", r#"{"node":"core-02","version":"0.1.0","states":{"ready":1,"down":2}}"#),
    ] {
        cluster.ctl(&["put", key, value]);
    }
    let endpoints = cluster.endpoints().join(",");
    let trees = "--zone skydns.local=/skydns/local/skydns,services.internal=/older".to_owned();
    let flags = vec!["--etcd-endpoints".to_owned(), endpoints.clone()];
    let flags = [flags, trees.split(' ').map(str::to_owned).collect()].concat();
    let agent = Agent::start_with(&Options { flags, ..Options::default() });
    agent.prints("services rails.skydns.local -o hostport", "that it has read etcd", |text| text == "10.88.0.4:80\n");
    agent.prints("nodes", "both nodes", |text| text.contains("core-01") && text.contains("core-02"));
    let direct = |line: &str| {
        let line = format!("{line} --etcd-endpoints {endpoints} {trees}");
        told(&program::wharf().args(line.split_whitespace()).output().unwrap())
    };
    for line in [
        "services",
        "services -o wide",
        "services -o hostport",
        "services redis",
        "services cache.prod -o hostport",
        "services rails.skydns.local -o wide",
        "services Redis",
        "services redi",
        "services prod",
        "services broken",
        "nodes core-02",
        "nodes nobody",
        "wait redis --count 3 --timeout 30s -o hostport",
    ] {
        let ((code, out, err), by_agent) = (direct(line), told(&agent.wharf(line)));
        assert_eq!((code, &out), (by_agent.0, &by_agent.1), "wharf {line}: {err} {}", by_agent.2);
    }
    let (_, whole, _) = direct("services");
    assert!(whole.contains("primary (contested)") && whole.contains("rails.skydns.local"), "{whole}");
    assert_eq!(whole.lines().count(), 6, "a heading and five endpoints: {whole}");
    assert!(direct("services redi").2.contains("did you mean redis?"));
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_exit_3_and_wrong_flags_are_exit_2() {
    let ran = run(&format!("services --etcd-endpoints http://{NOBODY}")).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains(&format!("etcd at http://{NOBODY}")), "{}", ran.err);
    // Without a scheme and a port it is what it is for the agent.
    let ran = run(&format!("services --etcd-endpoints {NOBODY}")).await;
    assert!(ran.err.contains(&format!("etcd at http://{NOBODY}")), "{}", ran.err);
    for wrong in [
        "--etcd-endpoints ftp://10.0.0.1:2379",
        "--etcd-endpoints http://x:1 --zone nowhere",
        "--etcd-endpoints http://x:1 --domain a..b",
        "--etcd-endpoints http://x:1 --etcd-user u",
        "--etcd-endpoints http://x:1 --prefix x",
    ] {
        assert_eq!(run(&format!("services {wrong}")).await.exit, Exit::Usage, "{wrong}");
    }
}

/// A DNS server over a catalog that does not change.
async fn dns(records: &[(&str, &str)]) -> (SocketAddr, CancellationToken) {
    let mut catalog = Catalog::default();
    for (key, value) in records {
        catalog.put(key, value.as_bytes(), 0, 1).unwrap();
    }
    let settings = Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        passed: Vec::new(),
        zones: Zones::new("services.internal", Prefix::parse("/services").unwrap(), []).unwrap(),
        ttl: Duration::from_secs(5),
        negative_ttl: Duration::from_secs(5),
        forward: Vec::new(),
        standpoint: Default::default(),
        forward_allow: Vec::new(),
        allow: Vec::new(),
        rate_limit: 0,
    };
    let server = DnsServer::bind(settings, CatalogView::fixed(catalog), &mut Registry::default()).unwrap();
    let (address, stop) = (server.addresses()[0], CancellationToken::new());
    tokio::spawn(server.run(stop.clone()));
    (address, stop)
}

#[tokio::test]
async fn resolve_shows_what_dns_answers() {
    let many: Vec<(String, String)> = (0..200)
        .map(|number| {
            (format!("/services/many/instance-{number}"), format!("10.0.{}.{}:80", number / 250, number % 250 + 1))
        })
        .collect();
    let mut records = vec![("/services/redis/core-01", r#"{"host":"10.88.0.1","port":6379}"#)];
    records.extend(many.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let (address, stop) = dns(&records).await;
    let at = format!("--dns {address}");
    let ran = run(&format!("resolve redis {at}")).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""));
    assert!(ran.out.contains("SRV") && ran.out.contains("6379 core-01.redis.services.internal."), "{}", ran.out);
    assert!(ran.out.contains("10.88.0.1"), "the address comes along: {}", ran.out);
    let json = run(&format!("resolve redis a -o json {at}")).await.out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["code"], &json["answers"][0]["data"]), (&"No Error".into(), &"10.88.0.1".into()));
    let whole = run(&format!("resolve many {at}")).await;
    assert_eq!(whole.out.matches(" SRV ").count(), 200, "what does not fit a datagram comes by TCP");
    for (line, told) in [("nothing", "does not exist"), ("redis AAAA", "no such record"), ("example.com.", "refused")] {
        let ran = run(&format!("resolve {line} {at}")).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::NotMet, ""), "{line}");
        assert!(ran.err.contains(told), "{line}: {}", ran.err);
    }
    stop.cancel();
}

#[tokio::test]
async fn a_dns_that_is_not_there_is_exit_3() {
    let ran = run(&format!("resolve redis --dns {NOBODY}")).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains(NOBODY), "{}", ran.err);
    assert_eq!(run(&format!("resolve {} --dns {NOBODY}", "x".repeat(64))).await.exit, Exit::Usage);
}
