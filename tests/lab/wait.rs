//! Waiting for states, never for a time: `eventually` polls until something holds and says what it saw last when it
//! does not; `throughout` is its opposite, for what must not happen meanwhile.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long `eventually` waits when no other limit is the point of the test.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long three engines, or a cluster of etcd, may take to come up on a machine that builds beside them.
pub(crate) const COMING_UP: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// What a question to the lab may come back as: a yes or no, a value when there is one, or why not yet.
pub trait Outcome {
    /// What `eventually` returns once it holds.
    type Value;
    /// The value, or what was seen instead.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();
    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("no".into()) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".into())
    }
}

impl<T, E: Display> Outcome for Result<T, E> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Waits until `holds` does.
///
/// # Panics
/// When it has not after the usual patience.
#[track_caller]
pub fn eventually<O: Outcome>(what: &str, holds: impl FnMut() -> O) -> O::Value {
    within(PATIENCE, what, holds)
}

/// Waits until `holds` does, at most `limit`.
///
/// # Panics
/// When it has not by then.
#[track_caller]
pub fn within<O: Outcome>(limit: Duration, what: &str, mut holds: impl FnMut() -> O) -> O::Value {
    let start = Instant::now();
    loop {
        match holds().outcome() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > limit => {
                panic!("not within {limit:?}: {what}; last seen: {seen}")
            }
            Err(_) => pause(POLL),
        }
    }
}

/// Asks again and again for `length` whether it still `holds`.
///
/// # Panics
/// As soon as it does not.
#[track_caller]
pub fn throughout<O: Outcome>(length: Duration, what: &str, mut holds: impl FnMut() -> O) {
    let start = Instant::now();
    while start.elapsed() < length {
        if let Err(seen) = holds().outcome() {
            panic!("did not hold, after {:?}: {what}; seen: {seen}", start.elapsed());
        }
        pause(POLL);
    }
}

/// The one place of the lab that sleeps.
#[allow(clippy::disallowed_methods)] // the lab is plain threads: nobody's runtime is held up
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Whether `holds` does within `limit`, for those who can cope when it does not.
pub(crate) fn poll_for(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        pause(POLL);
    }
}
