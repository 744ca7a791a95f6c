//! `wharf lock`: one program of the cluster runs, the others wait. What is decided is in [`crate::model::steer::lock`].
//!
//! ```text
//! systemd ── wharf lock ══ line ══ guardian ── the program
//!              │ renews, watches, decides   │ timers
//!              └────────── etcd             └ its child, by PR_SET_PDEATHSIG
//! ```
//!
//! | what stands still | who ends the program, and when |
//! |---|---|
//! | nothing, but etcd says that key or lease are gone | `wharf lock` tells the guardian: at once |
//! | nothing, but nobody answers | the guardian: TERM a third of the time before the end of the hold, KILL at the end |
//! | the program ignores TERM | the guardian's KILL |
//! | `wharf lock` is stopped, starved or dead | the guardian, by its own timer; TERM at once when it is dead |
//! | the guardian is stopped or starved | `wharf lock` at the end of the hold; 150 ms later the kernel, by the timer on the guardian and by the program's parent-death signal |
//! | the guardian is dead | the kernel, by the parent-death signal; `wharf lock` what else the program started, which it adopts |
//! | both are stopped | the kernel, as above; what else the program started: its control group, where systemd is told the time left (`WATCHDOG_USEC`) and watches |
//! | the machine slept | the guardian's timers, which count that: at once when it wakes |
//! | both and the program together: a frozen container, a paused machine | nobody until it wakes; then the guardian, but the program may have run some moments. Only the token, or `--strict`, covers that |
//!
//! As process 1 of a container the guardian's end takes everything with it, but no timer of its own can end process 1:
//! there it is `wharf lock`, or whoever watches the container.
//!
//! | file | is |
//! |---|---|
//! | `guardian` | the second process |
//! | `held` | the third: the program before it is the program |
//! | `reach` | what the program has started, and its end |
//! | `line` | what `wharf lock` and guardian tell each other |
//! | `guard` | the guardian as `wharf lock` has it |
//! | `keeper` | the lease, kept alive |
//! | `queue` | the lock in the store |
//! | `waiting` | until it is won |
//! | `holding` | until it is over |

mod guard;
pub mod guardian;
pub mod held;
mod holding;
mod keeper;
mod line;
mod queue;
mod reach;
mod waiting;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::model::steer::lock::queue::{Keys, LockName};
use crate::store::StoreError;
use crate::store::etcd::Etcd;
use guard::Guard;
use waiting::{Stop, Waiting};

/// This very program, even when its file was replaced meanwhile.
const PROGRAM: &str = "/proc/self/exe";
/// Not won in time.
pub const NOT_WON: u8 = 124;
/// Lost, or etcd cannot be had.
pub const LOST: u8 = 125;
/// The program cannot be executed.
const CANNOT: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;

/// What is to be run, and how.
pub struct Job {
    /// The store, whose calls give up after a sixth of the lease's time.
    pub store: Etcd,
    /// The lock.
    pub name: LockName,
    /// Its keys.
    pub keys: Keys,
    /// The value of its key, where it is called by one.
    pub value: String,
    /// This host.
    pub node: String,
    /// Its boot.
    pub boot: String,
    /// The lease's time that is asked for.
    pub ttl: Duration,
    /// How long before the end the program is asked to end.
    pub grace: Option<Duration>,
    /// How long the lock is waited for.
    pub wait: Option<Duration>,
    /// Never start by time.
    pub strict: bool,
    /// Whether the guardian is there already: our parent, process 1.
    pub guarded: bool,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Who is told how it goes.
    pub tell: Box<dyn Fn(&str) + Send + Sync>,
    /// Who watches is told what the hold has left; nothing when nothing runs.
    pub beat: Box<dyn Fn(Option<Duration>) + Send + Sync>,
}

/// Runs it, and returns the exit code.
pub async fn run(job: Job) -> u8 {
    let (guard, signals) = match (Guard::begin(&job), Signals::new()) {
        (Ok(guard), Ok(signals)) => (guard, signals),
        (Err(error), _) | (_, Err(error)) => {
            (job.tell)(&format!("the guardian cannot be started: {error}"));
            return LOST;
        }
    };
    let mut signals = signals;
    let mut guard = guard;
    match Waiting::new(&job).win(&mut guard, &mut signals).await {
        Ok(won) => holding::Holding::new(&job, won).run(&mut guard, &mut signals).await,
        Err(stop) => {
            guard.leave().await;
            told(&job, stop)
        }
    }
}

fn told(job: &Job, stop: Stop) -> u8 {
    let (code, text) = match stop {
        Stop::NotWon => (NOT_WON, "not won in time".to_owned()),
        Stop::Unreachable(why) => (LOST, format!("etcd cannot be had: {why}")),
        Stop::Refused(why) => (LOST, why),
        Stop::Signal(number) => (u8::try_from(128 + number).unwrap_or(LOST), "left the queue".to_owned()),
        Stop::Guardian => (LOST, "the guardian, or what it held, ended before its time".to_owned()),
    };
    (job.tell)(&text);
    code
}

/// An error of the store, with its cause.
fn why(error: &StoreError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// Signals that are meant for the program.
struct Signals(Vec<(i32, Signal)>);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let all = kinds.into_iter().map(|kind| Ok((kind.as_raw_value(), signal(kind)?)));
        Ok(Self(all.collect::<std::io::Result<_>>()?))
    }

    /// The next one, by its number. Cancel-safe.
    async fn next(&mut self) -> i32 {
        let all = self.0.iter_mut().map(|(number, signal)| {
            let number = *number;
            Box::pin(async move {
                signal.recv().await;
                number
            })
        });
        futures_util::future::select_all(all).await.0
    }
}
