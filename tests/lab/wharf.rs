//! A wharf agent on a host: the program that cargo just built, in the host's network, on the host's engine and etcd.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::host::Host;
use super::process::{Process, try_run};
use super::wait::eventually;

/// Ends soon enough for tests to see records go, and lives through a busy machine.
const LEASE_TTL: Duration = Duration::from_secs(5);

/// An agent to be started.
#[derive(Debug)]
pub struct WharfSpec<'lab> {
    host: &'lab Host,
    home: String,
    program: PathBuf,
    lease_ttl: Duration,
    endpoints: Vec<String>,
    dns: Vec<String>,
    flags: Vec<String>,
    env: Vec<(String, String)>,
}

impl<'lab> WharfSpec<'lab> {
    pub(crate) fn new(host: &'lab Host) -> Self {
        Self {
            host,
            home: "wharf".into(),
            program: program(),
            lease_ttl: LEASE_TTL,
            endpoints: host.etcd_endpoints(),
            dns: vec![format!("{}:5300", host.address()), "127.0.0.1:5300".into()],
            flags: vec![],
            env: vec![],
        }
    }

    /// With the store in its own process instead of etcd.
    pub fn embedded(mut self) -> Self {
        self.endpoints.clear();
        self
    }

    /// With other etcd members than the cluster's.
    pub fn endpoints(mut self, endpoints: &[String]) -> Self {
        self.endpoints = endpoints.to_vec();
        self
    }

    /// With another lease.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// With another program: an older build, say.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// With another folder on the host, for a second agent beside the first (which needs another DNS port, too).
    pub fn home(mut self, name: &str) -> Self {
        self.home = name.into();
        self
    }

    /// With DNS on other addresses.
    pub fn dns(mut self, addresses: &[&str]) -> Self {
        self.dns = addresses.iter().map(|address| (*address).to_owned()).collect();
        self
    }

    /// With one more flag and its value.
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// With one more variable in its environment.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it is not after a while.
    #[track_caller]
    pub fn start(self) -> Wharf<'lab> {
        let wharf = self.start_only();
        wharf.wait_ready();
        wharf
    }

    /// Starts it and waits for nothing.
    pub fn start_only(self) -> Wharf<'lab> {
        let dir = self.host.dir().join(&self.home);
        fs::create_dir_all(&dir).expect("the lab's folder can be written");
        let socket = dir.join("http.sock");
        let argv = self.argv(&dir.display().to_string());
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let mut env = vec![("RUST_BACKTRACE", "1"), ("NO_COLOR", "1")];
        env.extend(self.env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let process = self.host.spawn(&self.home, &argv, &env);
        Wharf { host: self.host, program: self.program, process, socket }
    }

    fn argv(&self, dir: &str) -> Vec<String> {
        let mut argv = vec![self.program.display().to_string(), "agent".into()];
        let mut flag = |name: &str, value: String| argv.extend([name.to_owned(), value]);
        flag("--node", self.host.name().into());
        flag("--advertise", self.host.address().to_string());
        flag("--docker", self.host.docker_uri());
        flag("--state-dir", format!("{dir}/state"));
        flag("--http-socket", format!("{dir}/http.sock"));
        flag("--lease-ttl", format!("{}ms", self.lease_ttl.as_millis()));
        if self.endpoints.is_empty() {
            flag("--store", "embedded".into());
        } else {
            flag("--etcd-endpoints", self.endpoints.join(","));
        }
        for address in &self.dns {
            flag("--dns", address.clone());
        }
        argv.extend(self.flags.iter().cloned());
        argv
    }
}

/// A running agent; killed with its handle.
#[derive(Debug)]
pub struct Wharf<'lab> {
    host: &'lab Host,
    program: PathBuf,
    process: Process,
    socket: PathBuf,
}

impl Wharf<'_> {
    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        self.host
    }

    /// Its process: to hang, kill, end or start it again.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until `/readyz` says so.
    #[track_caller]
    pub fn wait_ready(&self) {
        eventually(&format!("wharf on {} is ready", self.host.name()), || match self.get("/readyz") {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status} {body}")),
            Err(error) => Err(error),
        });
    }

    /// Asks its DNS server, from its own host.
    pub fn dig(&self, name: &str, kind: &str) -> super::dns::Answer {
        self.host.dig(name, kind)
    }

    /// Asks its HTTP server by its unix socket, which works on a host that is cut off, too.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        self.request("GET", path)
    }

    /// Any request without a body.
    pub fn request(&self, method: &str, path: &str) -> Result<(u16, String), String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            // HTTP/1.0: the answer ends with the connection and comes in one piece.
            write!(stream, "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")?;
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply)?;
            Ok(String::from_utf8_lossy(&reply).into_owned())
        };
        let reply = ask().map_err(|error| format!("{method} {path} at {}: {error}", self.socket.display()))?;
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    }

    /// The JSON of a path that must be there.
    pub fn json(&self, path: &str) -> Result<Value, String> {
        let (status, body) = self.get(path)?;
        if status != 200 {
            return Err(format!("GET {path}: {status} {body}"));
        }
        serde_json::from_str(&body).map_err(|error| format!("GET {path}: {error}: {body}"))
    }

    /// A command of the program, asking this agent.
    pub fn command(&self, argv: &[&str]) -> Result<String, String> {
        let mut words = vec![
            "env".to_owned(),
            format!("WHARF_HTTP_SOCKET={}", self.socket.display()),
            self.program.display().to_string(),
        ];
        words.extend(argv.iter().map(|word| (*word).to_owned()));
        let inside = self.host.inside(&words.iter().map(String::as_str).collect::<Vec<_>>());
        try_run(&inside.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The addresses that its host's DNS server answers a service's SRV query with, as seen from `from`.
    pub fn targets_seen_from(&self, from: &Host, name: &str) -> super::dns::Answer {
        let server: Ipv4Addr = self.host.address();
        from.dig_at(server, name, "SRV")
    }
}

/// The program that cargo built beside the tests; for the `lab` program it lies one folder up.
fn program() -> PathBuf {
    if let Some(built) = option_env!("CARGO_BIN_EXE_wharf") {
        return built.into();
    }
    let own = std::env::current_exe().expect("a running program has a path");
    own.ancestors().nth(2).expect("examples lie two folders below the target folder").join("wharf")
}
