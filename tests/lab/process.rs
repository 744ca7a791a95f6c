//! A program that the lab started: hung, killed, started again, its log kept. It ends with its handle.
//!
//! Processes get a group of their own, so that a Ctrl-C at the terminal ends the lab in its own order.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::within;

/// A started program. Its command line is kept, so that it can be started again.
#[derive(Debug)]
pub struct Process {
    name: String,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts `argv`, its output appended to `log`.
    pub fn start(name: &str, argv: Vec<String>, env: Vec<(String, String)>, log: PathBuf) -> Self {
        let mut process = Self::at_rest(name, argv, env, log);
        process.start_again();
        process
    }

    /// The same, not started yet.
    pub fn at_rest(name: &str, argv: Vec<String>, env: Vec<(String, String)>, log: PathBuf) -> Self {
        Self { name: name.into(), argv, env, log, child: None }
    }

    /// Starts it (again), with the same command line.
    pub fn start_again(&mut self) {
        assert!(!self.runs(), "{} runs already", self.name);
        let log = append_to(&self.log);
        let child = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file can be shared"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", self.argv.join(" ")));
        self.child = Some(child);
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it still runs (a hung one does).
    pub fn runs(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_none()),
            None => false,
        }
    }

    /// Hangs it (SIGSTOP): it keeps its sockets and answers nothing.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a hung one go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it without a word (SIGKILL).
    pub fn kill(&mut self) {
        if self.runs() {
            self.signal(Signal::KILL);
        }
        self.wait_for_end(Duration::from_secs(10));
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end(Duration::from_secs(20)).expect("it ran")
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        let Some(child) = &self.child else { panic!("{} does not run", self.name) };
        let pid = Pid::from_child(child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let name = self.name.clone();
        let mut child = self.child.take()?;
        Some(within(limit, &format!("{name} ends"), || child.try_wait().ok().flatten()))
    }

    /// Where it writes.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Everything that it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn append_to(log: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap_or_else(|error| panic!("open {}: {error}", log.display()))
}

/// Runs a short command to its end and returns what it printed, or how it failed.
pub fn try_run(argv: &[&str]) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["-k", "5", "60"])
        .args(argv)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("start {}: {error}", argv.join(" ")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}`: {}: {}", argv.join(" "), output.status, said.trim()))
}

/// The same for a command that must succeed.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn run(argv: &[&str]) -> String {
    try_run(argv).unwrap_or_else(|error| panic!("{error}"))
}
