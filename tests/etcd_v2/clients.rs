//! Programs that were written for v2, unchanged: etcdctl, curl, python-etcd with its own suite, and what the units and
//! scripts of that time ran.

use std::path::PathBuf;
use std::process::Command;

use super::ask::{get, put};
use super::program::{Agent, told};
use super::{agent, cluster, until};

/// etcdctl as it speaks v2.
fn etcdctl(at: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "2").args(["--endpoints", &format!("http://{at}")]).args(args);
    let output = command.output().expect("etcdctl is installed (Debian's etcd-client)");
    let (code, shown, complaint) = told(&output);
    (code, format!("{shown}{complaint}").trim().to_owned())
}

#[test]
fn etcdctl_speaks_v2_as_ever() {
    let cluster = cluster();
    let agent = agent(&cluster, "core-01", "/services,/config");
    let real = format!("127.0.0.1:{}", cluster.members[0].client);
    let ours = agent.address("etcd_v2");
    let lines: [&[&str]; 22] = [
        &["set", "/services/memcached/memcached-1", r#"{ "host": "core-01", "port": 11211 }"#, "--ttl", "60"],
        &["get", "/services/memcached/memcached-1"],
        &["mk", "/services/postgres/master", "one", "--ttl", "60"],
        &["mk", "/services/postgres/master", "two"],
        &["update", "/services/postgres/master", "three"],
        &["set", "/services/postgres/master", "four", "--swap-with-value", "three"],
        &["set", "/services/postgres/master", "five", "--swap-with-value", "three"],
        &["mkdir", "/config/empty"],
        &["mkdir", "/config/empty"],
        &["setdir", "/config/later", "--ttl", "60"],
        &["updatedir", "/config/later", "--ttl", "120"],
        &["set", "/config/later/key", "x"],
        &["ls", "/config"],
        &["ls", "--recursive", "--sort", "-p", "/config"],
        &["get", "/config/none"],
        &["get", "/config/later"],
        &["rmdir", "/config/later"],
        &["rmdir", "/config/empty"],
        &["rm", "/config/later"],
        &["rm", "--recursive", "/config/later"],
        &["rm", "/services/postgres/master", "--with-value", "three"],
        &["rm", "/services/memcached/memcached-1"],
    ];
    // Where it was compared with the store's index, that is another one.
    let plain = |(code, text): (Option<i32>, String)| {
        let text = text.split(" [").next().unwrap_or_default().to_owned();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        (code, lines)
    };
    for args in lines {
        assert_eq!(plain(etcdctl(&ours, args)), plain(etcdctl(&real, args)), "{args:?}: etcd's own is the right one");
    }
    let (code, shown) = etcdctl(&ours, &["cluster-health"]);
    assert_eq!((code, shown.contains("cluster is healthy")), (Some(0), true), "{shown}");
    let begun = put(&ours, "/services/watched", &[("value", "1")]);
    let since = (begun.index() + 1).to_string();
    put(&ours, "/services/watched", &[("value", "2")]);
    let (_, shown) = etcdctl(&ours, &["watch", "--after-index", &since, "/services/watched"]);
    assert_eq!(shown, "2");
}

/// The scripts name an address of their own network: they run in one that is made for them. `WHARF_SCRIPTS` is a folder
/// that has `memcached-discovery@.service`, `define-topology.sh` and `apply-topology.sh` as somebody wrote them; what
/// they run is run then.
#[test]
fn the_units_and_scripts_of_that_time_run_as_they_were_written() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/etcd_v2/seeds.sh");
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", script]).arg(folder.path()).env("WHARF", env!("CARGO_BIN_EXE_wharf"));
    let output = command.output().unwrap();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(output.status.success(), "{:?}\n{log}", told(&output));
}

/// Where python-etcd is, brought there when it is not.
fn python() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("etcd-v2-clients");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/etcd_v2/clients.sh");
    let output = Command::new(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "python-etcd cannot be had from PyPI: {}", told(&output).2);
    folder.join("python/bin/python")
}

#[test]
fn python_etcd_runs_its_own_suite() {
    let (cluster, python, folder) = (cluster(), python(), tempfile::tempdir().unwrap());
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/etcd_v2");
    std::os::unix::fs::symlink(format!("{here}/etcd.sh"), folder.path().join("etcd")).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(python);
    command.args(["-W", "ignore", &format!("{here}/suite.py")]).env("PATH", path);
    command.env("WHARF", env!("CARGO_BIN_EXE_wharf")).env("ENDPOINTS", cluster.endpoints().join(","));
    let output = command.env("LOG", folder.path().join("log")).output().unwrap();
    assert!(output.status.success(), "{}", told(&output).2);
    let ran = told(&output).2;
    assert!(ran.contains("Ran 14 tests"), "{ran}");
}

const LOCK: &str = r#"
import etcd, os, sys
port, folder = int(sys.argv[1]), sys.argv[2]
client = etcd.Client(host="127.0.0.1", port=port)
for turn in range(4):
    lock = etcd.Lock(client, "one")
    lock.acquire(blocking=True, lock_ttl=60)
    assert lock.is_acquired
    held = os.open(folder + "/held", os.O_CREAT | os.O_EXCL)  # fails where somebody else holds it
    client.write("/services/turns", str(port), append=True)
    os.close(held)
    os.unlink(folder + "/held")
    lock.release()
"#;

#[test]
fn python_etcds_lock_has_one_holder_through_three_agents() {
    let (cluster, python, folder) = (cluster(), python(), tempfile::tempdir().unwrap());
    let agents: Vec<Agent> = ["core-01", "core-02", "core-03"].map(|node| agent(&cluster, node, "/")).into();
    let run = |agent: &Agent| {
        let at = agent.address("etcd_v2");
        let mut command = Command::new(&python);
        command.args(["-W", "ignore", "-c", LOCK, at.rsplit(':').next().unwrap()]).arg(folder.path());
        std::thread::spawn(move || command.output().unwrap())
    };
    let running: Vec<_> = agents.iter().chain(&agents).map(run).collect();
    for output in running.into_iter().map(|thread| thread.join().unwrap()) {
        assert!(output.status.success(), "{}", told(&output).2);
    }
    let at = agents[0].address("etcd_v2");
    let turns = get(&at, "/services/turns").body["node"]["nodes"].as_array().map(Vec::len);
    assert_eq!(turns, Some(24));
    until("no place in the queue is left", || get(&at, "/_locks/one").body["node"].get("nodes").is_none());
}
