//! Commands that ask no agent's HTTP: etcd itself, and DNS.
#![allow(clippy::unwrap_used, missing_docs)]

mod command;
mod etcd;

use std::net::SocketAddr;
use std::time::Duration;

use command::{Written, eventually, run, run_into};
use etcd::Cluster;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use wharf::cli::exit::Exit;
use wharf::find::dns::{DnsServer, Settings};
use wharf::find::view::CatalogView;
use wharf::model::catalog::Catalog;
use wharf::model::key::Prefix;
use wharf::model::zone::Zones;

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

#[tokio::test]
async fn an_etcd_that_is_not_there_is_exit_3_and_wrong_flags_are_exit_2() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = run(&format!("services --etcd-endpoints http://{nobody}")).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains(&format!("etcd at http://{nobody}")), "{}", ran.err);
    for wrong in [
        "--etcd-endpoints 10.0.0.1:2379",
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
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = run(&format!("resolve redis --dns {nobody}")).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains(&nobody.to_string()), "{}", ran.err);
    assert_eq!(run(&format!("resolve {} --dns {nobody}", "x".repeat(64))).await.exit, Exit::Usage);
}
