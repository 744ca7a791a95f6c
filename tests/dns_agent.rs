//! The agent's DNS as one process: on sockets that were passed to it, and beset by idle streams.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // no runtime here whose threads could be blocked

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(30);
/// What the agent serves, without Docker and etcd.
const WEB: &str = "[[service]]\nname = 'web'\nport = 8080\ncheck = 'none'\n";

/// Two sockets of one port, as a service manager would have bound them.
struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    fn bind() -> Self {
        loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            // The same port may be taken for datagrams.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                return Self { udp, tcp };
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.udp.local_addr().unwrap()
    }
}

/// A running agent, killed when dropped.
struct Agent(Child);

impl Agent {
    /// Starts it on these sockets; a shell puts them where a service manager would.
    fn start(directory: &Path, sockets: &Sockets) -> Self {
        let config = directory.join("wharf.toml");
        fs::write(&config, WEB).unwrap();
        let shell = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let docker = format!("unix://{}", directory.join("no-engine.sock").display());
        let mut command = Command::new("bash");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_wharf"), "agent", "--node", "core-01"]);
        command.args(["--advertise", "192.0.2.10", "--docker", &docker, "--http", "127.0.0.1:0"]);
        command.arg("--state-dir").arg(directory.join("state")).arg("--config").arg(config);
        command
            .env_remove("NOTIFY_SOCKET")
            .envs([("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "wharf.socket:wharf.socket")]);
        command.stdin(OwnedFd::from(sockets.udp.try_clone().unwrap()));
        command.stdout(OwnedFd::from(sockets.tcp.try_clone().unwrap()));
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// Ends it as a service manager would, and waits until it is gone.
    fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap().success());
        let child = &mut self.0;
        let ended = eventually("the agent has ended", || child.try_wait().unwrap());
        assert!(ended.success());
    }

    /// Its memory, in MiB.
    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Its open files, streams included.
    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The question for SRV of web, under a number of its own.
fn question(number: u16) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend(b"\x03web\x08services\x08internal\x00\x00\x21\x00\x01");
    packet
}

/// Whether it is a reply to the question of that number.
fn is_reply(reply: &[u8], number: u16) -> bool {
    reply.len() > 12 && reply[..2] == number.to_be_bytes() && reply[2] & 0x80 != 0
}

/// Whether it is the answer with the one endpoint.
fn is_answer(reply: &[u8], number: u16) -> bool {
    is_reply(reply, number) && reply[3] & 0x0f == 0 && reply[7] == 1
}

fn by_udp(server: SocketAddr, number: u16) -> bool {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.send_to(&question(number), server).unwrap();
    is_answer(&received(&client), number)
}

/// The next datagram, empty when there is none.
fn received(client: &UdpSocket) -> Vec<u8> {
    let mut reply = vec![0; 1_500];
    let length = client.recv(&mut reply).unwrap_or(0);
    reply.truncate(length);
    reply
}

fn write_question(stream: &mut TcpStream, number: u16) {
    let packet = question(number);
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &packet].concat()).unwrap();
}

fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    reply
}

fn by_tcp(server: SocketAddr, number: u16) -> bool {
    let mut stream = TcpStream::connect(server).unwrap();
    write_question(&mut stream, number);
    is_answer(&read_answer(&mut stream), number)
}

#[test]
fn what_waits_in_passed_sockets_is_answered_by_the_next_agent() {
    let (directory, sockets) = (tempfile::tempdir().unwrap(), Sockets::bind());
    let server = sockets.address();
    let agent = Agent::start(directory.path(), &sockets);
    eventually("datagrams are answered", || by_udp(server, 1).then_some(()));
    assert!(by_tcp(server, 2));
    agent.stop();

    let (datagrams, mut stream) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpStream::connect(server).unwrap());
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    datagrams.send_to(&question(3), server).unwrap();
    write_question(&mut stream, 4);
    let agent = Agent::start(directory.path(), &sockets);
    // Asked while no agent ran: its store, in its own memory, goes on from where it was.
    assert!(is_answer(&received(&datagrams), 3) && is_answer(&read_answer(&mut stream), 4));
    for number in 5..50 {
        assert!(by_udp(server, number), "question {number}");
    }
    agent.stop();
}

/// Opens streams from 100 addresses and says nothing: ten thousand, or as many as one process may have.
fn idle_streams(server: SocketAddr) -> Vec<Socket> {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limits.maximum, ..limits };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    let most = limits.maximum.map_or(10_000, |files| files.saturating_sub(200).min(10_000));
    let mut open = Vec::new();
    for number in 0..most {
        let own = Ipv4Addr::new(127, 0, 9, u8::try_from(1 + number % 100).unwrap());
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
        socket.connect(&server.into()).unwrap();
        open.push(socket);
        // An answer says that those before have been accepted: the queue never overflows, which would cost seconds.
        assert!(number % 50 != 0 || by_tcp(server, 5), "others are answered beside {number}");
    }
    open
}

#[test]
fn ten_thousand_idle_streams_cost_themselves() {
    let (directory, sockets) = (tempfile::tempdir().unwrap(), Sockets::bind());
    let server = sockets.address();
    let agent = Agent::start(directory.path(), &sockets);
    eventually("datagrams are answered", || by_udp(server, 1).then_some(()));
    assert!(by_tcp(server, 2));
    let (memory, files) = (agent.memory(), agent.files());
    let idle = idle_streams(server);
    assert!(idle.len() > 5_000, "this process may open {} only", idle.len());
    assert!(by_udp(server, 3) && by_tcp(server, 4));
    let more = agent.memory() - memory;
    assert!(more < 24.0, "{more:.1} MiB more");
    // Streams that must go are told to, and close in their own time.
    eventually("only so many are kept", || (agent.files() <= files + 520).then_some(()));
    assert!(by_udp(server, 6) && by_tcp(server, 7));
    drop(idle);
    eventually("they are gone", || (agent.files() <= files + 2).then_some(()));
    agent.stop();
}
