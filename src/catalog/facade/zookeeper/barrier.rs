//! When the ensemble may be relied on, by what its members were asked just now.
//!
//! ```text
//!   enough say a mode, exactly one leads ──────────────▶ sessions ── each grants one ──▶ open
//!   else enough are published, and the same for a while ──▶   │
//!                                                             └── one does not ──▶ asked again
//! ```
//!
//! A session is a write: it is asked for only where it will be granted most likely.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cell::{Cell, Member};
use crate::model::words::record::Text;

/// What a member said to `srvr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It leads.
    Leader,
    /// It follows, with or without a vote.
    Follower,
    /// It stands alone.
    Standalone,
    /// It has no quorum.
    NotServing,
    /// It may not tell.
    NotAllowed,
    /// Nothing, or nothing of ZooKeeper's.
    Nothing,
}

impl Said {
    fn in_words(self) -> &'static str {
        match self {
            Self::Leader => "leads",
            Self::Follower => "follows",
            Self::Standalone => "stands alone",
            Self::NotServing => "has no quorum",
            Self::NotAllowed => "may not tell",
            Self::Nothing => "does not answer",
        }
    }
}

/// What was said, by place.
pub type Answers = BTreeMap<(Text, u16), Said>;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Each of these is asked for a session.
    Sessions(Vec<Member>),
    /// It is looked again; how far it is, in words.
    Wait(String),
}

/// A barrier before an ensemble, with what its members said so far.
#[derive(Clone, Debug)]
pub struct Barrier {
    least: usize,
    stable: Duration,
    /// The members that are published, and since when the same.
    same: (Vec<(Text, u16)>, Duration),
}

impl Barrier {
    /// One that wants so many members, or the same ones for so long.
    pub fn new(least: usize, stable: Duration) -> Self {
        Self { least, stable, same: (Vec::new(), Duration::ZERO) }
    }

    /// What comes next by what is known, and what was said just now. Equal lists count from when they were first seen.
    pub fn look(&mut self, now: Duration, cell: &Cell, answers: &Answers) -> Next {
        let said = |member: &Member| answers.get(&place(member)).copied().unwrap_or(Said::Nothing);
        let is_only = cell.members().len() == 1;
        let leads = |said: Said| said == Said::Leader || is_only && said == Said::Standalone;
        let serve: Vec<&Member> =
            cell.members().iter().filter(|member| leads(said(member)) || said(member) == Said::Follower).collect();
        let leaders = serve.iter().filter(|member| leads(said(member))).count();
        let published: Vec<&Member> = cell
            .members()
            .iter()
            .filter(|member| member.published && (is_only || said(member) != Said::Standalone))
            .collect();
        let places: Vec<_> = published.iter().map(|member| place(member)).collect();
        if self.same.0 != places {
            self.same = (places, now);
        }
        if serve.len() >= self.least && leaders == 1 {
            return Next::Sessions(serve.into_iter().cloned().collect());
        }
        let is_stable = published.len() >= self.least && now >= self.same.1 + self.stable;
        // Two leaders are two ensembles, whatever each of them grants.
        if is_stable && leaders < 2 {
            return Next::Sessions(published.into_iter().cloned().collect());
        }
        Next::Wait(self.progress(cell, serve.len(), leaders, said))
    }

    fn progress(&self, cell: &Cell, serve: usize, leaders: usize, said: impl Fn(&Member) -> Said) -> String {
        let each: Vec<String> =
            cell.members().iter().map(|member| format!("{member} {}", said(member).in_words())).collect();
        let leaders = match leaders {
            0 => "none leads".to_owned(),
            1 => "one leads".to_owned(),
            many => format!("{many} lead"),
        };
        let each = if each.is_empty() { "no member is known".to_owned() } else { each.join(", ") };
        format!("{serve} of {} serve, {leaders}: {each}", self.least)
    }
}

/// Where a member is.
pub fn place(member: &Member) -> (Text, u16) {
    (member.host.clone(), member.port)
}

#[cfg(test)]
mod tests {
    use super::super::cell::list;
    use super::super::cell::tests::{nodes, service};
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Answers by the last number of an address: l, f, s, n, x (may not tell), or nothing.
    fn answers(text: &str) -> Answers {
        let said = |c| match c {
            'l' => Said::Leader,
            'f' => Said::Follower,
            's' => Said::Standalone,
            'n' => Said::NotServing,
            'x' => Said::NotAllowed,
            _ => Said::Nothing,
        };
        let place = |number| (format!("10.0.0.{number}").into(), 2181);
        text.chars().enumerate().map(|(number, c)| (place(number + 1), said(c))).collect()
    }

    fn cell(found: usize, waiting: usize) -> Cell {
        let lines: Vec<String> = (1..=found).map(|number| format!("10.0.0.{number} n{number} replica")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let others: Vec<String> =
            (found + 1..=found + waiting).map(|number| format!("n{number} 0 10.0.0.{number} x")).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        Cell::of("zookeeper", Some(&service(&lines)), &nodes(&others), None)
    }

    /// Whose sessions are asked for; `-` when nobody's.
    fn asked(least: usize, cell: &Cell, said: &str) -> String {
        match Barrier::new(least, at(5)).look(at(1), cell, &answers(said)) {
            Next::Sessions(members) => list(&members).replace("10.0.0.", "").replace(":2181", ""),
            Next::Wait(_) => "-".to_owned(),
        }
    }

    #[test]
    fn it_opens_at_once_with_enough_members_of_whom_one_leads() {
        assert_eq!(asked(3, &cell(3, 0), "lff"), "1,2,3");
        assert_eq!(asked(3, &cell(0, 3), "flf"), "1,2,3", "their hosts' word may be some seconds old");
        assert_eq!(asked(3, &cell(4, 0), "lff-"), "1,2,3", "a dead one is not waited for");
        for (least, said) in [(3, "lf-"), (3, "fff"), (3, "llf"), (3, "nnn"), (3, "lfn"), (3, "lfs"), (3, "---")] {
            assert_eq!(asked(least, &cell(3, 0), said), "-", "{said}");
        }
        assert_eq!(asked(2, &cell(3, 0), "lfs"), "1,2", "it has not joined");
    }

    #[test]
    fn a_cell_of_one_has_one_that_stands_alone() {
        assert_eq!(asked(1, &cell(1, 0), "s"), "1");
        assert_eq!(asked(1, &cell(0, 1), "s"), "1");
        assert_eq!(asked(1, &cell(1, 1), "s-"), "-", "another one is on its way");
        assert_eq!(asked(3, &cell(1, 0), "s"), "-");
    }

    #[test]
    fn members_that_may_not_tell_are_enough_when_they_are_the_same_for_a_while() {
        let (mut barrier, three) = (Barrier::new(3, at(5)), cell(3, 0));
        let look = |barrier: &mut Barrier, now, cell: &Cell, said: &str| {
            matches!(barrier.look(at(now), cell, &answers(said)), Next::Sessions(_))
        };
        assert!(!look(&mut barrier, 1, &three, "xxx"));
        assert!(!look(&mut barrier, 5, &three, "xxx"));
        assert!(!look(&mut barrier, 6, &cell(4, 0), "xxxx"), "they change");
        assert!(!look(&mut barrier, 10, &cell(4, 0), "xxxx"));
        assert!(look(&mut barrier, 11, &cell(4, 0), "xxxx"));
        assert!(!look(&mut barrier, 30, &cell(4, 0), "llxx"), "two lead");
        let mut few = Barrier::new(3, at(5));
        assert!(!look(&mut few, 1, &cell(2, 1), "xxx") && !look(&mut few, 60, &cell(2, 1), "xxx"));
    }

    #[test]
    fn how_far_it_is_is_said() {
        let Next::Wait(text) = Barrier::new(3, at(5)).look(at(1), &cell(2, 1), &answers("ln-")) else { panic!("open") };
        assert_eq!(
            text,
            "1 of 3 serve, one leads: 10.0.0.1:2181 leads, 10.0.0.2:2181 has no quorum, 10.0.0.3:2181 does not answer"
        );
        let Next::Wait(text) = Barrier::new(3, at(5)).look(at(1), &Cell::default(), &Answers::new()) else {
            panic!("open")
        };
        assert_eq!(text, "0 of 3 serve, none leads: no member is known");
    }
}
