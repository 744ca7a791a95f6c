//! What other programs keep in the store in layouts of their own, read as records: presence, and Patroni's scopes.
//!
//! What is found is laid over the catalog ([`crate::catalog::index`]), under the key that a record of it would have;
//! the store has none there. Whoever writes to the store chooses how much there is, so there is an end to it.

pub mod patroni;
pub mod presence;

/// So many endpoints of each kind are found: each snapshot has all of them laid over anew.
pub const MOST: usize = 2_048;
