//! Questions at a steady rate, each of them accounted for: whether it was answered, and whether the answer had the
//! record.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::wait::poll_for;

const RATE: u32 = 200;
/// How long an answer may take. Under socket activation a question waits in the socket until the agent is back.
const PATIENCE: Duration = Duration::from_secs(30);
const SRV: u16 = 33;

/// The load, until `finish`.
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    asking: JoinHandle<Tally>,
}

/// What became of the questions.
#[derive(Debug, Default)]
struct Tally {
    sent: u32,
    waiting: BTreeMap<u16, u32>,
    /// Which question, and what came instead of the record.
    wrong: Vec<String>,
}

impl Load {
    /// 200 questions a second for the service, asked at this address.
    pub fn start(at: SocketAddr, service: &str) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (told, count, service) = (stop.clone(), asked.clone(), service.to_owned());
        let asking = std::thread::spawn(move || ask(at, &service, &told, &count).unwrap());
        Self { stop, asked, asking }
    }

    /// Until half a second's worth of questions more has been asked: however fast the rest of a test is, this load was
    /// on.
    pub fn goes_on(&self) {
        let enough = self.asked.load(Ordering::SeqCst) + RATE / 2;
        poll_for(PATIENCE, || self.asked.load(Ordering::SeqCst) >= enough || self.asking.is_finished());
    }

    /// No question went without an answer, and every answer had the record.
    #[track_caller]
    pub fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let tally = self.asking.join().unwrap();
        let lost: Vec<u32> = tally.waiting.into_values().collect();
        assert!(tally.sent >= RATE, "only {} questions were asked", tally.sent);
        assert!(lost.is_empty(), "of {} questions these were lost: {lost:?}", tally.sent);
        assert!(tally.wrong.is_empty(), "of {} questions: {:?}", tally.sent, tally.wrong);
    }
}

fn ask(at: SocketAddr, service: &str, stop: &AtomicBool, asked: &AtomicU32) -> std::io::Result<Tally> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(Duration::from_millis(2)))?;
    let (start, mut tally) = (Instant::now(), Tally::default());
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end && !tally.waiting.is_empty()) {
        let due = u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX) / (1000 / RATE);
        while end.is_none() && tally.sent < due {
            tally.send(&socket, service);
            asked.store(tally.sent, Ordering::SeqCst);
        }
        tally.receive(&socket)?;
        if end.is_none() && stop.load(Ordering::SeqCst) {
            end = Some(Instant::now() + PATIENCE);
        }
    }
    Ok(tally)
}

impl Tally {
    /// A port that is closed for a moment shows in an error of the next call: that is a question lost.
    fn send(&mut self, socket: &UdpSocket, service: &str) {
        self.sent += 1;
        let id = u16::try_from(self.sent % 0x1_0000).unwrap_or_default();
        if let Err(error) = socket.send(&question(id, service)) {
            self.wrong.push(format!("{}: {error}", self.sent));
        } else if let Some(older) = self.waiting.insert(id, self.sent) {
            self.wrong.push(format!("{older}: lost"));
        }
    }

    fn receive(&mut self, socket: &UdpSocket) -> std::io::Result<()> {
        let mut reply = [0; 4096];
        loop {
            match socket.recv(&mut reply) {
                Ok(length) => self.count(&reply[..length]),
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.wrong.push(format!("about {}: {error}", self.sent));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn count(&mut self, reply: &[u8]) {
        let [a, b, _, flags, _, _, c, d, ..] = *reply else { return };
        let Some(question) = self.waiting.remove(&u16::from_be_bytes([a, b])) else { return };
        let (code, answers) = (flags & 0xf, u16::from_be_bytes([c, d]));
        if code != 0 || answers != 1 {
            self.wrong.push(format!("{question}: code {code}, {answers} records"));
        }
    }
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(SRV.to_be_bytes());
    packet.extend([0, 1]);
    packet
}
