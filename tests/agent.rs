//! The agent as one process: what it binds, how it is reloaded, how it ends.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)] // no runtime here whose threads could be blocked

mod etcd;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const AWAY: &str = "engine is away; trying again";

/// A running agent with its log lines; killed when dropped.
struct Agent {
    child: Child,
    log: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Agent {
    fn start(directory: &Path, more: &[&str]) -> Self {
        let docker = format!("unix://{}", directory.join("no-engine.sock").display());
        let state = directory.join("state");
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(["agent", "--node", "core-01", "--advertise", "192.0.2.10", "--log-format", "json"]);
        command.args(["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--docker", &docker]);
        command.args(["--state-dir", state.to_str().unwrap()]).args(more);
        command.env_remove("NOTIFY_SOCKET").stderr(Stdio::piped()).stdin(Stdio::null());
        if let Some(notify) = directory.join("notify.sock").exists().then(|| directory.join("notify.sock")) {
            command.env("NOTIFY_SOCKET", notify);
        }
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap_or(serde_json::Value::String(line)));
            }
        });
        Self { child, log }
    }

    /// Waits for a log line with this message.
    fn logged(&self, message: &str) -> serde_json::Value {
        eventually(&format!("the log says {message:?}"), || {
            let log = self.log.lock().unwrap();
            log.iter().find(|line| line["message"].as_str() == Some(message)).cloned()
        })
    }

    fn address(&self, of: &str) -> SocketAddr {
        let serving = self.logged("serving");
        let list = serving[of].as_str().unwrap().to_owned();
        list.trim_matches(['[', ']']).split(", ").next().unwrap().parse().unwrap()
    }

    fn get(&self, path: &str) -> (u16, String) {
        let at = self.address("http");
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// How many answers the name has, asked by SRV.
    fn srv_count(&self, name: &str) -> usize {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut query = vec![7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 33, 0, 1]);
        socket.send_to(&query, self.address("dns")).unwrap();
        let mut reply = [0; 1500];
        let length = socket.recv(&mut reply).unwrap();
        assert!(length > 12 && reply[..2] == [7, 7], "no answer to our question");
        usize::from(u16::from_be_bytes([reply[6], reply[7]]))
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the agent has ended", || child.try_wait().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("wharf.toml");
    fs::write(&path, text).unwrap();
    path
}

const WEB: &str = "[[service]]\nname = 'web'\nport = 8080\ncheck = 'none'\n";

#[test]
fn own_records_are_answered_when_etcd_is_away_at_start_before_any_probe_has() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = etcd::Cluster::start(1);
    let config = file(directory.path(), WEB);
    let endpoint = cluster.endpoints().remove(0);
    let flags = ["--config", config.to_str().unwrap(), "--etcd-endpoints", &endpoint, "--probe-fall", "10"];
    let mut agent = Agent::start(directory.path(), &flags);
    let answered = |agent: &Agent| (agent.srv_count("web.services.internal") == 1).then_some(());
    eventually("it is published and answered", || answered(&agent).filter(|()| agent.get("/readyz").0 == 200));
    agent.signal("-TERM");
    assert!(agent.ended().success());
    cluster.members[0].kill();

    // From now on it is probed where nobody answers: it counts as ready until ten probes have failed.
    file(directory.path(), &WEB.replace("'none'", "'tcp'"));
    let agent = Agent::start(directory.path(), &flags);
    eventually("it counts as ready", || agent.get("/v1/local").1.contains(r#""state":"ready""#).then_some(()));
    assert_eq!(answered(&agent), Some(()));
}

/// Registrator's keys beside ours, as it writes them.
#[test]
fn what_registrator_writes_of_the_same_server_is_answered_once_and_not_before_it_is_ready() {
    const KEY: &str = "/services/web/core-01:web:8080";
    let directory = tempfile::tempdir().unwrap();
    let cluster = etcd::Cluster::start(1);
    let config = file(directory.path(), &WEB.replace("'none'", "'tcp'"));
    let endpoint = cluster.endpoints().remove(0);
    cluster.ctl(&["put", KEY, "192.0.2.10:8080"]);
    cluster.ctl(&["put", "/services/web/core-02:web:8080", "192.0.2.11:8080"]);
    let flags = ["--config", config.to_str().unwrap(), "--etcd-endpoints", &endpoint];
    let agent = Agent::start(directory.path(), &flags);
    // Nobody answers at our address: the agent holds the server back, whatever registrator says. The other host has no
    // agent, and stays.
    let yielding = |agent: &Agent, count: u8| {
        let metrics = agent.get("/metrics").1;
        metrics.lines().any(|line| line == format!("wharf_catalog_yielding_records {count}")).then_some(())
    };
    eventually("what is held back is not answered", || yielding(&agent, 1));
    assert_eq!(agent.srv_count("web.services.internal"), 1);

    file(directory.path(), WEB);
    agent.signal("-HUP");
    eventually("ours is answered", || (agent.srv_count("web.services.internal") == 2).then_some(()));
    let services = agent.get("/v1/services/web").1;
    assert!(!services.contains(KEY) && services.contains("192.0.2.10"), "{services}");
    yielding(&agent, 1).unwrap();

    drop(cluster.ctl(&["del", KEY]));
    eventually("it is forgotten with its key", || yielding(&agent, 0));
    assert_eq!(agent.srv_count("web.services.internal"), 2);
}

#[test]
fn a_service_of_the_file_is_answered_by_dns_and_http_without_docker_or_etcd() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), WEB);
    let agent = Agent::start(directory.path(), &["--config", config.to_str().unwrap()]);
    eventually("SRV has the service", || (agent.srv_count("web.services.internal") == 1).then_some(()));
    eventually("it is ready", || (agent.get("/readyz").0 == 200).then_some(()));
    let (status, body) = agent.get("/v1/services/web");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("192.0.2.10"), "{body}");
    assert!(agent.get("/metrics").1.contains("wharf_"));
}

#[test]
fn sigterm_ends_it_well_and_sighup_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path(), &[]);
    agent.logged("serving");
    agent.signal("-HUP");
    agent.logged("settings read again");
    agent.signal("-TERM");
    assert!(agent.ended().success());
    let log = agent.log.lock().unwrap();
    let complaint = log
        .iter()
        .find(|line| ["WARN", "ERROR"].iter().any(|level| line["level"] == *level) && line["message"] != AWAY);
    assert_eq!(complaint, None, "a stop is no trouble");
}

#[test]
fn without_docker_it_says_so_once_and_what_to_try() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path(), &[]);
    eventually("it says what to try", || {
        let log = agent.log.lock().unwrap();
        log.iter().any(|line| line["message"].as_str().is_some_and(|text| text.starts_with("try: dig @"))).then_some(())
    });
    agent.logged(AWAY);
    let log = agent.log.lock().unwrap();
    assert_eq!(log.iter().filter(|line| line["message"] == AWAY).count(), 1);
}

#[test]
fn a_reload_applies_what_it_can_and_names_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), WEB);
    let agent = Agent::start(directory.path(), &["--config", config.to_str().unwrap()]);
    eventually("the first service", || (agent.srv_count("web.services.internal") == 1).then_some(()));
    file(directory.path(), &format!("dns-ttl = '9s'\n{}", WEB.replace("web", "api")));
    agent.signal("-HUP");
    eventually("the new service", || (agent.srv_count("api.services.internal") == 1).then_some(()));
    eventually("the old one is gone", || (agent.srv_count("web.services.internal") == 0).then_some(()));
    assert!(agent.logged("these settings wait for a restart")["keys"].as_str().unwrap().contains("dns-ttl"));
}

#[test]
fn what_waits_for_a_restart_waits_however_often_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), WEB);
    let agent = Agent::start(directory.path(), &["--config", config.to_str().unwrap()]);
    let web = |agent: &Agent| agent.get("/v1/services/web").1;
    eventually("the service", || web(&agent).contains("192.0.2.10").then_some(()));
    let port = WEB.replace("8080", "8081");
    file(directory.path(), &format!("internal = true\ndns-ttl = '9s'\ncheck-secrets = '/nowhere'\n{port}"));
    for reads in 1..=3 {
        agent.signal("-HUP");
        eventually("it is said each time", || {
            let log = agent.log.lock().unwrap();
            let said = log.iter().filter(|line| line["message"] == "these settings wait for a restart");
            let keys = said.filter(|line| line["keys"] == r#"["check-secrets", "dns-ttl", "internal"]"#).count();
            assert!(keys <= reads);
            (keys == reads).then_some(())
        });
        let applied: Vec<String> =
            agent.log.lock().unwrap().iter().filter_map(|line| line["applied"].as_str().map(str::to_owned)).collect();
        assert_eq!(applied.last().unwrap(), if reads == 1 { r#"["service"]"# } else { "[]" });
    }
    eventually("what is live is applied", || web(&agent).contains("8081").then_some(()));
    assert!(web(&agent).contains("core-01:web:8081"), "{}", web(&agent));
}

#[test]
fn a_bad_reload_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = file(directory.path(), WEB);
    let agent = Agent::start(directory.path(), &["--config", config.to_str().unwrap()]);
    eventually("the service", || (agent.srv_count("web.services.internal") == 1).then_some(()));
    file(directory.path(), "[[service]]\nname = 'api'\nport = 'none'\nlease-ttl = '5s'\n");
    agent.signal("-HUP");
    let refused = agent.logged("reload refused, settings stay as they were");
    assert!(refused["at"].as_str().unwrap().contains("service[1]"), "{refused}");
    assert_eq!(agent.srv_count("web.services.internal"), 1);
}

#[test]
fn a_second_agent_on_the_same_state_directory_exits_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let first = Agent::start(directory.path(), &[]);
    first.logged("serving");
    let mut second = Agent::start(directory.path(), &[]);
    assert_eq!(second.ended().code(), Some(2));
}

#[test]
fn an_address_that_is_taken_is_named_and_ends_it_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other = UdpSocket::bind(taken);
    let holder = other.or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let mut agent = Agent::start(directory.path(), &["--dns", &taken]);
    assert_eq!(agent.ended().code(), Some(1));
    let refused = agent.logged("the agent cannot start");
    assert!(refused.to_string().contains(&taken), "{refused}");
}

#[test]
fn systemd_is_told_ready_status_reloading_and_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let notify = std::os::unix::net::UnixDatagram::bind(directory.path().join("notify.sock")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = String::new();
    let mut hear = |what: &str| {
        let mut packet = [0; 4096];
        while !heard.contains(what) {
            let length =
                notify.recv(&mut packet).unwrap_or_else(|error| panic!("{what} was not said: {error}: {heard}"));
            heard.push_str(std::str::from_utf8(&packet[..length]).unwrap());
            heard.push('\n');
        }
    };
    let mut agent = Agent::start(directory.path(), &[]);
    hear("READY=1");
    hear("STATUS=");
    agent.signal("-HUP");
    hear("RELOADING=1");
    agent.signal("-TERM");
    hear("STOPPING=1");
    assert!(agent.ended().success());
}

#[test]
fn a_second_signal_does_not_wait_for_a_worker_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    // An etcd that accepts and never answers: the goodbye to it takes its whole deadline.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut agent = Agent::start(directory.path(), &["--etcd-endpoints", &endpoint, "--on-stop", "withdraw"]);
    agent.logged("serving");
    agent.signal("-TERM");
    agent.logged("stopping");
    agent.signal("-TERM");
    let status = agent.ended();
    assert!(matches!(status.code(), Some(0 | 130)), "{status}");
    drop(UnixListener::bind(directory.path().join("unused.sock")));
}
