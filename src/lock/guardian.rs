//! The guardian: a process of one thread that has the program for its child, and ends it when its time is over,
//! whatever becomes of `wharf lock`.
//!
//! It waits for one of four things: its timer, an order, a signal, the end of its child. What its own timer brings
//! about a timer of the kernel's does a little later to the guardian itself, stopped or not; the child dies with it. As
//! process 1 of a container it starts `wharf lock` too, hands signals on to it, and stays until the end.
//!
//! The table of what can stand still, and who acts then, is in the [folder's page](super).

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::line::{self, How, Order, Report};
use super::reach::{Group, Reach};
use super::{LOST, PROGRAM};
use crate::host::boottime;

/// How much later than its own timer the kernel ends the guardian: within the 250 ms that the hold keeps back.
const LATER: Duration = Duration::from_millis(150);
/// Pause before what is being ended is looked at again.
const AGAIN: Duration = Duration::from_millis(5);

struct Guardian {
    line: UnixStream,
    to_child: UnixStream,
    child: Pid,
    /// `wharf lock`, where it is a child of this process.
    lock: Option<Pid>,
    reach: Reach,
    timer: OwnedFd,
    kernel: Timer,
    hold: Option<(Duration, Duration)>,
    started: bool,
    /// Asked to end, for good.
    asked: bool,
    killing: bool,
    killed: bool,
    ended: Option<How>,
    /// `wharf lock` is gone.
    orphan: bool,
    /// How it ended, where it is a child of this process.
    lock_ended: Option<How>,
    read: Vec<u8>,
}

/// Guards the program for the `wharf lock` at the other end of standard input.
pub fn run(command: &[String]) -> ExitCode {
    let begun = line::inherited().and_then(|line| {
        let input = line::receive_descriptor(&line)?;
        Guardian::begin(line, &input, None, command)
    });
    finish(begun)
}

/// The same as process 1, which starts `wharf lock`: with this variable, and these arguments.
pub fn run_first((variable, arguments): (&str, &[String]), command: &[String]) -> ExitCode {
    let begun = UnixStream::pair().and_then(|(line, other)| {
        let mut process = Command::new(PROGRAM);
        let process = process
            .arg0("wharf")
            .env(variable, "1")
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .spawn()?;
        Guardian::begin(line, io::stdin(), Some(Pid::from_child(&process)), command)
    });
    finish(begun)
}

fn finish(begun: io::Result<(Guardian, SignalFd)>) -> ExitCode {
    let ended = begun.and_then(|(guardian, signals)| guardian.stay(&signals));
    ended.map_or_else(|error| complain(&error), |how| ExitCode::from(how.code()))
}

#[allow(clippy::print_stderr)] // its standard error is all that it has
fn complain(error: &io::Error) -> ExitCode {
    eprintln!("wharf lock: the guardian gives up: {error}");
    ExitCode::from(LOST)
}

impl Guardian {
    fn begin(
        line: UnixStream,
        input: impl AsFd,
        lock: Option<Pid>,
        command: &[String],
    ) -> io::Result<(Self, SignalFd)> {
        set_child_subreaper(Some(getpid()))?;
        // Without the right to it, it may have to be read from a disk when it is needed.
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
        let signals = SigSet::all();
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let (to_child, theirs) = UnixStream::pair()?;
        let own = getpid();
        let mut child = Command::new(PROGRAM);
        child.arg0("wharf").args(["lock-held", &own.as_raw_nonzero().to_string(), "--"]).args(command);
        let child = child.stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0).spawn()?;
        let child = Pid::from_child(&child);
        line::send_descriptor(&to_child, input)?;
        let group = Group::make(&format!("wharf-lock-{}", own.as_raw_nonzero()));
        let group = group.filter(|group| group.add(child).is_ok());
        let path = group.as_ref().map(|group| group.path.clone());
        let kernel = SigEvent::new(SigevNotify::SigevSignal { signal: Number::SIGKILL, si_value: 0 });
        let guardian = Self {
            to_child,
            child,
            reach: Reach { root: own, spared: lock.into_iter().collect(), leader: Some(child), group },
            lock,
            timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
            kernel: Timer::new(ClockId::CLOCK_BOOTTIME, kernel)?,
            hold: None,
            started: false,
            asked: false,
            killing: false,
            killed: false,
            ended: None,
            orphan: false,
            lock_ended: None,
            read: vec![],
            line,
        };
        guardian.report(&Report::Held { child: child.as_raw_nonzero().get(), group: path });
        guardian.line.set_nonblocking(true)?;
        Ok((guardian, signals))
    }

    fn stay(mut self, signals: &SignalFd) -> io::Result<How> {
        loop {
            self.wait(signals)?;
            self.hand_on(signals);
            self.listen();
            self.look_at_the_clock();
            self.reap();
            if self.killing {
                self.reach.kill();
            }
            if let Some(how) = self.ended.filter(|_| self.reach.is_empty()) {
                return self.leave(how, signals);
            }
        }
    }

    fn wait(&self, signals: &SignalFd) -> io::Result<()> {
        let soon = Timespec { tv_sec: 0, tv_nsec: AGAIN.subsec_nanos().into() };
        let mut events = vec![PollFd::new(signals, PollFlags::IN)];
        if !self.killing {
            events.push(PollFd::new(&self.timer, PollFlags::IN));
        }
        if !self.orphan {
            events.push(PollFd::new(&self.line, PollFlags::IN));
        }
        match poll(&mut events, self.killing.then_some(&soon)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Who stops a whole service means `wharf lock`, which then asks for what it wants.
    fn hand_on(&self, signals: &SignalFd) {
        while let Ok(Some(signal)) = signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).ok().and_then(Signal::from_named_raw);
            if let (Some(lock), Some(number)) = (self.lock, number)
                && number != Signal::CHILD
            {
                let _ = kill_process(lock, number);
            }
        }
    }

    fn listen(&mut self) {
        if self.orphan {
            return;
        }
        let open = line::take(&mut self.line, &mut self.read);
        loop {
            match line::decode(&mut self.read) {
                Ok(Some(order)) => self.obey(order),
                Ok(None) if open => return,
                // Nobody renews any more: the program has what is left, to end by itself.
                Ok(None) | Err(_) => {
                    self.orphan = true;
                    return self.ask_to_end();
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Hold { deadline, term } => {
                self.hold = Some((deadline, term));
                self.arm();
            }
            Order::Go { environment } => self.go(environment),
            Order::Signal(number) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    let _ = kill_process_group(self.child, signal);
                }
            }
            Order::Kill => self.kill(),
        }
    }

    fn go(&mut self, environment: Vec<(String, String)>) {
        let Some((deadline, _)) = self.hold.filter(|(deadline, _)| boottime() < *deadline) else { return self.kill() };
        self.started = true;
        self.arm();
        if self.to_child.write_all(&line::encode(&(deadline, environment))).is_err() {
            self.kill();
        }
    }

    /// Both timers, once there is something to end.
    fn arm(&mut self) {
        let Some((deadline, term)) = self.hold.filter(|_| self.started) else { return };
        let next = if self.asked { deadline } else { term.min(deadline) };
        let own = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(next) };
        let own = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &own);
        let kernel = Expiration::OneShot((deadline + LATER).into());
        let kernel = self.kernel.set(kernel, TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        if own.is_err() || kernel.is_err() {
            self.kill();
        }
    }

    fn look_at_the_clock(&mut self) {
        let Some((deadline, term)) = self.hold.filter(|_| self.started) else { return };
        let now = boottime();
        if now >= deadline {
            self.kill();
        } else if now >= term {
            self.ask_to_end();
        }
    }

    fn ask_to_end(&mut self) {
        if !self.started {
            return self.kill();
        }
        if !std::mem::replace(&mut self.asked, true) {
            let _ = kill_process_group(self.child, Signal::TERM);
            // One that is stopped could not even hear it.
            let _ = kill_process_group(self.child, Signal::CONT);
            self.arm();
        }
    }

    fn kill(&mut self) {
        self.killed |= self.ended.is_none();
        self.killing = true;
    }

    /// Takes in who has ended, adopted ones too. What outlives the program is ended with it.
    fn reap(&mut self) {
        while let Ok(Some((process, status))) = wait(WaitOptions::NOHANG) {
            let Some(how) = how(status) else { continue };
            if process == self.child {
                self.ended = Some(how);
                self.killing = true;
            } else if Some(process) == self.lock {
                (self.orphan, self.lock_ended) = (true, Some(how));
                self.ask_to_end();
            }
        }
    }

    fn leave(mut self, how: How, signals: &SignalFd) -> io::Result<How> {
        self.kernel.set(Expiration::OneShot(Duration::ZERO.into()), TimerSetTimeFlags::empty())?;
        self.report(&Report::Ended { how, killed: self.killed });
        // Process 1 is not to end before `wharf lock` has told the store.
        while self.lock.is_some() && self.lock_ended.is_none() {
            poll(&mut [PollFd::new(signals, PollFlags::IN)], None).or_else(|error| match error {
                rustix::io::Errno::INTR => Ok(0),
                error => Err(error),
            })?;
            self.hand_on(signals);
            self.reap();
        }
        Ok(self.lock_ended.unwrap_or(how))
    }

    fn report(&self, report: &Report) {
        // Who does not hear it any more is gone, which the line tells.
        let _ = (&self.line).write_all(&line::encode(report));
    }
}

fn how(status: WaitStatus) -> Option<How> {
    let exited = status.exit_status().map(How::Exited);
    exited.or_else(|| status.terminating_signal().map(How::Signalled))
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}
