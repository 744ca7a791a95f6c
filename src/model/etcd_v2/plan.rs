//! From a change, and what the store holds, to one conditional commit and the reply that it earns.
//!
//! The conditions hold whatever the decision rests on: each file and mark above, the node itself, and that nothing lies
//! below where nothing may. If one of them fails, somebody was faster, and all is looked at anew.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::act::word;
use super::draft::Draft;
use super::fault::{Code, Fault};
use super::index;
use super::node::{Node, Reply};
use super::path::{NodePath, Places};
use super::request::{Change, Content, Deed, Previous};
use super::sight::{Held, Life, Sight};
use super::whose;

/// The most writes, or conditions, of a commit.
pub const MOST: usize = 100;

/// What must hold for the commit to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Must {
    /// There is no such key.
    Absent(String),
    /// The key was last put at this revision.
    Unchanged(String, i64),
    /// Nothing that begins so was made after this revision; of 0, there is nothing.
    NoneCreatedSince(String, i64),
    /// Nothing that begins so was put after this revision.
    NonePutSince(String, i64),
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Will {
    /// A key.
    Put {
        /// Its name.
        key: String,
        /// Its value.
        value: Vec<u8>,
        /// The lease it hangs on; none is the one that the plan wishes for.
        lease: Option<i64>,
    },
    /// A key goes.
    Delete(String),
    /// All keys go that begin so.
    DeleteAll(String),
}

/// The lease that what is written hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This one, or none of 0.
    Held(i64),
    /// A new one of this time.
    Fresh(Duration),
    /// This one gets all of its time again, and nothing is written.
    Renewed(i64),
}

/// One commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What must hold.
    pub conditions: Vec<Must>,
    /// What is written.
    pub writes: Vec<Will>,
    /// On which lease.
    pub lease: Wish,
    /// What is replied.
    pub(super) outcome: Outcome,
}

/// What is known of the reply before the commit is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) action: &'static str,
    pub(super) path: NodePath,
    /// What there is now; nothing of what went.
    pub(super) now: Option<Content>,
    pub(super) was_dir: bool,
    /// When it was made, if it was there: a revision of a file, an index of a directory.
    pub(super) made: Option<u64>,
    pub(super) before: Option<Node>,
    pub(super) quiet: bool,
    /// The revision that it stays at, if nothing is written.
    pub(super) stays: Option<i64>,
}

/// Decides on a change. `now` is the time for what ends.
pub fn plan(change: &Change, sight: &Sight, places: &Places, now: SystemTime) -> Result<Plan, Fault> {
    let planner = Planner { change, sight, places, now };
    planner.check_ours()?;
    match &change.deed {
        Deed::Append(content) => planner.append(content),
        Deed::Create(content) => planner.create(content),
        Deed::Set(content) => planner.set(content),
        Deed::Update(value) => planner.update(value),
        Deed::Swap(value, previous) => planner.swap(value, previous),
        Deed::Delete { dir, recursive } => planner.delete(*dir, *recursive),
        Deed::CompareDelete(previous) => planner.compare_delete(previous),
    }
}

/// Decides.
pub(super) struct Planner<'a> {
    pub(super) change: &'a Change,
    pub(super) sight: &'a Sight,
    pub(super) places: &'a Places,
    now: SystemTime,
}

impl Planner<'_> {
    fn path(&self) -> &NodePath {
        &self.sight.own.path
    }

    fn fault(&self, code: Code) -> Fault {
        Fault::at(code, self.path(), self.sight.revision)
    }

    /// What is no service is written by its own programs alone, and nobody writes in an agent's name.
    fn check_ours(&self) -> Result<(), Fault> {
        let refused = |why: String| Err(Fault::new(Code::Unauthorized, why).with_revision(self.sight.revision));
        if self.path().is_ours() {
            return refused(format!(
                "{} is where agents and locks keep their own: it is for reading only",
                self.path()
            ));
        }
        let value = match &self.change.deed {
            Deed::Create(Content::File(value)) | Deed::Append(Content::File(value)) => value,
            Deed::Set(Content::File(value)) | Deed::Update(value) | Deed::Swap(value, _) => value,
            _ => return Ok(()),
        };
        match whose::owner(value) {
            Some(_) => refused("a value with an owner is for agents to write".to_owned()),
            None => Ok(()),
        }
    }

    fn check_root(&self) -> Result<(), Fault> {
        if self.path().is_root() { Err(self.fault(Code::RootReadOnly)) } else { Ok(()) }
    }

    fn append(&self, content: &Content) -> Result<Plan, Fault> {
        self.sight.check_walk()?;
        if self.sight.own.file.is_some() {
            return Err(self.fault(Code::NotDir));
        }
        let revision = self.sight.revision;
        let path = self.path().child(&format!("{:020}", index::of(revision + 1, 0)));
        let mut draft = self.draft(word::CREATE);
        draft.hold_step(&self.sight.own);
        // Names rise in the order of commits, whichever host they come by.
        draft.conditions.push(Must::NoneCreatedSince(self.path().below(), revision));
        draft.conditions.push(Must::NoneCreatedSince(self.places.marks_below(self.path()), revision));
        draft.make(&path, content, self.inner_lease());
        Ok(draft.done(&path, Some(content.clone())))
    }

    fn create(&self, content: &Content) -> Result<Plan, Fault> {
        self.check_root()?;
        self.sight.check_walk()?;
        if self.sight.is_there() {
            return Err(self.fault(Code::NodeExist));
        }
        self.made(word::CREATE, content)
    }

    fn set(&self, content: &Content) -> Result<Plan, Fault> {
        self.sight.check_walk()?;
        if self.change.refresh {
            self.sight.check_there()?;
        }
        self.check_root()?;
        if self.sight.is_dir() {
            return Err(self.fault(Code::NotFile));
        }
        let Some(file) = &self.sight.own.file else { return self.made(word::SET, content) };
        self.sight.check_free()?;
        match content {
            Content::File(value) => Ok(self.rewritten(word::SET, file, value)),
            Content::Dir => Ok(self.replaced_by_dir(file)),
        }
    }

    fn update(&self, value: &[u8]) -> Result<Plan, Fault> {
        self.check_root()?;
        self.sight.check_there()?;
        let Some(file) = &self.sight.own.file else { return self.update_dir(value) };
        self.sight.check_free()?;
        Ok(self.rewritten(word::UPDATE, file, value))
    }

    fn swap(&self, value: &[u8], previous: &Previous) -> Result<Plan, Fault> {
        self.check_root()?;
        let file = self.compared(previous)?;
        Ok(self.rewritten(word::SWAP, file, value))
    }

    fn delete(&self, dir: bool, recursive: bool) -> Result<Plan, Fault> {
        self.check_root()?;
        self.sight.check_there()?;
        if let Some(file) = &self.sight.own.file {
            self.sight.check_free()?;
            return Ok(self.deleted(word::DELETE, file));
        }
        if !dir {
            return Err(self.fault(Code::NotFile));
        }
        if self.sight.first_child.is_some() && !recursive {
            return Err(self.fault(Code::DirNotEmpty));
        }
        self.sight.check_free_below()?;
        Ok(self.deleted_dir())
    }

    fn compare_delete(&self, previous: &Previous) -> Result<Plan, Fault> {
        let file = self.compared(previous)?;
        Ok(self.deleted(word::COMPARE_DELETE, file))
    }

    /// The file, if it is as it should have been.
    fn compared(&self, previous: &Previous) -> Result<&Held, Fault> {
        self.sight.check_there()?;
        let Some(file) = &self.sight.own.file else { return Err(self.fault(Code::NotFile)) };
        self.sight.check_free()?;
        match difference(previous, file) {
            Some(cause) => Err(Fault::new(Code::TestFailed, cause).with_revision(self.sight.revision)),
            None => Ok(file),
        }
    }

    /// Nothing was there.
    fn made(&self, action: &'static str, content: &Content) -> Result<Plan, Fault> {
        if !self.sight.own.can_be_file && *content != Content::Dir {
            return Err(self.fault(Code::NotFile));
        }
        let mut draft = self.draft(action);
        draft.hold_step(&self.sight.own);
        draft.hold_empty(self.path());
        draft.make(self.path(), content, self.inner_lease());
        Ok(draft.done(self.path(), Some(content.clone())))
    }

    /// A file gets another value, or another time.
    fn rewritten(&self, action: &'static str, file: &Held, value: &[u8]) -> Plan {
        let value = if self.change.refresh { &file.value } else { value };
        let content = Content::File(value.to_vec());
        let mut draft = self.draft(action);
        draft.hold_step(&self.sight.own);
        draft.outcome.before = Some(self.file_before(file));
        draft.outcome.made = Some(index::of(file.created, 0));
        if let Some(lease) = self.renewable(file) {
            draft.outcome.stays = Some(file.modified);
            return draft.renewing(lease, content);
        }
        draft.make(self.path(), &content, self.inner_lease());
        draft.done(self.path(), Some(content))
    }

    /// A directory takes a file's place, as v2 lets it.
    fn replaced_by_dir(&self, file: &Held) -> Plan {
        let mut draft = self.draft(word::SET);
        draft.hold_step(&self.sight.own);
        draft.outcome.before = Some(self.file_before(file));
        draft.writes.push(Will::Delete(file.key.clone()));
        draft.make(self.path(), &Content::Dir, self.inner_lease());
        draft.done(self.path(), Some(Content::Dir))
    }

    /// Of a directory only the time can be another one: all that hangs on the old one goes over to the new.
    fn update_dir(&self, value: &[u8]) -> Result<Plan, Fault> {
        if !value.is_empty() {
            return Err(self.fault(Code::NotFile));
        }
        self.sight.check_free_below()?;
        let mut draft = self.draft(word::UPDATE);
        draft.hold_step(&self.sight.own);
        let own = self.sight.own.mark.as_ref();
        draft.outcome.before = Some(self.dir_before());
        draft.outcome.made = Some(self.dir_index());
        draft.outcome.was_dir = true;
        if let Some(mark) = own.filter(|mark| self.change.refresh && self.has_same_time(mark.lease)) {
            draft.outcome.stays = Some(mark.modified);
            return Ok(draft.renewing(mark.lease, Content::Dir));
        }
        let lease = self.inner_lease();
        draft.make(self.path(), &Content::Dir, lease);
        let moving = self.moving(own.map_or(0, |mark| mark.lease));
        if moving.len() + draft.conditions.len() + 8 > MOST {
            let why = format!("ttl: more than {} nodes below {} would get another one", moving.len() - 1, self.path());
            return Err(Fault::new(Code::InvalidField, why).with_revision(self.sight.revision));
        }
        draft.hold_below(self.path());
        for held in moving {
            draft.conditions.push(Must::Unchanged(held.key.clone(), held.modified));
            draft.writes.push(Will::Put { key: held.key.clone(), value: held.value.clone(), lease: None });
        }
        draft.lease = lease;
        Ok(draft.done(self.path(), Some(Content::Dir)))
    }

    /// What lies below and is to end with this directory: all that has no time of its own that is over sooner.
    fn moving(&self, old: i64) -> Vec<&Held> {
        let ttl = self.change.ttl;
        let is_to_move = |held: &&Held| {
            let own = self.sight.lives.get(&held.lease).filter(|_| held.lease != old && held.lease != 0);
            let ends_later = own.is_none_or(|life| ttl.is_some_and(|ttl| ttl < life.left));
            ends_later && (ttl.is_some() || held.lease == old) && !(ttl.is_none() && old == 0)
        };
        self.sight.below.iter().filter(is_to_move).collect()
    }

    fn deleted(&self, action: &'static str, file: &Held) -> Plan {
        let mut draft = self.draft(action);
        draft.hold_step(&self.sight.own);
        draft.outcome.before = Some(self.file_before(file));
        draft.outcome.made = Some(index::of(file.created, 0));
        draft.writes.push(Will::Delete(file.key.clone()));
        draft.remember_parent();
        draft.done(self.path(), None)
    }

    fn deleted_dir(&self) -> Plan {
        let mut draft = self.draft(word::DELETE);
        draft.hold_step(&self.sight.own);
        draft.outcome.before = Some(self.dir_before());
        draft.outcome.made = Some(self.dir_index());
        draft.outcome.was_dir = true;
        if self.sight.first_child.is_some() {
            draft.hold_below(self.path());
            draft.writes.push(Will::DeleteAll(self.path().below()));
            draft.writes.push(Will::DeleteAll(self.places.marks_below(self.path())));
        } else {
            draft.hold_empty(self.path());
        }
        draft.writes.push(Will::Delete(self.places.mark(self.path())));
        draft.remember_parent();
        draft.done(self.path(), None)
    }

    fn file_before(&self, file: &Held) -> Node {
        Node::file(self.path(), file).ending(self.sight.life(file.lease), self.now)
    }

    fn dir_before(&self) -> Node {
        let lease = self.sight.own.mark.as_ref().map_or(0, |mark| mark.lease);
        Node::dir(self.path(), self.dir_index()).ending(self.sight.life(lease), self.now)
    }

    /// When a directory was made, as far as that is known.
    fn dir_index(&self) -> u64 {
        let mark = self.sight.own.mark.as_ref().map(|mark| mark.created);
        mark.or(self.sight.first_child).map_or(0, |made| index::of(made, 0))
    }

    /// Where a new node hangs: on its own time, or that of a directory above if that is over sooner.
    fn inner_lease(&self) -> Wish {
        let mut outer = self.sight.outer_life();
        if let (Deed::Append(_), Some(mark)) = (&self.change.deed, &self.sight.own.mark)
            && let Some(life) = self.sight.lives.get(&mark.lease)
        {
            let own = (mark.lease, life.left);
            outer = Some(outer.filter(|(_, left)| *left < life.left).unwrap_or(own));
        }
        match (self.change.ttl, outer) {
            (Some(ttl), Some((_, left))) if ttl < left => Wish::Fresh(ttl),
            (_, Some((lease, _))) => Wish::Held(lease),
            (Some(ttl), None) => Wish::Fresh(ttl),
            (None, None) => Wish::Held(0),
        }
    }

    /// The lease that is only kept alive by a refresh: nothing else hangs on it, and its time is the one asked for.
    fn renewable(&self, file: &Held) -> Option<i64> {
        let is_alone = self.sight.lives.get(&file.lease).is_some_and(|life| life.is_alone);
        (self.change.refresh && is_alone && self.has_same_time(file.lease)).then_some(file.lease)
    }

    /// Whether only the time is new: of what is made, all is.
    pub(super) fn refreshes(&self) -> bool {
        self.change.refresh && matches!(self.change.deed, Deed::Set(_) | Deed::Update(_) | Deed::Swap(..))
    }

    fn has_same_time(&self, lease: i64) -> bool {
        let life = self.sight.life(lease).filter(|_| lease != 0);
        life.is_some_and(|life| Some(life.granted) == self.change.ttl)
    }

    /// A plan of which what lies above is held already.
    fn draft(&self, action: &'static str) -> Draft<'_> {
        let outcome = Outcome {
            action,
            path: self.path().clone(),
            now: None,
            was_dir: false,
            made: None,
            before: None,
            quiet: self.change.quiet && ![word::DELETE, word::COMPARE_DELETE].contains(&action),
            stays: None,
        };
        let (conditions, writes, lease) = (Vec::new(), Vec::new(), Wish::Held(0));
        let mut draft = Draft { planner: self, conditions, writes, lease, outcome };
        self.sight.above.iter().for_each(|step| draft.hold_step(step));
        draft
    }
}

impl Plan {
    /// The reply, once it is committed. `life` is that of the lease that it hangs on by its own wish.
    pub fn reply(&self, revision: i64, life: Option<&Life>, now: SystemTime) -> Reply {
        let Outcome { action, path, now: content, was_dir, made, before, quiet, stays } = self.outcome.clone();
        let modified = index::of(stays.unwrap_or(revision), 0);
        let is_new = action == word::CREATE || (action == word::SET && before.is_none());
        let node = Node {
            value: match &content {
                Some(Content::File(value)) => Some(String::from_utf8_lossy(value).into_owned()),
                _ => None,
            },
            dir: was_dir || content == Some(Content::Dir),
            modified,
            created: made.filter(|made| *made != 0).unwrap_or(modified),
            ..Node::at(&path)
        };
        let node = node.ending(life.filter(|_| content.is_some()), now);
        let index = if stays.is_some() { index::last_of(revision) } else { modified };
        let reply = Reply { action: action.to_owned(), node: Some(node), prev: before, index, is_new };
        if quiet { reply.quiet() } else { reply }
    }
}

/// How a file differs from what it should have been, as v2 says it.
fn difference(previous: &Previous, file: &Held) -> Option<String> {
    let is_value = previous.value.is_empty() || previous.value == file.value;
    // The place in a commit is all the same: a key is put once in each.
    let is_index = previous.index == 0 || index::parts(previous.index).0 == file.modified;
    let [wanted, found] = [&previous.value, &file.value].map(|value| String::from_utf8_lossy(value).into_owned());
    let (index, modified) = (previous.index, index::of(file.modified, 0));
    match (is_value, is_index) {
        (true, true) => None,
        (false, true) => Some(format!("[{wanted} != {found}]")),
        (true, false) => Some(format!("[{index} != {modified}]")),
        (false, false) => Some(format!("[{wanted} != {found}] [{index} != {modified}]")),
    }
}

/// The leases that a plan for this sight may turn on.
pub fn leases(sight: &Sight) -> BTreeMap<i64, bool> {
    let steps = sight.above.iter().chain([&sight.own]);
    let marks = steps.filter_map(|step| step.mark.as_ref()).map(|mark| (mark.lease, false));
    let below = sight.below.iter().map(|held| (held.lease, false));
    let own = sight.own.file.iter().map(|file| (file.lease, true));
    marks.chain(below).chain(own).filter(|(lease, _)| *lease != 0).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
