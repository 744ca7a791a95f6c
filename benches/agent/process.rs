//! An agent with the sockets that a service manager would hand it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Sockets for DNS that outlive every agent.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    pub fn bind() -> Self {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            // Mostly the number is free for TCP, too.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                return Self { udp, tcp };
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.udp.local_addr().unwrap()
    }
}

/// A running agent; killed with its handle.
pub struct Agent(Child);

impl Agent {
    /// Starts one as `node`. Its log is in `directory`.
    pub fn start(node: &str, sockets: &Sockets, docker: &Path, etcd: &str, directory: &Path) -> Self {
        // As systemd does it: from descriptor 3 on, and the process is told that they are meant for it.
        let shell = "exec 3<&0 4<&1 0</dev/null 1>&2; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
        let child = Command::new("sh")
            .args(["-c", shell, env!("CARGO_BIN_EXE_wharf"), "agent", "--node", node, "--advertise", "10.0.0.1"])
            .arg("--docker")
            .arg(format!("unix://{}", docker.display()))
            .args(["--etcd-endpoints", etcd, "--http", "127.0.0.1:0", "--state-dir"])
            .arg(directory.join("state"))
            .arg("--http-socket")
            .arg(directory.join("http.sock"))
            .env("LISTEN_FDS", "2")
            .stdin(Stdio::from(OwnedFd::from(sockets.udp.try_clone().unwrap())))
            .stdout(Stdio::from(OwnedFd::from(sockets.tcp.try_clone().unwrap())))
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        // It may have ended by itself, which the figures will tell.
        self.0.kill().ok();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
