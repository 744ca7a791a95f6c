//! Steady questions, each answer looked at; and what etcd sees meanwhile.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::etcd::Cluster;
use super::kit::milliseconds;

const PACE: Duration = Duration::from_millis(5);
/// How long the last answers may take.
const LAST: Duration = Duration::from_secs(5);

/// Whether `name` has an SRV record now.
pub fn ask(server: SocketAddr, name: &str) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.send_to(&question(1, name), server).unwrap();
    let mut reply = [0; 1_500];
    socket.recv(&mut reply).is_ok_and(|length| has_answer(&reply[..length]))
}

fn question(number: u16, name: &str) -> Vec<u8> {
    const SRV: u16 = 33;
    let mut packet = number.to_be_bytes().to_vec();
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&SRV.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

fn has_answer(reply: &[u8]) -> bool {
    const NO_ERROR: u8 = 0;
    reply.len() > 12 && reply[3] & 0x0f == NO_ERROR && reply[6..8] != [0, 0]
}

/// What became of the questions.
#[derive(Debug, Default)]
pub struct Told {
    pub sent: usize,
    pub lost: f64,
    pub without: f64,
    pub longest: f64,
}

/// Questions that go out at a steady pace, whether they are answered or not.
pub struct Load {
    ended: Arc<AtomicBool>,
    sender: JoinHandle<BTreeMap<u16, Instant>>,
    receiver: JoinHandle<BTreeMap<u16, (Instant, bool)>>,
}

impl Load {
    pub fn start(server: SocketAddr, name: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (hearing, ended, name) = (socket.try_clone().unwrap(), Arc::new(AtomicBool::new(false)), name.to_owned());
        let (over, last) = (Arc::clone(&ended), Arc::clone(&ended));
        let sender = std::thread::spawn(move || {
            let mut sent = BTreeMap::new();
            while !over.load(Ordering::SeqCst) && sent.len() < usize::from(u16::MAX) {
                let number = u16::try_from(sent.len()).unwrap();
                sent.insert(number, Instant::now());
                socket.send(&question(number, &name)).unwrap();
                std::thread::sleep(PACE);
            }
            sent
        });
        let receiver = std::thread::spawn(move || {
            let (mut heard, mut reply, mut over_since) = (BTreeMap::new(), [0; 1_500], None);
            while over_since.is_none_or(|since: Instant| since.elapsed() < LAST) {
                if last.load(Ordering::SeqCst) {
                    over_since.get_or_insert_with(Instant::now);
                }
                if let Ok(length @ 12..) = hearing.recv(&mut reply) {
                    let number = u16::from_be_bytes([reply[0], reply[1]]);
                    heard.insert(number, (Instant::now(), has_answer(&reply[..length])));
                }
            }
            heard
        });
        Self { ended, sender, receiver }
    }

    pub fn finish(self) -> Told {
        self.ended.store(true, Ordering::SeqCst);
        let (sent, heard) = (self.sender.join().unwrap(), self.receiver.join().unwrap());
        let mut told = Told { sent: sent.len(), ..Told::default() };
        for (number, asked) in &sent {
            match heard.get(number) {
                None => told.lost += 1.0,
                Some((at, good)) => {
                    told.without += f64::from(u8::from(!good));
                    told.longest = told.longest.max(milliseconds(at.duration_since(*asked)));
                }
            }
        }
        told
    }
}

/// What happens to records, as etcdctl's watch tells it.
pub struct Changes {
    child: Child,
    file: std::path::PathBuf,
}

impl Changes {
    pub fn watch(cluster: &Cluster, directory: &Path) -> Self {
        let file = directory.join("changes");
        let from = (cluster.revision() + 1).to_string();
        let child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &cluster.endpoints()[0], "watch", "--prefix", "/services/", "--rev", &from])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&file).unwrap())
            .spawn()
            .unwrap();
        Self { child, file }
    }

    pub fn count(&self) -> f64 {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let changes = text.lines().filter(|line| matches!(*line, "PUT" | "DELETE")).count();
        f64::from(u32::try_from(changes).unwrap())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
