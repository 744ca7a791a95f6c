//! The first write of one who goes on with a dead operator's work.
//!
//! It comes before anything that he does, so that a late commit of the dead one fails; it follows a decision that there
//! is, and decides nothing anew: where there is none, the old master stays.

use super::journal::{Journal, Stage};

/// The journal as he writes it. `trusted`: it was written since the store was last seen to have gone back.
pub fn take_over(journal: &Journal, operator: &str, trusted: bool) -> Journal {
    let turn = Journal {
        turn: journal.turn + 1,
        operator: operator.to_owned(),
        doubtful: journal.doubtful || !trusted,
        ..journal.clone()
    };
    match journal.stage {
        Stage::Intent => turn.closing(Stage::Abort, "its operator went away before anything was decided"),
        Stage::Promote | Stage::Abort | Stage::Publish | Stage::Done | Stage::Stale => turn,
    }
}
