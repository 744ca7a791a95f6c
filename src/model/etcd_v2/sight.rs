//! What the store holds where a request is to do something, all of it as it stood at one revision.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::{Code, Fault};
use super::path::NodePath;
use super::whose;

/// A key of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
    /// The revision that made it.
    pub created: i64,
    /// The revision of its last put.
    pub modified: i64,
}

/// A lease that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The time granted.
    pub granted: Duration,
    /// The time left.
    pub left: Duration,
    /// Whether one key alone hangs on it.
    pub is_alone: bool,
}

/// One node of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it is.
    pub path: NodePath,
    /// The file, if it is one.
    pub file: Option<Held>,
    /// What remembers it, if it is a directory that was made.
    pub mark: Option<Held>,
    /// Whether it can be a file: what is served lies below a directory, which is not looked at, nor what is above it.
    pub can_be_file: bool,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The revision.
    pub revision: i64,
    /// The directories above, outermost first.
    pub above: Vec<Step>,
    /// The node itself.
    pub own: Step,
    /// The revision that made something below it, if anything is there.
    pub first_child: Option<i64>,
    /// Where the path ends, if there is no such node: the first part that is missing.
    pub missing: Option<NodePath>,
    /// The leases that matter.
    pub lives: BTreeMap<i64, Life>,
    /// Whether the file is what a lock is held by.
    pub is_locked: bool,
    /// What lies below and is not to be touched, with whose it is.
    pub kept_below: Option<(NodePath, String)>,
    /// What lies below a directory that gets another time: files, and marks.
    pub below: Vec<Held>,
}

impl Sight {
    /// Whether the node is a directory.
    pub fn is_dir(&self) -> bool {
        self.own.file.is_none() && (self.own.path.is_root() || self.own.mark.is_some() || self.first_child.is_some())
    }

    /// Whether there is such a node.
    pub fn is_there(&self) -> bool {
        self.own.file.is_some() || self.is_dir()
    }

    /// Refuses a path that leads through a file.
    pub fn check_walk(&self) -> Result<(), Fault> {
        match self.above.iter().find(|step| step.file.is_some()) {
            Some(step) => Err(Fault::at(Code::NotDir, &step.path, self.revision)),
            None => Ok(()),
        }
    }

    /// Refuses what is not there.
    pub fn check_there(&self) -> Result<(), Fault> {
        self.check_walk()?;
        if self.is_there() {
            return Ok(());
        }
        let missing = self.missing.as_ref().unwrap_or(&self.own.path);
        Err(Fault::at(Code::KeyNotFound, missing, self.revision))
    }

    /// Refuses to write what is an agent's, or a lock's.
    pub fn check_free(&self) -> Result<(), Fault> {
        let Some(file) = &self.own.file else { return Ok(()) };
        let locked = || self.is_locked.then(|| "what a lock is held by".to_owned());
        match whose::owner(&file.value).or_else(locked) {
            Some(whose) => Err(kept(&self.own.path, &whose, self.revision)),
            None => Ok(()),
        }
    }

    /// Refuses to write what lies below and is an agent's, or a lock's.
    pub fn check_free_below(&self) -> Result<(), Fault> {
        match &self.kept_below {
            Some((path, whose)) => Err(kept(path, whose, self.revision)),
            None => Ok(()),
        }
    }

    /// The lease of the directory above that ends first, and its time: what is made there ends with it.
    pub fn outer_life(&self) -> Option<(i64, Duration)> {
        let leases = self.above.iter().filter_map(|step| step.mark.as_ref()).map(|mark| mark.lease);
        let living = leases.filter_map(|lease| Some((lease, self.lives.get(&lease)?.left)));
        living.min_by_key(|(_, left)| *left)
    }

    /// Whether what hangs on this lease ends with a directory above, rather than by itself.
    pub fn is_outer(&self, lease: i64) -> bool {
        lease != 0 && self.above.iter().filter_map(|step| step.mark.as_ref()).any(|mark| mark.lease == lease)
    }

    /// The time that something has which hangs on this lease, if that is its own.
    pub fn life(&self, lease: i64) -> Option<&Life> {
        if self.is_outer(lease) { None } else { self.lives.get(&lease) }
    }
}

/// What is an agent's, or a lock's.
pub fn kept(path: &NodePath, whose: &str, revision: i64) -> Fault {
    Fault::new(Code::Unauthorized, format!("{path} is {whose}: it is written by nobody else")).with_revision(revision)
}
