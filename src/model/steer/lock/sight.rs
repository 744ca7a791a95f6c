//! What is known of the end of another's lease, from how much of it was left whenever etcd was asked.
//!
//! etcd tells whole seconds. Several answers about one end narrow it down; an end that came when less than a sixth of
//! the lease was left, by an answer, came when it was due: no renewal that counts can have come in between
//! ([`super::hold`]). Every other end is taken for early: then the holder may have renewed just before it.

use std::time::Duration;

/// etcd tells the time left rounded down to this.
const TOLD_IN: Duration = Duration::from_secs(1);

/// Between which two moments another's lease ends, unless it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    granted: Duration,
    asked: Duration,
    /// Not before and not after which it ends, if it is not renewed.
    ends: (Duration, Duration),
    sure: bool,
}

impl Sight {
    /// The first answer: `left` of `granted`, to what was asked at `asked` and answered at `answered`.
    pub fn first(granted: Duration, left: Duration, asked: Duration, answered: Duration) -> Self {
        Self { granted, asked, ends: (asked + left, answered + left + TOLD_IN), sure: false }
    }

    /// A further answer.
    pub fn told(&mut self, left: Duration, asked: Duration, answered: Duration) {
        let (from, to) = (asked + left, answered + left + TOLD_IN);
        let gap = answered.saturating_sub(self.asked);
        // A renewal since the last answer would leave whole seconds at least as many as this.
        let renewed = self.granted.saturating_sub(gap + self.slack()).as_secs();
        let is_same = left.as_secs() < renewed;
        self.ends = if is_same { (from.max(self.ends.0), to.min(self.ends.1)) } else { (from, to) };
        self.asked = asked;
        self.sure = self.ends.1.saturating_sub(asked) + self.slack() <= self.granted / 6;
    }

    /// When etcd is to be asked again: seldom while there is much left, often near the end.
    pub fn ask_at(&self) -> Duration {
        let is_near = self.ends.0.saturating_sub(self.asked) <= self.granted / 2;
        self.asked + if is_near { self.granted / 24 } else { self.granted / 6 }
    }

    /// Whether an end now is one that was due.
    pub fn is_due(&self) -> bool {
        self.sure
    }

    /// For clocks that go 1 % apart, either way.
    fn slack(&self) -> Duration {
        self.granted / 50
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Asks each `ask_at` about a lease that ends at `ends`, and tells whether its end is known to be due.
    fn watched(granted: u64, ends: u64) -> bool {
        let left = |now: Duration| Duration::from_secs(at(ends).saturating_sub(now).as_secs());
        let mut now = at(ends - granted);
        let mut sight = Sight::first(at(granted), left(now), now, now);
        loop {
            now = sight.ask_at();
            if now >= at(ends) {
                return sight.is_due();
            }
            sight.told(left(now), now, now);
        }
    }

    #[test]
    fn an_end_that_was_due_is_known_to_be() {
        for granted in [2_000, 3_000, 4_000, 5_000, 10_000, 15_000, 30_000, 60_000] {
            assert!(watched(granted, 1_000_000), "{granted}");
            assert!(watched(granted, 1_000_777), "{granted}");
        }
    }

    #[test]
    fn an_end_with_time_left_is_early() {
        let mut sight = Sight::first(at(15_000), at(14_000), at(0), at(5));
        assert!(!sight.is_due());
        sight.told(at(1_000), at(13_000), at(13_001));
        sight.told(at(0), at(13_900), at(13_901));
        assert!(sight.is_due());
        sight.told(at(14_000), at(14_200), at(14_201));
        assert!(!sight.is_due(), "it was renewed");
    }
}
