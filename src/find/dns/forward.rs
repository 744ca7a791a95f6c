//! Foreign names: looked up elsewhere for those who may ask for them.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::serving::{Job, Serving};

/// A resolver for foreign names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// What this host uses.
    System,
    /// This one.
    Server(SocketAddr),
}

/// The worker that asks upstream.
#[derive(Debug)]
pub(super) struct Forwarder {
    _serving: Arc<Serving>,
    _upstreams: Vec<Upstream>,
    _own: Vec<SocketAddr>,
}

impl Forwarder {
    pub(super) fn new(serving: Arc<Serving>, upstreams: Vec<Upstream>, own: Vec<SocketAddr>) -> Self {
        Self { _serving: serving, _upstreams: upstreams, _own: own }
    }

    pub(super) async fn run(self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                job = jobs.recv() => drop(job),
            }
        }
    }
}
