//! What is left to do on a master that has given way: 2 s later its clients are closed once more.
//!
//! The operation is over by then and its hold is gone, but not its connection, and over that alone this is done:
//! whoever operates next ends that connection first, and with it this.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::model::steer::late::is_closed;
use crate::wire::redis::operator::{OperatorConnection, OperatorError};

/// How long a name, a cache or a facade may send clients to the old master after the new one was named.
const AFTER: Duration = Duration::from_secs(2);

/// Clients to be closed, and when.
#[derive(Debug)]
pub(super) struct Late {
    server: String,
    connection: OperatorConnection,
    due: Instant,
}

impl Late {
    pub(super) fn new(server: String, connection: OperatorConnection) -> Self {
        Self { server, connection, due: Instant::now() + AFTER }
    }

    /// Waits until it is time; for ever when there is nothing to do.
    pub(super) async fn due(late: Option<&Self>) {
        match late {
            Some(late) => sleep_until(late.due).await,
            None => std::future::pending().await,
        }
    }

    /// Closes them.
    pub(super) async fn close(mut self) {
        match self.close_all().await {
            Ok(0) => {}
            Ok(closed) => info!(server = self.server, closed, "clients that came late to an old master were closed"),
            Err(error) => debug!(server = self.server, %error, "clients that came late were not closed"),
        }
    }

    async fn close_all(&mut self) -> Result<usize, OperatorError> {
        let mut closed = 0;
        for client in self.connection.others().await? {
            if is_closed(&client.name, &client.flags) {
                self.connection.kill(client.id).await?;
                closed += 1;
            }
        }
        Ok(closed)
    }
}
