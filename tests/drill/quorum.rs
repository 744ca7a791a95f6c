//! What asking etcd's members tells of the store: when none of them answered, when they came to have another leader,
//! and which host's agent was connected to one that did not answer or could not be reached. Pure.
//!
//! The surprising part: whoever asks for everything else comes in by the hosts' side doors, so a member behind a cut
//! cable still answers him; an agent that is connected to it finds its store away all the same. Which member that is,
//! the kernel tells, not the agent.

use std::collections::BTreeSet;

use crate::bounds;
use crate::trouble::{Trouble, What};
use crate::truth::{Moment, Span};

/// One question to a member that only a quorum can answer, and the leader's term in the answer.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub span: Span,
    pub term: Option<u64>,
}

/// The members that a host's agent had connections to at some time of a span.
#[derive(Clone, Debug)]
pub struct Mooring {
    pub span: Span,
    pub members: BTreeSet<usize>,
}

/// The latest answer of any member.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    pub at: Moment,
    pub term: u64,
}

/// The spans in which no member answered, and those in which they came to have another leader. `last` is what was known
/// before anybody asked: nothing is known of the store since then but that leader.
pub fn store_troubles(last: &mut Option<Last>, mut told: Vec<Told>, end: Moment) -> Vec<Trouble> {
    told.sort_by_key(|told| told.span.to);
    let mut found = vec![];
    let mut note = |what, span: Span| found.push(Trouble { what, span, sure: span.from });
    // The asking begins anew: silence before it was nobody's.
    let mut good = told.first().map_or(end, |first| first.span.from);
    for answer in &told {
        let Some(term) = answer.term else { continue };
        if answer.span.to.saturating_sub(good) > bounds::AWAY.length {
            note(What::Store, Span { from: good, to: answer.span.to });
        }
        if let Some(known) = last.filter(|last| last.term != term) {
            note(What::Leader, Span { from: known.at, to: answer.span.to });
        }
        good = good.max(answer.span.from);
        *last = Some(Last { at: good, term });
    }
    if end.saturating_sub(good) > bounds::AWAY.length {
        note(What::Store, Span { from: good, to: end });
        note(What::Leader, Span { from: good, to: end });
    }
    found
}

/// The spans in which a member, by its number, answered nobody for so long that whoever is connected to it finds the
/// store away.
pub fn silences(member: usize, told: &[Told], end: Moment) -> Vec<(usize, Trouble)> {
    let Some(first) = told.first() else { return vec![] };
    let mut found = vec![];
    let mut good = first.span.from;
    let ends = told.iter().filter(|told| told.term.is_some()).map(|told| told.span);
    for answer in ends.chain([Span { from: end, to: end }]) {
        if answer.to.saturating_sub(good) > bounds::AWAY.length {
            let span = Span { from: good, to: answer.to };
            found.push((member, Trouble { what: What::Store, span, sure: span.from }));
        }
        good = good.max(answer.from);
    }
    found
}

/// The spans in which a host's agent was connected to a member that was silent, or behind a link in trouble. It has to
/// leave a member that it hears nothing from; on a lossy or slow link it may stay.
pub fn stranded(host: usize, moorings: &[Mooring], silences: &[(usize, Trouble)], links: &[Trouble]) -> Vec<Trouble> {
    let behind = links.iter().filter_map(|trouble| match trouble.what {
        What::Cut(n) | What::Links(n) if n != host => Some((n, *trouble)),
        _ => None,
    });
    let all = silences.iter().copied().chain(behind);
    all.filter_map(|(member, trouble)| {
        let stays = matches!(trouble.what, What::Links(_));
        let limit = if stays { trouble.span.to } else { trouble.sure + bounds::SILENT.length };
        let whole = Span { from: trouble.span.from, to: trouble.span.to.min(limit) };
        let there = moorings.iter().filter(|mooring| mooring.members.contains(&member) && mooring.span.meets(whole));
        let until = there.map(|mooring| mooring.span.to).max()?;
        let span = Span { from: whole.from, to: until.min(whole.to) };
        Some(Trouble { what: What::Stranded(host), span, sure: span.from })
    })
    .collect()
}

/// What was seen at one moment holds until the next look: makes spans without gaps of single looks.
pub fn moorings(looks: Vec<(Span, BTreeSet<usize>)>, end: Moment) -> Vec<Mooring> {
    let nexts: Vec<Moment> = looks.iter().skip(1).map(|(span, _)| span.to).chain([end]).collect();
    looks
        .into_iter()
        .zip(nexts)
        .map(|((span, members), next)| Mooring { span: Span { from: span.from, to: next.max(span.to) }, members })
        .collect()
}
