//! How etcd's members are, for a table that leads to them: one that has lost its cluster takes connections all the
//! same, and answers nothing.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Table, Upstream};
use crate::wire::{Connection, WireError, http};

/// How often they are asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How long one may think. Asked whether it is well, it asks its cluster.
const PATIENCE: Duration = Duration::from_secs(1);
/// What one that is well replies.
const WELL: u16 = 200;
/// What one without its cluster replies.
const UNWELL: u16 = 503;

/// Who asks them.
#[derive(Debug)]
pub(super) struct Members {
    tables: watch::Receiver<Arc<Table>>,
    unwell: watch::Sender<HashSet<SocketAddr>>,
}

impl Members {
    /// For a table that may change; and which members are unwell.
    pub(super) fn new(tables: watch::Receiver<Arc<Table>>) -> (Self, watch::Receiver<HashSet<SocketAddr>>) {
        let (unwell, told) = watch::channel(HashSet::new());
        (Self { tables, unwell }, told)
    }

    /// Works as long as it is polled.
    pub(super) async fn run(mut self) {
        loop {
            let table = Arc::clone(&self.tables.borrow_and_update());
            if let Upstream::Members(members, is_secured) = &table.upstream {
                let asked = members.iter().map(|member| async move { (*member, is_well(*member, *is_secured).await) });
                let unwell = join_all(asked).await.into_iter().filter(|(_, is_well)| !is_well);
                let unwell: HashSet<SocketAddr> = unwell.map(|(member, _)| member).collect();
                self.unwell.send_if_modified(|told| {
                    let is_new = *told != unwell;
                    *told = unwell;
                    is_new
                });
            }
            tokio::select! {
                () = sleep(PERIOD) => {}
                Ok(()) = self.tables.changed() => {}
            }
        }
    }
}

/// Whether a member serves, as far as it tells. One that wants a certificate of us tells nothing, and may.
async fn is_well(member: SocketAddr, is_secured: bool) -> bool {
    let asked = async {
        let mut connection =
            if is_secured { Connection::open_tls(member).await? } else { Connection::open(member).await? };
        http::get(&mut connection, member, "/health").await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(status)) => status == WELL || status != UNWELL,
        Ok(Err(error)) => is_secured && !matches!(error, WireError::Connect(_)),
        Err(_) => false,
    }
}
