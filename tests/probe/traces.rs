//! What hundreds of probes leave behind on a server: nothing. No slot stays taken, no line is logged, no connection
//! waits for its end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use wharf::model::health::standing::State;
use wharf::model::offer::instance::{CheckKind, Instance};

use crate::harness::{Host, eventually, instance, quick, with_login};
use crate::mongo::{Member, Mongo};
use crate::servers::{Cluster, Server, mariadb, memcached, redis, redis_cli, zookeeper};
use crate::sql::query;

const HUNDREDS: u32 = 300;

/// Asks a server of `asked` hundreds of times.
async fn probe(host: &Host, kind: CheckKind, mut asked: Instance) {
    asked.check.interval = Some(Duration::from_millis(10));
    let key = host.put(asked);
    let made = || {
        let metrics = host.metrics();
        let start = format!("wharf_probes_total{{check=\"{kind}\",outcome=\"serves\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u32>().ok()).unwrap_or(0)
    };
    host.until_state(&key, State::Ready).await;
    eventually("hundreds of probes", || (made() >= HUNDREDS).then_some(())).await;
    host.remove(&key);
    eventually("no more of them", || host.standing(&key).is_none().then_some(())).await;
}

/// What a server that answers in text says to one line.
fn say(target: SocketAddr, line: &str, end: &str) -> String {
    let mut stream = TcpStream::connect(target).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.ends_with(end) || text.is_empty() {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    text
}

/// Connections in TIME_WAIT with this port at either end.
fn waiting(port: u16) -> usize {
    const TIME_WAIT: &str = "06";
    let hex = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|it| it[3] == TIME_WAIT && (it[1].ends_with(&hex) || it[2].ends_with(&hex))).count()
}

#[tokio::test]
async fn memcached_has_its_slots_back() {
    let (host, server) = (Host::new(quick()), memcached(&["-v"]));
    let connections = || {
        let stats = TcpStream::connect(server.target).ok().map(|_| say(server.target, "stats\r\n", "END\r\n"))?;
        let line = stats.lines().find_map(|line| line.strip_prefix("STAT curr_connections "))?;
        line.parse::<u32>().ok()
    };
    // The visitor who only connected to see whether it is there may not have been let go yet.
    let before = eventually("it is up and idle", || connections().filter(|count| *count <= 2)).await;
    let log = server.log();
    probe(&host, CheckKind::Memcached, instance(CheckKind::Memcached, server.target)).await;
    eventually("as many as before", || connections().filter(|count| *count <= before)).await;
    assert_eq!(server.log(), log);
}

#[tokio::test]
async fn redis_has_its_slots_back_and_nothing_waits() {
    let (host, server) = (Host::new(quick()), redis(&[]));
    eventually("it is up", || redis_cli(&server, &["PING"]).contains("PONG").then_some(())).await;
    let log = server.log();
    probe(&host, CheckKind::Redis, instance(CheckKind::Redis, server.target)).await;
    let now = waiting(server.target.port());
    assert!(now < 10, "{now} in TIME_WAIT, more than redis-cli itself may have left");
    let alone = || redis_cli(&server, &["INFO", "clients"]).contains("connected_clients:1\r").then_some(());
    eventually("one client: the one that asks", alone).await;
    assert_eq!(server.log(), log);
}

fn sessions(server: &Server) -> String {
    query(server, "select count(*) from pg_stat_activity where backend_type = 'client backend'")
}

#[tokio::test]
async fn postgres_has_its_slots_back() {
    let host = Host::new(quick());
    for password in [None, Some("secret")] {
        let server = Cluster::new("scram-sha-256").start();
        let mut asked = instance(CheckKind::Postgres, server.target);
        asked.check.detail.user = Some("postgres".into());
        if let Some(password) = password {
            asked = with_login(asked, Some("postgres"), password);
        }
        eventually("it is up", || (sessions(&server) == "1").then_some(())).await;
        let log = server.log();
        probe(&host, CheckKind::Postgres, asked).await;
        eventually("one session: the one that asks", || (sessions(&server) == "1").then_some(())).await;
        assert_eq!(server.log(), log, "with a password: {}", password.is_some());
    }
}

#[tokio::test]
async fn mariadb_blocks_nobody_and_logs_nothing() {
    let (host, server) = (Host::new(quick()), mariadb());
    let asked = with_login(instance(CheckKind::Mysql, server.target), Some("probe"), "secret");
    let key = host.put(asked.clone());
    host.until(&key, |standing| standing.state == State::Ready && standing.error.is_none()).await;
    let log = server.log();
    // Far more unfinished handshakes than the hundred after which it would block this host.
    probe(&host, CheckKind::Mysql, asked).await;
    assert_eq!(server.log(), log);
}

#[tokio::test]
async fn zookeeper_and_mongodb_see_everyone_leave() {
    let (host, keeper, mongo) = (Host::new(quick()), zookeeper(0), Mongo::start(Member::Primary).await);
    probe(&host, CheckKind::Mongodb, instance(CheckKind::Mongodb, mongo.target)).await;
    eventually("every visitor has left", || (mongo.open() == 0).then_some(())).await;
    probe(&host, CheckKind::Zookeeper, instance(CheckKind::Zookeeper, keeper.target)).await;
    let alone = || say(keeper.target, "srvr", "\0").contains("Connections: 1\n").then_some(());
    eventually("one connection: the one that asks", alone).await;
}
