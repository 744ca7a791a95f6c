//! The cluster as one value: every record found, and the rules by which names are answered from it.
//!
//! Pure, as [`model`](crate::model) is; it speaks in that one's words and knows nothing of how this host offers and
//! publishes.

pub mod dns;
pub mod facade;
pub mod fold;
pub mod index;
pub mod layouts;
pub mod proxy;
pub mod render;
pub(crate) mod select;
pub mod steps;
