//! What the threads and tasks of the server share: the rules, the view of the catalog, the counters, and the way to the
//! forwarder.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use super::packet::{Pending, Rules};
use super::socket::{Peer, Udp};
use crate::find::view::CatalogView;

/// Shared by everything that answers.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) rules: Rules,
    pub(super) metrics: Arc<Metrics>,
    pub(super) view: CatalogView,
    pub(super) forwarder: mpsc::Sender<Job>,
}

/// Whom an answer from elsewhere goes to.
#[derive(Debug)]
pub(super) enum Asked {
    /// A datagram's sender.
    Datagram {
        /// The socket it came in on.
        socket: Arc<Udp>,
        /// Its sender.
        peer: Peer,
        /// When it came.
        begun: Instant,
    },
    /// A stream, which waits for it.
    Stream {
        /// Where it waits.
        reply: oneshot::Sender<Vec<u8>>,
        /// When it came.
        begun: Instant,
    },
}

/// A question for the forwarder.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) client: IpAddr,
    pub(super) pending: Pending,
    pub(super) asked: Asked,
}

impl Serving {
    /// Hands a question to the forwarder, or back when there is no room.
    pub(super) fn forward(&self, client: IpAddr, pending: Pending, asked: Asked) -> Result<(), Box<Pending>> {
        let sent = self.forwarder.try_send(Job { client, pending, asked });
        sent.map_err(|full| Box::new(full.into_inner().pending))
    }
}
