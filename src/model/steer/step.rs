//! What an operator does next: one step from what is written and what is seen. See the diagram of the [folder](super).
//!
//! The one who calls it writes first and sends then: a [`Step::Write`] is known to be written before it asks again.

use std::time::Duration;

use super::command::{Command, Mark};
use super::journal::{Journal, Kind, Stage};
use super::safe::Judge;
use super::seen::Seen;
use super::server::{Follows, ServerState};
use super::topology::{Applied, Server};

/// An operation's time in all.
pub const OPERATION: Duration = Duration::from_secs(10);
/// How long a frozen master's last bytes may take to its replica: they are on their way already.
const PROVE: Duration = Duration::from_secs(1);
/// How long replicas are waited for: with its first one a master that has no backlog begins another history, which is
/// what it is known by later.
const SETTLED: Duration = Duration::from_secs(3);
/// What must be left of the hold to end what was begun, when the store cannot be asked.
const UNDO_BY: Duration = Duration::from_secs(1);

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this, on the condition of the hold and of the journal's revision, and know it before anything else.
    Write {
        /// The journal.
        journal: Box<Journal>,
        /// With it, the topology that was brought about.
        applied: Option<Box<Applied>>,
    },
    /// Send these, and look at those servers again.
    Send(Vec<(String, Command)>),
    /// Look at these again, in a moment.
    Look(Vec<String>),
    /// Let go of the hold.
    End(End),
}

/// How an operator's part ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The operation is over.
    Over,
    /// It is not: somebody takes it over, over connections of his own.
    Later(String),
}

/// What comes next, `now` after this part began.
pub fn step(journal: &Journal, seen: &Seen, now: Duration) -> Step {
    if seen.hold_left.is_zero() {
        return later("the hold ran out");
    }
    match journal.stage {
        Stage::Done | Stage::Stale => Step::End(End::Over),
        _ if now > OPERATION => later("no time left"),
        Stage::Intent => intent(journal, seen, now),
        _ if seen.store_lost => later("the store is away"),
        Stage::Promote => promote(journal, seen, now),
        Stage::Abort => abort(journal, seen),
        Stage::Publish => publish(journal, seen, now),
    }
}

/// Nothing is decided, and only he who wrote this comes here: a takeover writes `abort` first.
fn intent(journal: &Journal, seen: &Seen, now: Duration) -> Step {
    let Some(old) = &journal.old else { return write(journal.closing(Stage::Stale, "an intent without a master")) };
    let Some(master) = seen.state(&old.name) else { return later(format!("{} does not answer", old.name)) };
    if seen.store_lost || seen.hold_left < UNDO_BY {
        // No decision was sent, so none can be in the store: this is undone without it, while there is time.
        return undo(journal, &old.name, master).unwrap_or_else(|| later("the store is away"));
    }
    let Some(target) = seen.state(&journal.target.name) else {
        return write(journal.closing(Stage::Abort, format!("{} does not answer", journal.target.name)));
    };
    if let Some(why) = astray(journal, target) {
        return write(journal.closing(Stage::Abort, why));
    }
    if master.is_frozen_by(journal.number) {
        prove(journal, master, target, now)
    } else if master.is_master() {
        hold_writes(journal, master, target, now)
    } else {
        write(journal.closing(Stage::Abort, format!("{} follows somebody else", old.name)))
    }
}

/// Why the target cannot take over any more.
fn astray(journal: &Journal, target: &ServerState) -> Option<String> {
    let name = &journal.target.name;
    if target.run != journal.target.run {
        return Some(format!("{name} was restarted"));
    }
    (target.is_master() || target.position.id != journal.target.position.id)
        .then(|| format!("{name} left the master's history"))
}

/// Writes are held until the target has what there is; only then is the master frozen, since a frozen one refuses.
fn hold_writes(journal: &Journal, master: &ServerState, target: &ServerState, now: Duration) -> Step {
    let old = journal.old.as_ref().map(|old| old.name.clone()).unwrap_or_default();
    let Some((since, offset)) = master.paused else { return Step::Send(vec![(old, Command::Pause)]) };
    // The offset moves on by the master's own pings, so the target is compared with where it stood.
    if target.position.offset >= offset {
        return Step::Send(vec![(old, Command::Freeze(Mark::of(journal.number)))]);
    }
    if now.saturating_sub(since) >= Duration::from_millis(journal.max_pause) {
        let lag = offset - target.position.offset;
        return write(journal.closing(Stage::Abort, format!("{} is {lag} bytes behind", journal.target.name)));
    }
    Step::Look(vec![journal.target.name.clone()])
}

/// A frozen master takes no write, so a target that stands where it stands has all there is.
fn prove(journal: &Journal, master: &ServerState, target: &ServerState, now: Duration) -> Step {
    let last = master.position.offset;
    if target.position.offset == last && target.position.id == master.position.id {
        return write(Journal { last: Some(last), ..journal.in_stage(Stage::Promote) });
    }
    if master.frozen.is_some_and(|since| now.saturating_sub(since) < PROVE) {
        let old = journal.old.as_ref().map(|old| old.name.clone());
        return Step::Look(old.into_iter().chain([journal.target.name.clone()]).collect());
    }
    let lag = last.saturating_sub(target.position.offset);
    write(journal.closing(Stage::Abort, format!("{} is {lag} bytes behind", journal.target.name)))
}

/// Ends this operation's freeze or pause of the old master; `None` when there is neither.
fn undo(journal: &Journal, name: &str, master: &ServerState) -> Option<Step> {
    let command = if master.is_frozen_by(journal.number) {
        Command::Undo
    } else if master.paused.is_some() && !master.unpaused {
        Command::Unpause
    } else {
        return None;
    };
    Some(Step::Send(vec![(name.to_owned(), command)]))
}

/// Decided: the target becomes master, whoever does it.
fn promote(journal: &Journal, seen: &Seen, now: Duration) -> Step {
    let name = &journal.target.name;
    let Some(target) = seen.state(name) else { return later(format!("{name} does not answer")) };
    if target.run != journal.target.run {
        return write(journal.closing(Stage::Stale, format!("{name} was restarted")));
    }
    let (written, last) = (&journal.target.position, journal.last);
    if target.is_master() {
        let by_this = |(id, end): &(String, u64)| *id == written.id && last.is_some_and(|last| *end == last + 1);
        let is_ours = target.position.second.as_ref().is_some_and(by_this) || target.position.id == written.id;
        return if is_ours {
            name_it(journal, seen, target, now)
        } else {
            write(journal.closing(Stage::Stale, format!("{name} became master otherwise")))
        };
    }
    if let Some(step) = doubt(journal, seen, &[name]) {
        return step;
    }
    if target.position.id == written.id && Some(target.position.offset) == last {
        return Step::Send(vec![(name.clone(), Command::Promote)]);
    }
    write(journal.closing(Stage::Stale, format!("{name} is not where it was when this was decided")))
}

/// A store that went back may know nothing of what came after this journal, so all servers are asked: none but these
/// may be master.
fn doubt(journal: &Journal, seen: &Seen, but: &[&String]) -> Option<Step> {
    if !journal.doubtful {
        return None;
    }
    let restarted = |name: &str, run: &str| {
        journal.servers().any(|server| server.name == name && !server.run.is_empty() && server.run != run)
    };
    let moved_on = seen.answering().find(|(name, state)| {
        let is_other = but.iter().all(|but| but != name);
        is_other && (state.is_master() || state.keys > 0 && restarted(name, &state.run))
    });
    match (moved_on, seen.silent()) {
        (Some((name, _)), _) => Some(write(journal.closing(Stage::Stale, format!("{name} has moved on")))),
        (None, Some((name, why))) => Some(later(format!("{name} does not answer: {why}"))),
        (None, None) => None,
    }
}

/// The target is master: it is named so, and with that the names, the facades and the others go on.
fn name_it(journal: &Journal, seen: &Seen, target: &ServerState, now: Duration) -> Step {
    let paused = journal.old.as_ref().and_then(|old| seen.state(&old.name)).and_then(|old| old.paused);
    let gap = paused.map(|(since, _)| u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX));
    let replicas = journal.old.iter().chain(&journal.rest).map(|server| server.name.clone());
    let applied = Applied {
        epoch: journal.epoch + 1,
        number: journal.number,
        held: journal.held,
        master: now_written(&journal.target, target),
        replicas: replicas.filter(|name| *name != journal.target.name).collect(),
        since: seen.wall.clone(),
    };
    Step::Write {
        journal: Box::new(Journal { gap, ..journal.in_stage(Stage::Publish) }),
        applied: Some(Box::new(applied)),
    }
}

fn now_written(server: &Server, state: &ServerState) -> Server {
    Server { run: state.run.clone(), position: state.position.clone(), ..server.clone() }
}

/// Decided: the old master stays. It is told so only where this operation froze it, and nobody was promoted.
fn abort(journal: &Journal, seen: &Seen) -> Step {
    let Some(old) = &journal.old else { return write(journal.in_stage(Stage::Done)) };
    let Some(master) = seen.state(&old.name) else { return later(format!("{} does not answer", old.name)) };
    if master.run != old.run {
        return write(journal.closing(Stage::Stale, format!("{} was restarted", old.name)));
    }
    match seen.state(&journal.target.name) {
        Some(target) if target.is_master() => {
            return write(journal.closing(Stage::Stale, format!("{} is master", journal.target.name)));
        }
        // A store that went back may have lost the decision for it.
        Some(target) if journal.doubtful && target.run != journal.target.run => {
            return write(journal.closing(Stage::Stale, format!("{} was restarted", journal.target.name)));
        }
        Some(_) | None => {}
    }
    if let Some(step) = doubt(journal, seen, &[&old.name]) {
        return step;
    }
    if master.is_frozen_by(journal.number) {
        return Step::Send(vec![(old.name.clone(), Command::Undo)]);
    }
    if !master.is_master() {
        return write(journal.closing(Stage::Stale, format!("{} follows somebody else", old.name)));
    }
    if !master.unpaused {
        return Step::Send(vec![(old.name.clone(), Command::Unpause)]);
    }
    // The end of a freeze began a history of its own, which is what the replicas will be judged by.
    let trusted = seen.trusted && !journal.doubtful;
    let applied = seen.applied.clone().filter(|applied| trusted && applied.master.name == old.name);
    let applied = applied.map(|applied| Applied { master: now_written(&applied.master, master), ..applied });
    Step::Write { journal: Box::new(journal.in_stage(Stage::Done)), applied: applied.map(Box::new) }
}

/// The target is master and named: the old one and the others are given to it, if they lose nothing.
fn publish(journal: &Journal, seen: &Seen, now: Duration) -> Step {
    let name = &journal.target.name;
    let Some(target) = seen.state(name) else { return later(format!("{name} does not answer")) };
    if !target.is_master() {
        return write(journal.closing(Stage::Stale, format!("{name} is no master any more")));
    }
    let trusted = seen.trusted && !journal.doubtful;
    let judge = Judge { master: name, state: target, counted: seen.applied.as_ref().filter(|_| trusted) };
    let others = journal.old.iter().chain(&journal.rest).filter(|server| server.name != *name);
    let mut commands = vec![];
    let mut follow = vec![];
    for server in others {
        let Some(state) = seen.state(&server.name) else { continue };
        if state.is_replica_of(&journal.target.host, journal.target.port) {
            follow.push(server.name.clone());
        } else if judge.loses_nothing(&server.name, state) {
            commands.push((server.name.clone(), give(journal, state)));
        }
    }
    if !commands.is_empty() {
        return Step::Send(commands);
    }
    let comes =
        |name: &String| matches!(seen.state(name).map(|state| &state.follows), Some(Follows::At { up: false, .. }));
    if follow.iter().any(comes) && now < SETTLED && seen.hold_left > UNDO_BY {
        return Step::Look(follow.into_iter().chain([name.clone()]).collect());
    }
    let applied = seen.applied.as_ref().filter(|applied| applied.master.name == *name);
    let applied = applied.map(|applied| counting(applied, trusted, &follow, &journal.target, target));
    Step::Write { journal: Box::new(journal.in_stage(Stage::Done)), applied: applied.map(Box::new) }
}

/// How a server is given to the target: one that this operation froze has writers waiting, who are let go.
fn give(journal: &Journal, state: &ServerState) -> Command {
    let (host, port) = (journal.target.host.clone(), journal.target.port);
    if state.is_frozen_by(journal.number) && journal.kind == Kind::Switch {
        Command::Release { host, port }
    } else {
        Command::Attach { host, port }
    }
}

/// `applied` with those who follow now among its replicas. What is written here is trusted from then on, so of one that
/// was not, only they are left: a store that went back may call a replica what was a master since.
fn counting(applied: &Applied, trusted: bool, follow: &[String], server: &Server, target: &ServerState) -> Applied {
    let mut counted = applied.clone();
    counted.replicas.retain(|name| trusted || follow.contains(name));
    counted.replicas.extend(follow.iter().filter(|name| !applied.has_replica(name)).cloned());
    counted.master = now_written(server, target);
    counted
}

fn write(journal: Journal) -> Step {
    Step::Write { journal: Box::new(journal), applied: None }
}

fn later(why: impl Into<String>) -> Step {
    Step::End(End::Later(why.into()))
}
