//! What was broken, and between whom: which news could not travel, and since when it can again. Pure.

use std::time::Duration;

use crate::bounds;
use crate::truth::{Moment, Span};

/// What is broken. Hosts are numbered from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The store answers nobody, or a watch may hang with a member of it.
    Store,
    /// Nothing; but its leader changes, which lengthens every lease.
    Leader,
    /// A host is cut off.
    Cut(usize),
    /// A host's links lose or delay.
    Links(usize),
    /// A host's agent is connected to a member of etcd that does not answer it, and has not left it yet.
    Stranded(usize),
    /// A host's agent does not run.
    Agent(usize),
    /// A host's engine does not run, or hangs.
    Engine(usize),
    /// A host's agent cannot write its state.
    Disk(usize),
}

/// Something that is broken for a while.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub what: What,
    /// From when it may be broken until it certainly is whole again.
    pub span: Span,
    /// From when on it certainly is broken.
    pub sure: Moment,
}

/// How late the machine itself was at something that is quick at other times.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub span: Span,
    pub late: Duration,
}

/// A machine that is late by so much at one small thing is late by a few times that at a chain of them.
const CHAIN: u32 = 4;

/// Two of these in a row, and a lease of the drills is lost.
const STALL: Duration = Duration::from_millis(1000);

/// Everything that was broken in a drill.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    pub list: Vec<Trouble>,
    pub pace: Vec<Pace>,
}

/// Whether news can travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Not for certain.
    Blocked,
    /// It can, since then; zero when it always could.
    OpenSince(Moment),
}

/// Whether something keeps news of a host's servers from a viewer.
fn blocks(what: What, host: usize, viewer: usize) -> bool {
    match what {
        What::Store => host != viewer,
        What::Cut(n) | What::Links(n) | What::Stranded(n) => host != viewer && (n == host || n == viewer),
        What::Agent(n) => n == host || n == viewer,
        What::Leader | What::Engine(_) | What::Disk(_) => false,
    }
}

impl Troubles {
    /// Whether news of a host's servers reach a viewer. A host sees its own without the store (section 8's overlay).
    pub fn path(&self, host: usize, viewer: usize, at: Span) -> Path {
        self.open_since(at, |what| blocks(what, host, viewer))
    }

    /// When news of a host have had so long to reach a viewer, since a moment, without anything new in their way.
    pub fn through(&self, host: usize, viewer: usize, since: Moment, within: Duration) -> Moment {
        let mut list: Vec<Span> =
            self.list.iter().filter(|trouble| blocks(trouble.what, host, viewer)).map(|trouble| trouble.span).collect();
        list.sort_by_key(|span| span.from);
        let later = |done: Moment, span: Span| if span.from <= done { done.max(span.to + within) } else { done };
        list.into_iter().fold(since + within, later)
    }

    /// Whether a viewer hears of anything that happens in the store.
    pub fn store_path(&self, viewer: usize, at: Span) -> Path {
        self.open_since(at, |what| match what {
            What::Store => true,
            What::Cut(n) | What::Links(n) | What::Stranded(n) | What::Agent(n) => n == viewer,
            What::Leader | What::Engine(_) | What::Disk(_) => false,
        })
    }

    /// Whether a host's engine tells what happens.
    pub fn engine(&self, host: usize, at: Span) -> Path {
        self.open_since(at, |what| what == What::Engine(host))
    }

    fn open_since(&self, at: Span, blocks: impl Fn(What) -> bool) -> Path {
        let mut since = Duration::ZERO;
        for trouble in self.list.iter().filter(|trouble| blocks(trouble.what)) {
            let end = trouble.span.to
                + if matches!(trouble.what, What::Agent(_)) { bounds::OPEN.length } else { Duration::ZERO };
            if (Span { from: trouble.span.from, to: end }).meets(at) {
                return Path::Blocked;
            }
            if end < at.from {
                since = since.max(end);
            }
        }
        Path::OpenSince(since)
    }

    /// Whether the store was in trouble for a host at any time in a span.
    pub fn store_in(&self, host: usize, span: Span) -> bool {
        let its = |what| match what {
            What::Store => true,
            What::Cut(n) | What::Links(n) | What::Stranded(n) => n == host,
            What::Leader | What::Agent(_) | What::Engine(_) | What::Disk(_) => false,
        };
        self.list.iter().any(|trouble| its(trouble.what) && trouble.span.meets(span))
    }

    /// Whether a host's agent may have found the store away in a span and seen it return: for a trouble that is known,
    /// or since the machine itself was late by as much as makes a request unanswered.
    pub fn may_have_returned(&self, host: usize, span: Span) -> bool {
        self.store_in(host, span) || self.late(span) >= bounds::AWAY.length
    }

    /// By how much changes of etcd's leader have lengthened a lease that is not renewed from the beginning of a span on
    /// and would be over at its end: each gives it all of its time anew, if it still lives.
    pub fn lengthened(&self, lease: Span) -> Duration {
        let its = self.list.iter().filter(|trouble| trouble.what == What::Leader && trouble.span.to >= lease.from);
        let mut changes: Vec<Moment> = its.map(|trouble| trouble.span.from).collect();
        changes.sort();
        let each = bounds::LOST_WITH_LEADER.length - bounds::LOST.length;
        changes.into_iter().fold(Duration::ZERO, |more, at| if at <= lease.to + more { more + each } else { more })
    }

    /// Whether a host's engine was in trouble at any time in a span.
    pub fn engine_in(&self, host: usize, span: Span) -> bool {
        self.list.iter().any(|trouble| trouble.what == What::Engine(host) && trouble.span.meets(span))
    }

    /// The spans in which a host was away for a viewer: cut off, or without its agent. Neighbouring ones are one, since
    /// its lease may not have been renewed between them.
    pub fn away(&self, host: usize, viewer: usize) -> Vec<Trouble> {
        let away = |what| what == What::Agent(host) || (what == What::Cut(host) && host != viewer);
        let mut list: Vec<Trouble> = self.list.iter().filter(|trouble| away(trouble.what)).copied().collect();
        list.sort_by_key(|trouble| trouble.span.from);
        let mut merged: Vec<Trouble> = vec![];
        for trouble in list {
            match merged.last_mut() {
                Some(last) if trouble.span.from <= last.span.to + bounds::KEPT.length => {
                    last.span.to = last.span.to.max(trouble.span.to);
                }
                _ => merged.push(trouble),
            }
        }
        merged
    }

    /// Whether another host's lease may have ended in a span.
    pub fn another_away(&self, host: usize, span: Span) -> bool {
        let its = |what| matches!(what, What::Agent(n) | What::Cut(n) if n != host);
        self.list.iter().any(|trouble| its(trouble.what) && trouble.span.meets(span))
    }

    /// The latest span without an agent on a host that began before a moment.
    pub fn last_restart(&self, host: usize, before: Moment) -> Option<Trouble> {
        let its = self.list.iter().filter(|trouble| trouble.what == What::Agent(host) && trouble.span.from <= before);
        its.max_by_key(|trouble| trouble.span.from).copied()
    }

    /// Since when a host's agent may have been unable to keep its file, if at a moment it was.
    pub fn disk_full_since(&self, host: usize, at: Moment) -> Option<Moment> {
        let its = |trouble: &&Trouble| trouble.what == What::Disk(host);
        self.list.iter().filter(its).find(|trouble| trouble.span.from <= at).map(|trouble| trouble.span.from)
    }

    /// Whether the machine stood still for so long that a lease may have gone unrenewed.
    pub fn stalled_before(&self, at: Span) -> bool {
        let recent = Span { from: at.from.saturating_sub(bounds::LOST.length), to: at.to };
        self.late(recent) >= STALL * CHAIN
    }

    /// What the machine's own lateness adds to a bound within a span.
    pub fn late(&self, span: Span) -> Duration {
        // Ends are in order: each thing was timed after the one before.
        let first = self.pace.partition_point(|pace| pace.span.to < span.from);
        let within = self.pace[first..].iter().take_while(|pace| pace.span.from <= span.to);
        within.map(|pace| pace.late).max().unwrap_or_default() * CHAIN
    }
}
