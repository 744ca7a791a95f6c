//! The program's process before it is the program: forked already, it waits to be told to go.
//!
//! It dies with the guardian that forked it, in this life and as the program it becomes (`PR_SET_PDEATHSIG` outlasts an
//! `execve`, but for programs that change their user by it).

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::{CANNOT, LOST, NOT_FOUND, line};
use crate::host::boottime;

/// What the service manager listens to is not the program's to say.
const NOT_INHERITED: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "WHARF_LOCK_GUARDED"];

/// Waits, and becomes the program. Returns only when it does not.
pub fn run(parent: i32, command: &[String]) -> ExitCode {
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    // Whose parent died just before is told by nobody.
    if bound.is_err() || getppid() != Pid::from_raw(parent) {
        return ExitCode::from(LOST);
    }
    wait_and_go(command).unwrap_or_else(|_| ExitCode::from(LOST))
}

fn wait_and_go(command: &[String]) -> std::io::Result<ExitCode> {
    let mut line = line::inherited()?;
    let input = line::receive_descriptor(&line)?;
    let mut told = vec![];
    let closed = loop {
        let mut buffer = [0; 4096];
        match line.read(&mut buffer)? {
            0 => break true,
            length => told.extend_from_slice(&buffer[..length]),
        }
        if told.ends_with(b"\n") {
            break false;
        }
    };
    let environment: Option<(Duration, Vec<(String, String)>)> = line::decode(&mut told)?;
    let Some((_, environment)) = environment.filter(|(deadline, _)| !closed && boottime() < *deadline) else {
        return Ok(ExitCode::from(LOST));
    };
    let Some((program, arguments)) = command.split_first() else { return Ok(ExitCode::from(NOT_FOUND)) };
    let mut command = Command::new(program);
    command.args(arguments).envs(environment).stdin(Stdio::from(input));
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    // The guardian hears its signals in another way, and has blocked them for whatever it starts. Until here that is
    // well: who stops a whole service means `wharf lock`.
    SigSet::all().thread_unblock()?;
    let error = command.exec();
    complain(program, &error);
    let found = error.kind() != std::io::ErrorKind::NotFound;
    Ok(ExitCode::from(if found { CANNOT } else { NOT_FOUND }))
}

#[allow(clippy::print_stderr)] // its standard error is all that it has
fn complain(program: &str, error: &std::io::Error) {
    eprintln!("wharf lock: {program} cannot be run: {error}");
}
