//! From a change of the store to what one who waits is told, and whether it is for him.

use std::time::SystemTime;

use super::act::{Act, word};
use super::index;
use super::node::{Node, Reply};
use super::path::NodePath;
use super::request::Wait;
use super::sight::{Held, Life};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// The node.
    pub path: NodePath,
    /// Whether the key only remembers a directory.
    pub is_mark: bool,
    /// As it is now; nothing if it went.
    pub now: Option<Held>,
    /// The revision.
    pub revision: i64,
    /// How many of the same revision came before it.
    pub place: usize,
}

/// What is known of it besides.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What the commit was, if it was a request of v2.
    pub act: Option<Act>,
    /// The key as it was before.
    pub before: Option<Held>,
    /// Whether it went with its lease.
    pub has_expired: bool,
    /// The directory that ended, and it with it; with when it was made.
    pub ended: Option<(NodePath, i64)>,
    /// Whether another change of the same revision tells of that end.
    pub is_told_already: bool,
    /// The time it has now.
    pub life: Option<Life>,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The node that it happened to.
    pub path: NodePath,
    /// The index.
    pub index: u64,
    /// The reply.
    pub reply: Reply,
}

/// Whether a change may be for one who waits: what is known besides decides.
pub fn may_concern(wait: &Wait, raw: &Raw) -> bool {
    let is_below = raw.path.is_below(&wait.path);
    raw.path == wait.path || (is_below && (wait.recursive || raw.now.is_none()))
}

/// What happened, in v2's words; nothing where nobody is to be told.
pub fn told(raw: &Raw, known: &Known, now: SystemTime) -> Option<Told> {
    if let Some(act) = &known.act {
        return if act.refresh { None } else { told_of_act(act, raw, known, now) };
    }
    if known.is_told_already {
        return None;
    }
    if let Some((path, made)) = &known.ended {
        return Some(gone_dir(word::EXPIRE, path, index::of(*made, 0), index::of(raw.revision, raw.place)));
    }
    if raw.is_mark {
        return None;
    }
    let action = match (&raw.now, known.has_expired) {
        (Some(_), _) => word::SET,
        (None, true) => word::EXPIRE,
        (None, false) => word::DELETE,
    };
    Some(of_file(action, raw, known, raw.place, now))
}

fn told_of_act(act: &Act, raw: &Raw, known: &Known, now: SystemTime) -> Option<Told> {
    let path = act.path()?;
    if !act.dir && path == raw.path && !raw.is_mark {
        return Some(of_file(&act.action, raw, known, 0, now));
    }
    let index = index::of(raw.revision, 0);
    let is_gone = [word::DELETE, word::COMPARE_DELETE].contains(&act.action.as_str());
    if is_gone {
        return Some(gone_dir(&act.action, &path, act.before.unwrap_or(0), index));
    }
    if !act.dir {
        return None; // what else its commit wrote is not what it was
    }
    let made = act.before.filter(|made| *made != 0).unwrap_or(index);
    let node = Node { modified: index, ..Node::dir(&path, made) };
    let prev = act.before.map(|made| Node::dir(&path, made));
    // A directory that took a file's place.
    let prev = prev.or_else(|| known.before.as_ref().map(|held| Node::file(&path, held)));
    let is_new = prev.is_none();
    Some(Told { path, index, reply: Reply { action: act.action.clone(), node: Some(node), prev, index, is_new } })
}

fn of_file(action: &str, raw: &Raw, known: &Known, place: usize, now: SystemTime) -> Told {
    let index = index::of(raw.revision, place);
    let prev = known.before.as_ref().map(|held| Node::file(&raw.path, held));
    let created = |held: &Held| if held.created == raw.revision { index } else { index::of(held.created, 0) };
    let node = match &raw.now {
        Some(held) => Node { created: created(held), ..Node::file(&raw.path, held) }.ending(known.life.as_ref(), now),
        None => Node { created: known.before.as_ref().map_or(0, created), ..Node::at(&raw.path) },
    };
    let node = Node { modified: index, ..node };
    let reply = Reply { action: action.to_owned(), node: Some(node), prev, index, is_new: false };
    Told { path: raw.path.clone(), index, reply }
}

fn gone_dir(action: &str, path: &NodePath, made: u64, index: u64) -> Told {
    let node = Node { modified: index, ..Node::dir(path, made) };
    let prev = Some(Node::dir(path, made));
    let reply = Reply { action: action.to_owned(), node: Some(node), prev, index, is_new: false };
    Told { path: path.clone(), index, reply }
}

/// Whether one who waits is told it.
pub fn concerns(wait: &Wait, told: &Told) -> bool {
    let is_in_time = told.index >= wait.since;
    let is_own = told.path == wait.path;
    let is_below = told.path.is_below(&wait.path) && wait.recursive && !told.path.is_hidden_from(&wait.path);
    // What is above and went took it along.
    let is_above = wait.path.is_below(&told.path) && is_gone_dir(told);
    is_in_time && (is_own || is_below || is_above)
}

fn is_gone_dir(told: &Told) -> bool {
    let is_gone = [word::DELETE, word::EXPIRE].contains(&told.reply.action.as_str());
    is_gone && told.reply.node.as_ref().is_some_and(|node| node.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::parse(text).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn held(key: &str, created: i64, modified: i64) -> Held {
        Held { key: key.to_owned(), value: b"v".to_vec(), lease: 0, created, modified }
    }

    fn raw(key: &str, is_put: bool, place: usize) -> Raw {
        Raw { path: path(key), is_mark: false, now: is_put.then(|| held(key, 5, 5)), revision: 5, place }
    }

    fn wait(at: &str, recursive: bool, since: u64) -> Wait {
        Wait { path: path(at), recursive, stream: false, since }
    }

    fn act(action: &str, key: &str, dir: bool) -> Act {
        Act { action: action.into(), key: key.into(), dir, refresh: false, before: dir.then_some(9) }
    }

    fn check(raw: &Raw, known: &Known, expected: &str) {
        let told = told(raw, known, SystemTime::UNIX_EPOCH).expect("it is told");
        assert_eq!(format!("{} {} {}", told.reply.action, told.path, told.index - index::of(5, 0)), expected);
    }

    #[test]
    fn a_change_is_told_as_what_it_was() {
        let acted = |act| Known { act: Some(act), ..Known::default() };
        let before = || Known { before: Some(held("/a/b", 3, 4)), ..Known::default() };
        check(&raw("/a/b", true, 3), &Known::default(), "set /a/b 3");
        check(&raw("/a/b", false, 3), &before(), "delete /a/b 3");
        check(&raw("/a/b", false, 3), &Known { has_expired: true, ..before() }, "expire /a/b 3");
        check(&raw("/a/b", false, 3), &Known { ended: Some((path("/a"), 2)), ..before() }, "expire /a 3");
        check(&raw("/a/b", true, 3), &acted(act("create", "/a/b", false)), "create /a/b 0");
        check(&raw("/a/b", false, 3), &acted(act("delete", "/a", true)), "delete /a 0");
        let refreshed = Act { refresh: true, ..act("update", "/a/b", false) };
        assert_eq!(told(&raw("/a/b", true, 0), &acted(refreshed), SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    fn one_is_told_what_happens_where_he_looks() {
        let of =
            |key: &str, is_put| told(&raw(key, is_put, 2), &Known::default(), SystemTime::UNIX_EPOCH).expect("told");
        let at = index::of(5, 2);
        for (at, recursive, since, key, expected) in [
            ("/a", false, at, "/a", true),
            ("/a", false, at + 1, "/a", false),
            ("/a", false, 0, "/a/b", false),
            ("/a", true, 0, "/a/b", true),
            ("/a", true, 0, "/a/_b", false),
            ("/a/_b", true, 0, "/a/_b", true),
            ("/", true, 0, "/wharf/services/v2/act", false),
        ] {
            assert_eq!(
                concerns(&wait(at, recursive, since), &of(key, true)),
                expected,
                "{at} {recursive} {since} {key}"
            );
        }
        let known = Known { act: Some(act("delete", "/a", true)), ..Known::default() };
        let gone = told(&raw("/a/b/c", false, 2), &known, SystemTime::UNIX_EPOCH).expect("told");
        let deep = wait("/a/b", false, 0);
        assert!(may_concern(&deep, &raw("/a/b/c", false, 2)) && concerns(&deep, &gone));
    }
}
