//! Owns every worker by name. A worker that ends on its own, well or badly, ends the process with an error that names
//! it; a stop is given to the halves in order and has a deadline, also for a worker that never comes back from one
//! turn: it is left behind and named. Should such workers hold every thread, and the clock of the runtime with them,
//! [`Supervisor::end_at_the_latest`] has a thread of its own.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::pulse::Pulses;

/// The end that no worker should come to before it is told to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerEnd {
    /// It returned.
    #[error("worker {0} ended")]
    Returned(String),
    /// It failed.
    #[error("worker {0} failed")]
    Failed(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It panicked.
    #[error("worker {0} panicked: {1}")]
    Panicked(String, String),
    /// It does not come back from one turn of its loop, and was left behind.
    #[error("worker {0} hangs")]
    Hangs(String),
}

/// How long workers that did not stop in time may take to be dropped.
const DROP_DEADLINE: Duration = Duration::from_secs(1);

/// Which half of the agent a worker belongs to. The offering half stops first, so that what it withdraws is still
/// answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Docker, probes, registrar.
    Offer,
    /// Mirror, DNS, HTTP.
    Find,
}

type Ending = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// All workers of the process.
#[derive(Default)]
pub struct Supervisor {
    workers: JoinSet<Ending>,
    names: HashMap<Id, (&'static str, Half)>,
    offer: CancellationToken,
    find: CancellationToken,
    pulses: Pulses,
}

impl Supervisor {
    /// The stop sign for workers of one half.
    pub fn stop_of(&self, half: Half) -> CancellationToken {
        match half {
            Half::Offer => self.offer.clone(),
            Half::Find => self.find.clone(),
        }
    }

    /// Whether its workers move.
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Starts a worker.
    pub fn spawn<E>(
        &mut self,
        name: &'static str,
        half: Half,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: std::error::Error + Send + Sync + 'static,
    {
        let span = tracing::info_span!("worker", name);
        let work = self.pulses.watch(name, work);
        let task = async move { work.await.map_err(|error| Box::new(error) as _) };
        let id = self.workers.spawn(task.instrument(span)).id();
        self.names.insert(id, (name, half));
    }

    /// Waits for the first worker to end, which none should.
    pub async fn first_end(&mut self) -> WorkerEnd {
        let (name, _, end) = match self.next().await {
            Some(ended) => ended,
            None => return std::future::pending().await,
        };
        end.err().unwrap_or(WorkerEnd::Returned(name.to_owned()))
    }

    /// Tells the offering half to stop, then the other, each within `deadline`; what is left then is dropped and named.
    pub async fn stop(mut self, deadline: Duration) -> Vec<WorkerEnd> {
        let mut bad = Vec::new();
        for (half, stop) in [(Half::Offer, self.offer.clone()), (Half::Find, self.find.clone())] {
            stop.cancel();
            let drained = tokio::time::timeout(deadline, self.drain(half, &mut bad)).await;
            if drained.is_err() {
                let late: Vec<_> = self.names.values().filter(|(_, of)| *of == half).map(|(name, _)| *name).collect();
                tracing::warn!(?late, "workers did not stop in time");
            }
        }
        self.workers.abort_all();
        let dropped = async {
            while let Some((_, _, end)) = self.next().await {
                // One that was dropped in the middle has been told of above.
                bad.extend(end.err().filter(|end| !matches!(end, WorkerEnd::Panicked(_, why) if why == CANCELLED)));
            }
        };
        let all_dropped = tokio::time::timeout(DROP_DEADLINE, dropped).await.is_ok();
        if !all_dropped {
            bad.extend(self.names.values().map(|(name, _)| WorkerEnd::Hangs((*name).to_owned())));
        }
        // What hangs must not be waited for when the set is dropped either.
        self.workers.detach_all();
        bad
    }

    /// Ends the process with an error that names what hangs, should it still be there after `bound`.
    #[allow(clippy::disallowed_methods)] // a thread of its own may sleep, and by then the way out has been skipped already
    pub fn end_at_the_latest(&self, bound: Duration) {
        let pulses = self.pulses();
        let last_resort = move || {
            std::thread::sleep(bound);
            let stuck = pulses.stuck(DROP_DEADLINE);
            tracing::error!(?stuck, "the agent does not stop, ending it: these workers hang");
            std::process::exit(1);
        };
        if let Err(error) = std::thread::Builder::new().name("last-resort".to_owned()).spawn(last_resort) {
            tracing::warn!(%error, "no thread is left that could end a stop that hangs");
        }
    }

    async fn drain(&mut self, half: Half, bad: &mut Vec<WorkerEnd>) {
        while self.names.values().any(|(_, of)| *of == half) {
            match self.next().await {
                Some((_, _, end)) => bad.extend(end.err()),
                None => return,
            }
        }
    }

    async fn next(&mut self) -> Option<(&'static str, Half, Result<(), WorkerEnd>)> {
        let joined = self.workers.join_next_with_id().await?;
        let id = joined.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        let (name, half) = self.names.remove(&id).unwrap_or(("unnamed", Half::Find));
        let end = match joined {
            Ok((_, Ok(()))) => Ok(()),
            Ok((_, Err(error))) => Err(WorkerEnd::Failed(name.to_owned(), error)),
            Err(error) => Err(WorkerEnd::Panicked(name.to_owned(), panic_text(error))),
        };
        Some((name, half, end))
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names.values().map(|(name, _)| name)).finish()
    }
}

/// What is said of a worker that was dropped.
const CANCELLED: &str = "cancelled";

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return CANCELLED.to_owned() };
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no more")]
    struct NoMore;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_first_end_names_its_worker() {
        let mut supervisor = Supervisor::default();
        let stop = supervisor.stop_of(Half::Find);
        supervisor.spawn("steady", Half::Find, async move {
            stop.cancelled().await;
            Ok::<_, NoMore>(())
        });
        supervisor.spawn("mirror", Half::Find, async { Err(NoMore) });
        assert_eq!(supervisor.first_end().await.to_string(), "worker mirror failed");
        assert!(supervisor.stop(SOON).await.is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_an_end_with_its_message() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("probe", Half::Offer, async {
            assert_eq!(1, 2, "numbers");
            Ok::<_, NoMore>(())
        });
        let end = supervisor.first_end().await.to_string();
        assert!(end.starts_with("worker probe panicked: ") && end.contains("numbers"), "{end}");
    }

    #[tokio::test]
    async fn the_offering_half_has_stopped_before_the_other_is_told() {
        let mut supervisor = Supervisor::default();
        let (offer, find) = (supervisor.stop_of(Half::Offer), supervisor.stop_of(Half::Find));
        let still_answering = find.clone();
        supervisor.spawn("registrar", Half::Offer, async move {
            offer.cancelled().await;
            if still_answering.is_cancelled() { Err(NoMore) } else { Ok(()) }
        });
        supervisor.spawn("dns", Half::Find, async move {
            find.cancelled().await;
            Ok::<_, NoMore>(())
        });
        assert!(supervisor.stop(SOON).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_stop_is_left_behind() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("stuck", Half::Offer, std::future::pending::<Result<(), NoMore>>());
        assert!(supervisor.stop(SOON).await.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_worker_that_hangs_in_one_turn_is_named_and_left_behind() {
        let (unblock, blocked) = std::sync::mpsc::sync_channel::<()>(1);
        let (entered, hangs) = tokio::sync::oneshot::channel();
        let mut supervisor = Supervisor::default();
        supervisor.spawn("steady", Half::Offer, std::future::pending::<Result<(), NoMore>>());
        supervisor.spawn("hanging", Half::Find, async move {
            let _ = entered.send(());
            blocked.recv().map_err(|_| NoMore)
        });
        hangs.await.expect("it has begun");
        let stopped = tokio::time::timeout(4 * SOON, supervisor.stop(Duration::from_millis(50))).await;
        let ends: Vec<String> = stopped.expect("the stop ends").iter().map(ToString::to_string).collect();
        assert_eq!(ends, ["worker hanging hangs"]);
        unblock.send(()).expect("it waits still");
    }
}
