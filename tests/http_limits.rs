//! What a hostile or broken client cannot do: to itself, to others, to the agent.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use std::time::{Duration, Instant};

use side::{Options, Side, send_unix};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_giant_head_is_refused() {
    let side = Side::start().await;
    let reply = side.send(&format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024))).await;
    assert!(reply.status == 431 || reply.status == 0, "{}", reply.status); // refused, or cut off while still sending
    assert_eq!(side.get("/healthz").await.status, 200);
    side.stop().await;
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let side = Side::start().await;
    for nonsense in ["\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n"] {
        assert!(matches!(side.send(nonsense).await.status, 400 | 0), "{nonsense:?}");
    }
    assert_eq!(side.get("/healthz").await.status, 200);
    side.stop().await;
}

#[tokio::test]
async fn idle_clients_hold_neither_the_socket_nor_for_ever_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock");
    let side = Side::start_with(Options { socket: Some(socket.clone()), ..Options::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..256 {
        let mut stream = TcpStream::connect(side.address).await.unwrap();
        stream.write_all(b"GET /healthz HT").await.unwrap();
        idle.push(stream);
    }
    // The unix socket has places of its own.
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(send_unix(&socket, request).await.status, 200);
    // Over TCP the next one is served once the idle ones have had their time.
    assert_eq!(side.get("/healthz").await.status, 200);
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), idle[0].read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "an idle client is let go");
    side.stop().await;
}

#[tokio::test]
async fn clients_under_way_do_not_hinder_the_stop() {
    let side = Side::start().await;
    let mut events = side.events("/v1/watch", None).await;
    assert!(events.next().await.is_some());
    let mut half = TcpStream::connect(side.address).await.unwrap();
    half.write_all(b"POST /v1/drain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nx").await.unwrap();
    side.stop().await; // panics unless it ends in time
}

/// Two peers: one means harm, the other asks as always.
const CROWD: [u8; 4] = [127, 0, 0, 3];
const NEIGHBOUR: [u8; 4] = [127, 0, 0, 2];
/// What no input of one client costs another one.
const AT_MOST: Duration = Duration::from_secs(1);

/// The slowest of a neighbour's questions while `harm` is done to the agent, and of the agent's own.
async fn slowest_beside(side: &Side, path: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let begun = Instant::now();
        assert_eq!(side.get_from(NEIGHBOUR, path).await.status, 200);
        slowest = slowest.max(begun.elapsed());
        let begun = Instant::now();
        let mut inside = side.door.enter().await.expect("it serves");
        inside.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut status = [0; 15];
        inside.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 OK");
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

/// `count` connections of the crowd that have sent these bytes.
async fn crowd(side: &Side, count: usize, bytes: &str) -> Vec<TcpStream> {
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = side.connect_from(CROWD).await;
        let _ = stream.write_all(bytes.as_bytes()).await; // it may have had to make room already
        crowd.push(stream);
    }
    crowd
}

/// A catalog with this many endpoints, each under a service of its own.
fn fill(side: &mut Side, count: u32) {
    for number in 0..count {
        let value = format!(
            r#"{{"host":"10.{}.{}.{}","port":80,"tags":["{number}"]}}"#,
            number >> 16,
            number >> 8 & 255,
            number & 255
        );
        let key = format!("/services/web-{number}/one");
        side.catalog.put(&key, value.as_bytes(), 1, i64::from(number) + 1).unwrap();
    }
    side.show();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_hundred_slow_clients_keep_nobody_waiting() {
    for (what, bytes) in [
        ("nothing", ""),
        ("half a head", "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "),
        ("half a body", "POST /v1/drain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nx"),
        ("many questions", &"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(50)),
    ] {
        let side = Side::start().await;
        let held = crowd(&side, 1_200, bytes).await;
        let slowest = slowest_beside(&side, "/healthz").await;
        assert!(slowest < AT_MOST, "{what}: {slowest:?}");
        drop(held);
        side.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_ask_for_what_is_costly_keep_nobody_waiting() {
    let mut side = Side::start().await;
    fill(&mut side, 5_000); // as many as near names are looked for among
    let long = format!("/v1/services/{}", "web-".repeat(3_000));
    for path in
        ["/v1/services/wob-0000", &long, "/sd/prometheus", "/v1/services", "/metrics", "/v1/watch?changes=endpoints"]
    {
        let ask = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        let held = crowd(&side, 300, &ask).await;
        let slowest = slowest_beside(&side, "/healthz").await;
        assert!(slowest < AT_MOST, "{path}: {slowest:?}");
        let begun = Instant::now();
        assert_eq!(side.get_from(NEIGHBOUR, "/v1/services/web-7").await.status, 200);
        assert!(begun.elapsed() < AT_MOST, "{path}: {:?} for one service", begun.elapsed());
        drop(held);
    }
    side.stop().await;
}

#[tokio::test]
async fn watchers_of_one_peer_leave_places_for_another() {
    let side = Side::start().await;
    let watch = |version: &str| format!("GET /v1/watch HTTP/1.{version}\r\nHost: 127.0.0.1\r\n\r\n");
    let mut crowd = crowd(&side, 64, &watch("1")).await;
    for stream in &mut crowd {
        let mut status = [0; 15];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 OK");
    }
    let one_more = side.get_from(CROWD, "/v1/watch").await;
    assert_eq!(one_more.status, 503, "they would push each other out: {one_more:?}");
    let mut neighbour = side.connect_from(NEIGHBOUR).await;
    neighbour.write_all(watch("1").as_bytes()).await.unwrap();
    let mut status = [0; 15];
    neighbour.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    side.stop().await;
}

#[tokio::test]
async fn a_reader_that_stalls_makes_room_for_the_next() {
    let mut side = Side::start().await;
    fill(&mut side, 20_000); // more than the buffers between two sockets hold
    let stalled = crowd(&side, 40, "GET /v1/services HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    for source in [NEIGHBOUR, CROWD] {
        let reply = side.get_from(source, "/sd/prometheus").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json().as_array().unwrap().len(), 20_000, "whole, for whoever reads");
    }
    drop(stalled);
    side.stop().await;
}
