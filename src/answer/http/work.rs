//! Work that takes longer than a packet may, done beside the threads that everything else turns on: a request must not
//! keep a lease's keepalive or an answer of DNS waiting.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::host::clients::Guest;

/// Pieces of work at a time: one may be long without the next one waiting for it.
const AT_A_TIME: usize = 2;

/// Where it is done. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Workbench(Arc<Semaphore>);

impl Default for Workbench {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Workbench {
    /// Does it for this client. A peer has one piece of work here at a time, so that the one who asks for much waits
    /// for himself and the others for one piece of his.
    pub(super) async fn run<T: Send + 'static>(&self, guest: &Guest, work: impl FnOnce() -> T + Send + 'static) -> T {
        let own = guest.turns.work.clone().acquire_owned().await.expect("the semaphore is never closed");
        let any = self.0.clone().acquire_owned().await.expect("the semaphore is never closed");
        // Both turns end with the work, also when nobody waits for it any more.
        done(move || (work(), own, any)).await.0
    }
}

/// Does it beside the event loop; a panic is passed on to whoever waits.
pub(super) async fn done<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => panic!("the runtime is going down: {cancelled}"),
    })
}
