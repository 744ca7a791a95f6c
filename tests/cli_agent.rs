//! The program itself: an agent with the embedded store and no engine, asked as people and Prometheus ask it.
#![allow(clippy::unwrap_used, missing_docs)]

mod program;
mod side;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use program::{Agent, Server, told, wharf};

/// Every family that the agent declares, in order, and every sample's name.
async fn metrics(agent: &Agent) -> String {
    metrics_as(agent, "application/openmetrics-text").await
}

async fn metrics_as(agent: &Agent, kind: &str) -> String {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\nConnection: close\r\n\r\n");
    side::send_unix(&agent.socket(), &request).await.body
}

#[tokio::test]
async fn plain_metrics_please_promtool() {
    let agent = Agent::start("");
    let text = metrics_as(&agent, "*/*").await;
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("promtool is installed: apt-get install prometheus");
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
}

#[tokio::test]
async fn every_metric_is_declared_once_and_in_its_page() {
    let autodiscovery = "[[autodiscovery]]\nservice = \"memcached\"\nlisten = \"127.0.0.1:0\"\n";
    let agent = Agent::start(&format!("sentinel = \"127.0.0.1:0\"\netcd-v2 = \"127.0.0.1:0\"\n{autodiscovery}"));
    let text = metrics(&agent).await;
    let declared: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let once: BTreeSet<&str> = declared.iter().copied().collect();
    let twice: Vec<_> = once.iter().filter(|name| declared.iter().filter(|one| one == name).count() > 1).collect();
    assert!(twice.is_empty(), "Prometheus refuses a page that declares a name twice: {twice:?}");
    let page = std::fs::read_to_string(format!("{}/docs/metrics.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let in_page: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .map(|name| name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name))
        .collect();
    let missing: Vec<_> = once.difference(&in_page).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    // A family with labels is silent until it has counted something.
    let labelled =
        |name: &&&str| page.contains(&format!("| `{name}{{")) || page.contains(&format!("| `{name}_total{{"));
    let gone: Vec<_> = in_page.difference(&once).filter(|name| !labelled(name)).collect();
    assert!(gone.is_empty(), "in docs/metrics.md, but not there: {gone:?}");
}

#[tokio::test]
async fn metrics_name_the_build_that_runs() {
    let agent = Agent::start("");
    let (_, said, _) = told(&wharf().arg("--version").output().unwrap());
    let version = said.trim().strip_prefix("wharf ").unwrap();
    let metrics = metrics(&agent).await;
    assert!(metrics.contains(&format!("wharf_build_info{{version=\"{version}\"}} 1\n")), "{metrics}");
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
    assert!(out.contains("[[service]] cache.prod") && !out.contains("docker"), "it is no container: {out}");
    agent.until("the node's record tells it", |agent| told(&agent.wharf("nodes")).1.contains("down"));

    // Drained, and back.
    assert_eq!(told(&agent.wharf("drain")).0, Some(0));
    let (_, out, _) = told(&agent.wharf("explain"));
    assert!(out.contains("core-01 is drained for"), "{out}");
    assert_eq!(told(&agent.wharf("undrain")).0, Some(0));
    agent.until("it is drained no longer", |agent| !told(&agent.wharf("explain")).1.contains("is drained"));
}

/// Runs a command as the README shows it, and gives what it prints with the README's port and times.
fn as_in_readme(agent: &Agent, line: &str, port: u16) -> String {
    let line = line.strip_prefix("wharf ").unwrap();
    let mut command = wharf();
    command.args(line.split_whitespace());
    match line.starts_with("resolve") {
        true => command.args(["--dns", &agent.address("dns")]),
        false => command.arg("--http-socket").arg(agent.socket()),
    };
    let (_, out, err) = told(&command.output().unwrap());
    let text = format!("{out}{}", if line.starts_with("wait") { String::new() } else { err });
    let engine = |line: &&str| !line.starts_with("Docker does not answer");
    timeless(&text.replace(&port.to_string(), "11311").lines().filter(engine).collect::<Vec<_>>().join("\n"))
}

/// The text with every age as `…`.
fn timeless(text: &str) -> String {
    let is_age = |word: &str| word.strip_suffix('s').is_some_and(|digits| digits.parse::<u32>().is_ok());
    let line =
        |line: &str| line.split(' ').map(|word| if is_age(word) { "…" } else { word }).collect::<Vec<_>>().join(" ");
    text.trim_end().lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_session_of_the_readme_is_what_happens() {
    let page = std::fs::read_to_string(format!("{}/README.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let session = page.split("```console\n").find(|block| block.starts_with("$ cat wharf.toml\n")).unwrap();
    let steps: Vec<(&str, &str)> = session
        .split("```")
        .next()
        .unwrap()
        .split("\n\n")
        .map(|step| step.split_once('\n').unwrap_or((step, "")))
        .collect();
    let (server, port) = Server::memcached();
    assert!(port >= 10_000, "with fewer digits than in the README columns would be narrower: {port}");
    let agent = Agent::start(&steps[0].1.replace("11311", &port.to_string()));
    for (line, shown) in &steps[2..] {
        let line = line.strip_prefix("$ ").unwrap();
        if line.starts_with("kill") {
            server.freeze();
            agent.until("it is down", |agent| told(&agent.wharf("services sessions")).0 == Some(1));
            continue;
        }
        assert_eq!(as_in_readme(&agent, line, port), timeless(shown), "$ {line}");
    }
    assert!(steps.len() > 6, "{steps:?}");
}

#[test]
fn exit_codes_are_0_1_2_or_3() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let agent = Agent::start(&format!("[[service]]\nname = \"web\"\nport = {port}\ncheck = \"tcp\"\n"));
    let lines = "
        0 wait web --timeout 60s
        0 services
        0 services web -o wide
        0 services -o json
        0 resolve web --dns DNS
        0 resolve web A --dns DNS -o json
        0 explain
        0 explain web
        0 nodes
        0 drain --http HTTP
        0 undrain --http HTTP
        0 healthcheck
        0 completions fish
        0 check-config --node a --advertise 192.0.2.1
        0 --version
        0 help wait

        1 services we
        1 wait web --count 2 --timeout 4s
        1 wait nothing --timeout 4s
        1 resolve nothing --dns DNS
        1 resolve web TXT --dns DNS
        1 resolve example.com. --dns DNS
        1 explain nothing
        1 nodes nothing

        2
        2 serve
        2 services a b
        2 services -o yaml
        2 services --etcd-endpoints ftp://127.0.0.1
        2 wait
        2 wait web --count 0
        2 wait web --role boss
        2 wait web --timeout soon
        2 resolve a..b --dns DNS
        2 resolve web NOTYPE --dns DNS
        2 drain --http-token-file /nowhere/token
        2 completions klingon
        2 check-config --node a --prefix services
        2 agent --store zookeeper

        3 services --http NOBODY
        3 services web --http NOBODY
        3 services --watch --http NOBODY
        3 services --http-socket /nowhere/http.sock
        3 services --etcd-endpoints http://NOBODY
        3 nodes --etcd-endpoints http://NOBODY
        3 wait web --timeout 1s --http NOBODY
        3 resolve web --dns NOBODY
        3 explain --http NOBODY
        3 nodes --http NOBODY
        3 drain --http NOBODY
        3 undrain --http NOBODY
        3 healthcheck --http NOBODY
    ";
    let lines = lines.replace("DNS", &agent.address("dns")).replace("HTTP", &agent.address("http"));
    for line in lines.replace("NOBODY", side::NOBODY).lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (code, line) = line.split_once(' ').unwrap_or((line, ""));
        let asks_agent = ["services", "wait", "explain", "nodes", "drain", "undrain", "healthcheck"]
            .contains(&line.split(' ').next().unwrap());
        let placed = ["--http ", "--http-socket ", "--etcd-endpoints "].iter().any(|flag| line.contains(flag));
        let mut command = wharf();
        command.args(line.split_whitespace());
        if asks_agent && !placed {
            command.arg("--http-socket").arg(agent.socket());
        }
        let (exit, out, err) = told(&command.output().unwrap());
        assert_eq!(exit.map(|exit| exit.to_string()).as_deref(), Some(code), "wharf {line}\n{out}{err}");
        // Results go to standard output, what failed to standard error; and what failed says what to do.
        assert_eq!(out.is_empty(), code != "0", "wharf {line}\n{out}{err}");
        assert!(code == "0" || err.contains("try") || err.contains("--help") || code == "2", "wharf {line}\n{err}");
    }
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
