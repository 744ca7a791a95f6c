//! What is written: one key, on a condition.

use std::sync::Arc;

use crate::model::words::presence;
use crate::model::words::record::{Proto, Record};

/// What must be true of a key for an operation on it to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It is not there.
    Absent,
    /// It holds this value, which names this owner or nobody. A revision would not do: in a store that was restored the
    /// same one may be of another owner's record.
    Holds(Arc<[u8]>),
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It holds this record.
    Put(Arc<Record>),
    /// It goes.
    Delete,
}

/// One conditional write.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// The key written.
    pub key: String,
    /// What must be true of it.
    pub expect: Expect,
    /// What becomes of it.
    pub change: Change,
}

impl Op {
    /// The keys besides the record's that are put with it.
    pub fn beside(&self) -> Vec<(String, String)> {
        match &self.change {
            Change::Put(record) => presence::beside(&self.key, record),
            Change::Delete => Vec::new(),
        }
    }

    /// The keys besides the record of before that go with it.
    pub fn over(&self) -> Vec<String> {
        let Expect::Holds(value) = &self.expect else { return Vec::new() };
        let stays = matches!(&self.change, Change::Put(record) if presence::is_asked(&record.attrs));
        let before = Record::decode(value).ok().filter(|record| record.owner.is_some() && !stays);
        let keys = before.map(|before| presence::beside(&self.key, &before)).unwrap_or_default();
        keys.into_iter().map(|(key, _)| key).collect()
    }

    /// How many writes it is.
    pub fn weight(&self) -> usize {
        1 + self.beside().len() + self.over().len()
    }
}

/// As many of the first operations as fit one commit of so many writes; one at least.
pub fn together(ops: &[Op], most: usize, writes: usize) -> &[Op] {
    let mut left = writes;
    let fits = |op: &&Op| {
        let weight = op.weight();
        let fits = weight <= left;
        left -= weight.min(left);
        fits
    };
    let count = ops.iter().take(most).take_while(fits).count();
    &ops[..count.max(1).min(ops.len())]
}

/// Whether two records are of one instance of one container (or table) under one service.
pub fn same_instance(a: &Record, b: &Record) -> bool {
    identity(a) == identity(b)
}

pub(super) type Identity<'r> = (Option<&'r str>, Option<&'r str>, Option<&'r str>, Option<Proto>, u16);

pub(super) fn identity(record: &Record) -> Identity<'_> {
    (record.container.as_deref(), record.id.as_deref(), record.service.as_deref(), record.proto, record.port)
}
