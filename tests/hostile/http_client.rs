//! Whoever may ask HTTP: slow, greedy, many, never reading.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::town::{Charter, FAIR, Town};

const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A connection to the town from this address, with these bytes sent.
fn client(town: &Town, from: Ipv4Addr, bytes: &[u8]) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&town.http.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let _ = stream.write_all(bytes); // it may have had to make room already
    stream
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// How long a neighbour waits for the first bytes of an answer.
fn waits(town: &Town, path: &str) -> Duration {
    let begun = Instant::now();
    let mut status = [0; 12];
    client(town, NEIGHBOUR, &request(path)).read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200", "{path}");
    begun.elapsed()
}

/// What a neighbour notices while a crowd of so many has sent this and reads nothing.
fn check(town: &Town, what: &str, count: usize, bytes: &[u8]) {
    let crowd: Vec<TcpStream> = (0..count).map(|_| client(town, CROWD, bytes)).collect();
    for path in ["/healthz", "/v1/services", "/v1/services/neighbour-0"] {
        let waited = waits(town, path);
        assert!(waited <= FAIR, "{what}: {waited:?} for {path}\n{}", town.said());
    }
    town.neighbours_are_offered();
    town.beats_never_missed();
    drop(crowd);
}

#[test]
fn slow_and_silent_clients_cost_nobody_a_second() {
    let town = Town::found_with(&Charter { etcd: true, ..Charter::default() });
    check(&town, "silent", 1_200, b"");
    check(&town, "slow heads", 1_200, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ");
    check(&town, "slow bodies", 300, b"POST /v1/drain HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 10\r\n\r\nx");
    check(&town, "huge heads", 300, format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(200_000)).as_bytes());
    check(&town, "pipelines", 300, &request("/readyz").repeat(200));
    check(
        &town,
        "wrong hosts",
        300,
        &b"GET /v1/services HTTP/1.1\r\nHost: evil.example\r\nOrigin: null\r\n\r\n".repeat(50),
    );
    assert!(town.metric("wharf_http_connections_evicted_total") > 1_000.0);
    assert!(town.metric("wharf_http_connections") < 300.0);
}

#[test]
fn costly_questions_cost_nobody_a_second() {
    let town = Town::found_with(&Charter { etcd: true, ..Charter::default() });
    let long = format!("/v1/services/{}", "near.".repeat(3_000));
    for path in ["/v1/services/nieghbour-0", long.as_str(), "/sd/prometheus", "/metrics", "/v1/local", "/v1/nodes"] {
        check(&town, path, 300, &request(path).repeat(20));
    }
    check(&town, "watchers", 300, &request("/v1/watch?changes=endpoints&with=local,nodes"));
    check(&town, "watchers of one service", 300, &request("/v1/watch?service=neighbour-0"));
    assert_eq!(town.metric("wharf_http_panics_total"), 0.0);
}
