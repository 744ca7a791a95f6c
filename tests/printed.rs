//! Nothing that others wrote reaches a terminal, a log or a script as it is: one hostile cluster, seen every way there
//! is.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)] // blocking is what a test does here

mod engine;
mod etcd;
mod program;

use std::io::{Read, Write};
use std::net::TcpStream;

use etcd::Cluster;
use program::{Agent, Options, told};
use serde_json::json;

/// What turns a terminal, a line or its direction.
const EVIL: &str = "a\nINFO forged\r\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{7f}\u{202e}\u{2028}\u{feff}\tb";

fn is_unsafe(character: char) -> bool {
    character != '\n' && wharf::model::words::plain::is_unsafe(character)
}

#[track_caller]
fn check_plain(what: &str, text: &str) {
    let raw: Vec<char> = text.chars().filter(|character| is_unsafe(*character)).collect();
    assert!(raw.is_empty(), "{what} has {raw:?} in {text:?}");
    let forged = text.lines().find(|line| line.starts_with("INFO forged"));
    assert_eq!(forged, None, "{what} has lines of others: {text:?}");
}

/// Records and a node of another host, every text of which is hostile.
fn hostile(cluster: &Cluster) {
    let record = json!({
        "host": "10.0.0.1\n6.6.6.6", "port": 80, "id": EVIL, "service": EVIL, "node": EVIL, "owner": EVIL, "tags": [EVIL],
        "attrs": {"x": EVIL, EVIL: "y"}, "container": EVIL, "image": EVIL, "since": EVIL, "text": EVIL, "group": "g",
    });
    cluster.ctl(&["put", "/services/web/evil", &record.to_string()]);
    let named = json!({"host": "two words", "port": 81, "role": "primary"});
    cluster.ctl(&["put", "/services/web/words", &named.to_string()]);
    for (key, field) in [("role", "role"), ("proto", "proto"), ("host", "port")] {
        cluster.ctl(&[
            "put",
            &format!("/services/bad/{key}"),
            &json!({"host": "10.0.0.2", "port": 1, field: EVIL}).to_string(),
        ]);
    }
    cluster.ctl(&["put", &format!("/services/{EVIL}/{EVIL}"), r#"{"host":"10.0.0.3","port":1}"#]);
    let node = json!({
        "node": EVIL, "owner": EVIL, "version": EVIL, "started": EVIL, "drained": EVIL, "states": {EVIL: 1},
        "waiting": [{"id": EVIL, "service": EVIL, "state": EVIL, "reason": EVIL, "since": EVIL, "host": EVIL, "port": 1}],
    });
    cluster.ctl(&["put", "/wharf/services/nodes/evil/o", &node.to_string()]);
    cluster.ctl(&["put", "/wharf/services/nodes/bad/o", &json!({"node": 7, EVIL: EVIL}).to_string()]);
}

/// Where the agent's log, in either form, says that it serves this.
fn address(agent: &Agent, name: &str) -> String {
    let log = agent.log();
    let named = [format!("{name}=["), format!("\"{name}\":\"[")];
    let rest = named.iter().find_map(|named| log.split(named.as_str()).nth(1)).unwrap();
    rest.split([']', ',']).next().unwrap().to_owned()
}

/// All that is answered to a GET, its head too.
fn body(agent: &Agent, path: &str) -> String {
    let mut stream = TcpStream::connect(address(agent, "http")).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

#[test]
fn whatever_others_write_is_printed_plain() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let engine = runtime.block_on(engine::Engine::start());
    let cluster = Cluster::start(1);
    hostile(&cluster);
    let mut facts = engine::container(1, &format!("img{EVIL}"), 80, 8080);
    facts["Name"] = json!(format!("/c{EVIL}"));
    facts["Config"]["Labels"] = json!({
        "SERVICE_NAME": EVIL, "SERVICE_ID": EVIL, "SERVICE_TAGS": EVIL, "SERVICE_ROLE": EVIL, "SERVICE_WEIGHT": EVIL,
        "SERVICE_CHECK": EVIL, "SERVICE_TOKEN": EVIL, "SERVICE_TTL": EVIL, "SERVICE_81_NAME": EVIL, EVIL: EVIL, format!("SERVICE_{EVIL}"): EVIL,
    });
    for format in ["text", "json"] {
        let flags = ["--log", "debug", "--log-format", format, "--etcd-endpoints", &cluster.endpoints().join(",")];
        let options = Options {
            engine: Some(format!("unix://{}", engine.path.display())),
            settings: "",
            flags: flags.iter().map(ToString::to_string).collect(),
            ..Options::default()
        };
        let agent = Agent::start_with(&options);
        engine.run(facts.clone());
        agent.until("it has seen both", |agent| {
            let seen = |line: &str, text: &str| told(&agent.wharf(line)).1.contains(text);
            seen("explain", "forged") && seen("services", "two words") && seen("nodes", "forged")
        });
        for line in [
            "services",
            "services -o wide",
            "services -o json",
            "services web",
            "services web -o hostport",
            "services -o hostport",
            "wait web -o wide",
            "wait web -o hostport",
            "explain",
            "explain -o json",
            "nodes",
            "nodes -o json",
            "wait web --count 9 --timeout 100ms",
        ] {
            let (_, out, err) = told(&agent.wharf(line));
            check_plain(line, &out);
            check_plain(line, &err);
            assert!(!(out + &err).is_empty(), "{line} says nothing");
        }
        let (_, words, _) = told(&agent.wharf("services -o hostport"));
        let lines: Vec<&str> = words.lines().collect();
        assert_eq!(words.split_whitespace().count(), lines.len(), "one word a line: {words:?}");
        let web: serde_json::Value = serde_json::from_str(&told(&agent.wharf("services web -o json")).1).unwrap();
        let endpoints = web["endpoints"].as_array().unwrap().len();
        assert_eq!(told(&agent.wharf("services web -o hostport")).1.lines().count(), endpoints, "{words:?}");
        for (name, kind) in [("web", "SRV"), ("web", "TXT"), ("evil.web", "ANY"), (EVIL, "A")] {
            let dns = address(&agent, "dns");
            for form in [&[][..], &["-o", "json"]] {
                let ran = program::wharf().args(["resolve", name, kind, "--dns", &dns]).args(form).output().unwrap();
                let (_, out, err) = told(&ran);
                check_plain("resolve", &out);
                check_plain("resolve", &err);
            }
        }
        let store = format!("--etcd-endpoints {}", cluster.endpoints().join(","));
        for line in
            [format!("services -o hostport {store}"), format!("services -o wide {store}"), format!("nodes {store}")]
        {
            let (_, out, err) = told(&program::wharf().args(line.split_whitespace()).output().unwrap());
            check_plain(&line, &out);
            check_plain(&line, &err);
        }
        for path in [
            "/v1/services",
            "/v1/services/web",
            "/v1/local",
            "/v1/nodes",
            "/sd/prometheus",
            "/metrics",
            "/v1/services/%1b%5b2J%0aINFO%20forged",
            "/%1b%9b?a=%0a",
        ] {
            check_plain(path, &body(&agent, path));
        }
        engine.die(&engine::id(1));
        agent.until("it has seen it go", |agent| !told(&agent.wharf("explain")).1.contains("forged"));
        let log = agent.log();
        check_plain(&format!("the log as {format}"), &log);
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            }
        }
        engine.remove(&engine::id(1));
    }
}
