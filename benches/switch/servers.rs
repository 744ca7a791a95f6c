//! Three real servers on loopback, and a client that speaks just enough.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Process {
    child: Child,
    pub port: u16,
    _directory: tempfile::TempDir,
}

impl Process {
    /// A server with these settings, as lines of its file.
    pub fn start(program: &str, port: u16, option: Option<&str>, lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("server.conf");
        std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\n{lines}")).unwrap();
        let mut command = Command::new(program);
        command.arg(&file).args(option).current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let own = Self { child: command.spawn().unwrap(), port, _directory: directory };
        until("a server listens", || Client::open(port).is_ok());
        own
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Debug)]
pub struct Trio {
    pub servers: [Process; 3],
}

impl Trio {
    /// Servers that start frozen, for one who gives them a master; or the first of them is master already.
    pub fn start(program: &str, is_frozen: bool) -> Self {
        let ports = [(); 3].map(|()| free_port());
        let common = "save \"\"\nappendonly yes\nrepl-diskless-sync-delay 0\n";
        let start = |at: usize| {
            let follows = match (is_frozen, at) {
                (true, _) => "replicaof 127.87.0.0 1\n".to_owned(),
                (false, 0) => String::new(),
                (false, _) => format!("replicaof 127.0.0.1 {}\n", ports[0]),
            };
            Process::start(program, ports[at], None, &format!("{common}{follows}"))
        };
        Self { servers: [start(0), start(1), start(2)] }
    }

    pub fn ports(&self) -> [u16; 3] {
        self.servers.each_ref().map(|server| server.port)
    }

    pub fn info(&self, at: usize, section: &str) -> String {
        ask(self.servers[at].port, &["INFO", section])
    }

    /// The one that says so.
    pub fn master(&self) -> usize {
        let is_master = |at: &usize| self.info(*at, "replication").contains("role:master");
        (0..3).find(is_master).expect("one is master")
    }

    /// Until one is master and the others have their link to it.
    pub fn all_follow(&self) {
        until("all follow one master", || {
            let told: Vec<String> = (0..3).map(|at| self.info(at, "replication")).collect();
            let Some(master) = told.iter().position(|info| info.contains("role:master")) else { return false };
            let at = format!("master_port:{}\r", self.servers[master].port);
            let follows = |info: &String| info.contains("master_link_status:up") && info.contains(&at);
            told.iter().enumerate().all(|(index, info)| index == master || follows(info))
        });
    }

    pub fn full_syncs(&self) -> usize {
        let of = |at| number(&self.info(at, "stats"), "sync_full:") as usize;
        (0..3).map(of).sum()
    }

    /// What the master has.
    pub fn log(&self) -> HashSet<u64> {
        let told = ask(self.servers[self.master()].port, &["LRANGE", "log", "0", "-1"]);
        told.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// A field of INFO.
pub fn number(info: &str, field: &str) -> u64 {
    info.lines().find_map(|line| line.strip_prefix(field)).and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

pub fn ask(port: u16, words: &[&str]) -> String {
    Client::open(port).and_then(|mut client| client.ask(words)).unwrap_or_default()
}

#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The reply: a line as it is, a text, or the texts of an array, one a line.
    pub fn ask(&mut self, words: &[&str]) -> std::io::Result<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        self.hear()
    }

    fn hear(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        let line = line.trim_end();
        let count: i64 = line.get(1..).and_then(|count| count.parse().ok()).unwrap_or(-1);
        match line.as_bytes().first() {
            Some(b'$') if count >= 0 => {
                let mut text = vec![0; count as usize + 2];
                self.0.read_exact(&mut text)?;
                text.truncate(count as usize);
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            Some(b'*') => {
                let texts: std::io::Result<Vec<String>> = (0..count.max(0)).map(|_| self.hear()).collect();
                Ok(texts?.join("\n"))
            }
            _ => Ok(line.to_owned()),
        }
    }
}
