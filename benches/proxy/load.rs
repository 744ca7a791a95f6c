//! What goes through: streams in full flow, small requests, connections that are only opened, and idle ones.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const REQUEST: usize = 128;
const PORTION: usize = 256 * 1024;

/// The servers behind all of them, in this process.
pub struct Servers {
    pub echo: SocketAddr,
    pub sink: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Servers {
    pub async fn start() -> Self {
        let mut tasks = JoinSet::new();
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = (echo.local_addr().unwrap(), sink.local_addr().unwrap());
        tasks.spawn(serve(echo, true));
        tasks.spawn(serve(sink, false));
        Self { echo: at.0, sink: at.1, _tasks: tasks }
    }
}

async fn serve(listener: TcpListener, answers: bool) {
    let mut open = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        open.spawn(async move {
            let mut buffer = vec![0; if answers { 4 * REQUEST } else { PORTION }];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if answers && stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        });
        while open.try_join_next().is_some() {}
    }
}

/// So many MB over so many streams.
pub async fn bulk(at: SocketAddr, streams: usize, megabytes: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let portion = vec![7; PORTION];
            let mut left = megabytes * 1_000_000 / streams;
            while left > 0 {
                let size = left.min(PORTION);
                stream.write_all(&portion[..size]).await.unwrap();
                left -= size;
            }
            stream.shutdown().await.unwrap();
            // The other end closes once it has all of it.
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        });
    }
    tasks.join_all().await;
}

/// So many requests, each answered before the next, over so many connections.
pub async fn echoes(at: SocketAddr, connections: usize, requests: usize) {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut buffer = [1; REQUEST];
            for _ in 0..requests / connections {
                stream.write_all(&buffer).await.unwrap();
                stream.read_exact(&mut buffer).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
}

/// So many connections, one after the other: a byte there and back, and a reset, which leaves no port behind.
pub async fn new_connections(at: SocketAddr, number: usize) {
    for _ in 0..number {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_u8().await.unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// So many connections that have been answered once.
pub async fn connections(at: SocketAddr, number: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..number {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_u8().await.unwrap();
        open.push(stream);
    }
    open
}
