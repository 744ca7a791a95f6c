//! Real servers behind ambassadors: PostgreSQL and memcached as they are, and Redis whose master is switched under
//! load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::postgres;
use crate::program::{self, Agent, told};
use crate::redis::{Client, Server};
use crate::town::own_address;

fn table(name: &str, at: SocketAddr, rest: &str) -> String {
    format!("[[proxy]]\nname = '{name}'\nlisten = '{at}'\n{rest}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_reached_by_its_service() {
    let server = postgres::Cluster::new("trust").start();
    let at = own_address();
    let service = format!(
        "[[service]]\nname = 'postgres'\naddress = '127.0.0.1'\nport = {}\ncheck = 'postgres'\n",
        server.target.port()
    );
    let agent = Agent::start(&format!("{service}{}", table("postgres", at, "service = 'postgres'")));
    agent.prints("proxies postgres", "where it leads", |text| text.contains(&server.target.to_string()));
    let query = move || {
        let mut psql = std::process::Command::new("/usr/lib/postgresql/15/bin/psql");
        psql.args(["-U", "postgres", "-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
        psql.args(["-Atc", "select repeat('x', 10000000)", "postgres"]).output().unwrap()
    };
    let (code, out, err) = told(&tokio::task::spawn_blocking(query).await.unwrap());
    assert_eq!((code, out.trim_end().len()), (Some(0), 10_000_000), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_is_reached_by_its_service() {
    let (_server, port) = program::Server::memcached();
    let at = own_address();
    let service =
        format!("[[service]]\nname = 'memcached'\naddress = '127.0.0.1'\nport = {port}\ncheck = 'memcached'\n");
    let agent = Agent::start(&format!("{service}{}", table("memcached", at, "service = 'memcached'\nnear = true")));
    agent.prints("proxies memcached", "where it leads", |text| text.contains(&format!("127.0.0.1:{port}")));
    let mut client = TcpStream::connect(at).await.unwrap();
    client.write_all(b"set a 0 0 5\r\nhello\r\nget a\r\nquit\r\n").await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n");
}

/// What one writer was told.
struct Written {
    acknowledged: Vec<String>,
    cut: usize,
}

/// Writes through the ambassador, one value after the other, with a new connection after each error.
async fn write(at: SocketAddr, name: usize, over: Arc<AtomicBool>) -> Written {
    let mut written = Written { acknowledged: Vec::new(), cut: 0 };
    let mut client = None;
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mut connected = match client.take() {
            Some(client) => client,
            None => Client::open(at).await.unwrap(),
        };
        let value = format!("{name}-{number}");
        match connected.ask(&["RPUSH", "log", &value]).await {
            Ok(reply) if reply.starts_with(':') => {
                written.acknowledged.push(value);
                client = Some(connected);
            }
            // A switch closes what ran to the master that was; one that is no master any more takes no write.
            _ => written.cut += 1,
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_switch_parks_who_comes_and_no_write_is_lost() {
    let servers = ["a", "b", "c"].map(|name| Server::start("redis-server", name));
    let at = own_address();
    let services = servers.iter().map(|server| {
        format!(
            "[[service]]\nname = 'redis-1'\nport = {}\naddress = '127.0.0.1'\nid = '{}'\ncheck = 'redis'\n",
            server.port, server.name
        )
    });
    let services: String = services.collect();
    let topology = "[[topology]]\nservice = 'redis-1'\nservers = ['127.0.0.0/8']\nmax-pause = '1s'\n";
    let proxy = table("redis", at, "service = 'redis-1'\nrole = 'primary'\nwait = '30s'");
    let agent = Agent::start(&format!("probe-interval = '200ms'\n{services}{topology}{proxy}"));
    agent.prints("topology redis-1", "three instances", |text| {
        servers.iter().all(|server| text.lines().any(|line| line.starts_with(&format!("{} ", server.name))))
    });
    let switch = |to: &str| {
        agent.until(&format!("{to} is master"), |agent| {
            agent.wharf(&format!("topology switch redis-1 --to {to}")).status.success()
        });
    };
    let leads_to = |server: &Server| {
        agent.prints("proxies redis", "the master", |text| text.contains(&server.address().to_string()));
    };
    switch("a");
    leads_to(&servers[0]);
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for name in 0..4 {
        writers.spawn(write(at, name, Arc::clone(&over)));
    }
    for round in 0..6 {
        let server = &servers[(round + 1) % 3];
        tokio::task::block_in_place(|| {
            switch(&server.name);
            leads_to(server);
        });
    }
    over.store(true, Ordering::Relaxed);
    let written = writers.join_all().await;
    let log = servers[0].ask(&["LRANGE", "log", "0", "-1"]).await;
    let log: std::collections::HashSet<&str> = log.lines().collect();
    for one in &written {
        let missing = one.acknowledged.iter().filter(|value| !log.contains(value.as_str())).count();
        assert_eq!(missing, 0, "of {}", one.acknowledged.len());
        // The word of a switch is some milliseconds on its way; who comes back at once meets the frozen master till
        // then.
        assert!(
            one.acknowledged.len() > 10 && one.cut < one.acknowledged.len(),
            "{} written, {} cut",
            one.acknowledged.len(),
            one.cut
        );
    }
    tokio::time::timeout(Duration::from_secs(5), Client::open(at)).await.expect("it listens").unwrap();
}
