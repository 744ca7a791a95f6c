//! A real client.
#![allow(dead_code, unreachable_pub)] // each test program uses its own part
#![allow(clippy::disallowed_methods)] // waiting for a process blocks, and nothing else runs here

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Has a session with each of these, one after the other, for which each has so long.
const SESSIONS: &str = r#"
import sys, logging
from kazoo.client import KazooClient
logging.disable(logging.CRITICAL)
patience, each = float(sys.argv[1]), sys.argv[2].split(",")
for hosts in each:
    while True:
        client = KazooClient(hosts=hosts, timeout=4, read_only=False)
        try:
            client.start(timeout=patience)
            client.get_children("/")
            break
        except Exception:
            if len(sys.argv) < 4:
                sys.exit(1)
        finally:
            client.stop()
            client.close()
print("sessions", flush=True)
"#;

fn python() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kazoo");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zookeeper/kazoo.sh");
    let output = Command::new(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "kazoo cannot be had from PyPI: {}", String::from_utf8_lossy(&output.stderr));
    folder.join("bin/python")
}

fn command(list: &str, again: bool) -> Command {
    let mut command = Command::new(python());
    command.args(["-c", SESSIONS, "2", list]).args(again.then_some("again"));
    command
}

/// What Patroni's client of Exhibitor makes of the API at an address.
pub fn of_exhibitor(at: &str) -> String {
    const SCRIPT: &str = "import sys\nfrom patroni.dcs.exhibitor import ExhibitorEnsembleProvider\n\
                          host, port = sys.argv[1].split(':')\n\
                          print(ExhibitorEnsembleProvider([host], int(port)).zookeeper_hosts)";
    let output = Command::new(python()).args(["-c", SCRIPT, at]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether each of a list grants a session now.
pub fn has_sessions(list: &str) -> bool {
    command(list, false).output().unwrap().status.success()
}

/// One that asks until each of a list has granted a session.
pub struct Asking(Child);

impl Asking {
    pub fn of(list: &str) -> Self {
        Self(command(list, true).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// When it had them all.
    pub fn ended(mut self) -> Instant {
        let deadline = Instant::now() + super::cell::PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "kazoo never gets its sessions");
            std::thread::sleep(Duration::from_millis(5));
        }
        Instant::now()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
