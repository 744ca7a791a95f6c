//! Real clients, unchanged: each finds the members by an agent, and stores and reads through them.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::etcd::Cluster;
use super::program::told;
use super::{Host, PATIENCE, until};

/// A client's program: it is given the endpoint, prints the ports it found in order, and fails when it cannot store.
struct Client {
    name: &'static str,
    /// The environment that it is in; node's when there is none.
    python: Option<&'static str>,
    script: &'static str,
}

const CLIENTS: [Client; 6] = [
    Client {
        name: "elasticache-auto-discovery",
        python: Some("python"),
        script: r#"
import sys, elasticache_auto_discovery
found = elasticache_auto_discovery.discover(sys.argv[1], 10)
assert all(host == ip for host, ip, port in found)
print(*sorted(int(port) for host, ip, port in found))
"#,
    },
    Client {
        name: "elasticache-pyclient",
        python: Some("python"),
        script: r#"
import sys
from elasticache_pyclient import MemcacheClient
client = MemcacheClient(sys.argv[1], ad_interval=60)
try:
    for number in range(20):
        assert client.set(f"pyclient-{number}", str(number)), "not stored"
        assert client.get(f"pyclient-{number}") == str(number), "not read"
    print(*sorted(int(server.split(":")[1]) for server in client.cluster.servers))
finally:
    client.stop_timer()
"#,
    },
    Client {
        name: "django-elastipymemcache",
        python: Some("python"),
        script: r#"
import sys
from django_elastipymemcache.client import AWSElastiCacheClient
client = AWSElastiCacheClient(sys.argv[1])
for number in range(20):
    client.set(f"django-{number}", str(number))
    assert client.get(f"django-{number}") == str(number).encode(), "not read"
print(*sorted(int(key.rsplit(":", 1)[1]) for key in client.clients))
"#,
    },
    Client {
        name: "django-elasticache",
        python: Some("django-3"),
        script: r#"
import sys, django
from django.conf import settings
backend = {"BACKEND": "django_elasticache.memcached.ElastiCache", "LOCATION": sys.argv[1]}
settings.configure(CACHES={"default": backend})
django.setup()
from django.core.cache import cache
for number in range(20):
    cache.set(f"elasticache-{number}", str(number))
    assert cache.get(f"elasticache-{number}") == str(number), "not read"
print(*sorted(int(node.rsplit(":", 1)[1]) for node in cache.get_cluster_nodes()))
"#,
    },
    Client {
        name: "ecad",
        python: None,
        script: r#"
const ECAD = require("ecad");
new ECAD({ endpoints: [process.argv[1]], timeout: 10000 }).fetch((error, found) => {
  if (error) throw error;
  console.log(found.map((member) => Number(member.split(":")[1])).sort((a, b) => a - b).join(" "));
});
"#,
    },
    Client {
        name: "memcached-elasticache",
        python: None,
        script: r#"
const Memcached = require("memcached-elasticache");
const client = new Memcached(process.argv[1], { autoDiscover: true, autoDiscoverInterval: 60000 });
client.on("autoDiscoverFailure", (error) => { throw error; });
client.on("autoDiscover", (found) => {
  client.set("elasticache", "7", 60, (error) => {
    if (error) throw error;
    client.get("elasticache", (error, value) => {
      if (error || value !== "7") throw error || new Error("not read");
      console.log(found.map((member) => Number(member.split(":")[1])).sort((a, b) => a - b).join(" "));
      client.end();
      process.exit(0);
    });
  });
});
"#,
    },
];

/// Where the clients are, brought there when they are not.
fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("autodiscovery-clients");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/autodiscovery/clients.sh");
    let output = Command::new(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "the clients cannot be had from PyPI and npm: {}", told(&output).2);
    folder
}

fn run(client: &Client, endpoint: &str) -> (bool, String) {
    let folder = folder();
    let mut command = match client.python {
        Some(environment) => {
            let mut command = Command::new(folder.join(environment).join("bin/python"));
            command.args(["-W", "ignore", "-c", client.script, endpoint]);
            command
        }
        None => {
            let mut command = Command::new("node");
            command.args(["-e", client.script, endpoint]).env("NODE_PATH", folder.join("node/node_modules"));
            command
        }
    };
    let output = command.output().unwrap();
    let (code, shown, complaint) = told(&output);
    (code == Some(0), if code == Some(0) { shown.trim().to_owned() } else { complaint })
}

/// Every client finds these ports, by every host; one that asks while a change is under way asks again.
fn all_find(what: &str, hosts: &[&Host], ports: &[u16]) {
    let mut wanted = ports.to_vec();
    wanted.sort_unstable();
    let wanted = wanted.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    for client in &CLIENTS {
        for host in hosts {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (is_fine, found) = run(client, &host.address());
                if is_fine && found == wanted {
                    break;
                }
                assert!(Instant::now() < deadline, "{what}: {} finds {found:?}, not {wanted:?}", client.name);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

#[test]
fn clients_of_elasticache_never_know_the_difference() {
    let mut cluster = Cluster::start(1);
    let one = Host::start("core-01", &cluster, "2s");
    until("one has joined", &[&one], &[one.port]);
    all_find("one", &[&one], &[one.port]);

    let mut two = Host::start("core-02", &cluster, "2s");
    let ports = [one.port, two.port];
    until("another one joins", &[&one, &two], &ports);
    all_find("two", &[&one, &two], &ports);

    cluster.members[0].kill();
    all_find("etcd is away", &[&one, &two], &ports);
    cluster.wipe();
    all_find("etcd is emptied", &[&one], &ports);

    two.cache = None;
    until("one leaves", &[&one, &two], &[one.port]);
    all_find("one again", &[&two], &[one.port]);
}
