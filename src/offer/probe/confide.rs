//! Whom a password is told: the one process that was proven to be the one.
//!
//! The proof is made anew for each login, in this order: the container's process is taken hold of (and its control
//! group names the container), the connection stands, the process still lives. So at the time of the connection the
//! address was the container's: no other gets it as long as that process lives. On the host's own network any process
//! may hold the port; there the kernel says whose control group accepted this connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::question::Question;
use crate::host::{Whereabouts, Witness, group_of};
use crate::model::health::Outcome;
use crate::model::offer::instance::{Confidant, FirstProcess};
use crate::wire::WireError;
use crate::wire::connection::Connection;

/// Why nobody is told now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Withheld {
    /// What the engine said last of containers may not hold any more.
    #[error("Docker does not answer, so nobody logs in")]
    EngineAway,
    /// It is not proven who would hear it.
    #[error("nobody logs in: {0}")]
    Unproven(&'static str),
    /// It did not come to an end.
    #[error("the login did not come to an end: {0}")]
    Unended(#[from] WireError),
    /// It took too long.
    #[error("the login did not come to an end in time")]
    Late,
}

/// How long a role stands that a server was to tell again and did not.
const ROLE_PATIENCE: Duration = Duration::from_secs(60);

impl Withheld {
    /// What is known of a server that serves, and was not logged in to.
    pub(super) fn outcome(&self) -> Outcome {
        let serves = Outcome::serves().with_words(self.to_string());
        match self {
            Self::EngineAway => serves.with_role_kept(None),
            Self::Unproven(_) => serves.with_role(None).with_words(format!("{self}: role unknown")),
            Self::Unended(_) | Self::Late => serves.with_role_kept(Some(ROLE_PATIENCE)),
        }
    }
}

const NOT_ITS_PROCESS: &str = "its process is not to be seen from here";
const ENDED: &str = "its process has ended";

/// Whether it is known before any connection that nobody is told.
pub(super) fn refusal(question: &Question) -> Option<Withheld> {
    match &question.instance.check.confidant {
        Confidant::Nobody(why) => Some(Withheld::Unproven(why)),
        confidant if confidant.is_container() && !question.engine => Some(Withheld::EngineAway),
        _ => None,
    }
}

/// A connection to whom may be told the password.
pub(super) async fn confide(question: &Question) -> Result<Connection, Withheld> {
    if let Some(refusal) = refusal(question) {
        return Err(refusal);
    }
    match &question.instance.check.confidant {
        Confidant::Nobody(why) => Err(Withheld::Unproven(why)),
        Confidant::Table => Ok(question.connect_to(question.target, Whereabouts::Here).await?),
        Confidant::Own(at, process) => {
            let witness = witness(process)?;
            let connection = question.connect_to(*at, Whereabouts::Attached).await?;
            alive(&witness)?;
            Ok(connection)
        }
        Confidant::OnHost(process) => {
            let witness = witness(process)?;
            let connection = question.connect_to(question.target, Whereabouts::Here).await?;
            held_by(&witness, &connection, question.target)?;
            alive(&witness)?;
            Ok(connection)
        }
    }
}

fn witness(process: &FirstProcess) -> Result<Witness, Withheld> {
    Witness::open(process.pid, &process.container).ok_or(Withheld::Unproven(NOT_ITS_PROCESS))
}

fn alive(witness: &Witness) -> Result<(), Withheld> {
    if witness.is_alive() { Ok(()) } else { Err(Withheld::Unproven(ENDED)) }
}

/// Whether the server's end of the connection is the container's.
fn held_by(witness: &Witness, connection: &Connection, server: SocketAddr) -> Result<(), Withheld> {
    let group = connection.local_address().and_then(|client| group_of(server, client).ok().flatten());
    judge(group, |group| witness.has_group(group)).map_err(Withheld::Unproven)
}

/// What the kernel's word means: the group that accepted, and whether that is the container's as far as one can tell.
fn judge(group: Option<u64>, is_its: impl FnOnce(u64) -> Option<bool>) -> Result<(), &'static str> {
    let Some(group) = group else { return Err("the kernel does not tell who holds its port") };
    match is_its(group) {
        Some(true) => Ok(()),
        Some(false) => Err("another process holds its port"),
        None => Err("on the host's network only the unified control groups would tell who holds its port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_own_group_is_told() {
        assert_eq!(judge(Some(7), |group| Some(group == 7)), Ok(()));
        assert_eq!(judge(Some(8), |group| Some(group == 7)), Err("another process holds its port"));
        for untold in [judge(None, |_| Some(true)), judge(Some(7), |_| None)] {
            assert!(untold.is_err());
        }
    }
}
