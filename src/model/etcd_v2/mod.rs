//! etcd's v2 API over a store of v3: from a request and what the store holds to one conditional commit, and from the
//! commit to the reply.
//!
//! A file is a key of the store. A directory is what has children; one that was made, or that lost a child by a
//! request, is remembered by a mark beside the tree. An [`Act`] in the same commit says what the request was, so that
//! who watches is told of it in v2's words.

pub mod act;
mod draft;
pub mod event;
pub mod fault;
pub mod form;
pub mod index;
pub mod node;
pub mod path;
pub mod plan;
pub mod request;
pub mod sight;
pub mod tree;
pub mod whose;

pub use act::Act;
pub use fault::{Code, Fault};
pub use node::{Node, Reply};
pub use path::{NodePath, Places, Scope};
pub use plan::{Must, Plan, Will, Wish};
pub use request::{Ask, Change, Deed, Get, Wait};
pub use sight::{Held, Life, Sight, Step};
