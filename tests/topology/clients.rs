//! Real clients of Sentinel's protocol, unchanged: they write while the master moves, and go after it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::sentinel::{SentinelClient, SentinelServerType};

use crate::agent::{all_are_shown, started, switched};
use crate::eventually;
use crate::program::told;
use crate::sentinel::{master, sentinel, until};
use crate::servers::Server;

/// Where the clients and Valkey's server are, brought there when they are not.
pub fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("topology-clients");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/topology/clients.sh");
    let output = Command::new(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "the clients cannot be had from PyPI and npm: {}", told(&output).2);
    folder
}

/// A client's program. It is given the Sentinel's port and its own name, says `ready` once it has written, and goes on
/// until the key `stop` is there; then it says how many writes were acknowledged, and how many failed.
struct Program {
    name: &'static str,
    script: String,
}

/// By a package, with a class of its own for each way of waiting.
fn python(package: &str, timeout: &str) -> String {
    format!(
        r#"
import sys, time
from {package}.sentinel import Sentinel
from {package}.exceptions import {error} as Failure
sentinel = Sentinel([("127.0.0.1", int(sys.argv[1]))], socket_timeout={timeout})
master = sentinel.master_for("mymaster", socket_timeout={timeout})
log, acked, failed, stop = "log:" + sys.argv[2], 0, 0, None
while not stop:
    try:
        master.rpush(log, acked)
        acked += 1
        if acked == 1: print("ready", flush=True)
        stop = master.get("stop")
    except Failure as error:
        failed += 1
        print(sys.argv[2], repr(error), file=sys.stderr)
    time.sleep(0.01)
print(acked, failed, flush=True)
"#,
        error = if package == "valkey" { "ValkeyError" } else { "RedisError" }
    )
}

const ASYNCIO: &str = r#"
import asyncio, sys
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError
async def main():
    sentinel = Sentinel([("127.0.0.1", int(sys.argv[1]))], socket_timeout=5)
    master = sentinel.master_for("mymaster")
    log, acked, failed, stop = "log:" + sys.argv[2], 0, 0, None
    while not stop:
        try:
            await master.rpush(log, acked)
            acked += 1
            if acked == 1: print("ready", flush=True)
            stop = await master.get("stop")
        except RedisError as error:
            failed += 1
            print(sys.argv[2], repr(error), file=sys.stderr)
        await asyncio.sleep(0.01)
    print(acked, failed, flush=True)
asyncio.run(main())
"#;

/// `client` is made by this expression.
fn node(client: &str) -> String {
    format!(
        r#"
const port = Number(process.argv[1]), log = "log:" + process.argv[2];
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
(async () => {{
  const client = {client};
  client.on("error", () => {{}});
  let acked = 0, failed = 0, stop = null;
  while (!stop) {{
    try {{
      await (client.rPush ? client.rPush(log, String(acked)) : client.rpush(log, String(acked)));
      acked += 1;
      if (acked === 1) console.log("ready");
      stop = await client.get("stop");
    }} catch (error) {{
      failed += 1;
      console.error(process.argv[2], String(error));
    }}
    await pause(10);
  }}
  console.log(acked + " " + failed);
  process.exit(0);
}})();
"#
    )
}

fn node_redis(resp: u8) -> String {
    let root = r#"[{ host: "127.0.0.1", port }]"#;
    node(&format!(
        r#"await require("redis").createSentinel({{ name: "mymaster", sentinelRootNodes: {root}, RESP: {resp} }}).connect()"#
    ))
}

fn io(package: &str, more: &str) -> String {
    node(&format!(
        r#"new (require("{package}"))({{ sentinels: [{{ host: "127.0.0.1", port }}], name: "mymaster"{more} }})"#
    ))
}

fn programs() -> Vec<Program> {
    let of = |name, script| Program { name, script };
    vec![
        of("redis-py", python("redis", "5")),
        of("redis-py-with-0.1-s", python("redis", "0.1")),
        of("redis-py-asyncio", ASYNCIO.to_owned()),
        of("valkey-py", python("valkey", "5")),
        of("node-redis-resp2", node_redis(2)),
        of("node-redis-resp3", node_redis(3)),
        of("ioredis", io("ioredis", "")),
        of("ioredis-that-listens", io("ioredis", ", failoverDetector: true")),
        of("iovalkey", io("iovalkey", "")),
    ]
}

/// A client at work.
struct Running {
    name: &'static str,
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(&self, folder: &std::path::Path, sentinel: SocketAddr) -> Running {
        let is_python = self.script.contains("import ");
        let (program, option) = if is_python { ("python/bin/python", "-c") } else { ("", "-e") };
        let mut command = if is_python { Command::new(folder.join(program)) } else { Command::new("node") };
        command.args([option, &self.script, &sentinel.port().to_string(), self.name]).current_dir(folder.join("node"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Running { name: self.name, child, said }
    }
}

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// How many writes were acknowledged, and how many failed.
    fn tally(&mut self) -> (usize, usize) {
        let line = self.line();
        let mut numbers =
            line.split(' ').map(|number| number.parse().unwrap_or_else(|_| panic!("{}: {line}", self.name)));
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// redis-rs, which is a library of this program's own language. It does not ask again by itself.
#[allow(clippy::disallowed_methods)] // a plain thread: nobody's runtime is held up
fn redis_rs(sentinel: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<(usize, usize)> {
    std::thread::spawn(move || {
        let nodes = vec![format!("redis://127.0.0.1:{}/", sentinel.port())];
        let kind = SentinelServerType::Master;
        let mut client = SentinelClient::build(nodes, "mymaster".to_owned(), None, kind).unwrap();
        let (mut acked, mut failed, mut open) = (0, 0, None);
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            let Some(connection) = &mut open else {
                open = client.get_connection().ok();
                continue;
            };
            match redis::cmd("RPUSH").arg("log:redis-rs").arg(acked).query::<usize>(connection) {
                Ok(_) => acked += 1,
                Err(error) => {
                    eprintln!("redis-rs {error}");
                    (failed, open) = (failed + 1, None);
                }
            }
        }
        (acked, failed)
    })
}

async fn length(server: &Server, name: &str) -> usize {
    let told = server.ask(&["LLEN", &format!("log:{name}")]).await;
    told.trim_start_matches(':').parse().unwrap()
}

/// Until every client has written some more to this server.
async fn all_write(server: &Server, names: &[&str]) {
    for name in names {
        let before = length(server, name).await;
        eventually(&format!("{name} writes to {}", server.name), async || length(server, name).await > before + 2)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_follow_a_switch_and_lose_nothing() {
    let folder = folder();
    let servers = started();
    let (agent, address) = sentinel(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    until("a is told of", || master(address) == Some(servers[0].port));
    let programs = programs();
    let mut running: Vec<Running> = programs.iter().map(|program| program.start(&folder, address)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let rust = redis_rs(address, Arc::clone(&stop));
    for client in &mut running {
        assert_eq!(client.line(), "ready", "{}", client.name);
    }
    let names: Vec<&str> = programs.iter().map(|program| program.name).chain(["redis-rs"]).collect();
    all_write(&servers[0], &names).await;
    for (to, server) in [("b", &servers[1]), ("c", &servers[2])] {
        switched(&agent, to);
        all_write(server, &names).await;
    }
    servers[2].ask(&["SET", "stop", "1"]).await;
    stop.store(true, Ordering::Relaxed);
    let mut tallies: Vec<_> = running.iter_mut().map(|client| (client.name, client.tally())).collect();
    tallies.push(("redis-rs", rust.join().unwrap()));
    for (name, (acked, failed)) in tallies {
        let there = length(&servers[2], name).await;
        eprintln!("{name}: {acked} acknowledged, {failed} failed, {there} there, in 2 switches");
        assert!(there >= acked, "{name} lost {} writes", acked - there);
    }
}
