//! The program itself: an agent with the embedded store and no engine, asked as people and Prometheus ask it.
#![allow(clippy::unwrap_used, missing_docs)]

mod program;
mod side;

use std::collections::BTreeSet;
use std::process::Command;

use program::{Agent, told, wharf};

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
    let resolved = wharf().args(["resolve", "cache.prod", "--dns", &agent.address("dns")]).output().unwrap();
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
