//! Notices a worker that blocks: that has been inside one turn of its loop for too long.
//!
//! An idle worker is not polled at all and may rest for hours; a blocked one is polled once and does not come back. So
//! not the rhythm of the turns is watched but the length of the one that is going on.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Between two turns.
const RESTING: u64 = 0;

/// The turns of every worker of the process.
#[derive(Clone)]
pub struct Pulses {
    born: Instant,
    workers: Arc<Mutex<Vec<Worker>>>,
}

/// One of them: its name, and when its present turn began.
type Worker = (&'static str, Arc<AtomicU64>);

impl Default for Pulses {
    fn default() -> Self {
        Self { born: Instant::now(), workers: Arc::default() }
    }
}

impl Pulses {
    /// The same work, its turns seen from now on.
    pub fn watch<F: Future>(&self, name: &'static str, work: F) -> Watched<F> {
        let since = Arc::new(AtomicU64::new(RESTING));
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push((name, since.clone()));
        Watched { work: Box::pin(work), since, born: self.born }
    }

    /// Workers whose present turn takes longer than `limit`.
    pub fn stuck(&self, limit: Duration) -> Vec<&'static str> {
        let now = elapsed(self.born);
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let too_long = |since: u64| since != RESTING && now.saturating_sub(since) > limit;
        workers.iter().filter(|(_, since)| too_long(since.load(Ordering::Relaxed))).map(|(name, _)| *name).collect()
    }
}

impl fmt::Debug for Pulses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulses").finish_non_exhaustive()
    }
}

/// Milliseconds, never [`RESTING`].
fn elapsed(born: Instant) -> u64 {
    u64::try_from(born.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Work whose turns are seen.
pub struct Watched<F> {
    work: Pin<Box<F>>,
    since: Arc<AtomicU64>,
    born: Instant,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.since.store(elapsed(self.born), Ordering::Relaxed);
        let polled = self.work.as_mut().poll(context);
        self.since.store(RESTING, Ordering::Relaxed);
        polled
    }
}

impl<F> Drop for Watched<F> {
    /// A panic leaves the turn without its end.
    fn drop(&mut self) {
        self.since.store(RESTING, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_blocked_worker_is_named_and_an_idle_one_is_not() {
        let pulses = Pulses::default();
        let (unblock, blocked) = std::sync::mpsc::sync_channel::<()>(1);
        let idle = tokio::spawn(pulses.watch("idle", std::future::pending::<()>()));
        let busy = tokio::spawn(pulses.watch("busy", async move { blocked.recv().unwrap() }));
        while pulses.stuck(Duration::from_millis(20)) != ["busy"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        unblock.send(()).unwrap();
        busy.await.unwrap();
        assert!(pulses.stuck(Duration::ZERO).is_empty());
        idle.abort();
    }
}
