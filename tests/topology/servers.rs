//! Real Redis servers on loopback, started frozen as the units start them, with an append-only file each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wharf::model::steer::roster::{Listed, Roster};
use wharf::model::words::record::Role;

/// One server, whether it runs or not.
pub struct Server {
    pub name: String,
    pub port: u16,
    program: PathBuf,
    directory: tempfile::TempDir,
    more: Vec<String>,
    /// What it asks of its clients.
    password: Option<String>,
    child: Option<Child>,
}

/// One that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    pub fn start(program: &str, name: &str) -> Self {
        Self::start_with(program, name, &[])
    }

    /// One with further settings.
    pub fn start_with(program: &str, name: &str, more: &[&str]) -> Self {
        let port = free_port();
        let directory = tempfile::tempdir().unwrap();
        let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        let asks = more.iter().position(|word| word == "--requirepass");
        let password = asks.map(|at| more[at + 1].clone());
        let (name, program) = (name.to_owned(), program.into());
        let mut server = Self { name, port, program, directory, more, password, child: None };
        server.up();
        server
    }

    /// Starts it, frozen.
    pub fn up(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--dir", self.directory.path().to_str().unwrap(), "--repl-diskless-sync-delay", "0"]);
        // With `everysec`, one that is killed while the disk is busy loses what it has acknowledged.
        command.args(["--appendfsync", "always"]);
        command.args(["--replicaof", "127.87.0.0", "1", "--daemonize", "no"]).args(&self.more);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(self.address()).is_err() {
            assert!(Instant::now() < until, "{} does not listen", self.name);
            std::thread::yield_now();
        }
    }

    /// Kills it.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it where it stands, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub async fn ask(&self, words: &[&str]) -> String {
        match self.try_ask(words).await {
            // A switch closes clients; who only looks looks again.
            Err(_) if words[0] == "INFO" => self.try_ask(words).await.unwrap(),
            told => told.unwrap(),
        }
    }

    async fn try_ask(&self, words: &[&str]) -> std::io::Result<String> {
        let mut client = Client::open(self.address()).await?;
        if let Some(password) = &self.password {
            assert_eq!(client.ask(&["AUTH", password]).await?, "+OK");
        }
        client.ask(words).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

/// The registry's word on servers, which is where they are and nothing else.
pub fn roster(servers: &[&Server]) -> Roster {
    let listed = |server: &&Server| {
        let (name, host, port) = (server.name.clone(), IpAddr::from(Ipv4Addr::LOCALHOST), server.port);
        // Without agents there is no role; whether a host has rebooted is known here: it has not.
        (name.clone(), Listed { name, node: String::new(), host, port, role: None::<Role>, agent: Some(1) })
    };
    Roster(servers.iter().map(listed).collect())
}

/// A client that speaks just enough.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn open(at: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![] })
    }

    /// The reply as it is on the wire: one line, or one text.
    pub async fn ask(&mut self, words: &[&str]) -> std::io::Result<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.write_all(request.as_bytes()).await?;
        loop {
            if let Some((reply, length)) = whole(&self.buffer) {
                self.buffer.drain(..length);
                return Ok(reply);
            }
            let read = timeout(Duration::from_secs(15), self.stream.read_buf(&mut self.buffer)).await;
            if read.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A reply: of an array, its texts, one a line.
fn whole(buffer: &[u8]) -> Option<(String, usize)> {
    let end = buffer.windows(2).position(|pair| pair == b"\r\n")?;
    let head = std::str::from_utf8(&buffer[..end]).unwrap().to_owned();
    let (mut at, count) = (end + 2, head[1..].parse::<i64>().unwrap_or(0));
    match head.as_bytes()[0] {
        b'$' if count >= 0 => {
            let body = buffer.get(at..at + count as usize)?;
            buffer.get(at + count as usize + 1)?;
            Some((String::from_utf8_lossy(body).into_owned(), at + count as usize + 2))
        }
        b'*' => {
            let mut texts = vec![];
            for _ in 0..count.max(0) {
                let (text, length) = whole(&buffer[at..])?;
                texts.push(text);
                at += length;
            }
            Some((texts.join("\n"), at))
        }
        _ => Some((head, at)),
    }
}
