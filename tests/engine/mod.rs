//! A stand-in for Docker's engine on a unix socket, for faults that a real one does not make on demand: slow and
//! malformed inspects, streams that drop, versions that are refused, many events in one write. It answers GET only and
//! keeps a log of what was asked.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// The stand-in.
pub struct Engine {
    pub path: PathBuf,
    state: Arc<Mutex<State>>,
    listener: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

struct State {
    containers: BTreeMap<String, Value>,
    /// Answers given instead of the container: status and body.
    spoiled: BTreeMap<String, (u16, String)>,
    networks: BTreeMap<String, Value>,
    slow: BTreeMap<String, Duration>,
    /// How long every answer on a path takes.
    slow_paths: BTreeMap<String, Duration>,
    every_inspect: Duration,
    events: broadcast::Sender<Option<Vec<u8>>>,
    requests: Vec<String>,
    inspecting: usize,
    most_inspecting: usize,
    version: (u32, u32),
    oldest: (u32, u32),
    frozen: bool,
    clock: u64,
    /// Every event that was told, for those who ask since when.
    history: Vec<(u64, Vec<u8>)>,
}

impl Engine {
    /// Starts one without containers.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State {
            containers: BTreeMap::new(),
            spoiled: BTreeMap::new(),
            networks: BTreeMap::new(),
            slow: BTreeMap::new(),
            slow_paths: BTreeMap::new(),
            every_inspect: Duration::ZERO,
            events: broadcast::channel(4096).0,
            requests: Vec::new(),
            inspecting: 0,
            most_inspecting: 0,
            version: (1, 41),
            oldest: (1, 12),
            frozen: false,
            clock: 1_700_000_000_000_000_000,
            history: Vec::new(),
        };
        let path = dir.path().join("docker.sock");
        let mut engine = Self { path, state: Arc::new(Mutex::new(state)), listener: None, _dir: dir };
        engine.listen();
        engine
    }

    pub fn endpoint(&self) -> wharf::docker::Endpoint {
        wharf::docker::Endpoint::Unix(self.path.clone())
    }

    /// Comes up on its socket, as the process that was there before or another one.
    pub fn listen(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        let state = self.state.clone();
        self.listener = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, state.clone()));
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// Goes away with every connection.
    pub async fn leave(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            let _ = listener.await;
        }
        let _ = std::fs::remove_file(&self.path);
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// Lets a container exist without a word.
    pub fn add(&self, inspect: Value) {
        let id = inspect["Id"].as_str().unwrap().to_owned();
        self.with(|state| state.containers.insert(id, inspect));
    }

    pub fn remove(&self, id: &str) {
        self.with(|state| state.containers.remove(id));
    }

    pub fn change(&self, id: &str, work: impl FnOnce(&mut Value)) {
        self.with(|state| work(state.containers.get_mut(id).unwrap()));
    }

    /// Writes events in one piece.
    pub fn emit(&self, events: &[Value]) {
        self.with(|state| {
            let mut piece = Vec::new();
            for event in events {
                let mut event = event.clone();
                state.clock += 1_000_000;
                event["timeNano"] = json!(state.clock);
                event["time"] = json!(state.clock / 1_000_000_000);
                let line = format!("{event}\n").into_bytes();
                piece.extend_from_slice(&line);
                state.history.push((state.clock, line));
            }
            let _ = state.events.send(Some(piece));
        });
    }

    /// What happens next happens so much later.
    pub fn time_passes(&self, time: Duration) {
        self.with(|state| state.clock += u64::try_from(time.as_nanos()).unwrap());
    }

    pub fn add_network(&self, id: &str, network: Value) {
        self.with(|state| state.networks.insert(id.to_owned(), network));
    }

    pub fn emit_raw(&self, piece: &[u8]) {
        let _ = self.with(|state| state.events.send(Some(piece.to_vec())));
    }

    /// Starts a container: it exists, and its event is told.
    pub fn run(&self, inspect: Value) {
        let id = inspect["Id"].as_str().unwrap().to_owned();
        self.add(inspect);
        self.emit(&[event("start", &id)]);
    }

    pub fn die(&self, id: &str) {
        self.remove(id);
        self.emit(&[event("die", id)]);
    }

    /// Ends every event stream.
    pub fn drop_streams(&self) {
        let _ = self.with(|state| state.events.send(None));
    }

    /// Whether somebody is subscribed.
    pub fn subscribers(&self) -> usize {
        self.with(|state| state.events.receiver_count())
    }

    pub fn spoil(&self, id: &str, status: u16, body: &str) {
        self.with(|state| state.spoiled.insert(id.to_owned(), (status, body.to_owned())));
    }

    pub fn mend(&self, id: &str) {
        self.with(|state| state.spoiled.remove(id));
    }

    pub fn slow(&self, id: &str, by: Duration) {
        self.with(|state| state.slow.insert(id.to_owned(), by));
    }

    /// Lets every answer on a path, such as `/containers/json`, take so long.
    pub fn slow_path(&self, path: &str, by: Duration) {
        self.with(|state| state.slow_paths.insert(path.to_owned(), by));
    }

    pub fn every_inspect_takes(&self, time: Duration) {
        self.with(|state| state.every_inspect = time);
    }

    pub fn most_inspecting(&self) -> usize {
        self.with(|state| state.most_inspecting)
    }

    /// The version spoken, and the oldest that is not refused.
    pub fn speaks(&self, version: (u32, u32), oldest: (u32, u32)) {
        self.with(|state| (state.version, state.oldest) = (version, oldest));
    }

    /// Answers nothing any more, like a stopped process.
    pub fn freeze(&self, frozen: bool) {
        self.with(|state| state.frozen = frozen);
    }

    pub fn requests(&self) -> Vec<String> {
        self.with(|state| state.requests.clone())
    }

    pub fn forget_requests(&self) {
        self.with(|state| state.requests.clear());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// A container's event.
pub fn event(action: &str, id: &str) -> Value {
    json!({"Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": {"image": "redis"}}})
}

/// A signal sent to a container.
pub fn kill(id: &str, signal: u32) -> Value {
    let mut event = event("kill", id);
    event["Actor"]["Attributes"]["signal"] = json!(signal.to_string());
    event
}

/// A 64-digit id.
pub fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// A running container with one published port.
pub fn container(number: usize, image: &str, port: u16, host_port: u16) -> Value {
    json!({
        "Id": id(number), "Name": format!("/c{number}"), "Image": "sha256:0",
        "State": {"Status": "running", "Running": true, "Pid": 0, "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {"Image": image, "Env": [], "Labels": {}, "ExposedPorts": {(format!("{port}/tcp")): {}}},
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {
            "Ports": {(format!("{port}/tcp")): [{"HostIp": "0.0.0.0", "HostPort": host_port.to_string()}]},
            "Networks": {"bridge": {"IPAddress": format!("172.17.{}.{}", number / 250, number % 250 + 2)}},
        },
    })
}

async fn serve(mut stream: UnixStream, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&piece[..count]),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap().to_owned();
    let frozen = {
        let mut state = state.lock().unwrap();
        state.requests.push(line.trim_end_matches(" HTTP/1.1").to_owned());
        state.frozen
    };
    if frozen {
        return std::future::pending().await;
    }
    let target = line.split(' ').nth(1).unwrap().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (version, path) = split_version(path);
    let (now, oldest) = {
        let state = state.lock().unwrap();
        (state.version, state.oldest)
    };
    if version.is_some_and(|version| version < oldest || version > now) {
        let body = json!({"message": "client version is not supported"}).to_string();
        return answer(&mut stream, 400, &body, now).await;
    }
    let slow = state.lock().unwrap().slow_paths.get(path).copied();
    if let Some(by) = slow {
        tokio::time::sleep(by).await;
    }
    match path {
        "/_ping" => answer(&mut stream, 200, "OK", now).await,
        "/events" => events(&mut stream, &state, query).await,
        "/containers/json" => {
            let body = {
                let state = state.lock().unwrap();
                let runs = |one: &&Value| one["State"]["Running"] != false;
                let list: Vec<Value> = state.containers.values().filter(runs).map(entry).collect();
                json!(list).to_string()
            };
            answer(&mut stream, 200, &body, now).await;
        }
        path => match path.strip_prefix("/containers/").and_then(|path| path.strip_suffix("/json")) {
            Some(id) => inspect(&mut stream, &state, id, now).await,
            None => network(&mut stream, &state, path, now).await,
        },
    }
}

fn split_version(path: &str) -> (Option<(u32, u32)>, &str) {
    let Some((version, _)) = path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) else { return (None, path) };
    let (major, minor) = version.split_once('.').unwrap();
    (Some((major.parse().unwrap(), minor.parse().unwrap())), &path[version.len() + 2..])
}

/// A container in the list.
fn entry(container: &Value) -> Value {
    let ports = container["NetworkSettings"]["Ports"].as_object().into_iter().flatten();
    let ports: Vec<Value> = ports
        .flat_map(|(port, bindings)| {
            let number: Option<u16> = port.split('/').next().and_then(|number| number.parse().ok());
            let bindings = bindings.as_array().cloned().unwrap_or_default().into_iter();
            bindings.map(move |one| json!({"IP": one["HostIp"], "PrivatePort": number, "PublicPort": one["HostPort"]}))
        })
        .collect();
    json!({
        "Id": container["Id"], "Names": [container["Name"]], "State": container["State"]["Status"], "Ports": ports,
        "Status": container["Status"], "NetworkSettings": {"Networks": container["NetworkSettings"]["Networks"]},
    })
}

async fn network(stream: &mut UnixStream, state: &Mutex<State>, path: &str, version: (u32, u32)) {
    let found = path.strip_prefix("/networks/").and_then(|id| state.lock().unwrap().networks.get(id).cloned());
    let spoiled = state.lock().unwrap().spoiled.get(path).cloned();
    let plain = found.map_or((404, "{}".to_owned()), |network| (200, network.to_string()));
    let (status, body) = spoiled.unwrap_or(plain);
    answer(stream, status, &body, version).await;
}

async fn inspect(stream: &mut UnixStream, state: &Mutex<State>, id: &str, version: (u32, u32)) {
    // What is told is the state at the time of asking, however long telling takes.
    let (wait, (status, body)) = {
        let mut state = state.lock().unwrap();
        state.inspecting += 1;
        state.most_inspecting = state.most_inspecting.max(state.inspecting);
        let wait = state.slow.get(id).copied().unwrap_or(state.every_inspect);
        let plain = match state.containers.get(id) {
            Some(container) => (200, container.to_string()),
            None => (404, "{}".to_owned()),
        };
        (wait, state.spoiled.get(id).cloned().unwrap_or(plain))
    };
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    // Over before the asker can know: whoever has the answer may ask for the next.
    state.lock().unwrap().inspecting -= 1;
    answer(stream, status, &body, version).await;
}

async fn events(stream: &mut UnixStream, state: &Mutex<State>, query: &str) {
    let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
    let since = since.map(|since| since.replace('.', "").parse::<u64>().unwrap());
    let (mut events, again) = {
        let state = state.lock().unwrap();
        // As engines do it: the event of that very moment is told again.
        let again = state.history.iter().filter(|(at, _)| since.is_some_and(|since| *at >= since));
        (state.events.subscribe(), again.flat_map(|(_, line)| line.clone()).collect::<Vec<u8>>())
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    if !again.is_empty() {
        let chunk = [format!("{:x}\r\n", again.len()).as_bytes(), &again, b"\r\n"].concat();
        if stream.write_all(&chunk).await.is_err() {
            return;
        }
    }
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            piece = events.recv() => {
                let Ok(Some(piece)) = piece else { return };
                let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
                chunk.extend_from_slice(&piece);
                chunk.extend_from_slice(b"\r\n");
                if stream.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            _ = stream.read(&mut nothing) => return,
        }
    }
}

async fn answer(stream: &mut UnixStream, status: u16, body: &str, version: (u32, u32)) {
    let head = format!(
        "HTTP/1.1 {status} X\r\nApi-Version: {}.{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        version.0,
        version.1,
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
}
