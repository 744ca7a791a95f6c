//! The program itself: an agent as a process, on ports that the system chooses, and commands that ask it.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)] // each test file uses its own part
#![allow(clippy::disallowed_methods)] // waiting for a process blocks; tests that need their runtime use another thread

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent.
pub struct Agent {
    command: Command,
    child: Child,
    dir: tempfile::TempDir,
}

/// How it is started.
#[derive(Clone, Debug, Default)]
pub struct Options<'o> {
    /// Docker's URI; none is an engine that is not there.
    pub engine: Option<String>,
    /// The text of its settings file.
    pub settings: &'o str,
    /// Further flags.
    pub flags: Vec<String>,
    /// Further environment: systemd's, say.
    pub env: Vec<(String, String)>,
    /// What it advertises; loopback when left out.
    pub advertise: Option<&'o str>,
    /// Its name; `core-01` when left out.
    pub node: Option<&'o str>,
    /// A state directory that outlives it.
    pub state: Option<PathBuf>,
}

impl Agent {
    /// With the embedded store, without an engine.
    pub fn start(settings: &str) -> Self {
        Self::start_with(&Options { settings, ..Options::default() })
    }

    pub fn start_with(options: &Options<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wharf.toml");
        std::fs::write(&file, options.settings).unwrap();
        let mut command = wharf();
        command
            .arg("agent")
            .args([
                "--node",
                options.node.unwrap_or("core-01"),
                "--advertise",
                options.advertise.unwrap_or("127.0.0.1"),
                "--http",
                "127.0.0.1:0",
                "--dns",
                "127.0.0.1:0",
            ])
            .args(["--docker", options.engine.as_deref().unwrap_or("unix:///nowhere/docker.sock")])
            .arg("--config")
            .arg(&file)
            .arg("--state-dir")
            .arg(options.state.clone().unwrap_or_else(|| dir.path().join("state")))
            .arg("--http-socket")
            .arg(dir.path().join("http.sock"))
            .args(&options.flags)
            .envs(options.env.iter().map(|(name, value)| (name, value)))
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let agent = Self { command, child, dir };
        agent.until_ready();
        agent
    }

    /// Kills it, and starts it again on the same state.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = self.command.spawn().unwrap();
        self.until_ready();
    }

    fn until_ready(&self) {
        self.until("it is ready", |agent| {
            let ready = agent.socket().exists() && agent.wharf("services").status.code() == Some(0);
            ready && agent.log().contains("serving")
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as systemd does, and waits for that.
    pub fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// The file with its settings.
    pub fn settings(&self) -> PathBuf {
        self.dir.path().join("wharf.toml")
    }

    /// Has it read them again.
    pub fn reload(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("http.sock")
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The first address behind `name=[` in its log: `dns`, `http`.
    pub fn address(&self, name: &str) -> String {
        let log = self.log();
        let listed = log.split(&format!("{name}=[")).nth(1).and_then(|rest| rest.split([']', ',']).next());
        listed.unwrap_or_else(|| panic!("the log does not tell where {name} is:\n{log}")).to_owned()
    }

    /// Runs a command against this agent.
    pub fn wharf(&self, line: &str) -> Output {
        wharf().args(line.split_whitespace()).arg("--http-socket").arg(self.socket()).output().unwrap()
    }

    /// Waits until it is so.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is printed, once `holds` says that it is as it should be.
    pub fn prints(&self, line: &str, what: &str, holds: impl Fn(&str) -> bool) -> String {
        self.until(&format!("`wharf {line}` prints {what}"), |agent| holds(&told(&agent.wharf(line)).1));
        told(&self.wharf(line)).1
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of this machine, ended with the test.
pub struct Server(pub Child);

impl Server {
    /// memcached on a port that the system chooses, and the port.
    pub fn memcached() -> (Self, u16) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("port");
        let mut command = Command::new("memcached");
        command.env("MEMCACHED_PORT_FILENAME", &file).args(["-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0"]);
        let server = Self(command.spawn().expect("memcached is installed: apt-get install memcached"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some(port) = told.strip_prefix("TCP INET: ").and_then(|rest| rest.trim().parse().ok()) {
                return (server, port);
            }
            assert!(Instant::now() < deadline, "memcached does not tell its port: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn freeze(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, knowing nothing of this machine's own agent.
pub fn wharf() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    let ours = |name: &str| name.starts_with("WHARF_") || matches!(name, "NOTIFY_SOCKET" | "WATCHDOG_USEC");
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command
}

/// What a command exited with, printed, and complained of.
pub fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
