//! ElastiCache's auto-discovery, as values: which servers a client's list names, which version it has, and what each
//! command is answered.
//!
//! A member stays in the list while it is away for a little: leaving it would map keys anew. A version belongs to one
//! list for good, so whoever has seen one never has to wonder. `tests/autodiscovery` lives through it.

mod binary;
mod join;
mod member;
mod talk;
pub mod told;
mod version;

pub use join::{Absences, Drained, evolved};
pub use member::{MOST_MEMBERS, Member, MemberList, MemberLists};
pub use talk::{Discovery, LONGEST, Talk, Turn};
pub use version::{Moment, ROOM, newer, next_list};
