//! The offering half: what runs here, whether it serves, and its records in the store.

pub mod inventory;
