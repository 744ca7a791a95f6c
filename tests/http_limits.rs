//! What a hostile or broken client cannot do.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use std::time::Duration;

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
