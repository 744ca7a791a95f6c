//! Listeners that mean no good: none is ever ready for any check but `tcp`, and none hurts its neighbours.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wharf::model::health::standing::State;
use wharf::model::offer::instance::CheckKind;

use crate::harness::{Host, instance, quick, with_login};
use crate::servers::{free_port, memcached};

const KINDS: [CheckKind; 7] = [
    CheckKind::Memcached,
    CheckKind::Redis,
    CheckKind::Postgres,
    CheckKind::Http,
    CheckKind::Zookeeper,
    CheckKind::Mysql,
    CheckKind::Mongodb,
];

#[derive(Clone, Copy, Debug)]
enum Malice {
    Silence,
    Garbage,
    Drip,
    Flood,
    Echo,
    HangUp,
    /// The beginning of what each check hopes for, and then no end.
    Temptation(&'static [u8]),
}

async fn misbehave(mut stream: TcpStream, malice: Malice) -> std::io::Result<()> {
    match malice {
        Malice::Silence => std::future::pending().await,
        Malice::Garbage => stream.write_all(b"\xde\xad\xbe\xef\x00garbage\r\n\r\n\x00\x00\x00\x00").await?,
        Malice::HangUp => return Ok(()),
        Malice::Drip => loop {
            stream.write_all(b"+").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        },
        Malice::Flood => {
            let chunk = vec![b'x'; 64 * 1024];
            for _ in 0..1_600 {
                stream.write_all(&chunk).await?;
            }
        }
        Malice::Echo => {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).await?;
                stream.write_all(&buffer[..read]).await?;
            }
        }
        Malice::Temptation(beginning) => {
            stream.write_all(beginning).await?;
            let chunk = vec![b'0'; 64 * 1024];
            for _ in 0..1_600 {
                stream.write_all(&chunk).await?;
            }
        }
    }
    std::future::pending().await
}

/// Listens with ill will until the set is dropped.
async fn listen(tasks: &mut JoinSet<()>, malice: Malice) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut victims = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            victims.spawn(misbehave(stream, malice));
        }
    });
    target
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_ready_and_neighbours_stay_well() {
    let host = Host::new(quick());
    let mut tasks = JoinSet::new();
    let neighbour = memcached(&[]);
    let well = host.put(instance(CheckKind::Memcached, neighbour.target));
    host.until_state(&well, State::Ready).await;
    let since = host.standing(&well).unwrap().since;
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(5_000).leak();
    let notices = b"N\0\0\0\x04".repeat(5_000).leak();
    let parameters = [&b"R\0\0\0\x08\0\0\0\0"[..], &b"S\0\0\0\x04".repeat(5_000)].concat().leak();
    let tempting: [&[u8]; 12] = [
        interim,
        notices,
        parameters,
        b"VERSION ",
        b"$100000000\r\n",
        b"+PONG\r\n$1000000\r\n",
        b"E\x00\x00\x70\x00SFATAL\x00C28000\x00",
        b"R\x00\x00\x00\x08\x00\x00\x00\x00",
        b"HTTP/1.1 200 OK\r\nX-Endless: ",
        b"Zookeeper version: 3.8.0\n",
        b"\x00\x3f\x00\x00\x0a8.0\x00",
        b"\x00\x80\x00\x00\x07\x00\x00\x00frawaf",
    ];
    let mut malices = vec![Malice::Silence, Malice::Garbage, Malice::Drip, Malice::Flood, Malice::Echo, Malice::HangUp];
    malices.extend(tempting.map(Malice::Temptation));
    let mut bad = Vec::new();
    let before = peak_memory();
    for malice in malices {
        for kind in KINDS {
            let target = listen(&mut tasks, malice).await;
            let plain = instance(kind, target);
            bad.push((malice, kind, host.put(with_login(plain, Some("user"), "s3cret-of-the-probe"))));
        }
    }
    let mut standings = host.standings.clone();
    let watching = async {
        loop {
            standings.changed().await.unwrap();
            let now = standings.borrow_and_update().clone();
            for (malice, kind, key) in &bad {
                let Some(standing) = now.get(key) else { continue };
                assert!(!standing.state.serves(), "{kind} believed {malice:?}: {standing:?}");
                let words = standing.error.as_deref().unwrap_or_default();
                assert!(!words.contains("s3cret"), "{kind} told its secret to {malice:?}: {words}");
                assert!(words.len() < 300, "{words}");
            }
            assert_eq!(now[&well].state, State::Ready);
            assert_eq!(now[&well].since, since);
        }
    };
    tokio::time::timeout(Duration::from_secs(6), watching).await.unwrap_err();
    for (malice, kind, key) in &bad {
        assert!(host.standing(key).is_some(), "{kind} that met {malice:?} is there");
        host.until(key, |standing| standing.error.is_some()).await;
    }
    let grown = peak_memory() - before;
    assert!(grown < 150, "{grown} MB for {} listeners", bad.len());
}

#[tokio::test]
async fn the_tcp_check_is_content_with_a_connection() {
    let host = Host::new(quick());
    let mut tasks = JoinSet::new();
    for malice in [Malice::Silence, Malice::Garbage, Malice::Flood, Malice::Drip] {
        let target = listen(&mut tasks, malice).await;
        host.until_state(&host.put(instance(CheckKind::Tcp, target)), State::Ready).await;
    }
}

#[tokio::test]
async fn the_tcp_check_wants_the_connection_to_stay() {
    let host = Host::new(quick());
    let mut tasks = JoinSet::new();
    let closing = listen(&mut tasks, Malice::HangUp).await;
    let key = host.put(instance(CheckKind::Tcp, closing));
    let standing = host.until(&key, |standing| standing.error.is_some()).await.0;
    assert_eq!(standing.error.as_deref(), Some("closed the connection before answering"));
    host.never_serves(&key, Duration::from_secs(1)).await;
    let nobody = host.put(instance(CheckKind::Tcp, free_port()));
    let standing = host.until(&nobody, |standing| standing.error.is_some()).await.0;
    assert!(standing.error.unwrap().starts_with("cannot connect"));
}

#[tokio::test]
async fn http_is_ready_by_status() {
    let host = Host::new(quick());
    for (head, expected) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", None),
        ("HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n", None),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        ("HTTP/1.1 500 Oops\r\n\r\n", Some("HTTP status 500")),
        ("HTTP/1.1 404 Not Found\r\n\r\n", Some("HTTP status 404")),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{request}");
                stream.write_all(head.as_bytes()).await.ok();
            }
        });
        let mut asked = instance(CheckKind::Http, target);
        asked.check.detail.path = Some("/healthz?x=1".into());
        let key = host.put(asked);
        match expected {
            None => drop(host.until_state(&key, State::Ready).await),
            Some(error) => {
                let standing = host.until(&key, |standing| standing.error.as_deref() == Some(error)).await.0;
                assert_eq!(standing.state, State::Starting);
            }
        }
    }
}
