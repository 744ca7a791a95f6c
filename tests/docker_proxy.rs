//! Behind a proxy of the engine's socket that lets through the calls of docs/security.md and nothing else, the agent
//! does all it does: with a real engine, from the first list over a restart of the engine to the last withdrawal.
#![allow(clippy::unwrap_used, missing_docs)]

mod dockerd;
mod program;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dockerd::Dockerd;
use program::{Agent, Options, told};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// The calls that the page lists.
fn documented() -> Vec<String> {
    let page = std::fs::read_to_string(format!("{}/docs/security.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `/"));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Whether a request's first line is this call of the page: `…` stands for digits and dots after a `v`, and for the
/// value of a query's parameter; `{id}` for the whole id of a container or a network.
fn is_call(call: &str, line: &str) -> bool {
    let Some(target) = line.strip_prefix("GET ").and_then(|rest| rest.strip_suffix(" HTTP/1.1")) else { return false };
    let split = |text: &str| {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let parts = path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let mut names: Vec<String> =
            query.split('&').filter_map(|pair| pair.split('=').next()).map(str::to_owned).collect();
        names.sort();
        (parts, names)
    };
    let ((call, parameters), (asked, given)) = (split(call), split(target));
    let is_version = |word: &str| {
        let numbers = word.strip_prefix('v').unwrap_or_default();
        !numbers.is_empty() && numbers.split('.').all(|part| part.parse::<u16>().is_ok())
    };
    let fits = |(call, word): (&String, &String)| match call.as_str() {
        "{id}" => word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "v…" => is_version(word),
        call => call == word,
    };
    call.len() == asked.len() && call.iter().zip(&asked).all(fits) && given.iter().all(|name| parameters.contains(name))
}

#[derive(Default)]
struct Seen {
    passed: Vec<String>,
    refused: Vec<String>,
}

/// A proxy of an engine's socket, one request a connection.
struct Proxy {
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
    _connections: JoinSet<()>,
}

impl Proxy {
    fn start(engine: &Path, directory: &Path) -> Self {
        let path = directory.join("proxy.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (engine, noted, calls) = (engine.to_owned(), Arc::clone(&seen), Arc::new(documented()));
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut under_way = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                under_way.spawn(carry(client, engine.clone(), Arc::clone(&calls), Arc::clone(&noted)));
                while under_way.try_join_next().is_some() {}
            }
        });
        Self { path, seen, _connections: connections }
    }

    fn uri(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

/// Reads one request's head, and lets it through or refuses it. The connection is closed after it, so that nothing
/// unseen follows.
async fn carry(mut client: UnixStream, engine: PathBuf, calls: Arc<Vec<String>>, seen: Arc<Mutex<Seen>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    if !calls.iter().any(|call| is_call(call, line)) {
        seen.lock().unwrap().refused.push(line.to_owned());
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        let _ = client.write_all(refusal.as_bytes()).await;
        return;
    }
    seen.lock().unwrap().passed.push(line.to_owned());
    // While the engine is away, so is its proxy.
    let Ok(mut engine) = UnixStream::connect(engine).await else { return };
    let request = format!("{line}\r\nConnection: close\r\n{rest}");
    if engine.write_all(request.as_bytes()).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}

/// Sends one request through the proxy; the status that comes back.
async fn status(proxy: &Path, line: &str) -> u16 {
    let mut stream = UnixStream::connect(proxy).await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

#[test]
fn the_page_is_read_strictly() {
    let id = "ab".repeat(32);
    let calls = documented();
    let is_let_through = |line: &str| calls.iter().any(|call| is_call(call, &format!("{line} HTTP/1.1")));
    for good in ["/_ping", "/v1.41/_ping", "/v1.41/containers/json", "/v1.41/events?filters=%7B%7D"] {
        assert!(is_let_through(&format!("GET {good}")), "{good}");
    }
    assert!(is_let_through(&format!("GET /v1.52/containers/{id}/json")));
    for bad in [
        "POST /v1.41/containers/create",
        "GET /v1.41/containers/json?all=1",
        "GET /v1.41/containers/../info/json",
        "GET /vx/_ping",
        "HEAD /_ping",
        "GET /v1.41/containers/first/json",
        "GET /v1.41/info",
    ] {
        assert!(!is_let_through(bad), "{bad}");
    }
    assert!(!is_let_through(&format!("GET /v1.41/containers/{id}/logs")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_the_page_are_all_that_an_agent_needs() {
    let mut engine = tokio::task::block_in_place(Dockerd::start);
    engine.run("first", &["-p", "11211", "-e", "SERVICE_NAME=cache"]);
    let directory = tempfile::tempdir().unwrap();
    let wharf::docker::Endpoint::Unix(socket) = engine.endpoint() else { panic!("a unix socket") };
    let proxy = Proxy::start(&socket, directory.path());

    tokio::task::block_in_place(|| {
        // The engine's ports are in a network of its own, so nothing is probed: Docker's word is enough.
        let settings = "checks = \"off\"\n";
        let agent = Agent::start_with(&Options { engine: Some(proxy.uri()), settings, ..Options::default() });
        let offered = |count: usize, what: &str| {
            agent.prints("services -o hostport", what, |text| text.lines().count() == count && text.contains(':'))
        };
        offered(1, "what ran before the agent");
        engine.run("second", &["-p", "11211", "-e", "SERVICE_NAME=cache"]);
        let both = offered(2, "what was started later");
        assert!(both.contains(&format!(":{}", engine.port("second"))), "{both}");
        engine.docker(&["pause", "second"]);
        offered(1, "that one is paused");
        engine.docker(&["unpause", "second"]);
        offered(2, "that it goes on");
        engine.docker(&["network", "create", "--internal", "inside"]);
        engine.run("confined", &["--network", "inside"]);
        agent
            .prints("explain confined", "that nobody else can reach it", |text| text.contains("reaches no other host"));
        engine.leave();
        agent.prints("explain", "that the engine is away", |text| text.contains("Docker does not answer"));
        engine.launch();
        agent.prints("explain", "that it is back", |text| !text.contains("Docker does not answer"));
        engine.docker(&["kill", "first"]);
        offered(1, "that one died after the engine's restart");
        engine.docker(&["rm", "-f", "second"]);
        agent.until("nothing is offered", |agent| told(&agent.wharf("services cache")).0 == Some(1));
    });

    let seen = std::mem::take(&mut *proxy.seen.lock().unwrap());
    assert!(seen.refused.is_empty(), "not in docs/security.md: {:?}", seen.refused);
    for call in documented().iter().filter(|call| call.starts_with("/v…") && !call.ends_with("_ping")) {
        assert!(seen.passed.iter().any(|line| is_call(call, line)), "{call} is never made: {:?}", seen.passed);
    }

    // What else an engine can do for those who reach its socket is out of reach.
    let id = engine.run("stays", &["-p", "11211"]);
    let others = [
        "POST /v1.41/containers/create".to_owned(),
        format!("POST /v1.41/containers/{id}/exec"),
        format!("POST /v1.41/containers/{id}/kill"),
        format!("DELETE /v1.41/containers/{id}?force=1"),
        format!("GET /v1.41/containers/{id}/logs?stdout=1"),
        format!("GET /v1.41/containers/{id}/archive?path=/etc"),
        "GET /v1.41/info".to_owned(),
        "GET /v1.41/images/json".to_owned(),
    ];
    for line in &others {
        assert_eq!(status(&proxy.path, line).await, 403, "{line}");
    }
    assert_eq!(status(&proxy.path, &format!("GET /v1.41/containers/{id}/json")).await, 200);
    assert_eq!(proxy.seen.lock().unwrap().refused.len(), others.len());
    assert_eq!(engine.docker(&["inspect", "-f", "{{.State.Running}}", "stays"]), "true");
}
