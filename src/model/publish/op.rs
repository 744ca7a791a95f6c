//! What is written: one key, on a condition.

use std::sync::Arc;

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

/// Whether two records are of one instance of one container (or table) under one service.
pub fn same_instance(a: &Record, b: &Record) -> bool {
    identity(a) == identity(b)
}

pub(super) type Identity<'r> = (Option<&'r str>, Option<&'r str>, Option<&'r str>, Option<Proto>, u16);

pub(super) fn identity(record: &Record) -> Identity<'_> {
    (record.container.as_deref(), record.id.as_deref(), record.service.as_deref(), record.proto, record.port)
}
