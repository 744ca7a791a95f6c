//! Warns of what two agents must not have in common: an address, for then each is answered for the other's services,
//! and a name, for then nobody can tell which host is meant.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::facade::api::Nodes;
use crate::model::offer::advertise::Place;
use crate::model::words::node::{NodeRecord, shared_addresses, twins};
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
        let mut called_alike = BTreeSet::new();
        loop {
            self.tell_twins(&mut called_alike);
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

    /// Says of each name that several agents bear, once as long as they do.
    fn tell_twins(&self, told: &mut BTreeSet<Text>) {
        let now = twins(&self.nodes.borrow().nodes);
        for node in now.difference(told) {
            let places =
                self.nodes.borrow().nodes.iter().filter(|other| other.node == *node).map(place).collect::<Vec<_>>();
            tracing::warn!(
                "{} agents are called {node}: {}; give each its own --node",
                places.len(),
                places.join("; ")
            );
        }
        *told = now;
    }

    fn shared(&mut self) -> BTreeSet<(IpAddr, Text)> {
        let own: Vec<IpAddr> = self.place.borrow_and_update().addresses().collect();
        shared_addresses(&self.nodes.borrow_and_update().nodes, &self.owner, &own)
    }
}

/// Which of several agents of one name is meant.
fn place(node: &NodeRecord) -> String {
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    format!("at {} since {}", addresses.join(", "), node.started)
}
