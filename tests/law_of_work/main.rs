//! The law of work: no question costs more than its budget of steps, whatever the store holds and whatever is asked;
//! what is plain is answered all the same.
//!
//! A search makes worlds and questions of every shape and keeps those that cost most, by steps, by time, and by time
//! for a step: a step must stay an honest count, which a long search of an optimized program looks at. Time is what the
//! thread itself worked, and that a question takes too much of it is said only when it does so whenever it is asked.
//! `WHARF_SEARCH=7200 cargo test --release --test law_of_work search -- --nocapture` goes on for so many seconds;
//! `WHARF_SEED=n` begins from a seed. What was found worst stays in `worst.rs`.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod asked;
mod chance;
mod naive;
mod search;
mod world;
mod worst;
