//! Warns when another node advertises an address of this one: then each is answered for the other's services.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::facade::api::Nodes;
use crate::model::offer::advertise::Place;
use crate::model::words::node::shared_addresses;
use crate::model::words::record::Text;

/// The worker that compares this host's addresses with the others'.
pub(super) struct Neighbours {
    pub(super) nodes: watch::Receiver<Arc<Nodes>>,
    pub(super) place: watch::Receiver<Arc<Place>>,
    pub(super) owner: Text,
}

impl Neighbours {
    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut known = BTreeSet::new();
        loop {
            let now = self.shared();
            for (address, node) in now.difference(&known) {
                tracing::warn!(%address, ?node, "another node advertises an address of this one");
            }
            known = now;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.nodes.changed() => {}
                Ok(()) = self.place.changed() => {}
                else => {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
        }
    }

    fn shared(&mut self) -> BTreeSet<(IpAddr, Text)> {
        let own: Vec<IpAddr> = self.place.borrow_and_update().addresses().collect();
        shared_addresses(&self.nodes.borrow_and_update().nodes, &self.owner, &own)
    }
}
