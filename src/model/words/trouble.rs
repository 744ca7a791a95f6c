//! What stands between this host and the store.

use std::fmt;
use std::time::SystemTime;

use super::record::Text;

/// Why the store does not answer, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Who was asked last.
    pub endpoint: Text,
    /// What came of it, in words for whoever looks after it.
    pub why: Text,
    /// Since when nobody has answered.
    pub since: SystemTime,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.why)
    }
}
