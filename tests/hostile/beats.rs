//! systemd's end of the watchdog: a socket of its own that notes when each beat came.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The watchdog's period. The unit has 10 s; with less a standstill shows sooner.
pub const PERIOD: Duration = Duration::from_secs(6);

/// Listens for as long as it lives.
pub struct Beats {
    path: PathBuf,
    heard: Arc<Mutex<Vec<Instant>>>,
    over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Beats {
    pub fn listen() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (heard, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let listener = std::thread::spawn({
            let (heard, over) = (Arc::clone(&heard), Arc::clone(&over));
            move || listen(&socket, &heard, &over)
        });
        Self { path, heard, over, listener: Some(listener), _dir: dir }
    }

    /// What the agent finds in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let socket = self.path.to_str().unwrap().to_owned();
        vec![("NOTIFY_SOCKET".into(), socket), ("WATCHDOG_USEC".into(), PERIOD.as_micros().to_string())]
    }

    /// Every beat until now, first that the agent is ready: from then on systemd waits.
    pub fn heard(&self) -> Vec<Instant> {
        self.heard.lock().unwrap().clone()
    }

    /// The longest wait for a beat, from the first on; waits for one more, so that none is still overdue.
    pub fn longest_wait(&self) -> Duration {
        let until_now = self.heard().len();
        let called = Instant::now();
        while self.heard().len() <= until_now && called.elapsed() < PERIOD {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut beats = self.heard();
        assert!(!beats.is_empty(), "the agent never said that it is ready");
        if beats.len() <= until_now {
            beats.push(Instant::now());
        }
        beats.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }
}

fn listen(socket: &UnixDatagram, heard: &Mutex<Vec<Instant>>, over: &AtomicBool) {
    let mut packet = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut packet) else { continue };
        let text = String::from_utf8_lossy(&packet[..length]);
        if text.lines().any(|line| line == "WATCHDOG=1" || line == "READY=1") {
            heard.lock().unwrap().push(Instant::now());
        }
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}
