//! What is done unasked: replicas are given to their master, and where every server says that it is a replica, the one
//! that has everything is made master again.
//!
//! This never moves a master that takes writes. A server that restarts comes back frozen; where *all* servers answer,
//! are fenced and say replica, nobody can take a write meanwhile, so whichever has what all others have may go on. In
//! every other case a person is asked.

use std::time::Duration;

use super::begin::{Operator, blank};
use super::command::Mark;
use super::journal::{Journal, Kind, Stage};
use super::refusal::Refusal;
use super::safe::Judge;
use super::seen::Seen;
use super::server::{Follows, Hindrance, ServerState};
use super::topology::Server;

/// The journal of what is to be done now, if anything is.
pub fn heal(seen: &Seen, operator: Operator<'_>) -> Result<Option<Journal>, Refusal> {
    let last = operator.before(seen);
    let Some(head) = Journal::head(last, seen.applied.as_ref()) else { return Ok(None) };
    match seen.state(&head.name) {
        Some(state) if state.is_master() => Ok(attach(seen, head, state, operator)),
        _ if seen.answering().any(|(_, state)| state.is_master()) => Ok(None),
        _ => restart(seen, head, last, operator).map(Some),
    }
}

/// Those who do not follow the master, and lose nothing when they do.
fn attach(seen: &Seen, head: &Server, master: &ServerState, operator: Operator<'_>) -> Option<Journal> {
    let applied = seen.applied.as_ref().filter(|applied| applied.master.name == head.name)?;
    if master.run != applied.master.run && !master.position.is_kin(&applied.master.position) {
        // Neither the process nor the history that was named: what it has is not known to be what there was.
        return None;
    }
    let (server, _) = seen.servers.get(&head.name)?;
    let judge = Judge { master: &head.name, state: master, counted: seen.counted(operator.before(seen)) };
    let strays = |name: &str, state: &ServerState| {
        name != head.name && !state.is_replica_of(&server.host, server.port) && judge.loses_nothing(name, state)
    };
    let rest: Vec<Server> = seen
        .answering()
        .filter(|(name, state)| strays(name, state))
        .filter_map(|(name, _)| seen.written(name))
        .collect();
    let target = seen.written(&head.name)?;
    (!rest.is_empty()).then(|| Journal { rest, stage: Stage::Publish, ..blank(Kind::Attach, target, seen, operator) })
}

/// How long a freeze without its journal is left alone: its operator may be about to write it again.
const ORPHAN: Duration = Duration::from_secs(10);

/// A server that an operation froze which no journal tells of: none does, or only that of one before it.
fn orphan<'s>(seen: &'s Seen, last: Option<&Journal>) -> Option<&'s str> {
    // Marks go round: half of them count as those before.
    let is_before = |mark: Mark, last: &Journal| Mark::of(last.number).0.wrapping_sub(mark.0) < 0x8000;
    let is_told = |mark: Mark| mark == Mark::START || last.is_some_and(|last| is_before(mark, last));
    let frozen = |state: &ServerState| matches!(&state.follows, Follows::Frozen(mark) if !is_told(*mark));
    seen.answering().find(|(_, state)| frozen(state)).map(|(name, _)| name)
}

/// All say replica: makes the one master that has everything.
fn restart(seen: &Seen, head: &Server, last: Option<&Journal>, operator: Operator<'_>) -> Result<Journal, Refusal> {
    if let Some((server, why)) = seen.silent() {
        return Err(Refusal::Unreached { server: server.to_owned(), why });
    }
    if let Some(name) = orphan(seen, last).filter(|_| seen.differs_for < ORPHAN) {
        let why = format!("{name} was frozen by an operation that left no journal, which has {ORPHAN:?} to go on");
        return Err(Refusal::Undecided(why));
    }
    if let Some((name, by)) = busy(seen) {
        return Err(Refusal::Hindered { server: name.to_owned(), by });
    }
    let winner = choose(seen, head)?;
    if !holds_all(&winner, seen, last) {
        return Err(Refusal::Undecided(format!("{winner} may lack what another server has")));
    }
    let is_left_out = |name: &str| name == head.name && winner != head.name && lost_its_tail(seen, head);
    let rest = seen.servers.keys().filter(|name| **name != winner && !is_left_out(name));
    let rest = rest.filter_map(|name| seen.written(name)).collect();
    let target = seen.written(&winner).expect("the winner answers");
    let last = Some(target.position.offset);
    Ok(Journal { rest, last, stage: Stage::Promote, ..blank(Kind::Restart, target, seen, operator) })
}

fn busy(seen: &Seen) -> Option<(&str, Hindrance)> {
    seen.answering().find_map(|(name, state)| state.hindrances.first().map(|by| (name, by.clone())))
}

/// Who is to be master: the one that was, if all that it acknowledged is there again, else whoever came furthest in its
/// history.
fn choose(seen: &Seen, head: &Server) -> Result<String, Refusal> {
    match seen.state(&head.name) {
        Some(state) if is_whole(state, head) => return Ok(head.name.clone()),
        Some(state) if state.run != head.run && loaded(state) && state.rebooted.is_none() => {
            let why = format!("whether the host of {} has rebooted is not known", head.name);
            return Err(Refusal::Undecided(why));
        }
        Some(_) if seen.answering().all(|(_, state)| state.keys == 0) => return Ok(head.name.clone()),
        Some(_) | None => {}
    }
    let kin: Vec<_> = seen.answering().filter(|(_, state)| state.position.is_kin(&head.position)).collect();
    let is_furthest = |state: &ServerState| kin.iter().all(|(_, other)| state.position.contains(&other.position));
    let none = || Refusal::Undecided("no server is left that has all of the last master's history".to_owned());
    kin.iter().find(|(_, state)| is_furthest(state)).map(|(name, _)| (*name).to_owned()).ok_or_else(none)
}

/// Whether the last master has all that it acknowledged: it never went away, or it has loaded an append-only file,
/// which a process that dies leaves whole, on a host that has not rebooted.
fn is_whole(state: &ServerState, head: &Server) -> bool {
    let never_left = state.run == head.run && state.position.is_kin(&head.position);
    never_left || state.run != head.run && loaded(state) && state.rebooted == Some(false)
}

fn loaded(state: &ServerState) -> bool {
    state.append_only && state.keys > 0
}

/// Whether the last master came back with an append-only file of before a reboot.
fn lost_its_tail(seen: &Seen, head: &Server) -> bool {
    let back = |state: &ServerState| state.run != head.run && loaded(state) && state.rebooted == Some(true);
    seen.state(&head.name).is_some_and(back)
}

/// Whether nobody has what `winner` has not.
pub(super) fn holds_all(winner: &str, seen: &Seen, last: Option<&Journal>) -> bool {
    let Some(state) = seen.state(winner) else { return false };
    let head = Journal::head(last, seen.applied.as_ref());
    let head = head.filter(|head| head.name == winner && is_whole(state, head));
    seen.answering().filter(|(name, _)| *name != winner).all(|(name, other)| {
        let left_out =
            Journal::head(last, seen.applied.as_ref()).is_some_and(|was| was.name == name && lost_its_tail(seen, was));
        let behind_head = head.is_some_and(|head| is_behind(name, other, head, seen, last));
        other.keys == 0 || state.position.contains(&other.position) || left_out || behind_head
    })
}

/// Whether the last master, which is `head`, had all that `other` has: it fed it, or counted it among its replicas.
fn is_behind(name: &str, other: &ServerState, head: &Server, seen: &Seen, last: Option<&Journal>) -> bool {
    let fed = other.position.id == head.position.id || head.position.contains(&other.position);
    let follows = !matches!(other.follows, Follows::NoOne);
    let decided = last.filter(|last| last.last.is_some() && last.target.name == head.name && !last.doubtful);
    let counted = seen.counted(last).is_some_and(|applied| applied.has_replica(name));
    let proved = decided.is_some_and(|last| last.old.iter().chain(&last.rest).any(|server| server.name == name));
    follows && seen.trusted && (fed || counted || proved)
}
