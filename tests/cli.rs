//! The commands as people and scripts use them: what they print, and how they exit.
#![allow(clippy::unwrap_used, missing_docs)]

mod command;
mod side;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use command::{Written, eventually, run, run_into};
use side::{NOBODY, Options, Side, own_address};
use wharf::answer::http::Readiness;
use wharf::catalog::facade::api::Nodes;
use wharf::cli::exit::Exit;
use wharf::model::health::standing::State;
use wharf::model::offer::instance::{
    Check, CheckKind, DockerStanding, Instance, InstanceKey, Skipped, Source, Withheld,
};
use wharf::model::publish::local::{Local, LocalInstance, SessionState};
use wharf::model::words::name::{Label, ServiceName};
use wharf::model::words::node::{NodeRecord, Waiting};
use wharf::model::words::record::Proto;

const PRIMARY: &str =
    r#"{"host":"10.88.0.1","port":6379,"node":"core-01","role":"primary","since":"2026-03-04T05:06:07Z"}"#;
const REPLICA: &str = r#"{"host":"10.88.0.2","port":6379,"node":"core-02","role":"replica"}"#;

async fn with_redis() -> Side {
    let mut side = Side::start().await;
    side.put("/services/redis/a", PRIMARY);
    side.put("/services/redis/b", REPLICA);
    side.put("/services/memcached/a", r#"{"host":"2001:db8::1","port":11211,"node":"core\u001b[2J"}"#);
    side
}

#[tokio::test]
async fn services_are_an_aligned_table() {
    let side = with_redis().await;
    let ran = run(&format!("services --http {}", side.address)).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("SERVICE    ADDRESS              ROLE     NODE"), "{}", ran.out);
    assert!(lines[1].starts_with(r"memcached  [2001:db8::1]:11211  -        core\u{1b}[2J  "), "{}", ran.out);
    assert!(lines[2].starts_with("redis      10.88.0.1:6379       primary  core-01       "), "{}", ran.out);
    assert_eq!(lines.len(), 4);
    side.stop().await;
}

#[tokio::test]
async fn outputs_for_programs() {
    let side = with_redis().await;
    let at = format!("--http {}", side.address);
    assert_eq!(run(&format!("services redis -o hostport {at}")).await.out, "10.88.0.1:6379\n10.88.0.2:6379\n");
    let json: serde_json::Value = serde_json::from_str(&run(&format!("services -o json {at}")).await.out).unwrap();
    assert_eq!(json["services"][1]["endpoints"][0]["role"], "primary");
    let json: serde_json::Value =
        serde_json::from_str(&run(&format!("services redis -o json {at}")).await.out).unwrap();
    assert_eq!((json["name"].as_str(), json["stale"].as_bool()), (Some("redis"), Some(false)));
    let wide = run(&format!("services redis -o wide {at}")).await.out;
    assert!(wide.contains("2026-03-04T05:06:07Z") && wide.contains("/services/redis/a"), "{wide}");
    side.stop().await;
}

#[tokio::test]
async fn an_unknown_name_never_exits_0() {
    let side = with_redis().await;
    let at = format!("--http {}", side.address);
    let ran = run(&format!("services redi {at}")).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::NotMet, ""));
    assert!(ran.err.contains("no service \"redi\"") && ran.err.contains("did you mean redis"), "{}", ran.err);
    assert_eq!(run(&format!("explain nothing {at}")).await.exit, Exit::NotMet);
    assert_eq!(run(&format!("nodes nothing {at}")).await.exit, Exit::NotMet);
    assert_eq!(run(&format!("wait nothing --timeout 2s {at}")).await.exit, Exit::NotMet);
    side.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_exit_3_and_told_with_its_address() {
    for command in ["services", "services redis", "explain", "nodes", "drain", "undrain", "wait redis --timeout 2s"] {
        let ran = run(&format!("{command} --http {NOBODY}")).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Unreachable, ""), "{command}");
        assert!(ran.err.contains(NOBODY) && ran.err.contains("wharf agent"), "{command}: {}", ran.err);
    }
}

#[tokio::test]
async fn something_else_on_that_port_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/html\r\n\r\nhello")
            .await
            .unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let ran = run(&format!("services --http {address}")).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("no wharf agent"), "{}", ran.err);
    other.abort();
}

#[tokio::test]
async fn wait_prints_the_endpoints_once_there_are_enough() {
    let mut side = Side::start().await;
    side.put("/services/redis/a", PRIMARY);
    let (out, err) = (Written::default(), Written::default());
    let line = format!("wait redis --count 2 --timeout 30s -o hostport --http {}", side.address);
    let waiting = tokio::spawn({
        let (out, err) = (out.clone(), err.clone());
        async move { run_into(&line, &out, &err, false).await }
    });
    eventually("it says how far it is", || err.text().contains("waiting for redis: 1 of 2 ready")).await;
    side.put("/services/redis/b", REPLICA);
    assert_eq!(waiting.await.unwrap(), Exit::Done);
    assert_eq!(out.text(), "10.88.0.1:6379\n10.88.0.2:6379\n");
    side.stop().await;
}

#[tokio::test]
async fn wait_is_met_however_the_service_is_spelt() {
    let mut side = with_redis().await;
    side.put("/services/Web/x", "10.88.0.3:80");
    for (name, found) in
        [("Redis", "10.88.0.1:6379\n10.88.0.2:6379\n"), ("WEB", "10.88.0.3:80\n"), ("web", "10.88.0.3:80\n")]
    {
        let ran = run(&format!("wait {name} -o hostport --timeout 30s --http {}", side.address)).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, found), "{name}: {}", ran.err);
    }
    side.stop().await;
}

#[tokio::test]
async fn wait_counts_only_the_role_asked_for() {
    let side = with_redis().await;
    let ran = run(&format!("wait redis --role replica -o hostport --timeout 30s --http {}", side.address)).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "10.88.0.2:6379\n"));
    let ran = run(&format!("wait redis --role primary --count 2 --timeout 2s --http {}", side.address)).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::NotMet, ""));
    assert!(ran.err.contains("1 of 2 primary"), "{}", ran.err);
    side.stop().await;
}

#[tokio::test]
async fn a_time_beyond_all_bounds_is_for_ever() {
    let side = with_redis().await;
    let ran = run(&format!("wait redis --timeout 500000000000y -o hostport --http {}", side.address)).await;
    assert_eq!((ran.exit, ran.out.lines().count()), (Exit::Done, 2), "{}", ran.err);
    side.stop().await;
}

#[tokio::test]
async fn wait_takes_a_stale_catalog_for_not_yet() {
    let mut side = with_redis().await;
    side.set_stale(true);
    let at = format!("--http {}", side.address);
    let ran = run(&format!("wait redis --timeout 2s {at}")).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("stale"), "{}", ran.err);
    let waiting = tokio::spawn(async move { run(&format!("wait redis --timeout 30s -o hostport {at}")).await });
    side.set_stale(false);
    assert_eq!(waiting.await.unwrap().exit, Exit::Done);
    side.stop().await;
}

#[tokio::test]
async fn wait_outlives_an_agent_that_starts_later_or_again() {
    let address = own_address();
    let (out, err) = (Written::default(), Written::default());
    let waiting = tokio::spawn({
        let (out, err) = (out.clone(), err.clone());
        async move {
            run_into(&format!("wait redis -n 2 --timeout 60s -o hostport --http {address}"), &out, &err, false).await
        }
    });
    eventually("it says that nobody answers", || err.text().contains("no agent answers")).await;
    let mut side = Side::start_with(Options { listen: Some(address), ..Options::default() }).await;
    side.put("/services/redis/a", PRIMARY);
    eventually("it finds the agent", || err.text().contains("1 of 2 ready")).await;
    side.stop().await;
    let mut side = Side::start_with(Options { listen: Some(address), ..Options::default() }).await;
    side.put("/services/redis/a", PRIMARY);
    side.put("/services/redis/b", REPLICA);
    assert_eq!(waiting.await.unwrap(), Exit::Done);
    assert_eq!(out.text().lines().count(), 2);
    side.stop().await;
}

#[tokio::test]
async fn wait_for_stable_begins_anew_with_every_change() {
    let mut side = with_redis().await;
    let (out, err) = (Written::default(), Written::default());
    let line = format!("wait redis --stable 4s --timeout 60s -o hostport --http {}", side.address);
    let waiting = tokio::spawn({
        let (out, err) = (out.clone(), err.clone());
        async move { run_into(&line, &out, &err, false).await }
    });
    eventually("it is met", || err.text().contains("waiting for it to be stable")).await;
    let changed = std::time::Instant::now();
    side.delete("/services/redis/b");
    assert_eq!(waiting.await.unwrap(), Exit::Done);
    assert!(changed.elapsed() >= Duration::from_secs(4), "{:?}", changed.elapsed());
    assert_eq!(out.text(), "10.88.0.1:6379\n");
    side.stop().await;
}

#[tokio::test]
async fn watch_shows_each_state_and_repaints_a_terminal() {
    let mut side = with_redis().await;
    let (out, err) = (Written::default(), Written::default());
    let line = format!("services --watch --http {}", side.address);
    let watching = tokio::spawn({
        let (out, err) = (out.clone(), err.clone());
        async move { run_into(&line, &out, &err, true).await }
    });
    eventually("the first picture", || out.text().contains("10.88.0.2:6379")).await;
    side.delete("/services/redis/b");
    eventually("the second one", || out.text().matches("\x1b[H\x1b[2J").count() == 2).await;
    let text = out.text();
    let last = text.rsplit("\x1b[2J").next().unwrap();
    assert!(last.contains("10.88.0.1:6379") && !last.contains("10.88.0.2:6379"), "{last}");
    watching.abort();
    side.stop().await;
}

fn instance(container: &str, state: State, check: Check, error: Option<&str>) -> LocalInstance {
    let warning = check.warning.as_deref().map(Into::into);
    let instance = Instance {
        key: InstanceKey { source: Source::Container("0123456789abcdef0123".into()), port: 6379, proto: Proto::Tcp },
        services: vec![ServiceName::parse("redis").unwrap()],
        id: format!("core-01:{container}:6379").into(),
        label: Label::parse("core-01-redis-6379").unwrap(),
        host: "10.88.0.1".parse().unwrap(),
        host6: None,
        port: 16379,
        role: None,
        priority: None,
        weight: None,
        ttl: None,
        tags: vec![],
        attrs: [].into(),
        container_name: container.into(),
        image: "redis:7".into(),
        check,
        docker: DockerStanding::Running,
        started: "".into(),
    };
    LocalInstance {
        instance: Arc::new(instance),
        state,
        role: None,
        since: Some(std::time::SystemTime::now() - Duration::from_secs(90)),
        error: error.map(Into::into),
        warning,
        published: state.serves(),
        keys: vec!["/services/redis/core-01-redis-6379".into()],
    }
}

#[tokio::test]
async fn explain_tells_why_a_container_is_not_in_dns() {
    let side = Side::start().await;
    let at = format!("--http {}", side.address);
    assert!(run(&format!("explain {at}")).await.out.contains("no container of this host has a port to offer"));
    let guessed = Check {
        kind: CheckKind::Redis,
        guessed: true,
        target: Some("10.88.0.1:16379".parse().unwrap()),
        ..Check::default()
    };
    side.local.send_replace(Arc::new(Local {
        node: "core-01".into(),
        instances: vec![
            instance("cache", State::Ready, Check::default(), None),
            instance("store", State::Down, guessed, Some("refused\u{1b}[2J")),
        ],
        skipped: vec![Skipped {
            container: "web".into(),
            port: "80/tcp".into(),
            kind: "loopback",
            reason: "bound to 127.0.0.1, which no other host reaches".into(),
        }],
        withheld: vec![Withheld { container: "store".into(), port: "6379/tcp".into(), attr: "db_password".into() }],
        session: SessionState::Alive,
        engine: true,
        listed: true,
        ..Local::default()
    }));
    let all = run(&format!("explain {at}")).await;
    assert_eq!((all.exit, all.err.as_str()), (Exit::Done, ""));
    assert!(all.out.contains("cache (0123456789ab) 6379/tcp\n  ready, and published for 1m3"), "{}", all.out);
    assert!(!all.out.contains('\u{1b}'), "{:?}", all.out);
    let store = run(&format!("explain store {at}")).await.out;
    for told in [
        "down, so not published for 1m3",
        "because   refused\\u{1b}[2J",
        "redis at 10.88.0.1:16379 every 2s, guessed from the image redis:7; the label SERVICE_6379_CHECK=none ends it",
        "offered   as redis, at 10.88.0.1:16379",
        "withheld  db_password: its key speaks of a secret, so it is in no record",
    ] {
        assert!(store.contains(told), "{told} in {store}");
    }
    assert!(!store.contains("cache"), "{store}");
    let web = run(&format!("explain web {at}")).await.out;
    assert_eq!(web, "web 80/tcp\n  not offered\n  because   bound to 127.0.0.1, which no other host reaches\n");
    let by_id = run(&format!("explain 0123456 {at} -o json")).await.out;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&by_id).unwrap()["instances"].as_array().unwrap().len(), 2);
    side.stop().await;
}

#[tokio::test]
async fn explain_says_what_concerns_the_whole_host() {
    let side = Side::start().await;
    let now = std::time::SystemTime::now();
    side.local.send_replace(Arc::new(Local {
        node: "core-01".into(),
        drained: Some(now - Duration::from_secs(7200)),
        ..Local::default()
    }));
    let told = run(&format!("explain --http {}", side.address)).await.out;
    for part in
        ["core-01 is drained for 2h00m", "wharf undrain", "Docker does not answer", "the store does not confirm"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
    side.stop().await;
}

#[tokio::test]
async fn nodes_show_what_is_down_where() {
    let side = Side::start().await;
    let waiting = Waiting {
        id: "core-02:redis:6379".into(),
        service: "redis".into(),
        state: "down".into(),
        since: None,
        reason: Some("connection refused".into()),
        ..Waiting::default()
    };
    let node = |name: &str, waiting: Vec<Waiting>, drained: Option<&str>| NodeRecord {
        node: name.into(),
        version: "0.1.0".into(),
        addresses: vec!["10.88.0.1".parse().unwrap()],
        site: (name == "core-01").then(|| "eu/a".into()),
        started: "2026-03-04T05:06:07Z".into(),
        states: [("ready".into(), 3), ("down".into(), waiting.len())].into(),
        waiting,
        drained: drained.map(Into::into),
        ..NodeRecord::default()
    };
    let nodes = vec![node("core-01", vec![], Some("2026-03-04T05:06:07Z")), node("core-02", vec![waiting], None)];
    side.nodes.send_replace(Arc::new(Nodes::of(false, nodes, &[])));
    let ran = run(&format!("nodes --http {}", side.address)).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""));
    let line =
        |start: &str| ran.out.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{}", ran.out));
    assert!(line("core-01").contains("for ") && line("core-01").ends_with("eu/a  10.88.0.1"), "{}", ran.out);
    assert!(ran.out.contains("core-02  redis    core-02:redis:6379  down   -    connection refused"), "{}", ran.out);
    let one = run(&format!("nodes core-02 -o json --http {}", side.address)).await.out;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&one).unwrap()["nodes"].as_array().unwrap().len(), 1);
    side.stop().await;
}

#[tokio::test]
async fn a_service_that_one_site_holds_whole_is_not_spread() {
    let mut side = Side::start().await;
    let put = |side: &mut Side, name: &str, site: &str| {
        let value = format!(r#"{{"host":"10.88.0.1","port":11211,"node":"{name}","site":"{site}"}}"#);
        side.put(&format!("/services/memcached/{name}"), &value);
    };
    put(&mut side, "core-01", "eu/a/1");
    put(&mut side, "core-02", "eu/a/2");
    let at = format!("--http {}", side.address);
    let ran = run(&format!("nodes --spread memcached {at}")).await;
    assert_eq!(ran.exit, Exit::NotMet);
    assert!(ran.out.contains("eu/a  2          core-01, core-02"), "{}", ran.out);
    assert_eq!(run(&format!("nodes --spread memcached --level 3 {at}")).await.exit, Exit::Done);
    put(&mut side, "core-03", "eu/b/1");
    let ran = run(&format!("nodes --spread memcached -o json {at}")).await;
    let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.exit, &told["spread"], &told["sites"][1]["site"]), (Exit::Done, &true.into(), &"eu/b".into()));
    assert_eq!(run(&format!("nodes --spread nothing {at}")).await.exit, Exit::NotMet);
    let wide = run(&format!("services memcached -o wide {at}")).await.out;
    assert!(wide.contains("SITE") && wide.contains("eu/b/1"), "{wide}");
    side.stop().await;
}

#[tokio::test]
async fn nodes_are_shown_whatever_numbers_they_tell() {
    let side = Side::start().await;
    let states =
        [("ready".into(), usize::MAX), ("saturated".into(), 2), ("down".into(), usize::MAX), ("paused".into(), 9)];
    let odd = NodeRecord { node: "odd".into(), states: states.into(), more: usize::MAX, ..NodeRecord::default() };
    side.nodes.send_replace(Arc::new(Nodes::of(false, vec![odd], &[])));
    let ran = run(&format!("nodes --http {}", side.address)).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(ran.out.contains("odd") && ran.out.contains(&usize::MAX.to_string()), "{}", ran.out);
    side.stop().await;
}

#[tokio::test]
async fn drain_and_undrain_by_address_token_and_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock");
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let options = Options { token: Some("s3cret"), socket: Some(socket.clone()), ..Options::default() };
    let mut side = Side::start_with(options).await;
    let refused = run(&format!("drain --http {}", side.address)).await;
    assert_eq!(refused.exit, Exit::NotMet);
    assert!(refused.err.contains("token"), "{}", refused.err);
    let with_token = format!("--http {} --http-token-file {}", side.address, token.display());
    for (line, drained) in [
        (format!("drain {with_token}"), true),
        (format!("undrain {with_token}"), false),
        (format!("drain --http-socket {}", socket.display()), true),
    ] {
        let running = tokio::spawn(async move { run(&line).await });
        let asked = side.drains.recv().await.unwrap();
        assert_eq!(asked.drain, drained);
        let withdrawn = Local { drained: Some(SystemTime::UNIX_EPOCH), known: true, ..Local::default() };
        side.local.send_replace(Arc::new(withdrawn.clone()));
        asked.reply.send(Ok(vec![])).unwrap();
        let ran = running.await.unwrap();
        assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""));
    }
    let late = format!("drain --http-socket {}", socket.display());
    let running = tokio::spawn(async move { run(&late).await });
    let asked = side.drains.recv().await.unwrap();
    let standing = Local { drained: Some(SystemTime::UNIX_EPOCH), records: 3, ..Local::default() };
    side.local.send_replace(Arc::new(standing));
    asked.reply.send(Ok(vec![])).unwrap();
    let ran = running.await.unwrap();
    assert_eq!(ran.exit, Exit::Done, "it is drained all the same");
    assert!(ran.err.contains("not withdrawn yet: 3 records"), "{}", ran.err);
    let missing = run(&format!("drain --http {} --http-token-file /nowhere/token", side.address)).await;
    assert_eq!(missing.exit, Exit::Usage);
    side.stop().await;
}

#[tokio::test]
async fn a_name_not_known_before_the_first_read_is_not_a_no() {
    let side = Side::start().await;
    side.ready.send_replace(Readiness { dns: true, catalog: false });
    assert_eq!(run(&format!("services redis --http {}", side.address)).await.exit, Exit::Unreachable);
    side.stop().await;
}
