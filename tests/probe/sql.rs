//! PostgreSQL in every state it can be met in, and MariaDB.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wharf::model::health::standing::State;
use wharf::model::offer::instance::CheckKind;
use wharf::model::words::record::Role;

use crate::harness::{Host, eventually, instance, quick, with_login};
use crate::servers::{Cluster, Server, certificate, mariadb, pgbouncer, psql};

fn asked(server: &Server) -> wharf::model::offer::instance::Instance {
    let mut asked = instance(CheckKind::Postgres, server.target);
    asked.check.detail.user = Some("postgres".into());
    asked
}

pub fn query(server: &Server, query: &str) -> String {
    let output = psql(server, query).wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn postgres_is_ready_without_a_login_and_logs_nothing_of_it() {
    let host = Host::new(quick());
    let server = Cluster::new("scram-sha-256").start();
    let key = host.put(asked(&server));
    let standing = host.until_state(&key, State::Ready).await;
    assert_eq!((standing.role, standing.error), (None, None));
    let before = server.log();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.log(), before, "ten probes later");
    assert_eq!(query(&server, "select count(*) from pg_stat_activity where backend_type = 'client backend'"), "1");
}

#[tokio::test]
async fn a_login_tells_the_role_in_every_way_of_logging_in() {
    let host = Host::new(quick());
    for auth in ["scram-sha-256", "md5", "trust"] {
        let server = Cluster::new(auth).start();
        let asked = asked(&server);
        let asked = if auth == "trust" { asked } else { with_login(asked, Some("postgres"), "secret") };
        let key = host.put(asked);
        let standing = host.until_role(&key, Some(Role::Primary)).await;
        assert_eq!(standing.error, None, "{auth}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let log = server.log();
        assert!(!log.contains("FATAL:  password") && !log.contains("could not"), "{auth}: {log}");
    }
}

#[tokio::test]
async fn a_password_in_clear_text_is_told_to_nobody_be_it_over_tls() {
    let host = Host::new(quick());
    for tls in [false, true] {
        let cluster = Cluster::new("password");
        if tls {
            encrypt(&cluster);
            std::fs::write(cluster.data().join("pg_hba.conf"), "hostssl all all all password\n").unwrap();
        }
        let server = cluster.start();
        let key = host.put(with_login(asked(&server), Some("postgres"), "secret"));
        let wants = "wants the password in clear text, which is not told: role unknown";
        let standing = host.until(&key, |standing| standing.error.as_deref() == Some(wants)).await.0;
        assert_eq!((standing.state, standing.role), (State::Ready, None), "TLS: {tls}");
        assert!(!server.log().contains("connection authorized"), "{}", server.log());
    }
}

#[tokio::test]
async fn a_refused_login_is_alive_and_not_repeated() {
    let host = Host::new(quick());
    let server = Cluster::new("scram-sha-256").start();
    let key = host.put(with_login(asked(&server), Some("postgres"), "wrong"));
    let standing = host.until_state(&key, State::Ready).await;
    assert_eq!((standing.role, standing.error.as_deref()), (None, Some("login refused: 28P01")));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.log().matches("FATAL:  password authentication failed").count(), 1);
    assert_eq!(host.standing(&key).unwrap().error.as_deref(), Some("login refused: 28P01"));
}

#[tokio::test]
async fn a_standby_is_a_replica_until_it_is_promoted() {
    let host = Host::new(quick());
    let primary = Cluster::new("scram-sha-256").start();
    let key = host.put(with_login(asked(&primary), Some("postgres"), "secret"));
    host.until_role(&key, Some(Role::Primary)).await;
    let cluster = Cluster::standby_of(&primary);
    let standby = cluster.start();
    let key = host.put(with_login(asked(&standby), Some("postgres"), "secret"));
    host.until_role(&key, Some(Role::Replica)).await;
    assert_eq!(query(&standby, "select pg_promote()"), "t");
    host.until_role(&key, Some(Role::Primary)).await;
}

/// A relay before `server` that makes it older than version 14: it takes the parameter `in_hot_standby` out of what the
/// server tells, and nothing else.
async fn before_14(server: &Server, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (target, behind) = (listener.local_addr().unwrap(), server.target);
    tasks.spawn(async move {
        let mut relays = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            relays.spawn(async move {
                // Either end may leave at any time.
                if let Ok(server) = TcpStream::connect(behind).await {
                    relay(client, server).await.ok();
                }
            });
        }
    });
    target
}

async fn relay(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::try_join!(up, hand_on(&mut from_server, &mut to_client)).map(drop)
}

/// Every message of a server but the one that older servers lack.
async fn hand_on(server: &mut OwnedReadHalf, client: &mut OwnedWriteHalf) -> std::io::Result<()> {
    loop {
        let (kind, length) = (server.read_u8().await?, server.read_u32().await?);
        let mut body = vec![0; length as usize - 4];
        server.read_exact(&mut body).await?;
        if kind != b'S' || !body.starts_with(b"in_hot_standby\0") {
            client.write_all(&[&[kind][..], &length.to_be_bytes(), &body].concat()).await?;
        }
    }
}

#[tokio::test]
async fn before_14_a_server_is_asked_whether_it_recovers() {
    let (host, mut tasks) = (Host::new(quick()), JoinSet::new());
    let cluster = Cluster::new("scram-sha-256");
    cluster.configure("log_statement=all\n");
    let primary = cluster.start();
    let standby = {
        let key = host.put(with_login(asked(&primary), Some("postgres"), "secret"));
        host.until_role(&key, Some(Role::Primary)).await;
        host.remove(&key);
        Cluster::standby_of(&primary).start()
    };
    assert!(!primary.log().contains("pg_is_in_recovery"), "from 14 on it tells by itself: {}", primary.log());
    let old = |target: SocketAddr| with_login(instance(CheckKind::Postgres, target), Some("postgres"), "secret");
    let first = host.put(old(before_14(&primary, &mut tasks).await));
    let second = host.put(old(before_14(&standby, &mut tasks).await));
    host.until_role(&first, Some(Role::Primary)).await;
    host.until_role(&second, Some(Role::Replica)).await;
    for server in [&primary, &standby] {
        assert!(server.log().contains("statement: SELECT pg_is_in_recovery()"), "{}", server.log());
    }
}

#[tokio::test]
async fn a_starting_standby_and_a_stopping_server_are_not_ready() {
    let host = Host::new(quick());
    let primary = Cluster::new("scram-sha-256").start();
    let key = host.put(asked(&primary));
    host.until_state(&key, State::Ready).await;
    // Without hot_standby it recovers for ever and says 57P03 to everyone.
    let cluster = Cluster::standby_of(&primary);
    cluster.configure("hot_standby=off\n");
    let standby = cluster.start();
    let cold = host.put(asked(&standby));
    let said = |words: &'static str| {
        move |standing: &wharf::model::health::standing::Standing| {
            standing.error.as_deref().is_some_and(|error| error.contains(words))
        }
    };
    host.until(&cold, said("the database system is")).await;
    host.never_serves(&cold, Duration::from_secs(1)).await;
    drop(standby);
    // A session that stays keeps a smart shutdown waiting, in which newcomers are told so.
    let mut session = psql(&primary, "select pg_sleep(20)");
    let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
    eventually("a session", || (query(&primary, running) == "1").then_some(())).await;
    primary.signal(Signal::TERM);
    let down = host.until_state(&key, State::Down).await;
    assert_eq!(down.error.as_deref(), Some("\"the database system is shutting down\""));
    session.kill().unwrap();
    session.wait().unwrap();
}

#[tokio::test]
async fn a_full_postgres_is_saturated() {
    let host = Host::new(quick());
    let cluster = Cluster::new("scram-sha-256");
    cluster.configure("max_connections=5\nsuperuser_reserved_connections=0\nmax_wal_senders=0\n");
    let mut server = cluster.start();
    let key = host.put(asked(&server));
    host.until_state(&key, State::Ready).await;
    let mut crowd: Vec<_> = (0..8).map(|_| psql(&server, "select pg_sleep(60)")).collect();
    let full = host.until_state(&key, State::Saturated).await;
    assert_eq!(full.error.as_deref(), Some("too many connections"));
    host.stays(&key, State::Saturated, quick().interval * 10).await;
    for client in &mut crowd {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    server.signal(Signal::INT);
    eventually("the end", || server.ended().then_some(())).await;
}

fn encrypt(cluster: &Cluster) {
    certificate(cluster.directory.path());
    let at = |name: &str| cluster.directory.path().join(name).display().to_string();
    cluster.configure(&format!("ssl=on\nssl_cert_file='{}'\nssl_key_file='{}'\n", at("cert.pem"), at("key.pem")));
}

#[tokio::test]
async fn postgres_that_wants_tls_is_asked_over_tls() {
    let host = Host::new(quick());
    let cluster = Cluster::new("scram-sha-256");
    encrypt(&cluster);
    std::fs::write(cluster.data().join("pg_hba.conf"), "hostssl all all all scram-sha-256\n").unwrap();
    let server = cluster.start();
    let key = host.put(with_login(asked(&server), Some("postgres"), "secret"));
    host.until_role(&key, Some(Role::Primary)).await;
    let before = server.log();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.log(), before, "only the first probe was refused");
}

#[tokio::test]
async fn a_pgbouncer_that_takes_tls_only_is_ready() {
    for (mode, error) in [("require", None), ("verify-ca", Some("wants a client certificate: role unknown"))] {
        let (host, server) = (Host::new(quick()), pgbouncer(mode));
        let key = host.put(instance(CheckKind::Postgres, server.target));
        let standing = host.until_state(&key, State::Ready).await;
        assert_eq!(standing.error.as_deref(), error, "{mode}: {}", server.log());
        host.stays(&key, State::Ready, quick().interval * 5).await;
    }
}

#[tokio::test]
async fn mariadb_is_ready_after_a_whole_handshake() {
    let host = Host::new(quick());
    let server = mariadb();
    let asked = instance(CheckKind::Mysql, server.target);
    let key = host.put(asked.clone());
    let standing = host.until_state(&key, State::Ready).await;
    assert_eq!(standing.error.as_deref(), Some("login refused: error 1045"), "{}", server.log());
    host.put(with_login(asked, Some("probe"), "secret"));
    let standing = host.until(&key, |standing| standing.error.is_none()).await.0;
    assert_eq!(standing.state, State::Ready);
    server.signal(Signal::STOP);
    host.until_state(&key, State::Down).await;
}
