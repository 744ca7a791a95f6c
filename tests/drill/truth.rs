//! What really served, as the servers themselves said when asked, and what was done to them meanwhile. Pure: values in,
//! values out.
//!
//! Nothing here knows a moment, only spans: a server that answered did so at some time between question and answer. A
//! machine that stalls makes spans longer, and so leaves more undecided; it never turns into a false "it served".

use std::time::Duration;

/// Time since the drills began.
pub type Moment = Duration;

/// Something was true, or happened, at some time in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Not before.
    pub from: Moment,
    /// Not after.
    pub to: Moment,
}

impl Span {
    /// Whether they share a moment.
    pub fn meets(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }
}

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It answered in its own protocol, in good time.
    Serves,
    /// It refused, was gone, or stayed silent.
    Dead,
    /// It answered late, or the asker was late itself: neither.
    Unclear,
}

/// One question to a server.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub span: Span,
    pub seen: Seen,
}

/// What the churn or a fault did to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Started: it does not serve before this is over.
    Started,
    /// Let go on after a freeze.
    Thawed,
    /// Ended in a way that Docker tells of: stopped, killed, paused, removed.
    Ended,
    /// Frozen behind Docker's back.
    Froze,
    /// Given another name, which changes nothing of what it serves.
    Renamed,
}

/// A deed and when it was done.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    pub deed: Deed,
    pub span: Span,
}

/// All that is known of one server.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub looks: Vec<Look>,
    pub acts: Vec<Act>,
}

/// A time for which it is certain that a server served without a break, or that it was dead throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub serves: bool,
    /// Certainly so from here…
    pub from: Moment,
    /// …to here.
    pub to: Moment,
    /// What brought it about, if it was us.
    pub by: Option<Deed>,
}

/// Two looks further apart than this say nothing of the time between them.
const GAP: Duration = Duration::from_millis(2500);

impl Life {
    /// Its certain stretches, in order.
    pub fn stretches(&self) -> Vec<Stretch> {
        let mut found: Vec<Stretch> = vec![];
        let mut open: Option<Stretch> = None;
        for look in self.looks.iter().filter(|look| look.seen != Seen::Unclear) {
            let serves = look.seen == Seen::Serves;
            let under_way = self.disturbing().any(|act| act.span.meets(look.span));
            if let Some(stretch) = &mut open {
                let between = Span { from: stretch.to, to: look.span.to };
                let undisturbed = !self.disturbing().any(|act| act.span.meets(between));
                if stretch.serves == serves && undisturbed && between.to.saturating_sub(between.from) <= GAP {
                    stretch.to = stretch.to.max(look.span.from);
                    continue;
                }
                found.extend(open.take());
            }
            // While a deed is under way it is not known on which side of it this look was.
            if !under_way {
                let by = self.disturbing().filter(|act| act.span.to < look.span.from).last();
                let fresh = by.filter(|act| found.last().is_none_or(|last| last.to <= act.span.to));
                open = Some(Stretch {
                    serves,
                    from: look.span.to,
                    to: look.span.from.max(look.span.to),
                    by: fresh.map(|act| act.deed),
                });
            }
        }
        found.extend(open);
        found
    }

    fn disturbing(&self) -> impl Iterator<Item = &Act> {
        self.acts.iter().filter(|act| act.deed != Deed::Renamed)
    }
}

/// The stretch that covers all of a span.
pub fn covering(stretches: &[Stretch], span: Span) -> Option<Stretch> {
    let after = stretches.partition_point(|stretch| stretch.from <= span.from);
    stretches[..after].last().copied().filter(|stretch| stretch.to >= span.to)
}
