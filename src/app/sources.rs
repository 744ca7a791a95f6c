//! Remembers the source addresses of the default routes, so that an agent that is restarted while they are away has the
//! addresses that it had.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::offer::advertise::Place;
use crate::state::StateDir;

/// The worker that writes them down as they change.
pub(super) struct Sources {
    pub(super) place: watch::Receiver<Arc<Place>>,
    pub(super) state: Arc<StateDir>,
}

impl Sources {
    /// Works until told to stop. A route that goes is no reason to forget.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            let (v4, v6) = {
                let place = self.place.borrow_and_update();
                (place.source_v4, place.source_v6)
            };
            let remembering = Arc::clone(&self.state).remember_aside(move |memory| {
                memory.source_v4 = v4.or(memory.source_v4);
                memory.source_v6 = v6.or(memory.source_v6);
            });
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // That nothing can be written is told by whoever has more to lose by it.
                _ = remembering => {}
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.place.changed() => {}
                else => {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
        }
    }
}
