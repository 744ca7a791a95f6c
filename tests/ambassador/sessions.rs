//! Sessions of Redis that are moved: each client has one connection, tries nothing twice, and notices no switch.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::program::Agent;
use crate::redis::{Client, Server};
use crate::town::own_address;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three servers with a topology, and an ambassador that speaks Redis.
struct Redis {
    servers: [Server; 3],
    agent: Agent,
    at: SocketAddr,
}

impl Redis {
    fn start() -> Self {
        let servers = NAMES.map(|name| Server::start("redis-server", name));
        let at = own_address();
        let services = servers.iter().map(|server| {
            format!(
                "[[service]]\nname = 'redis-1'\nport = {}\naddress = '127.0.0.1'\nid = '{}'\ncheck = 'redis'\n",
                server.port, server.name
            )
        });
        let services: String = services.collect();
        let topology = "[[topology]]\nservice = 'redis-1'\nservers = ['127.0.0.0/8']\nmax-pause = '1s'\n";
        let proxy = format!(
            "[[proxy]]\nname = 'redis'\nlisten = '{at}'\nservice = 'redis-1'\nrole = 'primary'\nwait = '30s'\n\
             protocol = 'redis'\n"
        );
        let agent = Agent::start(&format!("probe-interval = '200ms'\n{services}{topology}{proxy}"));
        agent.prints("topology redis-1", "three instances", |text| {
            NAMES.iter().all(|name| text.lines().any(|line| line.starts_with(&format!("{name} "))))
        });
        let redis = Self { servers, agent, at };
        redis.switch(0);
        redis
    }

    fn switch(&self, to: usize) {
        let server = &self.servers[to];
        self.agent.until(&format!("{} is master", server.name), |agent| {
            agent.wharf(&format!("topology switch redis-1 --to {}", server.name)).status.success()
        });
        self.agent.prints("proxies redis", "the master", |text| text.contains(&server.address().to_string()));
    }

    fn metric(&self, line: &str) -> u64 {
        let mut stream = std::os::unix::net::UnixStream::connect(self.agent.socket()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).unwrap();
        let value = metrics.lines().find_map(|found| found.strip_prefix(line)).unwrap_or("0");
        value.trim().parse().unwrap()
    }
}

/// What one writer was told: what it wrote, and what ended its sessions. One that a slow switch would have made wait
/// for too long is ended, and begins again.
struct Written {
    db: usize,
    acknowledged: Vec<String>,
    errors: Vec<String>,
}

async fn write(at: SocketAddr, name: usize, over: Arc<AtomicBool>) -> Written {
    let mut written =
        Written { db: if name.is_multiple_of(2) { 3 } else { 0 }, acknowledged: Vec::new(), errors: Vec::new() };
    let mut client = None;
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mut session = match client.take() {
            Some(session) => session,
            None => begin(at, name, written.db).await,
        };
        let value = format!("{name}-{number}");
        match session.ask(&["RPUSH", "log", &value]).await {
            Ok(reply) if reply.starts_with(':') => {
                written.acknowledged.push(value);
                client = Some(session);
            }
            Ok(reply) => written.errors.push(reply),
            Err(error) => written.errors.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    written
}

async fn begin(at: SocketAddr, name: usize, db: usize) -> Client {
    let mut client = Client::open(at).await.unwrap();
    if name.is_multiple_of(3) {
        let _said = client.ask(&["HELLO", "2", "SETNAME", &format!("w{name}")]).await;
    }
    let _said = client.ask(&["SELECT", &db.to_string()]).await;
    client
}

#[allow(clippy::print_stderr)] // the figures of a run
async fn sessions_survive(count: usize, switches: usize) {
    let redis = tokio::task::block_in_place(Redis::start);
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for name in 0..count {
        writers.spawn(write(redis.at, name, Arc::clone(&over)));
    }
    for round in 0..switches {
        tokio::task::block_in_place(|| redis.switch((round + 1) % 3));
    }
    over.store(true, Ordering::Relaxed);
    let written = writers.join_all().await;
    let moved = redis.metric("wharf_proxy_moved_total{proxy=\"redis\"} ");
    let held_too_long = redis.metric("wharf_proxy_refused_total{proxy=\"redis\",reason=\"wait\"} ");
    let errors: Vec<&String> = written.iter().flat_map(|one| &one.errors).collect();
    let acknowledged: usize = written.iter().map(|one| one.acknowledged.len()).sum();
    eprintln!(
        "{count} sessions, {switches} switches: {acknowledged} writes, {moved} moved, {} errors ({held_too_long} held too long): {errors:?}",
        errors.len()
    );
    let mut found: HashMap<(usize, String), usize> = HashMap::new();
    for db in [0, 3] {
        let mut client = Client::open(redis.servers[switches % 3].address()).await.unwrap();
        client.ask(&["SELECT", &db.to_string()]).await.unwrap();
        for value in client.ask(&["LRANGE", "log", "0", "-1"]).await.unwrap().lines() {
            *found.entry((db, value.to_owned())).or_default() += 1;
        }
    }
    for one in &written {
        for value in &one.acknowledged {
            assert_eq!(found.get(&(one.db, value.clone())), Some(&1), "{value} of database {}", one.db);
        }
    }
    assert!(moved as usize >= switches, "{moved} sessions were moved");
    assert!(errors.len() as u64 <= held_too_long, "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_sessions_notice_no_switch() {
    sessions_survive(8, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_sessions_notice_no_switch() {
    sessions_survive(60, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_value_gets_it_from_the_next_master_and_a_transaction_is_cut() {
    let redis = tokio::task::block_in_place(Redis::start);
    let mut blocked = Client::open(redis.at).await.unwrap();
    let waiting = tokio::spawn(async move { blocked.ask(&["BLPOP", "later", "60"]).await });
    let mut within = Client::open(redis.at).await.unwrap();
    within.ask(&["MULTI"]).await.unwrap();
    within.ask(&["SET", "x", "y"]).await.unwrap();
    let mut idle = Client::open(redis.at).await.unwrap();
    idle.ask(&["CLIENT", "SETNAME", "idler"]).await.unwrap();
    tokio::task::block_in_place(|| redis.switch(1));
    assert!(!within.ask(&["EXEC"]).await.is_ok_and(|reply| reply.contains("OK")), "it held something");
    assert_eq!(idle.ask(&["CLIENT", "GETNAME"]).await.unwrap().trim(), "idler");
    idle.ask(&["RPUSH", "later", "value"]).await.unwrap();
    let got = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time").unwrap();
    match got {
        Ok(got) => assert!(got.contains("value"), "{got}"),
        // One that a slow switch made wait for too long is told so.
        Err(error) => {
            assert!(redis.metric("wharf_proxy_refused_total{proxy=\"redis\",reason=\"wait\"} ") > 0, "{error}");
        }
    }
}
