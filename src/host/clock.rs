//! The clock that goes on while a machine sleeps, and that no step of the time of day moves.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since this machine was booted, its sleep included.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Neither part is ever negative.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
