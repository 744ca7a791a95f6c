//! What nodes say of their own instances: the words that may cut a connection although no record tells why.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::model::words::node::NodeRecord;
use crate::model::words::record::Text;

/// A word of a node on one of its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It does not serve.
    Down,
    /// It is withdrawn.
    Drained,
}

/// The words of all nodes, by the agent that gave them: nobody speaks for another one's instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reports {
    instances: HashMap<(Text, SocketAddr), Said>,
    drained: HashSet<Text>,
    /// They have been read, at least once.
    pub(crate) are_read: bool,
}

impl Said {
    /// What a state means for connections. One that starts, stops or is paused may still finish what it is at.
    pub(crate) fn of(state: &str) -> Option<Self> {
        match state {
            "down" | "unhealthy" => Some(Self::Down),
            "drained" => Some(Self::Drained),
            _ => None,
        }
    }
}

impl Reports {
    /// What the node records say.
    pub(crate) fn of<'n>(nodes: impl IntoIterator<Item = &'n NodeRecord>) -> Self {
        let mut reports = Self::default();
        for node in nodes {
            for waiting in &node.waiting {
                if let (Some(host), Some(port)) = (waiting.host, waiting.port) {
                    reports.add(&node.owner, SocketAddr::new(host, port), &waiting.state);
                }
            }
            if node.drained.is_some() {
                reports.drain(&node.owner);
            }
        }
        reports
    }

    /// Adds the state of one instance.
    pub(crate) fn add(&mut self, owner: &Text, address: SocketAddr, state: &str) {
        let said = Said::of(state);
        self.instances.extend(said.map(|said| ((owner.clone(), address), said)));
    }

    /// Adds that all of an agent's instances are withdrawn.
    pub(crate) fn drain(&mut self, owner: &Text) {
        self.drained.insert(owner.clone());
    }

    /// What its owner says of an address.
    pub(super) fn said(&self, owner: &Text, address: SocketAddr) -> Option<Said> {
        let own = self.instances.get(&(owner.clone(), address)).copied();
        own.or_else(|| self.drained.contains(owner).then_some(Said::Drained))
    }
}
