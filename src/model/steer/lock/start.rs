//! When the next may start: at once when nothing is left of the one before, else by time, or never.

use std::time::Duration;

/// What is kept back for a holder's kill and for how late anybody looks.
const MARGIN: Duration = Duration::from_secs(1);
const RATE: u32 = 100;

/// A holder whose key is gone while its certificate, or only the memory of it, is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// When that was seen, or later.
    pub seen: Duration,
    /// Whether its lease ended when it was due.
    pub due: bool,
    /// The time that its lease was granted.
    pub granted: Duration,
}

impl Gone {
    /// From when on it is dead for sure, if its clock and its guards do what they should.
    pub fn over(&self) -> Duration {
        let renewed_just_before = if self.due { Duration::ZERO } else { self.granted };
        self.seen + renewed_just_before + self.granted / RATE + MARGIN
    }
}

/// What the head of the queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It starts.
    Start,
    /// It waits until then, unless the certificate goes before.
    At(Duration),
    /// It waits for the certificate to go.
    Certificate,
}

/// What the head of the queue does. `before` is the one whose certificate is still there; `floor` is from when on those
/// are dead for sure who were there when the store went back: then the absence of a certificate says nothing.
pub fn next(now: Duration, before: Option<Gone>, floor: Option<Duration>, strict: bool) -> Next {
    if strict && before.is_some() {
        return Next::Certificate;
    }
    let from = before.map(|gone| gone.over()).max(floor);
    from.filter(|from| now < *from).map_or(Next::Start, Next::At)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_decides_only_where_nothing_else_does() {
        let at = Duration::from_secs;
        let gone = |due| Some(Gone { seen: at(100), due, granted: at(20) });
        for (now, before, floor, strict, expected) in [
            (100, None, None, false, Next::Start),
            (100, None, None, true, Next::Start),
            (100, gone(true), None, false, Next::At(Duration::from_millis(101_200))),
            (102, gone(true), None, false, Next::Start),
            (102, gone(false), None, false, Next::At(Duration::from_millis(121_200))),
            (999, gone(true), None, true, Next::Certificate),
            (100, None, Some(at(120)), true, Next::At(at(120))),
            (102, gone(true), Some(at(120)), false, Next::At(at(120))),
            (121, gone(true), Some(at(120)), false, Next::Start),
        ] {
            assert_eq!(next(at(now), before, floor, strict), expected, "{now} {before:?} {floor:?} {strict}");
        }
    }
}
