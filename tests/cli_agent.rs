//! The program itself: an agent with the embedded store and no engine, asked as people and Prometheus ask it.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An agent of our own, on ports that the system chooses.
struct Agent {
    child: Child,
    dir: tempfile::TempDir,
}

impl Agent {
    fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wharf.toml");
        std::fs::write(&file, settings).unwrap();
        let child = wharf()
            .arg("agent")
            .args(["--node", "core-01", "--advertise", "127.0.0.1", "--http", "127.0.0.1:0", "--dns", "127.0.0.1:0"])
            .args(["--docker", "unix:///nowhere/docker.sock"])
            .arg("--config")
            .arg(&file)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .arg("--http-socket")
            .arg(dir.path().join("http.sock"))
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { child, dir };
        agent.until("it is ready", |agent| {
            let ready = agent.socket().exists() && agent.wharf("services").status.code() == Some(0);
            ready && std::fs::read_to_string(agent.dir.path().join("log")).is_ok_and(|log| log.contains("serving"))
        });
        agent
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("http.sock")
    }

    /// Runs a command against this agent.
    fn wharf(&self, line: &str) -> Output {
        wharf().args(line.split_whitespace()).arg("--http-socket").arg(self.socket()).output().unwrap()
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "never: {what}\n{log}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, knowing nothing of this machine's own agent.
fn wharf() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WHARF_")) {
        command.env_remove(name);
    }
    command
}

/// Every family that the agent declares, in order, and every sample's name.
async fn metrics(agent: &Agent) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    side::send_unix(&agent.socket(), request).await.body
}

#[tokio::test]
async fn every_metric_is_declared_once_and_in_its_page() {
    let agent = Agent::start("");
    let text = metrics(&agent).await;
    let declared: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let once: BTreeSet<&str> = declared.iter().copied().collect();
    let twice: Vec<_> = once.iter().filter(|name| declared.iter().filter(|one| one == name).count() > 1).collect();
    assert!(twice.is_empty(), "Prometheus refuses a page that declares a name twice: {twice:?}");
    let page = std::fs::read_to_string(format!("{}/docs/metrics.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let in_page: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .map(|name| name.strip_suffix("_total").unwrap_or(name))
        .collect();
    let missing: Vec<_> = once.difference(&in_page).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    // A family with labels is silent until it has counted something.
    let labelled =
        |name: &&&str| page.contains(&format!("| `{name}{{")) || page.contains(&format!("| `{name}_total{{"));
    let gone: Vec<_> = in_page.difference(&once).filter(|name| !labelled(name)).collect();
    assert!(gone.is_empty(), "in docs/metrics.md, but not there: {gone:?}");
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_are_there() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/docs/metrics.md")).unwrap();
    for file in ["wharf.rules.yml", "grafana.json"] {
        let text = std::fs::read_to_string(format!("{root}/docs/monitoring/{file}")).unwrap();
        let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
        let asked: BTreeSet<&str> = words.filter(|word| word.starts_with("wharf_")).collect();
        assert!(!asked.is_empty(), "{file}");
        for name in asked {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            let known = [format!("| `{name}`"), format!("| `{name}{{")];
            assert!(
                known.iter().any(|known| page.contains(known)),
                "{file} asks for {name}, which is not in docs/metrics.md"
            );
        }
    }
}

#[test]
fn alert_rules_load() {
    let rules = format!("{}/docs/monitoring/wharf.rules.yml", env!("CARGO_MANIFEST_DIR"));
    let checked = Command::new("promtool").args(["check", "rules", &rules]).output();
    let checked = checked.expect("promtool is installed: apt-get install prometheus");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
