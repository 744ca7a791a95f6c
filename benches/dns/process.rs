//! A server in a process of its own, and what the operating system says of it.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::kit;

/// A running server, ended when dropped.
pub(crate) struct Child {
    child: std::process::Child,
    pub(crate) port: u16,
    talk: RefCell<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    _directory: Option<tempfile::TempDir>,
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Child {
    /// This program as a server; it says its port when it is ready.
    pub(crate) fn serve(args: &[&str]) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .arg("--serve")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Self::of(child, 0, None);
        child.port = child.line().parse().unwrap();
        child
    }

    pub(crate) fn of(mut child: std::process::Child, port: u16, directory: Option<tempfile::TempDir>) -> Self {
        let talk = child.stdin.take().zip(child.stdout.take().map(BufReader::new));
        Self { child, port, talk: RefCell::new(talk), _directory: directory }
    }

    /// Bids it do something; what it says when it is done.
    pub(crate) fn ask(&self, what: &str) -> String {
        if let Some((stdin, _)) = self.talk.borrow_mut().as_mut() {
            writeln!(stdin, "{what}").unwrap();
        }
        self.line()
    }

    /// Changes a record: microseconds until it is seen, and those of CPU that the server used meanwhile.
    pub(crate) fn change(&self) -> (f64, f64) {
        let said = self.ask("change");
        let (time, work) = said.split_once(' ').unwrap();
        (time.parse().unwrap(), work.parse().unwrap())
    }

    fn line(&self) -> String {
        let mut line = String::new();
        let mut talk = self.talk.borrow_mut();
        talk.as_mut().unwrap().1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// CPU time used so far, of user and system.
    pub(crate) fn cpu(&self) -> Duration {
        kit::cpu_of(self.child.id())
    }

    /// A line of `/proc/PID/status`, in MB.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        kit::memory_of(self.child.id(), name)
    }

    /// Lets `VmHWM` begin anew.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a name has an answer.
pub(crate) fn wait_until_answered(port: u16, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let packet = super::load::packet(name, 33);
    let mut buffer = [0; 1_500];
    loop {
        let _ = socket.send_to(&packet, ("127.0.0.1", port));
        if socket.recv(&mut buffer).is_ok_and(|length| length > 12 && buffer[7] > 0) {
            return;
        }
        assert!(Instant::now() < deadline, "no answer on port {port}");
    }
}
