//! What a request is told that is not met: v2's codes, words and statuses.

use serde::Serialize;

use super::index;
use super::path::NodePath;

/// Why a request is not met, by v2's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// There is no such node.
    KeyNotFound = 100,
    /// It is not as it should have been.
    TestFailed = 101,
    /// It is a directory.
    NotFile = 102,
    /// A part of the path is a file.
    NotDir = 104,
    /// It is there.
    NodeExist = 105,
    /// The root is not for change.
    RootReadOnly = 107,
    /// The directory has children.
    DirNotEmpty = 108,
    /// Not for whoever asks.
    Unauthorized = 110,
    /// An empty value to compare with.
    PrevValueRequired = 201,
    /// No number of seconds.
    TtlNotNumber = 202,
    /// No index.
    IndexNotNumber = 203,
    /// A field that cannot be read.
    InvalidField = 209,
    /// A form that cannot be read.
    InvalidForm = 210,
    /// A refresh keeps the value.
    RefreshValue = 211,
    /// A refresh needs a time.
    RefreshTtl = 212,
    /// The store cannot be had.
    Internal = 300,
    /// The index asked for is gone from the history.
    IndexCleared = 401,
}

impl Code {
    fn message(self) -> &'static str {
        match self {
            Self::KeyNotFound => "Key not found",
            Self::TestFailed => "Compare failed",
            Self::NotFile => "Not a file",
            Self::NotDir => "Not a directory",
            Self::NodeExist => "Key already exists",
            Self::RootReadOnly => "Root is read only",
            Self::DirNotEmpty => "Directory not empty",
            Self::Unauthorized => "The request requires user authentication",
            Self::PrevValueRequired => "PrevValue is Required in POST form",
            Self::TtlNotNumber => "The given TTL in POST form is not a number",
            Self::IndexNotNumber => "The given index in POST form is not a number",
            Self::InvalidField => "Invalid field",
            Self::InvalidForm => "Invalid POST form",
            Self::RefreshValue => "Value provided on refresh",
            Self::RefreshTtl => "A TTL must be provided on refresh",
            Self::Internal => "Raft Internal Error",
            Self::IndexCleared => "The event in requested index is outdated and cleared",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::KeyNotFound => 404,
            Self::NotFile | Self::DirNotEmpty | Self::Unauthorized => 403,
            Self::TestFailed | Self::NodeExist => 412,
            Self::Internal => 500,
            _ => 400,
        }
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number.
    pub code: Code,
    /// The status of HTTP.
    pub status: u16,
    /// What exactly.
    pub cause: String,
    /// The store's index by then; 0 where it was not asked.
    pub index: u64,
}

/// The reply's body.
#[derive(Clone, Debug, Serialize)]
pub struct Body<'a> {
    #[serde(rename = "errorCode")]
    code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    index: u64,
}

impl Fault {
    /// One of a request, before the store was asked.
    pub fn new(code: Code, cause: impl Into<String>) -> Self {
        Self { code, status: code.status(), cause: cause.into(), index: 0 }
    }

    /// One of a node, as the store was at `revision`.
    pub fn at(code: Code, path: &NodePath, revision: i64) -> Self {
        Self::new(code, path.as_str()).with_revision(revision)
    }

    /// The same, seen at a revision.
    pub fn with_revision(self, revision: i64) -> Self {
        Self { index: index::last_of(revision), ..self }
    }

    /// The same with another status.
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The store does not answer, or not as it should.
    pub fn away(cause: impl Into<String>) -> Self {
        Self::new(Code::Internal, cause)
    }

    /// The reply's body.
    pub fn body(&self) -> Body<'_> {
        let (code, message) = (self.code as u16, self.code.message());
        Body { code, message, cause: &self.cause, index: self.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_v2s_words() {
        let path = NodePath::parse("/a").expect("a path");
        let fault = Fault::at(Code::KeyNotFound, &path, 2);
        let text = |fault: &Fault| serde_json::to_string(&fault.body()).expect("it has text keys");
        let body = r#"{"errorCode":100,"message":"Key not found","cause":"/a","index":12287}"#;
        assert_eq!((fault.status, text(&fault).as_str()), (404, body));
        let bare = Fault::new(Code::RefreshTtl, "");
        assert_eq!(text(&bare), r#"{"errorCode":212,"message":"A TTL must be provided on refresh","index":0}"#);
    }
}
