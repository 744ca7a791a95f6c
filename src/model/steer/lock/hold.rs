//! Until when the program of a lock may run.
//!
//! A renewal counts from when it was sent. Two rules more make the end of a lease readable to others
//! ([`super::sight`]): in the last third of a hold none is sent that counts, and one acknowledged late does not count.
//! So none that counts can reach etcd when less than a sixth of the lease is left.

use std::time::Duration;

/// For a clock that goes faster than ours.
const RATE: u32 = 100;
/// What killing may take.
const KILL: Duration = Duration::from_millis(250);
/// The shortest lease that leaves time for anything: etcd itself grants none below 2 s by default.
pub const SHORTEST: Duration = Duration::from_secs(2);
/// The longest that anybody wants to wait for.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The times of a lock: what the lease was granted, and how long before the end its program is asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    granted: Duration,
    grace: Duration,
}

impl Terms {
    /// A third of the time is the grace when none is asked for, and half of it at most.
    pub fn new(granted: Duration, grace: Option<Duration>) -> Self {
        Self { granted, grace: grace.unwrap_or(granted / 3).min(granted / 2) }
    }

    /// The time that the lease was granted.
    pub fn granted(&self) -> Duration {
        self.granted
    }

    /// From one renewal to the next, and how late an acknowledgement may be.
    pub fn pause(&self) -> Duration {
        self.granted / 6
    }

    /// For how long a program may run after a renewal was sent.
    pub fn usable(&self) -> Duration {
        self.granted - self.granted / RATE - KILL
    }
}

/// What a program of a lock has to expect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It may run.
    Run,
    /// It is asked to end.
    Term,
    /// It is ended.
    Kill,
}

/// A hold that was had at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    terms: Terms,
    sent: Duration,
}

impl Hold {
    /// The hold of one for whom nothing runs yet: every renewal that was acknowledged counts.
    pub fn idle(terms: Terms, sent: Duration) -> Self {
        Self { terms, sent }
    }

    /// Takes in that what was sent at `sent` is acknowledged; tells whether it counts.
    pub fn acknowledge(&mut self, sent: Duration, now: Duration) -> bool {
        let in_time = now.saturating_sub(sent) <= self.terms.pause() && now < self.deadline();
        let counts = in_time && self.renews(sent) && sent > self.sent;
        if counts {
            self.sent = sent;
        }
        counts
    }

    /// Whether a renewal sent then would count.
    pub fn renews(&self, sent: Duration) -> bool {
        sent + self.terms.granted / 3 <= self.deadline() && sent < self.term_at()
    }

    /// When the program must be dead.
    pub fn deadline(&self) -> Duration {
        self.sent + self.terms.usable()
    }

    /// When it is asked to end.
    pub fn term_at(&self) -> Duration {
        self.deadline().saturating_sub(self.terms.grace)
    }

    /// What it has left.
    pub fn left(&self, now: Duration) -> Duration {
        self.deadline().saturating_sub(now)
    }

    /// What the program has to expect now; `gone` is that etcd says that key or lease are gone, or went back itself.
    pub fn verdict(&self, now: Duration, gone: bool) -> Verdict {
        match () {
            () if gone || now >= self.deadline() => Verdict::Kill,
            () if now >= self.term_at() => Verdict::Term,
            () => Verdict::Run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hold() -> Hold {
        Hold::idle(Terms::new(seconds(30), None), seconds(100))
    }

    #[test]
    fn time_counts_from_the_sending() {
        let mut hold = hold();
        assert_eq!(hold.deadline(), Duration::from_millis(100_000 + 30_000 - 300 - 250));
        assert_eq!(hold.deadline() - hold.term_at(), seconds(10));
        assert!(hold.acknowledge(seconds(105), seconds(108)));
        assert_eq!(hold.deadline(), Duration::from_millis(105_000 + 29_450));
    }

    #[test]
    fn what_is_late_does_not_count() {
        let mut hold = hold();
        assert!(!hold.acknowledge(seconds(105), seconds(111)), "acknowledged more than a sixth later");
        assert!(!hold.acknowledge(seconds(120), seconds(121)), "sent in the last third");
        assert!(!hold.acknowledge(seconds(90), seconds(91)), "older than what counts");
        assert_eq!(hold, super::tests::hold());
    }

    #[test]
    fn the_program_is_asked_then_killed() {
        let hold = hold();
        for (at, gone, verdict) in [
            (100, false, Verdict::Run),
            (119, false, Verdict::Run),
            (120, false, Verdict::Term),
            (129, false, Verdict::Term),
            (130, false, Verdict::Kill),
            (101, true, Verdict::Kill),
        ] {
            assert_eq!(hold.verdict(seconds(at), gone), verdict, "{at}");
        }
    }

    #[test]
    fn a_grace_leaves_half_of_the_time() {
        let terms = Terms::new(seconds(30), Some(seconds(29)));
        assert_eq!(Hold::idle(terms, seconds(0)).term_at(), Duration::from_millis(29_450 - 15_000));
    }
}
