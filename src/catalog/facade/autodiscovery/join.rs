//! Who joins the list, who stays in it though nothing is found of it, and who leaves.
//!
//! ```text
//!            ready                no record                 leave-after over, or drained
//! (unknown) ───────▶ listed ◀──────────────▶ listed, away ────────────────────────────────▶ gone
//!                            ready again, under its id, perhaps elsewhere
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::member::{MOST_MEMBERS, Member};
use crate::model::words::node::NodeRecord;
use crate::model::words::record::Text;

/// How long members have been away: counted from when that was seen first, and only while it could have been seen that
/// they are there.
#[derive(Clone, Debug, Default)]
pub struct Absences(BTreeMap<Text, Duration>);

impl Absences {
    /// So much time went by, in step with the store.
    pub fn pass(&mut self, time: Duration, list: &[Member], ready: &[Member]) {
        let ids: BTreeSet<&Text> = ready.iter().map(|member| &member.id).collect();
        let places: BTreeSet<_> = ready.iter().map(Member::place).collect();
        let is_away = |member: &&Member| !ids.contains(&member.id) && !places.contains(&member.place());
        let away = list.iter().filter(is_away).map(|member| {
            let so_far = self.0.get(&member.id).map_or(Duration::ZERO, |so_far| so_far.saturating_add(time));
            (member.id.clone(), so_far)
        });
        self.0 = away.collect();
    }

    /// How long a member has been away.
    pub fn of(&self, member: &Member) -> Duration {
        self.noted(member).unwrap_or_default()
    }

    /// The same; none while it is there.
    pub fn noted(&self, member: &Member) -> Option<Duration> {
        self.0.get(&member.id).copied()
    }
}

/// Who was drained, as hosts say of themselves.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    nodes: BTreeSet<Text>,
    ids: BTreeSet<Text>,
}

impl Drained {
    /// What these say.
    pub fn of(nodes: &[NodeRecord]) -> Self {
        let drained = nodes.iter().filter(|node| node.drained.is_some());
        let waiting = nodes.iter().flat_map(|node| &node.waiting).filter(|waiting| &*waiting.state == "drained");
        Self {
            nodes: drained.map(|node| node.node.clone()).collect(),
            ids: waiting.map(|waiting| waiting.id.clone()).collect(),
        }
    }

    /// Whether this member was.
    pub fn has(&self, member: &Member) -> bool {
        self.ids.contains(&member.id) || member.node.as_ref().is_some_and(|node| self.nodes.contains(node))
    }
}

/// The list after what is ready has joined and who `leaves` has left. A member keeps its place in the order; new ones
/// come at the end; the last one stays.
pub fn evolved(list: &[Member], ready: &[Member], leaves: impl Fn(&Member) -> bool) -> Vec<Member> {
    let mut coming: BTreeMap<_, &Member> = ready.iter().rev().map(|member| (member.place(), member)).collect();
    let there: Vec<Option<&Member>> = list.iter().map(|member| coming.remove(&member.place())).collect();
    let mut by_id: BTreeMap<&Text, _> = coming.iter().rev().map(|(place, member)| (&member.id, *place)).collect();
    let mut members: Vec<Member> = Vec::with_capacity(list.len() + coming.len());
    for (member, there) in list.iter().zip(there) {
        let back = || by_id.remove(&member.id).and_then(|place| coming.remove(&place));
        match there.or_else(back) {
            Some(now) => members.push(now.clone()),
            None if leaves(member) => {}
            None => members.push(member.clone()),
        }
    }
    let mut new: Vec<&Member> = coming.into_values().collect();
    new.sort_by_key(|member| (&member.id, member.place()));
    members.extend(new.into_iter().take(MOST_MEMBERS.saturating_sub(members.len())).cloned());
    if members.is_empty() {
        members.extend(list.first().cloned());
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::words::node::Waiting;

    /// `id@last-byte`, one a word.
    fn members(text: &str) -> Vec<Member> {
        let member = |word: &str| {
            let (id, last) = word.split_once('@').expect("id@last");
            let address = [10, 0, 0, last.parse().expect("a byte")].into();
            Member { id: id.into(), node: Some(format!("host-{id}").into()), address, port: 11211 }
        };
        text.split_whitespace().map(member).collect()
    }

    fn check(list: &str, ready: &str, leaving: &str, expected: &str) {
        let leaves = |member: &Member| leaving.split(' ').any(|id| id == &*member.id);
        let now = evolved(&members(list), &members(ready), leaves);
        assert_eq!(now, members(expected), "{list} with {ready}, {leaving} may go");
    }

    #[test]
    fn members_join_at_the_end_stay_while_they_are_away_and_leave_when_they_may() {
        check("", "b@2 a@1", "", "a@1 b@2");
        check("b@2", "a@1 b@2", "", "b@2 a@1");
        check("a@1 b@2", "b@2", "", "a@1 b@2");
        check("a@1 b@2", "b@2", "a", "b@2");
        check("a@1 b@2", "a@1 b@2", "a b", "a@1 b@2");
        check("a@1 b@2 c@3", "c@3 d@4", "a", "b@2 c@3 d@4");
    }

    #[test]
    fn one_that_comes_back_under_its_id_takes_its_place() {
        check("a@1 b@2 c@3", "b@9 c@3", "b", "a@1 b@9 c@3");
        check("a@1 b@2", "b@1 a@2", "", "b@1 a@2");
        check("a@1", "x@1", "", "x@1");
        check("a@1 b@2", "b@1", "a", "b@1 b@2");
    }

    #[test]
    fn the_last_member_stays() {
        check("a@1 b@2", "", "a b", "a@1");
        check("a@1", "", "a", "a@1");
        check("a@1", "b@2", "a", "b@2");
        check("", "", "", "");
    }

    #[test]
    fn one_place_is_one_member_and_there_are_not_more_than_so_many() {
        check("", "a@1 b@1", "", "a@1");
        let crowd: Vec<Member> = (0..3_000_u16)
            .map(|port| Member { id: port.to_string().into(), port: port + 1, ..members("a@1").remove(0) })
            .collect();
        let all = evolved(&members("old@2"), &crowd, |_| true);
        assert_eq!((all.len(), &*all[0].id), (MOST_MEMBERS, "0"), "what is away makes room, what is there does not");
        assert_eq!(evolved(&all, &crowd[500..], |_| false), all, "who came first stays");
    }

    #[test]
    fn an_absence_is_counted_until_it_is_over() {
        let (list, mut absences) = (members("a@1 b@2"), Absences::default());
        for (ready, a, b) in [("a@1", 0, 0), ("", 0, 2), ("", 2, 4), ("b@7", 4, 0), ("a@1", 0, 0), ("x@1", 0, 2)] {
            absences.pass(Duration::from_secs(2), &list, &members(ready));
            let seconds = |place: usize| absences.of(&list[place]).as_secs();
            assert_eq!((seconds(0), seconds(1)), (a, b), "{ready}");
        }
    }

    #[test]
    fn hosts_and_instances_that_were_drained_are_known() {
        let waiting = |state: &str| Waiting { id: "b".into(), state: state.into(), ..Waiting::default() };
        let node = |drained: Option<&str>, state: &str| NodeRecord {
            node: "host-a".into(),
            drained: drained.map(Into::into),
            waiting: vec![waiting(state)],
            ..NodeRecord::default()
        };
        let [a, b] = [&members("a@1")[0], &members("b@2")[0]].map(Clone::clone);
        for (drained, state, expected) in
            [(None, "down", (false, false)), (Some("2026"), "down", (true, false)), (None, "drained", (false, true))]
        {
            let known = Drained::of(&[node(drained, state)]);
            assert_eq!((known.has(&a), known.has(&b)), expected);
        }
    }
}
