//! Which list is to be written, and under which version.
//!
//! The key in the store holds version and list together, and is swapped as one. The store may be emptied, or restored
//! from a backup: then whoever has seen a higher version writes above both. The time in seconds is the floor, so that a
//! cluster which forgot everything still begins above what its clients saw. Where the store is known to have gone back,
//! a list may be told somewhere that nobody else has seen, by a host whose clock is ahead, or after another going back:
//! the next version leaves [`ROOM`] for that, a random part of it, so that two who do not know of each other differ.

use std::ops::RangeInclusive;

use super::member::{MAX_VERSION, Member, MemberList};

/// The room that may be left when the store has gone back: clocks of one cluster differ by less than the least of it,
/// in seconds, and a list changes less often in what a backup lacks; the most of it is a day.
pub const ROOM: RangeInclusive<u64> = 1_000..=100_000;

/// When, and after what, a list is written.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The writer's time in seconds.
    pub seconds: u64,
    /// Of [`ROOM`], where the store has been emptied or restored since the writer last wrote to it; else 0.
    pub room: u64,
}

/// Of two lists the one that is answered: the higher version. Of one version the one that was known first, unless the
/// other tells clients the same.
pub fn newer<'l>(known: Option<&'l MemberList>, other: Option<&'l MemberList>) -> Option<&'l MemberList> {
    let (Some(one), Some(two)) = (known, other) else { return known.or(other) };
    let replaces = two.version > one.version || two.version == one.version && two.is_told_as(&one.members);
    Some(if replaces { two } else { one })
}

/// What is to be written in place of `stored` by one who has `seen` a list, perhaps of a store that is gone; none when
/// all is as it should be, or nobody was ever there.
pub fn next_list(
    stored: Option<&MemberList>,
    seen: Option<&MemberList>,
    now: Moment,
    evolved: impl FnOnce(&[Member]) -> Vec<Member>,
) -> Option<MemberList> {
    let base = newer(stored, seen);
    let members = evolved(base.map_or(&[], |list| &list.members));
    if members.is_empty() {
        return None;
    }
    let version_of = |list: Option<&MemberList>| list.map_or(0, |list| list.version);
    let (written, known) = (version_of(stored), version_of(seen));
    let is_known_otherwise =
        |list: &MemberList| seen.is_some_and(|seen| seen.version == list.version && !seen.is_told_as(&list.members));
    if let Some(list) = stored.filter(|list| list.is_told_as(&members) && written >= known && !is_known_otherwise(list))
    {
        return (list.members != members).then_some(MemberList { version: written, members });
    }
    let version = written.max(known).max(now.seconds.saturating_sub(1)) + 1 + now.room;
    (version <= MAX_VERSION).then_some(MemberList { version, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(version: u64, ids: &str) -> Option<MemberList> {
        let member = |id: u8| {
            let address = [10, 0, 0, id].into();
            Member { id: (id as char).to_string().into(), node: None, address, port: 11211 }
        };
        (version > 0).then(|| MemberList { version, members: ids.bytes().map(member).collect() })
    }

    #[allow(clippy::needless_pass_by_value)] // so that cases read as data
    fn check(stored: Option<MemberList>, seen: Option<MemberList>, now: &str, expected: Option<MemberList>) {
        let wanted = list(1, now).map(|list| list.members).unwrap_or_default();
        let now = Moment { seconds: 1_000, room: 0 };
        let next = next_list(stored.as_ref(), seen.as_ref(), now, |_| wanted);
        assert_eq!(next, expected, "stored {stored:?} seen {seen:?}");
    }

    #[test]
    fn a_version_rises_only_when_the_list_changes_and_is_no_less_than_the_time() {
        check(None, None, "", None);
        check(None, None, "a", list(1_000, "a"));
        check(list(1_000, "a"), list(1_000, "a"), "a", None);
        check(list(1_000, "a"), list(1_000, "a"), "ab", list(1_001, "ab"));
        check(list(7, "a"), list(7, "a"), "ab", list(1_000, "ab"));
        check(list(5_000, "a"), list(5_000, "a"), "ab", list(5_001, "ab"));
        check(list(MAX_VERSION, "a"), None, "ab", None);
    }

    #[test]
    fn who_has_seen_a_higher_version_writes_above_both() {
        check(None, list(5_000, "a"), "a", list(5_001, "a"));
        check(list(4_000, "ab"), list(5_000, "a"), "a", list(5_001, "a"));
        check(list(6_000, "ab"), list(5_000, "a"), "ab", None);
        check(list(5_000, "ab"), list(5_000, "a"), "ab", list(5_001, "ab"));
        check(list(5_000, "ab"), list(5_000, "a"), "a", list(5_001, "a"));
    }

    #[test]
    fn another_name_for_the_same_place_is_written_under_the_same_version() {
        let mut renamed = list(5_000, "ab");
        renamed.iter_mut().for_each(|list| list.members[0].id = "x".into());
        let members = renamed.as_ref().map(|list| list.members.clone()).unwrap_or_default();
        let before = list(5_000, "ab");
        assert_eq!(
            next_list(before.as_ref(), before.as_ref(), Moment { seconds: 1_000, room: 1_000 }, |_| members),
            renamed
        );
        assert_eq!(newer(before.as_ref(), renamed.as_ref()), renamed.as_ref());
    }

    #[test]
    fn what_is_answered_never_falls() {
        let (low, high, other) = (list(5, "a"), list(6, "b"), list(6, "c"));
        assert_eq!(newer(low.as_ref(), high.as_ref()), high.as_ref());
        assert_eq!(newer(high.as_ref(), low.as_ref()), high.as_ref());
        assert_eq!(newer(high.as_ref(), other.as_ref()), high.as_ref(), "one version is one list");
        assert_eq!(newer(None, low.as_ref()), low.as_ref());
        assert_eq!(newer(low.as_ref(), None), low.as_ref());
    }
}
