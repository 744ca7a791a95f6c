//! Exit codes, the same for every command.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done, or shown.
    Done = 0,
    /// It was understood and is not so: an unknown name, too few endpoints, no such record.
    NotMet = 1,
    /// The command was used wrongly.
    Usage = 2,
    /// No agent, or no store, could be asked.
    Unreachable = 3,
    /// What is asked for is another host's.
    Taken = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
