//! The watcher's side, in a process of its own inside a host's network: says when something comes and when it goes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From one look to the next.
const PACE: Duration = Duration::from_millis(1);
/// How long one look may take.
const LOOK: Duration = Duration::from_millis(200);

/// One change, by the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub at: Duration,
    pub there: bool,
}

/// What a watcher has written.
pub fn read(log: &str) -> Vec<Change> {
    let one = |line: &str| {
        let (at, there) = line.split_once(' ')?;
        Some(Change { at: Duration::from_nanos(at.parse().ok()?), there: there == "there" })
    };
    log.lines().filter_map(one).collect()
}

/// Watches until it is killed: `dns SERVER NAME` or `memcached ADDRESS`.
pub fn run(args: &[String]) -> ExitCode {
    let mut look: Box<dyn FnMut() -> Option<(Duration, bool)>> = match args {
        [kind, server, name] if kind == "dns" => answered(server.parse().unwrap(), name),
        [kind, address] if kind == "memcached" => {
            let address = address.parse().unwrap();
            Box::new(move || Some(accepts(address)))
        }
        _ => return ExitCode::FAILURE,
    };
    let mut last = None;
    loop {
        if let Some((at, there)) = look()
            && last != Some(there)
        {
            println!("{} {}", at.as_nanos(), if there { "there" } else { "gone" });
            last = Some(there);
        }
        std::thread::sleep(PACE);
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Whether a name has SRV records; nothing when there is no answer.
fn answered(server: SocketAddr, name: &str) -> Box<dyn FnMut() -> Option<(Duration, bool)>> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 33, 0, 1]);
    let (mut number, mut reply) = (0_u16, [0; 1_500]);
    Box::new(move || {
        number = number.wrapping_add(1);
        packet[..2].copy_from_slice(&number.to_be_bytes());
        socket.send(&packet).ok()?;
        loop {
            let length = socket.recv(&mut reply).ok()?;
            // An answer to an earlier question says how things were.
            if length > 12 && reply[..2] == packet[..2] {
                return Some((now(), reply[6..8] != [0, 0]));
            }
        }
    })
}

/// Whether a memcached takes connections, and since when. The engine's own proxy may take one before memcached is
/// there, and closes it without an answer.
fn accepts(address: SocketAddr) -> (Duration, bool) {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, LOOK) else { return (now(), false) };
    let at = now();
    stream.set_read_timeout(Some(LOOK)).unwrap();
    let mut reply = [0; 8];
    let asked = stream.write_all(b"version\r\n").and_then(|()| stream.read_exact(&mut reply));
    (at, asked.is_ok() && reply == *b"VERSION ")
}
