//! Real etcd servers on loopback, started and ended by the test, each with a directory and ports of its own.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]
// Starting and ending servers blocks; tests that need their runtime meanwhile use one of several threads.
#![allow(clippy::disallowed_methods)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wharf::store::etcd::{Etcd, Settings};

/// How a cluster is started.
#[derive(Clone, Default)]
pub struct Options {
    /// With it the servers speak TLS, and clients need a certificate.
    pub tls: Option<Tls>,
    pub flags: Vec<String>,
}

/// PEM files.
#[derive(Clone)]
pub struct Tls {
    /// Who signed the servers' certificate.
    pub server_ca: PathBuf,
    pub server: (PathBuf, PathBuf),
    /// Whose clients the servers let in.
    pub client_ca: PathBuf,
    /// Certificate and key that etcdctl and the agent use.
    pub client: (PathBuf, PathBuf),
}

/// A running cluster.
pub struct Cluster {
    pub members: Vec<Member>,
    pub directory: tempfile::TempDir,
    options: Options,
    token: String,
}

/// One server, whether it runs or not.
pub struct Member {
    pub name: String,
    pub data: PathBuf,
    pub client: u16,
    pub peer: u16,
    log: PathBuf,
    child: Option<Child>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Room that the servers and everything else of a test binary may need in memory.
const ROOM: u64 = 4 << 30;

/// Has temporary directories in memory where there is room. A disk that is busy with something else (a build) takes
/// seconds over a sync, and then tells of itself rather than of what is tested.
fn keep_files_in_memory() {
    let shm = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(shm).is_ok_and(|shm| shm.f_bavail * shm.f_frsize >= ROOM);
    if room {
        // The first call counts; it may have been another test's.
        drop(tempfile::env::override_temp_dir(shm));
    }
}

impl Cluster {
    /// Starts `size` members and waits until they answer.
    pub fn start(size: usize) -> Self {
        Self::start_with(size, Options::default())
    }

    pub fn start_with(size: usize, options: Options) -> Self {
        keep_files_in_memory();
        let directory = tempfile::tempdir().unwrap();
        let token = format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let members = (0..size)
            .map(|place| Member {
                name: format!("m{place}"),
                data: directory.path().join(format!("m{place}")),
                client: free_port(),
                peer: free_port(),
                log: directory.path().join(format!("m{place}.log")),
                child: None,
            })
            .collect();
        let mut cluster = Self { members, directory, options, token };
        for place in 0..size {
            cluster.run(place);
        }
        cluster.wait_healthy();
        cluster
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("{}://127.0.0.1:{}", self.scheme(), member.client)).collect()
    }

    pub fn peers(&self) -> String {
        let peers: Vec<String> =
            self.members.iter().map(|it| format!("{}=http://127.0.0.1:{}", it.name, it.peer)).collect();
        peers.join(",")
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// (Re)starts one member on its data.
    pub fn run(&mut self, place: usize) {
        let (peers, scheme) = (self.peers(), self.scheme());
        let member = &mut self.members[place];
        let client = format!("{scheme}://127.0.0.1:{}", member.client);
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let log = std::fs::File::options().create(true).append(true).open(&member.log).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name, "--data-dir", member.data.to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &peers, "--initial-cluster-token", &self.token])
            .args(["--initial-cluster-state", "new", "--logger", "zap"])
            .args(&self.options.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(Tls { client_ca, server: (certificate, key), .. }) = &self.options.tls {
            command.arg("--client-cert-auth");
            for (flag, path) in [("--trusted-ca-file", client_ca), ("--cert-file", certificate), ("--key-file", key)] {
                command.arg(flag).arg(path);
            }
        }
        member.child = Some(command.spawn().expect("etcd is installed (Debian's etcd-server)"));
    }

    /// Waits until every running member accepts connections and one of them is a healthy leader.
    pub fn wait_healthy(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.etcdctl(&["endpoint", "health"]).status.success() {
            assert!(Instant::now() < deadline, "etcd did not come up: {}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn logs(&self) -> String {
        let tail = |member: &Member| {
            let log = std::fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(5).collect();
            format!("{}: {}\n", member.name, lines.join("\n"))
        };
        self.members.iter().map(tail).collect()
    }

    /// Runs etcdctl against the members that run (and are not stopped).
    pub fn etcdctl(&self, args: &[&str]) -> Output {
        let running: Vec<String> = self
            .members
            .iter()
            .zip(self.endpoints())
            .filter(|(member, _)| member.child.is_some())
            .map(|(_, endpoint)| endpoint)
            .collect();
        self.etcdctl_at(&running.join(","), args)
    }

    pub fn etcdctl_at(&self, endpoints: &str, args: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints, "--dial-timeout", "2s"]);
        if let Some(Tls { server_ca, client: (certificate, key), .. }) = &self.options.tls {
            for (flag, path) in [("--cacert", server_ca), ("--cert", certificate), ("--key", key)] {
                command.arg(flag).arg(path);
            }
        }
        command.args(args).output().expect("etcdctl is installed (Debian's etcd-client)")
    }

    /// Runs etcdctl and wants it to succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.etcdctl(args);
        assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How many revisions the cluster has.
    pub fn revision(&self) -> i64 {
        let status = self.ctl(&["endpoint", "status", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status[0]["Status"]["header"]["revision"].as_i64().unwrap()
    }

    /// Which member leads.
    pub fn leader(&self) -> usize {
        for place in 0..self.members.len() {
            let output = self.etcdctl_at(&self.endpoints()[place], &["endpoint", "status", "-w", "json"]);
            let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { continue };
            let status = &status[0]["Status"];
            if status["leader"].is_u64() && status["leader"] == status["header"]["member_id"] {
                return place;
            }
        }
        panic!("nobody leads: {}", self.logs());
    }

    /// A store on this cluster.
    pub fn store(&self, lease_ttl: Duration) -> Etcd {
        Etcd::new(self.settings(lease_ttl))
    }

    pub fn settings(&self, lease_ttl: Duration) -> Settings {
        Settings {
            endpoints: self.endpoints(),
            ca: self.options.tls.as_ref().map(|tls| tls.server_ca.clone()),
            identity: self.options.tls.as_ref().map(|tls| tls.client.clone()),
            user: None,
            lease_ttl,
            probe: "/wharf/services/nodes/".into(),
        }
    }

    /// Ends every member and forgets what they held: the same ports, an empty store of another token.
    pub fn wipe(&mut self) {
        for member in &mut self.members {
            member.kill();
            drop(std::fs::remove_dir_all(&member.data));
        }
        self.token.push('x');
        for place in 0..self.members.len() {
            self.run(place);
        }
        self.wait_healthy();
    }

    /// Saves a snapshot beside the data.
    pub fn snapshot(&self) -> PathBuf {
        let path = self.directory.path().join("backup.db");
        let endpoint = self.endpoints()[0].clone();
        let output = self.etcdctl_at(&endpoint, &["snapshot", "save", path.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        path
    }

    /// Ends every member and restores them all from a snapshot, with the same cluster id or another.
    pub fn restore(&mut self, snapshot: &Path, same_cluster: bool) {
        if !same_cluster {
            self.token.push('r');
        }
        let peers = self.peers();
        for member in &mut self.members {
            member.kill();
            drop(std::fs::remove_dir_all(&member.data));
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore", snapshot.to_str().unwrap()])
                .args(["--name", &member.name, "--data-dir", member.data.to_str().unwrap()])
                .args(["--initial-cluster", &peers, "--initial-cluster-token", &self.token])
                .args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{}", member.peer)])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        for place in 0..self.members.len() {
            self.run(place);
        }
        self.wait_healthy();
    }
}

impl Member {
    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Freezes it: it holds its connections and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
