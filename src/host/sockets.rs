//! Sockets that the service manager has bound for us (systemd's socket activation).
//!
//! Queries that come while no agent runs wait in these sockets, so a restart or an upgrade loses none. What a socket
//! is for is told by its name (`FileDescriptorName=http`) and its type, never by its place in the list: the order of
//! `Listen…=` lines is the administrator's. Call [`passed`] once, before the first thread: it takes the variables out
//! of the environment.

use std::env;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use super::fdstore;

/// The name that marks sockets for HTTP; all others but what a process before has left are for DNS.
const HTTP: &str = "http";

/// What has been handed over, ready for an event loop (non-blocking).
#[derive(Debug, Default)]
pub struct Passed {
    /// For DNS over UDP.
    pub udp: Vec<UdpSocket>,
    /// For DNS over TCP, listening.
    pub tcp: Vec<TcpListener>,
    /// For HTTP over TCP, listening.
    pub http: Vec<TcpListener>,
    /// For HTTP on unix sockets, listening.
    pub http_unix: Vec<UnixListener>,
    /// What the process before has left.
    pub left: Vec<OwnedFd>,
    /// What cannot be used, in words.
    pub unusable: Vec<String>,
}

impl Passed {
    /// DNS is answered on what was handed over, and nowhere else.
    pub fn serves_dns(&self) -> bool {
        !self.udp.is_empty() || !self.tcp.is_empty()
    }

    /// The addresses that DNS will be answered on, UDP before TCP.
    pub fn dns_addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().filter_map(|socket| socket.local_addr().ok());
        udp.chain(self.tcp.iter().filter_map(|listener| listener.local_addr().ok())).collect()
    }
}

/// Takes over what the service manager passed; empty without one.
pub fn passed() -> Passed {
    let names = env::var("LISTEN_FDNAMES").ok();
    sort(&mut ListenFd::from_env(), names.as_deref())
}

fn sort(fds: &mut ListenFd, names: Option<&str>) -> Passed {
    let names: Vec<&str> = names.map(|names| names.split(':').collect()).unwrap_or_default();
    let mut passed = Passed::default();
    for index in 0..fds.len() {
        let name = names.get(index).copied().unwrap_or_default();
        let taken = if name == fdstore::NAME {
            fds.take_unix_listener(index).map(|left| passed.left.extend(left.map(OwnedFd::from)))
        } else {
            take(fds, index, name == HTTP, &mut passed)
        };
        if let Err(problem) = taken {
            passed.unusable.push(format!("passed socket {index} ({name:?}): {problem}"));
        }
    }
    passed
}

/// Each attempt leaves a descriptor of another type where it is.
fn take(fds: &mut ListenFd, index: usize, http: bool, into: &mut Passed) -> std::io::Result<()> {
    if let Ok(Some(listener)) = fds.take_tcp_listener(index) {
        listener.set_nonblocking(true)?;
        let list = if http { &mut into.http } else { &mut into.tcp };
        list.push(listener);
        return Ok(());
    }
    if http {
        let listener = fds.take_unix_listener(index)?;
        return listener.map_or(Ok(()), |listener| {
            listener.set_nonblocking(true)?;
            into.http_unix.push(listener);
            Ok(())
        });
    }
    match fds.take_udp_socket(index)? {
        Some(socket) => {
            socket.set_nonblocking(true)?;
            into.udp.push(socket);
            Ok(())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::Command;

    use super::*;

    const CHILD: &str = "WHARF_TEST_SOCKETS_CHILD";

    #[test]
    fn without_a_service_manager_nothing_is_passed() {
        let passed = sort(&mut ListenFd::empty(), None);
        assert!(!passed.serves_dns() && passed.http.is_empty() && passed.unusable.is_empty());
    }

    /// Runs itself once more as the child that is handed the sockets; a shell puts them where systemd would.
    #[test]
    fn sockets_are_told_apart_by_name_and_type() {
        if std::env::var_os(CHILD).is_some() {
            report(&passed());
            return;
        }
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = [udp.local_addr().unwrap(), tcp.local_addr().unwrap()];
        let shell = "exec 3<&0 4<&2 5</dev/null 6<&2 2>/dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let output = Command::new("bash")
            .args(["-c", shell])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "host::sockets::tests::sockets_are_told_apart_by_name_and_type"])
            .envs([(CHILD, "1"), ("LISTEN_FDS", "4"), ("LISTEN_FDNAMES", "wharf.socket:wharf.socket:odd:http")])
            .stdin(OwnedFd::from(udp))
            .stderr(OwnedFd::from(tcp))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&format!("dns {expected:?}")), "{said}");
        assert!(said.contains(&format!("http {:?}", [expected[1]])), "{said}");
        assert!(said.contains("passed socket 2"), "{said}");
        assert!(said.contains("variables left: false"), "{said}");
    }

    #[allow(clippy::print_stdout)]
    fn report(passed: &Passed) {
        let http: Vec<_> = passed.http.iter().map(|listener| listener.local_addr().unwrap()).collect();
        println!("dns {:?}\nhttp {http:?}\nunusable {:?}", passed.dns_addresses(), passed.unusable);
        println!("variables left: {}", std::env::var_os("LISTEN_FDS").is_some());
    }
}
