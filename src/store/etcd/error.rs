//! What an error of etcd or of the way to it means.

use etcd_client::Error;

use crate::store::StoreError;

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the answer.
    Final,
    /// The token is stale: log in again, at the same endpoint.
    Login,
    /// The endpoint or the way to it is broken: try another.
    Broken,
}

/// gRPC's codes, by number: the crate does not export their names.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const ALREADY_EXISTS: i32 = 6;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

const OLD_AUTH: &str = "revision of auth store is old";
const BUSY: &str = "too many requests";

pub(super) fn judge(error: &Error) -> Verdict {
    match error {
        Error::GRpcStatus(status) if status.message().contains(OLD_AUTH) => Verdict::Login,
        Error::GRpcStatus(status) if status.message().contains(BUSY) => Verdict::Broken,
        Error::GRpcStatus(status) => match status.code() as i32 {
            code::UNAUTHENTICATED => Verdict::Login,
            code::INVALID_ARGUMENT
            | code::NOT_FOUND
            | code::ALREADY_EXISTS
            | code::PERMISSION_DENIED
            | code::RESOURCE_EXHAUSTED
            | code::FAILED_PRECONDITION
            | code::OUT_OF_RANGE => Verdict::Final,
            _ => Verdict::Broken,
        },
        Error::LeaseKeepAliveError(_) | Error::InvalidArgs(_) | Error::InvalidUri(_) => Verdict::Final,
        _ => Verdict::Broken,
    }
}

pub(super) fn into_away(error: Error, tried: &str, endpoint: &str) -> StoreError {
    StoreError::Away { tried: format!("{tried} at {endpoint}"), source: Some(Box::new(error)) }
}

/// A final answer in the store's words. Which lease or revision it is about the caller knows better.
pub(super) fn into_store(error: Error, tried: &str, endpoint: &str) -> StoreError {
    let tried = format!("{tried} at {endpoint}");
    match error {
        Error::GRpcStatus(status) => {
            let why = status.message().to_owned();
            match status.code() as i32 {
                code::OUT_OF_RANGE if why.contains("compacted") => StoreError::Compacted(0),
                code::OUT_OF_RANGE if why.contains("future revision") => StoreError::Rewound,
                code::NOT_FOUND if why.contains("lease not found") => StoreError::NoLease(0),
                _ => StoreError::Refused { tried, why },
            }
        }
        Error::LeaseKeepAliveError(why) if why.contains("lease not found") => StoreError::NoLease(0),
        error => StoreError::Refused { tried, why: error.to_string() },
    }
}
