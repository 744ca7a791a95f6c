//! The program itself: an agent with the embedded store and no engine, asked as people and Prometheus ask it.
#![allow(clippy::unwrap_used, missing_docs)]

mod engine;
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
        Self::start_beside("unix:///nowhere/docker.sock", settings)
    }

    fn start_beside(engine: &str, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wharf.toml");
        std::fs::write(&file, settings).unwrap();
        let child = wharf()
            .arg("agent")
            .args(["--node", "core-01", "--advertise", "127.0.0.1", "--http", "127.0.0.1:0", "--dns", "127.0.0.1:0"])
            .args(["--docker", engine])
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

/// What a command printed, and its exit code.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn someone_who_never_saw_wharf_finds_out_by_its_commands() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let agent = Agent::start(&format!("[[service]]\nname = \"cache.prod\"\nport = {port}\ncheck = \"tcp\"\n"));

    // Where is it?
    let (code, out, err) = told(&agent.wharf("wait cache.prod --timeout 30s -o hostport"));
    assert_eq!((code, out), (Some(0), format!("127.0.0.1:{port}\n")), "{err}");
    let (code, out, _) = told(&agent.wharf("services"));
    assert!(code == Some(0) && out.contains("cache.prod") && out.contains("core-01"), "{out}");
    let (code, _, err) = told(&agent.wharf("services cache"));
    assert_eq!(code, Some(1));
    assert!(err.contains("did you mean cache.prod"), "{err}");

    // By DNS, too.
    let log = std::fs::read_to_string(agent.dir.path().join("log")).unwrap();
    let dns =
        log.split("dns=[").nth(1).and_then(|rest| rest.split([']', ',']).next()).expect("the log tells where DNS is");
    let resolved = wharf().args(["resolve", "cache.prod", "--dns", dns]).output().unwrap();
    let (code, out, err) = told(&resolved);
    assert!(code == Some(0) && out.contains(&format!(" {port} ")), "{out}{err}");

    // Why is it not there any more?
    drop(server);
    agent.until("it is down", |agent| told(&agent.wharf("services cache.prod")).0 == Some(1));
    let (code, out, _) = told(&agent.wharf("explain cache.prod"));
    assert!(code == Some(0) && out.contains("down, so not published for") && out.contains("because"), "{out}");
    agent.until("the node's record tells it", |agent| told(&agent.wharf("nodes")).1.contains("down"));

    // Drained, and back.
    assert_eq!(told(&agent.wharf("drain")).0, Some(0));
    let (_, out, _) = told(&agent.wharf("explain"));
    assert!(out.contains("core-01 is drained for"), "{out}");
    assert_eq!(told(&agent.wharf("undrain")).0, Some(0));
    agent.until("it is drained no longer", |agent| !told(&agent.wharf("explain")).1.contains("is drained"));
}

#[test]
fn wrong_use_is_exit_2_and_every_command_has_its_page() {
    let page = std::fs::read_to_string(format!("{}/docs/cli.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (_, help, _) = told(&wharf().arg("--help").output().unwrap());
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut seen = 0;
    for command in commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()) {
        if ["", "help"].contains(&command) {
            continue;
        }
        seen += 1;
        assert!(page.contains(&format!("`wharf {command}")), "wharf {command} is not in docs/cli.md");
        assert_eq!(wharf().args([command, "--no-such-flag"]).output().unwrap().status.code(), Some(2), "{command}");
    }
    assert!(seen >= 10, "{help}");
    let (code, out, _) = told(&wharf().args(["completions", "bash"]).output().unwrap());
    assert!(code == Some(0) && out.contains("_wharf"), "{out}");
}

/// A call as docs/security.md writes it.
fn as_documented(request: &str) -> String {
    let target = request.strip_prefix("GET ").unwrap_or_else(|| panic!("only GET calls are made: {request}"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let words = path.split('/').map(|word| match word {
        id if id.len() == 64 => "{id}",
        version if version.starts_with("v1.") => "v…",
        word => word,
    });
    let path = words.collect::<Vec<_>>().join("/");
    if query.starts_with("filters=") { format!("{path}?filters=…") } else { path }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_socket_that_refuses_all_but_the_documented_calls_the_agent_offers() {
    let page = std::fs::read_to_string(format!("{}/docs/security.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `/"));
    let documented: BTreeSet<&str> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    // The stand-in knows these calls and refuses every other one.
    let engine = engine::Engine::start().await;
    engine.add(engine::container(1, "app", 80, 18080));
    let at = format!("unix://{}", engine.path.display());
    let agent = tokio::task::block_in_place(|| Agent::start_beside(&at, ""));
    let count = |agent: &Agent| told(&agent.wharf("services app -o hostport")).1.lines().count();
    tokio::task::block_in_place(|| agent.until("it is offered", |agent| count(agent) == 1));
    engine.run(engine::container(2, "app", 80, 18081));
    tokio::task::block_in_place(|| agent.until("the other is, too", |agent| count(agent) == 2));
    engine.die(&engine::id(1));
    tokio::task::block_in_place(|| agent.until("the first is gone", |agent| count(agent) == 1));
    let made: BTreeSet<String> = engine.requests().iter().map(|request| as_documented(request)).collect();
    assert!(made.len() >= 3, "{made:?}");
    let others: Vec<_> = made.iter().filter(|call| !documented.contains(call.as_str())).collect();
    assert!(others.is_empty(), "not in docs/security.md: {others:?}");
}
