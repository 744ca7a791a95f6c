//! Whether a connection that runs is cut.

use std::net::SocketAddr;

use super::aim::Aim;
use super::reports::Said;
use crate::model::words::record::{Role, Text};

/// Where a connection runs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The server's place.
    pub(crate) address: SocketAddr,
    /// Whose record it was found by.
    pub(crate) owner: Option<Text>,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cut {
    /// Its server has another role now.
    Role,
    /// Its node says that it is down.
    Down,
    /// Its node says that it is drained.
    Drained,
    /// Another server holds the role now.
    Elsewhere,
}

impl Cut {
    /// Every reason.
    pub(crate) const ALL: [Self; 4] = [Self::Role, Self::Down, Self::Drained, Self::Elsewhere];

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Down => "down",
            Self::Drained => "drained",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Judges a connection by what is known now. A record that stands is a newer word than its node's, which is written
/// seconds later.
pub(crate) fn verdict(line: &Line, aim: &Aim) -> Option<Cut> {
    if let Some(claimed) = aim.claims.get(&line.address) {
        if aim.role.is_some() && claimed.is_some() && *claimed != aim.role {
            return Some(Cut::Role);
        }
    } else if let Some(said) = line.owner.as_ref().and_then(|owner| aim.reports.said(owner, line.address)) {
        return Some(match said {
            Said::Down => Cut::Down,
            Said::Drained => Cut::Drained,
        });
    }
    let is_elsewhere = aim.role == Some(Role::Primary) && aim.holder.is_some_and(|holder| holder != line.address);
    is_elsewhere.then_some(Cut::Elsewhere)
}
