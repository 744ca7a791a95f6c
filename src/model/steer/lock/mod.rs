//! A lock that one program of the cluster has, decided: until when it may run, and when the next may.
//!
//! ```text
//! queued ──▶ head ──▶ started ──▶ ended ──▶ certificate and queue key deleted in one commit: the next starts
//!   │          │          │
//!   │          │          └─ no acknowledgement: TERM, then KILL at the hold's end; key or lease gone: KILL
//!   │          └─ a certificate of another: it goes, or its holder's time is over for sure
//!   └─ lease lost: queued again, at the end
//! ```
//!
//! All times are of the clock that goes on while a machine sleeps (CLOCK_BOOTTIME), each host's own; clocks of two
//! hosts may go 1 % apart. A holder counts from when it *sent* what was acknowledged, etcd from when it got it: so the
//! holder's time is over first. A **certificate** has no lease: it is written in the commit that starts a program, and
//! deleted when that is known to be dead. With it no clock is needed; without its going, time decides, unless
//! forbidden.
//!
//! | file | decides |
//! |---|---|
//! | [`hold`] | until when a program may run; what counts as a renewal |
//! | [`sight`] | what is known of the end of another's lease |
//! | [`waiter`] | what one who waits makes of what it sees |
//! | [`start`] | when the next may start |
//! | [`certificate`] | what is written of who runs |
//! | [`queue`] | where it all is in the store, and who comes before whom |
//! | [`command`] | what cannot be run under a lock |
//! | [`told`] | what people and programs are told of it |

pub mod certificate;
pub mod command;
pub mod hold;
pub mod queue;
pub mod sight;
pub mod start;
pub mod told;
pub mod waiter;
