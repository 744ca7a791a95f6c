//! Events in, snapshot out: what is still shown though the store lost it.

pub mod hold;
