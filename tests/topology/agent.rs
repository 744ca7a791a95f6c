//! The whole program with real servers: settings, HTTP, the command line, names, and a restart.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::program::{self, Agent, told};
use crate::servers::Server;
use crate::{REDIS, eventually};

/// An agent that offers these servers as `redis-1` and may steer them.
pub fn agent(servers: &[Server], more: &str) -> Agent {
    let tables = servers.iter().map(|server| {
        format!(
            "[[service]]\nname = \"redis-1\"\nport = {}\naddress = \"127.0.0.1\"\nid = \"{}\"\ncheck = \"redis\"\n",
            server.port, server.name
        )
    });
    let tables: String = tables.collect();
    let topology =
        format!("[[topology]]\nservice = \"redis-1\"\nservers = [\"127.0.0.0/8\"]\nmax-pause = \"1s\"\n{more}");
    Agent::start(&format!("probe-interval = \"200ms\"\n{tables}{topology}"))
}

pub fn started() -> [Server; 3] {
    ["a", "b", "c"].map(|name| Server::start(REDIS, name))
}

/// The code of a command, and what it said on either side.
pub fn asked(agent: &Agent, line: &str) -> (i32, String) {
    let (code, out, err) = told(&agent.wharf(line));
    (code.unwrap_or(-1), format!("{out}{err}"))
}

pub fn switched(agent: &Agent, to: &str) {
    agent.until(&format!("{to} is master"), |agent| {
        let (code, said) = asked(agent, &format!("topology switch redis-1 --to {to}"));
        if code != 0 {
            eprintln!("switch to {to}: {said}");
        }
        code == 0
    });
}

pub fn all_are_shown(agent: &Agent) {
    agent.prints("topology redis-1", "three instances", |text| {
        ["a", "b", "c"].iter().all(|name| text.lines().any(|line| line.starts_with(&format!("{name} "))))
    });
}

fn all_are_attached(agent: &Agent) {
    agent.until("two replicas have their link", |agent| {
        let (_, said) = asked(agent, "topology redis-1");
        let words = said.split_whitespace();
        let attached = words.filter(|word| *word == "up").count() == 2;
        if !attached {
            eprintln!("{said}");
        }
        attached
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_gives_frozen_servers_a_master_and_moves_it() {
    let servers = started();
    let agent = agent(&servers, "");
    all_are_shown(&agent);
    let (code, said) = asked(&agent, "topology redis-1");
    assert!(code == 0 && said.contains("no topology was applied yet"), "{said}");
    let (code, said) = asked(&agent, "topology switch redis-1 --to a --dry-run");
    assert!(code == 0 && said.contains("would be done: a is master"), "{said}");
    let (code, said) = asked(&agent, "topology switch redis-1 --to a");
    assert_eq!(code, 0, "the first try does it: {said}");
    let resolve = format!("resolve primary.redis-1 SRV --dns {}", agent.address("dns"));
    let names = |port: u16| {
        agent.until(&format!("primary.redis-1 is at {port}"), |_| {
            let output = program::wharf().args(resolve.split_whitespace()).output().unwrap();
            told(&output).1.contains(&port.to_string())
        });
    };
    names(servers[0].port);
    assert_eq!(servers[0].ask(&["RPUSH", "log", "x"]).await, ":1");
    all_are_attached(&agent);
    let (code, said) = asked(&agent, "topology switch redis-1 --to b");
    assert!(code == 0 && said.contains("no write was taken for"), "{said}");
    names(servers[1].port);
    assert_eq!(servers[1].ask(&["RPUSH", "log", "y"]).await, ":2");
    let shown = agent.prints("topology -o json", "the new master", |text| text.contains("\"master\": \"b\""));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let topology = &shown["topologies"][0];
    assert_eq!((&topology["pending"], &topology["last"]["result"]), (&false.into(), &"done".into()), "{shown:#}");
    assert_eq!(topology["desired"]["master"]["address"], "b.redis-1");
    for line in ["topology switch redis-1 --to nobody", "topology switch redis-9 --to a", "topology redis-9"] {
        assert_eq!(asked(&agent, line).0, 1, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_topology_is_left_alone_until_it_is_resumed() {
    let servers = started();
    let agent = agent(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    assert_eq!(asked(&agent, "topology pause redis-1").0, 0);
    let (code, said) = asked(&agent, "topology switch redis-1 --to b");
    assert!(code == 1 && said.contains("paused on core-01") && said.contains("wharf topology resume"), "{said}");
    assert!(asked(&agent, "topology redis-1").1.contains("paused on core-01"));
    assert_eq!(asked(&agent, "topology resume redis-1").0, 0);
    switched(&agent, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_what_was_applied_without_etcd() {
    let servers = started();
    let mut agent = agent(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    switched(&agent, "c");
    agent.restart();
    let shown = agent.prints("topology redis-1", "the master", |text| text.contains("master c"));
    assert!(shown.contains("epoch 2"), "{shown}");
    switched(&agent, "a");
    agent.prints("topology redis-1", "the epoch goes on", |text| text.contains("epoch 3"));
}

/// Sends a request to where the programs before were asked, and reads the status and the text.
fn seed(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-type: text/plain"), "{head}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_before_are_spoken_to_as_ever() {
    let servers = started();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let agent = agent(&servers, &format!("seed-http = \"{address}\"\n"));
    all_are_shown(&agent);
    let topology = |master: &str, slaves: &[&str]| {
        let slaves: Vec<String> =
            slaves.iter().map(|name| format!(r#"{{"address":"{name}.redis-1.services.internal"}}"#)).collect();
        let slaves = slaves.join(",");
        format!(r#"{{"master":{{"address":"{master}.redis-1.services.internal"}},"slaves":[{slaves}]}}"#)
    };
    let (first, second) = (topology("a", &["b", "c"]), topology("b", &["a", "c"]));
    assert_eq!(seed(&address, "PUT", "/dns", &first).0, 409, "nothing was applied yet");
    assert_eq!(seed(&address, "PUT", "/master", &first), (200, "OK\n".to_owned()));
    assert_eq!(seed(&address, "PUT", "/dns", &first), (200, "OK\n".to_owned()));
    assert_eq!(seed(&address, "PUT", "/dns", &second).0, 409, "names follow what was applied");
    assert_eq!(seed(&address, "GET", "/master", ""), (405, "Method Not Allowed\n".to_owned()));
    assert_eq!(seed(&address, "PUT", "/", ""), (404, "Object Not Found\n".to_owned()));
    assert_eq!(seed(&address, "PUT", "/master/", &first), (404, "Object Not Found\n".to_owned()));
    let (status, text) = seed(&address, "PUT", "/master", "{");
    assert!(status == 400 && text.contains("no JSON"), "{text}");
    let (status, text) = seed(&address, "PUT", "/master", &topology("z", &[]));
    assert!(status == 400 && text.contains("z.redis-1.services.internal cannot be found"), "{text}");
    let long = format!("{first}{}", " ".repeat(70_000));
    assert!(matches!(seed_status(&address, &long), 400 | 413));
    servers[2].ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let (status, text) = seed(&address, "PUT", "/master", &topology("c", &["a", "b"]));
    assert!(status == 409 && text.contains("no direct replica"), "{text}");
    eventually("it is attached again", async || {
        servers[2].ask(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    assert_eq!(seed(&address, "PUT", "/master", &second), (200, "OK\n".to_owned()));
    drop(agent);
}

fn seed_status(address: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("PUT /master HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    // It may answer before it has read all of it.
    _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    let mut reply = vec![0; 64];
    let read = stream.read(&mut reply).unwrap_or(0);
    String::from_utf8_lossy(&reply[..read]).split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(413)
}
