//! The clock that goes on while a machine sleeps, and that no step of the time of day moves; and what a thread has
//! cost.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since this machine was booted, its sleep included.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Neither part is ever negative.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The time that a core has spent on this thread.
pub fn thread_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}
