//! What an attacker or bad luck tries, and who must not notice.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use crate::town::{Client, Server, Town, is_greeted, own_address};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_connect_is_reset_and_counted() {
    let town = Town::new("service = 'db'\nallow = ['127.0.0.1']");
    let a = Server::start("a").await;
    town.put(&a, "");
    town.leads_to(&a);
    Client::is_refused([127, 0, 0, 2], town.at).await;
    assert_eq!(town.told("db")["refused"], 1);
    let mut client = Client::open_from([127, 0, 0, 1], town.at).await;
    assert_eq!(client.line().await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_client_makes_room_for_others_and_keeps_the_rest() {
    let town = Town::new("service = 'db'\nmax-connections = 8");
    let a = Server::start("a").await;
    town.put(&a, "");
    town.leads_to(&a);
    let mut greedy = Vec::new();
    for _ in 0..8 {
        let mut client = Client::open_from([127, 0, 0, 2], town.at).await;
        assert_eq!(client.line().await.unwrap(), "a");
        greedy.push(client);
    }
    Client::is_refused([127, 0, 0, 2], town.at).await;
    let mut others = Vec::new();
    for place in 3..6 {
        let mut client = Client::open_from([127, 0, 0, place], town.at).await;
        assert_eq!(client.line().await.unwrap(), "a", "a newcomer is served");
        others.push(client);
    }
    let mut left = 0;
    for client in &mut greedy {
        left += usize::from(client.echoes().await);
    }
    assert_eq!(left, 5, "one place for each newcomer");
    for client in &mut others {
        assert!(client.echoes().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_stops_its_own_server_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let town = Town::new(&format!("upstream = '{}'", listener.local_addr().unwrap()));
    let stuck = TcpSocket::new_v4().unwrap();
    stuck.set_recv_buffer_size(4096).unwrap();
    let _stuck = stuck.connect(town.at).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let mut written = 0;
    // It stops taking once every buffer on the way is full.
    while let Ok(done) = tokio::time::timeout(Duration::from_secs(1), server.writable()).await {
        done.unwrap();
        match server.try_write(&[7; 65536]) {
            Ok(bytes) => written += bytes,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        assert!(written < 64 * 1024 * 1024, "what nobody reads is not hoarded");
    }
    let mut client = Client::open(town.at).await;
    let (mut other, _) = listener.accept().await.unwrap();
    other.write_all(b"hello\n").await.unwrap();
    assert_eq!(client.line().await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_take_connections_costs_a_second() {
    let town = Town::new("service = 'db'\nbalance = 'first'");
    // The queue of one that never accepts is filled: the next connection is not answered.
    let at = own_address();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(at).unwrap();
    let _deaf = socket.listen(1).unwrap();
    let mut queue = Vec::new();
    while let Ok(client) = tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(at)).await {
        queue.push(client.unwrap());
    }
    let b = Server::start("b").await;
    town.put_at("a", at, "");
    town.put(&b, "");
    town.until("target", &format!("{at}, {}", b.at).into());
    let begun = Instant::now();
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "b");
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(town.client().await.line().await.unwrap(), "b");
    assert!(begun.elapsed() < Duration::from_millis(900), "what has just failed comes last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_waits_is_bounded_and_keeps_nobody_else_out() {
    let town = Town::new("service = 'db'\nwait = '60s'");
    let mut crowd = Vec::new();
    for _ in 0..1_100 {
        crowd.push(Client::open_from([127, 0, 0, 2], town.at).await);
    }
    town.until("parked", &1_024.into());
    let mut other = Client::open_from([127, 0, 0, 3], town.at).await;
    town.until("refused", &(1_100 - 1_024 + 1).into());
    let a = Server::start("a").await;
    town.put(&a, "");
    assert_eq!(other.line().await.unwrap(), "a");
    town.until("parked", &0.into());
    town.until("connections", &1_024.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lack_of_descriptors_ends_with_those_who_had_them() {
    let town = Town::new("service = 'db'");
    let a = Server::start("a").await;
    town.put(&a, "");
    town.leads_to(&a);
    let mut old = Client::open_from([127, 0, 0, 3], town.at).await;
    assert_eq!(old.line().await.unwrap(), "a");
    let pid = rustix::process::Pid::from_raw(town.agent.pid() as i32).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", town.agent.pid())).unwrap().count() as u64;
    let limit = rustix::process::Rlimit { current: Some(open + 20), maximum: Some(4_096) };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit).unwrap();
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.extend(Client::try_from([127, 0, 0, 2], town.at).await);
    }
    town.agent.until("it says what is missing", |agent| agent.log().contains("cannot be accepted"));
    drop(crowd);
    town.agent.until("a client is served again", |_| is_greeted(town.at, "a"));
    assert!(old.echoes().await, "who has one connection gives none up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_while_it_waits_is_forgotten() {
    let town = Town::new("service = 'db'\nwait = '60s'");
    let client = town.client().await;
    town.until("parked", &1.into());
    socket2::SockRef::from(client.stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    town.until("parked", &0.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_another_program_has_is_said_and_taken_once_it_is_free() {
    let at = own_address();
    let holder = TcpListener::bind(at).await.unwrap();
    let table = format!("[[proxy]]\nname = 'db'\nlisten = '{at}'\nservice = 'db'\n");
    let town = Town::with(at, &table);
    let a = Server::start("a").await;
    town.put(&a, "");
    town.agent.until("it says so", |_| town.told("db")["reason"].as_str().unwrap_or("").contains("cannot listen on"));
    drop(holder);
    town.until("listen", &serde_json::json!([at.to_string()]));
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "a");
    let mut nothing = [0];
    let silent = tokio::time::timeout(Duration::from_millis(50), client.stream.read(&mut nothing)).await;
    assert!(silent.is_err(), "and it stays open");
}
