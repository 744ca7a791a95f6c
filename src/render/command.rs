//! A command of a table: its arguments as they are, no shell, a time that it may take, and the beginning of what it
//! says.
//!
//! What it starts and leaves behind goes on, as a server that was told to load its file does. Only one that takes too
//! long is ended, with all of its group.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// What is kept of the output; the rest is read and dropped.
const SHOWN: usize = 1024;
/// What belongs to this process's own service manager, and not to a command.
const OURS: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS"];

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// It ended well.
    pub(crate) is_well: bool,
    /// How it ended, with the beginning of what it said.
    pub(crate) said: String,
}

/// Runs a command and waits for its end.
pub(super) fn run(argv: &[String], variables: &[(&str, &std::path::Path)], timeout: Duration) -> Ran {
    match Running::start(argv, variables).and_then(|running| running.finish(timeout)) {
        Ok(ran) => ran,
        Err(error) => {
            let program = argv.first().map_or("", String::as_str);
            Ran { is_well: false, said: format!("{program} cannot be run: {error}") }
        }
    }
}

/// A command under way.
struct Running {
    child: Child,
    /// Becomes readable when it ends.
    ended: OwnedFd,
    output: std::fs::File,
}

impl Running {
    fn start(argv: &[String], variables: &[(&str, &std::path::Path)]) -> io::Result<Self> {
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Only our end shall not wait: a program that finds its output full must.
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty())?;
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().copied()).process_group(0);
        for name in OURS {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        drop(command); // and with it the writing end
        let opened = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        match opened {
            Ok(ended) => Ok(Self { child, ended, output: reader.into() }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    fn finish(mut self, timeout: Duration) -> io::Result<Ran> {
        let deadline = Instant::now() + timeout;
        let (mut said, mut is_open) = (Vec::new(), true);
        let is_late = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break true;
            }
            if self.has_ended(left, is_open)? {
                break false;
            }
            is_open = is_open && self.read(&mut said);
        };
        if is_late {
            // Nobody else ends it: it is our child, and not waited for yet.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let status = self.child.wait()?;
        self.read(&mut said);
        let how =
            if is_late { format!("took longer than {}", humantime::format_duration(timeout)) } else { how(status) };
        let output = String::from_utf8_lossy(&said);
        let said = if output.trim().is_empty() { how } else { format!("{how}: {}", output.trim()) };
        Ok(Ran { is_well: status.success() && !is_late, said })
    }

    /// Waits for something to happen; whether that is its end.
    fn has_ended(&self, left: Duration, is_open: bool) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.ended, PollFlags::IN)];
        if is_open {
            fds.push(PollFd::new(&self.output, PollFlags::IN));
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what it has said so far; whether it may say more.
    fn read(&mut self, said: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.output.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => said.extend_from_slice(&buffer[..read.min(SHOWN.saturating_sub(said.len()))]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str, timeout: Duration) -> Ran {
        run(&["/bin/sh", "-c", line].map(str::to_owned), &[("X", "/x".as_ref())], timeout)
    }

    #[test]
    fn a_command_is_waited_for_and_what_it_says_is_told() {
        let minute = Duration::from_secs(60);
        assert_eq!(shell("exit 0", minute), Ran { is_well: true, said: "exit code 0".into() });
        assert_eq!(shell("echo $X; echo no >&2; exit 3", minute).said, "exit code 3: /x\nno");
        let much = shell("yes | head -c 1000000; exit 1", minute);
        assert!(!much.is_well && much.said.len() <= SHOWN + 20, "{}", much.said.len());
        assert!(run(&["/nowhere/x".to_owned()], &[], minute).said.contains("cannot be run"));
        assert_eq!(shell("kill -9 $$", minute).said, "ended by signal 9");
    }

    #[test]
    fn one_that_hangs_is_ended_and_one_that_leaves_a_server_behind_is_not_waited_for() {
        let late = shell("sleep 600 & sleep 600", Duration::from_millis(200));
        assert!(!late.is_well && late.said.contains("longer than 200ms"), "{}", late.said);
        assert!(shell("sleep 5 & exit 0", Duration::from_secs(60)).is_well);
    }
}
