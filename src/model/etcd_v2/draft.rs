//! A plan in the making: what it must hold is gathered beside what it writes.

use super::act::Act;
use super::path::NodePath;
use super::plan::{Must, Outcome, Plan, Planner, Will, Wish};
use super::request::Content;
use super::sight::{Held, Step};

/// A plan in the making.
pub(super) struct Draft<'a> {
    pub(super) planner: &'a Planner<'a>,
    pub(super) conditions: Vec<Must>,
    pub(super) writes: Vec<Will>,
    pub(super) lease: Wish,
    pub(super) outcome: Outcome,
}

impl Draft<'_> {
    /// A node of the path stays as it was seen.
    pub(super) fn hold_step(&mut self, step: &Step) {
        if step.path.is_root() {
            return;
        }
        let as_seen = |key: String, held: Option<&Held>| match held {
            Some(held) => Must::Unchanged(key, held.modified),
            None => Must::Absent(key),
        };
        if step.can_be_file {
            self.conditions.push(as_seen(step.path.to_string(), step.file.as_ref()));
        }
        self.conditions.push(as_seen(self.planner.places.mark(&step.path), step.mark.as_ref()));
    }

    /// Nothing lies below.
    pub(super) fn hold_empty(&mut self, path: &NodePath) {
        self.conditions.push(Must::NoneCreatedSince(path.below(), 0));
        self.conditions.push(Must::NoneCreatedSince(self.planner.places.marks_below(path), 0));
    }

    /// Nothing was written below.
    pub(super) fn hold_below(&mut self, path: &NodePath) {
        let revision = self.planner.sight.revision;
        self.conditions.push(Must::NonePutSince(path.below(), revision));
        self.conditions.push(Must::NonePutSince(self.planner.places.marks_below(path), revision));
    }

    pub(super) fn make(&mut self, path: &NodePath, content: &Content, lease: Wish) {
        let (key, value) = match content {
            Content::File(value) => (path.to_string(), value.clone()),
            Content::Dir => (self.planner.places.mark(path), Vec::new()),
        };
        self.writes.push(Will::Put { key, value, lease: None });
        self.lease = lease;
    }

    /// A directory stays though its last child goes. One whose children are named in order is written again each time:
    /// a name that is free again must not be given by whoever saw it taken.
    pub(super) fn remember_parent(&mut self) {
        let sight = self.planner.sight;
        let Some(parent) = sight.above.last() else { return };
        let name = sight.own.path.name();
        let is_in_order = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
        let lease = match &parent.mark {
            Some(_) if !is_in_order => return,
            Some(mark) => mark.lease,
            None => sight.outer_life().map_or(0, |(lease, _)| lease),
        };
        let key = self.planner.places.mark(&parent.path);
        self.writes.push(Will::Put { key, value: Vec::new(), lease: Some(lease) });
    }

    pub(super) fn renewing(mut self, lease: i64, content: Content) -> Plan {
        self.writes.clear();
        self.outcome.now = Some(content);
        let Self { conditions, outcome, .. } = self;
        Plan { conditions, writes: Vec::new(), lease: Wish::Renewed(lease), outcome }
    }

    pub(super) fn done(mut self, path: &NodePath, now: Option<Content>) -> Plan {
        let is_dir = self.outcome.was_dir || now == Some(Content::Dir);
        let act = Act {
            action: self.outcome.action.to_owned(),
            key: path.to_string(),
            dir: is_dir,
            refresh: self.planner.refreshes(),
            before: self.outcome.made.filter(|_| self.outcome.was_dir),
        };
        let key = self.planner.places.act().to_owned();
        self.writes.push(Will::Put { key, value: act.encode().into_bytes(), lease: Some(0) });
        let outcome = Outcome { path: path.clone(), now, ..self.outcome };
        Plan { conditions: self.conditions, writes: self.writes, lease: self.lease, outcome }
    }
}
