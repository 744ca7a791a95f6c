//! How long costly work over all of a host's records rests before it is done again.

use std::time::Duration;

/// Rests so many times as long as the work leave it a fifth of one core in a burst of starts,
const RESTS: u32 = 4;
/// and no news waits longer than this.
const LONGEST: Duration = Duration::from_millis(200);

/// The rest after work that took so long.
pub fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(RESTS).min(LONGEST)
}
