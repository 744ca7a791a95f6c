//! What goes through comes out: every byte once and in order, each end in its place, and nothing when nothing moves.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::town::{Client, PATIENCE, Server, Town};

/// So much is in full flow, whatever sizes it comes in.
const MUCH: usize = 64 * 1024 * 1024;

async fn upstream() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, format!("upstream = '{at}'"))
}

/// Sends portions of a size that changes, and the digest of all.
async fn send(mut to: impl AsyncWriteExt + Unpin, seed: u64) -> Vec<u8> {
    let (mut state, mut sum, mut sent) = (seed | 1, Sha256::new(), 0);
    while sent < MUCH {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = [100, 16 * 1024, 300_000, 1][(state >> 60) as usize % 4];
        let portion: Vec<u8> = (0..size).map(|place| (state >> (place % 48)) as u8).collect();
        sum.update(&portion);
        to.write_all(&portion).await.unwrap();
        sent += size;
    }
    to.shutdown().await.unwrap();
    sum.finalize().to_vec()
}

async fn receive(mut from: impl AsyncReadExt + Unpin) -> Vec<u8> {
    let (mut sum, mut buffer) = (Sha256::new(), vec![0; 100_000]);
    loop {
        match timeout(PATIENCE, from.read(&mut buffer)).await.expect("it goes on").unwrap() {
            0 => return sum.finalize().to_vec(),
            read => sum.update(&buffer[..read]),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_comes_over_in_both_directions_at_once_and_the_ends_after_them() {
    let (listener, to) = upstream().await;
    let town = Town::new(&to);
    let seed = rand::random();
    eprintln!("seed {seed}");
    let client = TcpStream::connect(town.at).await.unwrap();
    let (server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let all = tokio::join!(
        tokio::spawn(send(client_out, seed)),
        tokio::spawn(receive(server_in)),
        tokio::spawn(send(server_out, seed + 2)),
        tokio::spawn(receive(client_in)),
    );
    assert_eq!(all.0.unwrap(), all.1.unwrap());
    assert_eq!(all.2.unwrap(), all.3.unwrap());
    town.until("connections", &0.into());
    assert!(town.told("db")["bytes"].as_u64().unwrap() >= 2 * MUCH as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_in_one_direction_leaves_the_other_and_an_error_ends_both() {
    let (listener, to) = upstream().await;
    let town = Town::new(&to);
    let mut client = TcpStream::connect(town.at).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut asked = String::new();
    server.read_to_string(&mut asked).await.unwrap();
    assert_eq!(asked, "question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");

    let mut client = Client::open(town.at).await;
    let (mut server, _) = listener.accept().await.unwrap();
    // A server that resets before a byte went over would only be tried again.
    client.stream.get_mut().write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    client.is_reset().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_told_whose_connection_it_is() {
    for (version, expected) in
        [("v1", "PROXY TCP4 127.0.0.9 "), ("v2", "\r\n\r\n\0\r\nQUIT\n!\u{11}\0\u{c}\u{7f}\0\0\u{9}")]
    {
        let (listener, to) = upstream().await;
        let town = Town::new(&format!("{to}\nsend-proxy = '{version}'"));
        let mut client = Client::open_from([127, 0, 0, 9], town.at).await;
        client.stream.get_mut().write_all(b"hello").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut head = vec![0; expected.len()];
        server.read_exact(&mut head).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&head), expected);
        drop(client);
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"hello"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_nothing_moves_is_let_go() {
    let town = Town::new("service = 'db'\ntimeout = '1s'");
    let a = Server::start("a").await;
    town.put(&a, "");
    town.leads_to(&a);
    let (mut busy, mut idle) = (town.client().await, town.client().await);
    assert_eq!((busy.line().await.unwrap(), idle.line().await.unwrap()), ("a".into(), "a".into()));
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert!(busy.echoes().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    idle.is_reset().await;
    assert!(busy.echoes().await);
}
