//! Sentinel's protocol: real clients find the master through an agent, follow a switch, and are told what a real
//! Sentinel would tell them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wharf::wire::redis::reply::{Value, parse};

use crate::REDIS;
use crate::agent::{all_are_shown, started, switched};
use crate::program::{Agent, Options};
use crate::servers::Server;

const PATIENCE: Duration = Duration::from_secs(60);

/// An agent that steers these servers, and is a Sentinel to their clients.
pub fn sentinel(servers: &[Server], more: &str) -> (Agent, SocketAddr) {
    let tables = servers.iter().map(|server| {
        let (port, name) = (server.port, &server.name);
        format!("[[service]]\nname = \"redis-1\"\nport = {port}\naddress = \"127.0.0.1\"\nid = \"{name}\"\ncheck = \"redis\"\n")
    });
    let tables: String = tables.collect();
    let settings = format!(
        "probe-interval = \"200ms\"\nsentinel = \"127.0.0.1:0\"\n{more}{tables}[[topology]]\nservice = \"redis-1\"\n\
         alias = \"mymaster\"\nservers = [\"127.0.0.0/8\"]\nmax-pause = \"1s\"\n"
    );
    let agent = Agent::start_with(&Options { settings: &settings, ..Options::default() });
    let address = agent.address("sentinel").parse().unwrap();
    (agent, address)
}

/// A connection that says lines and reads replies.
struct Line(TcpStream, Vec<u8>);

impl Line {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream, Vec::new())
    }

    fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> Value {
        loop {
            if let Some((value, length)) = parse(&self.1).unwrap() {
                self.1.drain(..length);
                return value;
            }
            let mut bytes = [0; 4096];
            let count = self.0.read(&mut bytes).unwrap();
            assert!(count > 0, "closed");
            self.1.extend(&bytes[..count]);
        }
    }

    fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.hear()
    }
}

fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Text(text) | Value::Simple(text) => text.clone(),
        other => format!("{other:?}"),
    };
    value.items().iter().map(text).collect()
}

/// The port of the master, as a client is told.
pub fn master(address: SocketAddr) -> Option<u16> {
    let told = Line::to(address).ask("SENTINEL get-master-addr-by-name mymaster");
    texts(&told).get(1).map(|port| port.parse().unwrap())
}

pub fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

/// A client's program: it says where it found the master, and then when it writes to the one it was told to wait for.
struct Program(Child, BufReader<std::process::ChildStdout>);

impl Program {
    fn start(name: &str, script: &str, sentinel: SocketAddr, next: u16) -> Self {
        let mut command = Command::new(name);
        let option = if name.ends_with("ruby") { "-e" } else { "-c" };
        command.args([option, script, &sentinel.port().to_string(), &next.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const PYTHON: &str = r#"
import sys, time
from redis.sentinel import Sentinel
from redis.exceptions import RedisError
sentinel = Sentinel([("127.0.0.1", int(sys.argv[1]))], socket_timeout=5)
print("found", sentinel.discover_master("mymaster")[1], flush=True)
master = sentinel.master_for("mymaster")
end = time.time() + 60
while time.time() < end:
    try:
        master.rpush("log", "x")
        if master.info("server")["tcp_port"] == int(sys.argv[2]):
            print("moved", flush=True)
            break
    except RedisError as error:
        print(error, file=sys.stderr)
    time.sleep(0.01)
"#;

const RUBY: &str = r#"
require "redis"
$stdout.sync = true
sentinels = [{ host: "127.0.0.1", port: ARGV[0].to_i }]
master = Redis.new(url: "redis://mymaster", sentinels: sentinels, role: :master)
puts "found #{master.info["tcp_port"]}"
limit = Time.now + 60
while Time.now < limit
  begin
    master.rpush("log", "x")
    if master.info["tcp_port"] == ARGV[1]
      puts "moved"
      break
    end
  rescue Redis::BaseError => error
    warn error
  end
  sleep 0.01
end
"#;

/// A client that finds `a`, and is still there when `b` is master.
fn follows(name: &str, script: &str) {
    let servers = started();
    let (agent, address) = sentinel(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    until("a is told of", || master(address) == Some(servers[0].port));
    let mut client = Program::start(name, script, address, servers[1].port);
    assert_eq!(client.line(), format!("found {}", servers[0].port));
    switched(&agent, "b");
    assert_eq!(client.line(), "moved");
}

#[test]
fn redis_py_follows_a_switch() {
    follows("/usr/bin/python3", PYTHON);
}

#[test]
fn redis_rb_follows_a_switch() {
    follows("/usr/bin/ruby", RUBY);
}

#[test]
fn who_listens_is_told_of_a_switch() {
    let servers = started();
    let (agent, address) = sentinel(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    until("a is told of", || master(address) == Some(servers[0].port));
    let mut listener = Line::to(address);
    assert!(texts(&listener.ask("PSUBSCRIBE [+]switch-master")).starts_with(&["psubscribe".to_owned()]));
    switched(&agent, "b");
    let mut told = [texts(&listener.hear()), texts(&listener.hear())].map(|texts| texts[2..].join(" "));
    told.sort();
    let [old, new] = [0, 1].map(|server: usize| format!("127.0.0.1 {}", servers[server].port));
    assert_eq!(told, ["mymaster", "redis-1"].map(|name| format!("+switch-master {name} {old} {new}")));
    assert_eq!(master(address), Some(servers[1].port), "who hears of it and asks is told the new one");
}

#[test]
fn a_password_is_needed_where_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let (_agent, address) = sentinel(&[], &format!("sentinel-password-file = \"{}\"\n", file.display()));
    let mut line = Line::to(address);
    assert_eq!(line.ask("PING"), Value::Error("NOAUTH Authentication required.".to_owned()));
    assert_eq!(line.ask("AUTH s3cret"), Value::Simple("OK".to_owned()));
    assert_eq!(line.ask("PING"), Value::Simple("PONG".to_owned()));
}

#[test]
fn what_is_no_command_costs_its_own_connection() {
    let (_agent, address) = sentinel(&[], "");
    let mut friend = Line::to(address);
    for bytes in
        [&b"*1\r\n+PING\r\n"[..], b"*999999\r\n", b"*1\r\n$-5\r\n", b"\"\n", &[b'x'; 9_000], b"*1\r\n$99999999\r\n"]
    {
        let mut other = TcpStream::connect(address).unwrap();
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        other.write_all(bytes).unwrap();
        let mut told = Vec::new();
        // A reset instead of the end is as good: not all of what was sent has been read.
        let _ = other.read_to_end(&mut told);
        let told = String::from_utf8(told).unwrap();
        assert!(told.is_empty() || told.starts_with("-ERR Protocol error: "), "{told}");
        assert_eq!(friend.ask("PING"), Value::Simple("PONG".to_owned()));
    }
}

/// What the agent has in memory, in KiB.
fn memory(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ten_thousand_idle_clients_cost_little_and_the_next_one_is_served() {
    let (agent, address) = sentinel(&[], "");
    assert_eq!(Line::to(address).ask("PING"), Value::Simple("PONG".to_owned()));
    let before = memory(&agent);
    let mut idle: Vec<Line> = (0..10_000).map(|_| Line::to(address)).collect();
    for line in &mut idle {
        line.say("PING");
    }
    for line in &mut idle {
        assert_eq!(line.hear(), Value::Simple("PONG".to_owned()));
    }
    let each = (memory(&agent) - before) as f64 / 10.0;
    eprintln!("10,000 idle clients: {before} KiB without them, {each:.0} bytes each");
    assert!(each < 20_000.0, "{each} bytes each");
    assert_eq!(Line::to(address).ask("PING"), Value::Simple("PONG".to_owned()), "another one makes room for itself");
}

/// A real Sentinel, beside which replies are laid.
struct RealSentinel(Child, SocketAddr, #[allow(dead_code)] tempfile::TempDir);

impl RealSentinel {
    fn start(of: &Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = directory.path().join("sentinel.conf");
        let text = format!("port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n", of.port);
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(REDIS);
        command.arg(&file).arg("--sentinel").current_dir(directory.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("a real Sentinel listens", || TcpStream::connect(address).is_ok());
        Self(child, address, directory)
    }
}

impl Drop for RealSentinel {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Every other element: the names of fields.
fn names(value: &Value) -> Vec<String> {
    texts(value).into_iter().step_by(2).collect()
}

#[test]
fn replies_are_those_of_a_real_sentinel() {
    let servers = started();
    let (agent, address) = sentinel(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    until("a is told of", || master(address) == Some(servers[0].port));
    let real = RealSentinel::start(&servers[0]);
    for line in [
        "PING",
        "PING hi",
        "PING a b",
        "ECHO x",
        "nosuch a b c",
        "CLIENT",
        "CLIENT nosuch",
        "CLIENT GETNAME",
        "SENTINEL",
        "SENTINEL nosuch",
        "SENTINEL get-master-addr-by-name",
        "SENTINEL get-master-addr-by-name nobody",
        "SENTINEL get-master-addr-by-name mymaster",
        "SENTINEL master nobody",
        "SENTINEL slaves nobody",
        "SENTINEL sentinels mymaster",
        "SENTINEL sentinels nobody",
        "SENTINEL ckquorum mymaster",
        "SENTINEL pending-scripts",
        "HELLO 4",
        "HELLO a",
        "HELLO 2 NOPE",
        "AUTH x",
        "AUTH a b",
        "AUTH default b",
        "AUTH a b c",
        "SUBSCRIBE",
        "SUBSCRIBE a",
        "PSUBSCRIBE a*",
        "UNSUBSCRIBE",
        "INFO nosuch",
        "COMMAND nosuch",
        "COMMAND INFO nosuch",
        "\"abc",
        "*a",
        "*1\r\n+PING",
        "*1\r\n$-1",
    ] {
        assert_eq!(Line::to(address).ask(line), Line::to(real.1).ask(line), "{line}");
    }
    let both = |line: &str| [address, real.1].map(|address| Line::to(address).ask(line));
    let [ours, theirs] = both("SENTINEL master mymaster");
    assert_eq!(names(&ours), names(&theirs));
    let [ours, theirs] = both("SENTINEL masters").map(|masters| masters.items().first().map(names));
    assert_eq!(ours, theirs);
    let replica = |address| Line::to(address).ask("SENTINEL replicas mymaster").items().first().map(names);
    until("each knows a replica", || replica(address).is_some() && replica(real.1).is_some());
    assert_eq!(replica(address), replica(real.1));
    let [ours, theirs] = both("HELLO");
    assert_eq!(names(&ours), names(&theirs));
}
