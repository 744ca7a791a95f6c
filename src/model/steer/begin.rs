//! Whether an operation that somebody asked for may begin, and the journal that it begins with.
//!
//! All reasons against it are told at once. What a person may overrule is left out when he does.

use std::collections::BTreeMap;

use super::command::Mark;
use super::heal::holds_all;
use super::journal::{Journal, Kind, Stage, next_number};
use super::refusal::Refusal;
use super::safe::Judge;
use super::seen::Seen;
use super::server::{Follows, Hindrance, ServerState};
use super::topology::{Applied, Server};

/// How far a target may be behind when writes begin to be held.
pub const MAX_LAG: u64 = 64 * 1024;

/// A switch that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Who is to be master.
    pub master: String,
    /// Who is to follow it.
    pub slaves: Vec<String>,
    /// Whether a person overrules what may be overruled.
    pub force: bool,
    /// How long writes may be held, in milliseconds.
    pub max_pause: u64,
}

/// Who begins, and after which operation.
#[derive(Clone, Copy, Debug)]
pub struct Operator<'a> {
    /// The operator's identity.
    pub name: &'a str,
    /// The highest number that he knows of.
    pub last: u64,
    /// The journal of the operation before, if there is one.
    pub before: Option<&'a Journal>,
}

impl<'a> Operator<'a> {
    /// The operation before, where a store that went back has not taken another one for it.
    pub(super) fn before(&self, seen: &Seen) -> Option<&'a Journal> {
        self.before.filter(|_| seen.trusted)
    }
}

/// The journal that brings `wish` about.
pub fn begin(wish: &Wish, seen: &Seen, operator: Operator<'_>) -> Result<Journal, Vec<Refusal>> {
    let Some(target) = seen.state(&wish.master) else {
        let why = seen.servers.get(&wish.master).map_or("no such server".to_owned(), |_| "no answer".to_owned());
        return Err(vec![Refusal::Unreached { server: wish.master.clone(), why }]);
    };
    let scene = Scene { wish, seen, target, operator };
    let masters = masters(seen);
    let (journal, mut refusals) = match masters.as_slice() {
        [one] if *one == wish.master => scene.stay(),
        [one] => scene.switch(one),
        [] => scene.without_master(),
        several => scene.among_several(several),
    };
    refusals.extend(scene.hindrances(&wish.master));
    refusals.retain(|refusal| !(wish.force && refusal.can_be_forced()));
    if refusals.is_empty() { Ok(journal) } else { Err(refusals) }
}

/// Who counts as master: a fresh server says so, too, but nobody would miss it where there is another.
fn masters(seen: &Seen) -> Vec<&str> {
    let applied = seen.applied.as_ref().map(|applied| applied.master.name.as_str());
    let writable: Vec<_> = seen.answering().filter(|(_, state)| state.is_master()).collect();
    let counts = |name: &str, state: &ServerState| state.keys > 0 || applied == Some(name);
    let any_counts = writable.iter().any(|(name, state)| counts(name, state));
    writable.into_iter().filter(|(name, state)| !any_counts || counts(name, state)).map(|(name, _)| name).collect()
}

/// The number of the next operation.
pub(super) fn number(seen: &Seen, operator: Operator<'_>) -> u64 {
    let mark = |state: &ServerState| match state.follows {
        Follows::Frozen(Mark(mark)) => Some(mark),
        Follows::NoOne | Follows::At { .. } => None,
    };
    let marks: Vec<u16> = seen.answering().filter_map(|(_, state)| mark(state)).collect();
    next_number(operator.last, &marks)
}

struct Scene<'a> {
    wish: &'a Wish,
    seen: &'a Seen,
    target: &'a ServerState,
    operator: Operator<'a>,
}

type Plan = (Journal, Vec<Refusal>);

impl Scene<'_> {
    /// One master gives way to its replica.
    fn switch(&self, old: &str) -> Plan {
        let wish = &self.wish.master;
        let mut refusals: Vec<Refusal> = self.hindrances(old).collect();
        let master = self.seen.state(old).expect("masters answer");
        let (host, port) =
            self.seen.servers.get(old).map_or(("", 0), |(server, _)| (server.host.as_str(), server.port));
        let linked = matches!(self.target.follows, Follows::At { up: true, .. });
        let lag = master.position.offset.saturating_sub(self.target.position.offset);
        if self.target.is_master() {
            refusals.push(Refusal::Writable(wish.clone()));
        } else if !linked || !self.target.is_replica_of(host, port) {
            refusals.push(Refusal::NoDirectReplica(wish.clone()));
        }
        if self.target.position.id != master.position.id {
            refusals.push(Refusal::OtherHistory(wish.clone()));
        } else if lag > MAX_LAG {
            refusals.push(Refusal::Lags { server: wish.clone(), bytes: lag });
        }
        if self.target.keys == 0 && master.keys > 0 {
            refusals.push(Refusal::EmptyOverFull(wish.clone()));
        }
        let (rest, losing) = self.rest(&self.judge(old, master), &[old, wish]);
        refusals.extend(losing);
        refusals.extend(self.cut_off([old].into_iter().chain(rest.iter().map(|server| server.name.as_str()))));
        let journal = Journal { old: self.seen.written(old), rest, stage: Stage::Intent, ..self.journal(Kind::Switch) };
        (journal, refusals)
    }

    /// The wanted master is master: others are to follow it.
    fn stay(&self) -> Plan {
        let wish = &self.wish.master;
        let (rest, losing) = self.rest(&self.judge(wish, self.target), &[wish]);
        let head = Journal::head(self.operator.before(self.seen), self.seen.applied.as_ref());
        let is_named = |applied: &Applied| applied.master.name == *wish && head.is_some_and(|head| head.name == *wish);
        let named = self.seen.applied.as_ref().is_some_and(is_named);
        // One that is not named yet is decided on and named; there is nothing to promote.
        let (kind, stage) = if named { (Kind::Attach, Stage::Publish) } else { (Kind::First, Stage::Promote) };
        let last = (stage == Stage::Promote).then_some(self.target.position.offset);
        (Journal { rest, stage, last, ..self.journal(kind) }, losing)
    }

    /// Nobody takes writes: the wanted one must have all that there is.
    fn without_master(&self) -> Plan {
        let wish = &self.wish.master;
        let mut refusals = vec![];
        if let Some((server, why)) = self.seen.silent() {
            refusals.push(Refusal::Unreached { server: server.to_owned(), why });
        }
        if self.seen.applied.is_some() && !holds_all(wish, self.seen, self.operator.before(self.seen)) {
            refusals.push(Refusal::NoMaster);
        }
        let (rest, losing) = self.rest(&self.judge(wish, self.target), &[wish]);
        refusals.extend(losing.into_iter().chain(self.losers(&rest)));
        let kind = if self.seen.applied.is_some() { Kind::Restart } else { Kind::First };
        let last = Some(self.target.position.offset);
        (Journal { rest, last, stage: Stage::Promote, ..self.journal(kind) }, refusals)
    }

    /// Several take writes: only a first topology sorts them out, and only when one of them has everything.
    fn among_several(&self, masters: &[&str]) -> Plan {
        let (journal, mut refusals) = self.without_master();
        let is_first = self.seen.applied.is_none() && masters.contains(&self.wish.master.as_str());
        if !is_first || !refusals.is_empty() {
            refusals.push(Refusal::TwoMasters(masters.iter().map(|&name| name.to_owned()).collect()));
        }
        (journal, refusals)
    }

    /// Those who are to follow: asked for, or replicas already. What is asked for and would lose something is refused.
    fn rest(&self, judge: &Judge<'_>, without: &[&str]) -> (Vec<Server>, Vec<Refusal>) {
        let mut rest = BTreeMap::new();
        let mut refusals = vec![];
        for name in self.seen.servers.keys().filter(|name| !without.contains(&name.as_str())) {
            let counted = self.counted().is_some_and(|applied| applied.has_replica(name));
            let asked = self.wish.slaves.contains(name);
            let keeps = self.seen.state(name).map(|state| judge.loses_nothing(name, state));
            match (keeps, self.seen.state(name)) {
                (Some(true), _) => _ = rest.insert(name, ()),
                (Some(false), Some(state)) if asked => refusals.push(would_lose(name, state)),
                (None, _) if counted => _ = rest.insert(name, ()),
                _ => {}
            }
        }
        (rest.into_keys().filter_map(|name| self.seen.written(name)).collect(), refusals)
    }

    /// Those outside of `rest` who have data: where nobody is master yet, it might be the newest.
    fn losers(&self, rest: &[Server]) -> Vec<Refusal> {
        let others = self.seen.answering().filter(|(name, _)| *name != self.wish.master);
        let left = others.filter(|(name, _)| !rest.iter().any(|server| server.name == *name));
        left.filter(|(name, _)| !self.wish.slaves.iter().any(|slave| slave == name))
            .map(|(name, state)| would_lose(name, state))
            .collect()
    }

    /// Those of `names` who could not follow the target: they would be left without a master, and the old one's writes
    /// would be on none of them.
    fn cut_off<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<Refusal> {
        let lacking = names.filter_map(|name| {
            let lacks = self.seen.state(name)?.upstream.lacks(&self.target.upstream)?;
            Some(Refusal::Hindered { server: name.to_owned(), by: Hindrance::Upstream(lacks.to_owned()) })
        });
        lacking.collect()
    }

    fn hindrances(&self, name: &str) -> impl Iterator<Item = Refusal> + use<> {
        let hindrances = self.seen.state(name).map(|state| state.hindrances.clone()).unwrap_or_default();
        let server = name.to_owned();
        hindrances.into_iter().map(move |by| Refusal::Hindered { server: server.clone(), by })
    }

    fn counted(&self) -> Option<&Applied> {
        self.seen.counted(self.operator.before(self.seen))
    }

    fn judge<'b>(&'b self, master: &'b str, state: &'b ServerState) -> Judge<'b> {
        Judge { master, state, counted: self.counted() }
    }

    fn journal(&self, kind: Kind) -> Journal {
        let target = self.seen.written(&self.wish.master).expect("the target answers");
        Journal { max_pause: self.wish.max_pause, ..blank(kind, target, self.seen, self.operator) }
    }
}

fn would_lose(name: &str, state: &ServerState) -> Refusal {
    Refusal::WouldLose { server: name.to_owned(), keys: state.keys, bytes: state.bytes }
}

/// A journal that says for what, by whom and for which server, and nothing else yet.
pub(super) fn blank(kind: Kind, target: Server, seen: &Seen, operator: Operator<'_>) -> Journal {
    Journal {
        number: number(seen, operator),
        turn: 0,
        operator: operator.name.to_owned(),
        held: 0,
        kind,
        stage: Stage::Publish,
        epoch: seen.applied.as_ref().map_or(0, |applied| applied.epoch),
        old: None,
        target,
        rest: vec![],
        last: None,
        doubtful: false,
        max_pause: 0,
        why: String::new(),
        at: String::new(),
        gap: None,
    }
}
