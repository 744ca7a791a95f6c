//! Clients of ElastiCache against the program: memcacheds join, flap, are drained and leave, etcd goes away, is emptied
//! and restored, and nobody is told an empty list, or a lower version than before.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs, unreachable_pub)]

mod clients;
#[path = "../etcd/mod.rs"]
mod etcd;
mod model;
#[path = "../program/mod.rs"]
mod program;
mod reload;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use etcd::Cluster;
use program::{Agent, Options, Server, told};

const PATIENCE: Duration = Duration::from_secs(60);

/// What an endpoint tells: a version, and ports in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    version: u64,
    ports: Vec<u16>,
}

fn say(address: &str, what: &str, end: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(what.as_bytes()).unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(end) {
        let mut piece = [0; 4_096];
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&reply));
        reply.extend_from_slice(&piece[..length]);
    }
    reply
}

/// What is told now; nothing while there is no list yet.
fn ask(address: &str) -> Option<Told> {
    let reply = say(address, "config get cluster\r\n", b"\r\n");
    if reply == b"SERVER_ERROR no members yet\r\n" {
        return None;
    }
    let reply = if reply.ends_with(b"END\r\n") { reply } else { say(address, "config get cluster\r\n", b"END\r\n") };
    let text = String::from_utf8(reply).unwrap();
    let (head, rest) = text.split_once("\r\n").unwrap();
    let length: usize = head.strip_prefix("CONFIG cluster 0 ").unwrap().parse().unwrap();
    let (body, end) = rest.split_at(length);
    assert_eq!(end, "\r\nEND\r\n");
    let lines: Vec<&str> = body.split('\n').collect();
    let [version, members, ""] = lines.as_slice() else { panic!("{body:?}") };
    let port = |member: &str| {
        let parts: Vec<&str> = member.split('|').collect();
        assert_eq!(parts[..2], ["127.0.0.1", "127.0.0.1"]);
        parts[2].parse().unwrap()
    };
    Some(Told { version: version.parse().unwrap(), ports: members.split(' ').map(port).collect() })
}

/// A host: its memcached, and its agent.
struct Host {
    name: &'static str,
    cache: Option<Server>,
    port: u16,
    agent: Agent,
    highest: std::cell::Cell<u64>,
}

impl Host {
    fn start(name: &'static str, cluster: &Cluster, leave_after: &str) -> Self {
        let (cache, port) = Server::memcached();
        let settings = format!(
            "[[service]]\nname = 'memcached'\nport = {port}\ncheck = 'memcached'\n\
             check_interval = '100ms'\n[[autodiscovery]]\nservice = 'memcached'\nlisten = '127.0.0.1:0'\n\
             leave-after = '{leave_after}'\n"
        );
        let flags =
            ["--etcd-endpoints", &cluster.endpoints().join(","), "--lease-ttl", "5s"].map(str::to_owned).to_vec();
        let agent = Agent::start_with(&Options { settings: &settings, flags, node: Some(name), ..Options::default() });
        Self { name, cache: Some(cache), port, agent, highest: std::cell::Cell::new(0) }
    }

    fn address(&self) -> String {
        let log = self.agent.log();
        // A restarted agent has another port, and says so further down.
        let listed = log.rsplit("autodiscovery=[").next().and_then(|rest| rest.split(']').next());
        listed.unwrap_or_else(|| panic!("{log}")).to_owned()
    }

    /// What it tells; never less than before, and never nothing.
    fn told(&self) -> Option<Told> {
        let told = ask(&self.address());
        let version = told.as_ref().map_or(0, |told| told.version);
        let highest = self.highest.replace(version);
        assert!(version >= highest, "{} fell from {highest} to {version}", self.name);
        told
    }
}

/// Waits until all hosts tell one list of these ports, in any order.
fn until(what: &str, hosts: &[&Host], ports: &[u16]) -> Told {
    let deadline = Instant::now() + PATIENCE;
    let mut wanted = ports.to_vec();
    wanted.sort_unstable();
    loop {
        let told: Vec<Option<Told>> = hosts.iter().map(|host| host.told()).collect();
        if let Some(first) = &told[0] {
            let mut sorted = first.ports.clone();
            sorted.sort_unstable();
            if sorted == wanted && told.iter().all(|other| other.as_ref() == Some(first)) {
                return first.clone();
            }
        }
        let logs: String = if Instant::now() < deadline { String::new() } else { hosts[0].agent.log() };
        assert!(logs.is_empty(), "never: {what}: {wanted:?} but {told:?}\n{logs}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until an agent finds so many memcacheds that serve.
fn until_found(host: &Host, count: usize) {
    host.agent
        .prints("services memcached -o hostport", "the endpoints that serve", |shown| shown.lines().count() == count);
}

#[test]
fn members_stay_through_a_flap_and_leave_when_they_are_drained() {
    let cluster = Cluster::start(1);
    let one = Host::start("core-01", &cluster, "5m");
    let mut two = Host::start("core-02", &cluster, "5m");
    let three = Host::start("core-03", &cluster, "5m");
    let hosts = [&one, &two, &three];
    let ports = [one.port, two.port, three.port];
    let all = until("three have joined", &hosts, &ports);

    // Frozen, it is found no more, and stays listed; thawed, nothing has changed.
    let cache = two.cache.as_ref().unwrap();
    cache.freeze();
    until_found(&one, 2);
    assert_eq!(until("a frozen one stays", &hosts, &ports), all);
    rustix::process::kill_process(rustix::process::Pid::from_child(&cache.0), rustix::process::Signal::CONT).unwrap();
    until_found(&one, 3);
    assert_eq!(until("it is thawed", &hosts, &ports), all);

    assert_eq!(told(&two.agent.wharf("drain")).0, Some(0));
    let fewer = until("one is drained", &hosts, &[one.port, three.port]);
    assert!(fewer.version > all.version);
    assert_eq!(told(&two.agent.wharf("undrain")).0, Some(0));
    let again = until("it is back, at the end", &hosts, &ports);
    assert!(again.version > fewer.version && again.ports.last() == Some(&two.port), "{again:?}");

    // An agent that is killed takes up the list that it told.
    two.agent.restart();
    assert_eq!(until("an agent is restarted", &[&one, &two, &three], &ports), again);
}

#[test]
fn a_member_that_is_lost_leaves_after_its_time_and_the_last_one_stays() {
    let cluster = Cluster::start(1);
    let mut one = Host::start("core-01", &cluster, "3s");
    let mut two = Host::start("core-02", &cluster, "3s");
    let all = until("two have joined", &[&one, &two], &[one.port, two.port]);
    two.cache = None;
    let fewer = until("one is lost", &[&one, &two], &[one.port]);
    assert!(fewer.version > all.version);
    one.cache = None;
    until_found_nothing(&one);
    assert_eq!(until("the last one stays", &[&one, &two], &[one.port]), fewer);
}

fn until_found_nothing(host: &Host) {
    host.agent.until("nothing is found", |agent| told(&agent.wharf("services memcached")).0 == Some(1));
}

#[test]
fn whatever_becomes_of_etcd_no_version_falls_and_no_list_is_empty() {
    let mut cluster = Cluster::start(1);
    let one = Host::start("core-01", &cluster, "5m");
    let first = until("one has joined", &[&one], &[one.port]);
    let backup = cluster.snapshot();
    let two = Host::start("core-02", &cluster, "5m");
    let ports = [one.port, two.port];
    let both = until("two have joined", &[&one, &two], &ports);
    assert!(both.version > first.version);

    cluster.members[0].kill();
    one.agent.until("etcd is missed", |agent| told(&agent.wharf("services")).2.contains("stale"));
    assert_eq!(until("etcd is away", &[&one, &two], &ports), both);
    cluster.run(0);
    cluster.wait_healthy();
    until_written(&cluster, both.version);
    assert_eq!(until("etcd is back", &[&one, &two], &ports), both);

    cluster.wipe();
    until_written(&cluster, both.version + 1);
    let wiped = until("etcd was emptied", &[&one, &two], &ports);
    assert!(wiped.version > both.version);

    cluster.restore(&backup, false);
    until_written(&cluster, wiped.version + 1);
    let restored = until("etcd was restored", &[&one, &two], &ports);
    assert!(restored.version > wiped.version);
}

#[test]
fn with_a_certificate_clients_speak_tls() {
    let (_cache, port) = Server::memcached();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=memcached.cfg", "-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", told(&made).2);
    let agent = Agent::start(&format!(
        "[[service]]\nname = 'memcached'\nport = {port}\n[[autodiscovery]]\nservice = 'memcached'\n\
         listen = '127.0.0.1:0'\ntls-cert = '{certificate}'\ntls-key = '{key}'\n"
    ));
    let address = agent.address("autodiscovery");
    let ask = || {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-connect", &address, "-CAfile", &certificate, "-verify_return_error"]);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        client.stdin.take().unwrap().write_all(b"config get cluster\nquit\n").unwrap();
        String::from_utf8(client.wait_with_output().unwrap().stdout).unwrap()
    };
    agent.until("the list is told", |_| ask().contains(&format!("127.0.0.1|127.0.0.1|{port}\n\r\nEND\r\n")));
}

/// Waits until the store has a list of at least this version.
fn until_written(cluster: &Cluster, version: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = cluster.ctl(&["get", "--print-value-only", "/wharf/services/members/memcached"]);
        let stored: serde_json::Value = serde_json::from_str(&value).unwrap_or_default();
        if stored["version"].as_u64().is_some_and(|stored| stored >= version) {
            return;
        }
        assert!(Instant::now() < deadline, "no version {version} is written: {value}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
