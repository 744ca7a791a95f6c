//! Files that follow the cluster, as values: what a template makes of a snapshot, what it depends on, and when it is
//! due.
//!
//! [`Sight`] is all that can be seen. [`render()`] makes a text of it and tells which [`Needs`] it had; a file is made
//! again only when one of these is answered otherwise. [`Pace`] says when, [`hold()`] why not now.
//!
//! Text that others wrote is marked character by character ([`marks`]), so that whatever a template does with it, what
//! could end a word, a line or a quotation reaches the file only through a filter that quotes it, or `raw`.

mod builtin;
mod difference;
mod engine;
mod errors;
mod filters;
mod functions;
mod hold;
mod marks;
mod needs;
mod pace;
mod quote;
mod sight;
pub mod told;
mod values;

pub(crate) use builtin::{Builtin, DISCOVERY, place};
pub(crate) use difference::difference;
pub(crate) use engine::{Fault, Source, argument, check, render};
pub(crate) use hold::{Hold, hold};
pub(crate) use needs::{Need, Needs};
pub(crate) use pace::{Backoff, Pace, Wait};
pub(crate) use sight::{Seen, Sight};

#[cfg(test)]
mod tests;
