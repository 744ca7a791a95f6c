//! When a file is due: after a quiet time, at the latest so long after the first change; and when what failed is tried
//! again. Times are those of a clock that only goes forward.

use std::time::Duration;

/// `wait = "200ms:5s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Quiet for so long after the last change.
    pub(crate) least: Duration,
    /// At most so long after the first.
    pub(crate) most: Duration,
}

/// Changes that no file shows yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The first and the last of them.
    changes: Option<(Duration, Duration)>,
    /// Something other than the cluster asks for it: a start, a template that was edited.
    asked: bool,
}

impl Pace {
    /// Something that the file depends on has changed.
    pub(crate) fn changed(&mut self, now: Duration) {
        let first = self.changes.map_or(now, |(first, _)| first);
        self.changes = Some((first, now));
    }

    /// It is due at once.
    pub(crate) fn ask(&mut self) {
        self.asked = true;
    }

    /// What was made is of all that there is to be seen.
    pub(crate) fn caught_up(&mut self) {
        self.changes = None;
    }

    /// Changes count from when they came, as it was noted then.
    pub(crate) fn as_noted(&mut self, noted: Self) {
        self.changes = noted.changes.or(self.changes);
    }

    /// When it is due.
    pub(crate) fn due(&self, wait: Wait) -> Option<Duration> {
        if self.asked {
            return Some(Duration::ZERO);
        }
        let (first, last) = self.changes?;
        Some((last + wait.least).min(first + wait.most))
    }

    /// It is being made now.
    pub(crate) fn take(&mut self) {
        *self = Self::default();
    }
}

/// Pauses that double.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    next: Option<Duration>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    /// It failed.
    pub(crate) fn failed(&mut self, now: Duration) {
        let pause = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures += 1;
        self.next = Some(now + pause);
    }

    /// When it may be tried again; none while it is tried, or has not failed.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// It is tried now.
    pub(crate) fn begin(&mut self) {
        self.next = None;
    }

    /// It went well, or something else is tried now.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn it_is_due_after_quiet_and_never_later_than_so_long_after_the_first_change() {
        let wait = Wait { least: at(200), most: at(1_000) };
        let mut pace = Pace::default();
        assert_eq!(pace.due(wait), None);
        for (change, due) in [(0, 200), (150, 350), (300, 500), (900, 1_000), (990, 1_000)] {
            pace.changed(at(change));
            assert_eq!(pace.due(wait), Some(at(due)), "after a change at {change}");
        }
        pace.take();
        assert_eq!(pace.due(wait), None);
        pace.ask();
        assert_eq!(pace.due(wait), Some(at(0)));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(), None);
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                backoff.failed(at(500));
                (backoff.next().expect("it failed") - at(500)).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next(), None);
    }
}
