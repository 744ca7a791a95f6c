//! A real Patroni: two members of PostgreSQL, a switchover, a pause, a leader that dies.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::etcd::Cluster;
use crate::program::Agent;
use crate::{agent, places, srv};

const PRIMARY: &str = "primary.orders.services.internal";
const REPLICAS: &str = "replicas.orders.services.internal";

fn site() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("patroni");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layouts/patroni.sh");
    let output = Command::new(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "Patroni cannot be had: {}", String::from_utf8_lossy(&output.stderr));
    folder.join("site")
}

/// The programs of the newest PostgreSQL that Debian has installed.
fn programs() -> PathBuf {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path().join("bin")).collect();
    all.sort();
    all.pop().expect("postgresql is installed: apt-get install postgresql")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A member of the scope, which ends with its handle.
struct Member {
    name: &'static str,
    port: u16,
    rest: u16,
    child: Child,
}

/// A place that the user postgres may use, which the system's temporary folder is.
struct Place {
    dir: tempfile::TempDir,
    site: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wharf-patroni-").tempdir_in("/tmp").unwrap();
        let site = dir.path().join("site");
        // The checkout may be where only root may read.
        let copied = Command::new("cp").arg("-r").arg(self::site()).arg(&site).status().unwrap();
        let given = Command::new("chown").args(["-R", "postgres:"]).arg(dir.path()).status().unwrap();
        assert!(copied.success() && given.success());
        Self { dir, site }
    }

    fn member(&self, cluster: &Cluster, name: &'static str) -> Member {
        let (port, rest) = (free_port(), free_port());
        let at = |what: &str| self.dir.path().join(format!("{name}.{what}")).display().to_string();
        let settings = format!(
            "scope: orders\nname: {name}\nrestapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}\n\
             etcd3: {{hosts: '{}'}}\n\
             bootstrap:\n  dcs: {{ttl: 20, loop_wait: 1, retry_timeout: 5, failsafe_mode: false}}\n  initdb: [{{encoding: UTF8}}, no-sync]\n\
             postgresql:\n  listen: 127.0.0.1:{port}\n  connect_address: 127.0.0.1:{port}\n  data_dir: {}\n  bin_dir: {}\n  \
             pgpass: {}\n  authentication: {{replication: {{username: rep, password: p}}, superuser: {{username: postgres, password: p}}}}\n  \
             parameters: {{fsync: 'off', unix_socket_directories: '{}'}}\n  \
             pg_hba: ['host all all 127.0.0.1/32 trust', 'host replication rep 127.0.0.1/32 trust', 'local all all trust']\n",
            cluster.endpoints().join(",").replace("http://", ""),
            at("data"),
            programs().display(),
            at("pgpass"),
            self.dir.path().display(),
        );
        std::fs::write(at("yml"), settings).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"])
            .args(["/usr/bin/python3", "-c", "from patroni.__main__ import main\nif __name__ == '__main__':\n  main()"])
            .arg(at("yml"))
            .env("PYTHONPATH", &self.site)
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("setpriv is there: util-linux");
        Member { name, port, rest, child }
    }

    fn logs(&self) -> String {
        let text = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        let end = |text: String| text.lines().rev().take(20).collect::<Vec<_>>().join("\n");
        format!("{}\n{}", end(text("pg1.log")), end(text("pg2.log")))
    }
}

impl Member {
    fn srv(&self) -> String {
        format!("{} {}.orders.services.internal.", self.port, self.name)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let url = format!("http://127.0.0.1:{}/{path}", self.rest);
        let output = Command::new("curl").args(["-s", "-X", method, &url, "-d", body]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As a host that dies: everything of it at once.
    fn kill(&mut self, data: &Path) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let postmaster = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let pid = postmaster.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

struct Members<'p>(Vec<Member>, &'p Place);

impl Drop for Members<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.1.logs());
        }
        for member in &mut self.0 {
            let data = self.1.dir.path().join(format!("{}.data", member.name));
            member.kill(&data);
        }
    }
}

#[test]
fn a_scope_is_a_service_whose_leader_is_the_primary() {
    let (cluster, place) = (Cluster::start(1), Place::new());
    let reader = agent(&cluster, "core-01", "", &["--patroni", "/service"]);
    let mut members = Members(vec![place.member(&cluster, "pg1")], &place);
    is_primary(&reader, &members.0[0]);
    members.0.push(place.member(&cluster, "pg2"));
    let (one, two) = (&members.0[0], &members.0[1]);
    reader.until("the other follows", |agent| srv(agent, REPLICAS) == [two.srv()]);
    assert_eq!(places(&reader, "orders").len(), 2);
    assert_eq!(srv(&reader, PRIMARY), [one.srv()]);

    // A switchover: at no time two, and then the other one.
    let answer = one.ask("POST", "switchover", r#"{"leader":"pg1","candidate":"pg2"}"#);
    reader.until(&format!("the other leads ({answer})"), |agent| {
        let named = srv(agent, PRIMARY);
        assert!(named.len() <= 1, "{named:?}");
        named == [two.srv()]
    });
    reader.until("the first one follows", |agent| srv(agent, REPLICAS) == [one.srv()]);

    // A reader that comes later reads it afresh; the leader key has not been written since.
    let later = agent(&cluster, "core-02", "", &["--patroni", "/service"]);
    is_primary(&later, two);

    // Paused, the leader key goes, and the server still takes writes; a host that offers it says so.
    one.ask("PATCH", "config", r#"{"pause":true}"#);
    let table = format!("[[service]]\nname = 'pg'\nport = {}\ncheck = 'postgres'\nrole = 'primary'\n", two.port);
    let host = agent(&cluster, "core-03", &table, &[]);
    host.until("it offers the server", |agent| places(agent, "pg") == [format!("127.0.0.1:{}", two.port)]);
    let is_paused = || cluster.ctl(&["get", "--print-value-only", "/service/orders/config"]).contains("\"pause\":true");
    reader.until("it is paused", |_| is_paused());
    rustix::process::kill_process(Pid::from_child(&two.child), Signal::STOP).unwrap();
    cluster.ctl(&["del", "/service/orders/leader"]);
    let keeps = std::time::Instant::now();
    while keeps.elapsed() < std::time::Duration::from_secs(2) {
        assert_eq!(srv(&reader, PRIMARY), [two.srv()], "it stays while it is paused");
    }
    rustix::process::kill_process(Pid::from_child(&two.child), Signal::CONT).unwrap();
    one.ask("PATCH", "config", r#"{"pause":null}"#);
    is_primary(&reader, two);

    // The leader dies with its host, and the other one takes over.
    let data = place.dir.path().join("pg2.data");
    members.0[1].kill(&data);
    is_primary(&reader, &members.0[0]);
}

fn is_primary(reader: &Agent, member: &Member) {
    reader.until(&format!("{} is the primary", member.name), |agent| srv(agent, PRIMARY) == [member.srv()]);
}
