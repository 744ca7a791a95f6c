//! The marks of a switch: by them an operator knows that whoever asks for the master is kept waiting everywhere.
//!
//! A client that is closed asks for the master at once. An agent that has not heard of the switch would name the old
//! one, which refuses writes by then. So each agent says when it keeps those who ask, and the operator waits for that
//! before writes are held; not for long, since an agent may be dead, or older than marks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long an operator waits for all marks: clients notice nothing of it, as writes are not held yet.
pub const WAIT: Duration = Duration::from_millis(300);

/// A switch that is about to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coming {
    /// The operation's number.
    pub number: u64,
    /// The lease of its hold. A mark hangs on it, so that it is gone when the operation is.
    pub hold: i64,
}

/// The switches that are about to begin, by service.
pub type Switches = BTreeMap<String, Coming>;

/// What is written under an agent's mark.
pub fn mark(number: u64) -> String {
    number.to_string()
}

/// The agents whose marks are still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    number: u64,
    missing: BTreeSet<String>,
}

impl Awaited {
    /// All of these, for operation `number`.
    pub fn new(number: u64, agents: BTreeSet<String>) -> Self {
        Self { number, missing: agents }
    }

    /// Takes a mark in; one of another operation says nothing of this one.
    pub fn hear(&mut self, agent: &str, value: &[u8]) {
        if value == mark(self.number).as_bytes() {
            self.missing.remove(agent);
        }
    }

    /// Whether nobody is missing.
    pub fn is_met(&self) -> bool {
        self.missing.is_empty()
    }

    /// How many are missing.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_is_waited_for_and_only_its_mark_of_this_operation_counts() {
        let mut awaited = Awaited::new(7, ["a", "b"].map(str::to_owned).into());
        for (agent, value, missing) in [("a", "6", 2), ("c", "7", 2), ("a", "7", 1), ("a", "7", 1), ("b", "7x", 1)] {
            awaited.hear(agent, value.as_bytes());
            assert_eq!((awaited.missing(), awaited.is_met()), (missing, false), "{agent} {value}");
        }
        awaited.hear("b", b"7");
        assert!(awaited.is_met());
        assert!(Awaited::new(7, BTreeSet::new()).is_met(), "without agents there is nobody to wait for");
    }
}
