//! Servers that speak TLS to their clients, to each other and to whoever switches them.

use std::time::Duration;

use wharf::model::steer::roster::Roster;
use wharf::model::steer::topology::Desired;
use wharf::steer::{Outcome, Settings};
use wharf::store::embedded::Embedded;

use crate::servers::{Server, free_port, roster};
use crate::{Operator, REDIS, eventually, operator_of, settings};

/// Three servers with a port for TLS beside their usual one, and these ports.
fn servers(certificate: &str, key: &str) -> ([Server; 3], [u16; 3]) {
    let ports = [(); 3].map(|()| free_port());
    let start = |at: usize, name: &str| {
        let port = ports[at].to_string();
        let more = [
            ["--tls-port", &port],
            ["--tls-cert-file", certificate],
            ["--tls-key-file", key],
            ["--tls-ca-cert-file", certificate],
            ["--tls-auth-clients", "no"],
            ["--tls-replication", "yes"],
        ];
        Server::start_with(REDIS, name, &more.concat())
    };
    ([start(0, "a"), start(1, "b"), start(2, "c")], ports)
}

fn wanted(ports: [u16; 3], master: usize) -> Desired {
    let address = |port: u16| format!(r#"{{"address":"127.0.0.1","port":{port}}}"#);
    let slaves = ports.map(address).join(",");
    Desired::parse(format!(r#"{{"master":{},"slaves":[{slaves}]}}"#, address(ports[master])).as_bytes()).unwrap()
}

async fn moved(operator: &Operator, servers: &[Server; 3], ports: [u16; 3], master: usize) {
    let outcome = operator.put(wanted(ports, master)).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    let at = format!("master_port:{}\r", ports[master]);
    for (index, server) in servers.iter().enumerate().filter(|(index, _)| *index != master) {
        eventually(&format!("{index} follows over TLS"), async || {
            let info = server.ask(&["INFO", "replication"]).await;
            info.contains("master_link_status:up") && info.contains(&at)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_speak_tls_are_switched_over_tls() {
    let files = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let (servers, ports) = servers(&certificate, &key);
    let mut all: Roster = roster(&servers.each_ref());
    for (listed, port) in all.0.values_mut().zip(ports) {
        listed.port = port;
    }
    let with_tls = Settings { tls: true, ..settings(Duration::from_millis(500)) };
    let operator = operator_of("op-1", &Embedded::new(), all, with_tls, None);
    moved(&operator, &servers, ports, 0).await;
    assert_eq!(servers[0].ask(&["RPUSH", "log", "x"]).await, ":1");
    servers[0].ask(&["CONFIG", "SET", "tls-replication", "no"]).await;
    let outcome = operator.put(wanted(ports, 1)).await;
    assert!(matches!(&outcome, Outcome::Refused(why) if why[0].contains("tls-replication")), "{outcome}");
    assert_eq!(servers[0].ask(&["RPUSH", "log", "y"]).await, ":2", "nothing was done to it");
    servers[0].ask(&["CONFIG", "SET", "tls-replication", "yes"]).await;
    moved(&operator, &servers, ports, 1).await;
    assert_eq!(servers[1].ask(&["RPUSH", "log", "z"]).await, ":3");
}
