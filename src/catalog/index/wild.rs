//! Wildcards: records whose path fits a pattern, found by leaping over what does not fit.
//!
//! The order of keys is that of bytes, so `a-x` stands before `a/x`; a leap therefore never assumes that a segment's
//! leaf and its subtree are neighbours.

use std::ops::Bound;

use super::read::{Found, SEEK};
use super::{Catalog, WINDOW, path, window};

/// A record that fits where there are too many counts so many steps more: no more are wanted than a message may hold.
const FITTING: usize = 4;
/// Bytes of a path that are written and compared in one step.
const BYTES: usize = 16;

/// Segments below a path, of which some may be anything.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// The path above the first wildcard.
    pub(crate) root: String,
    /// What must follow; `None` is anything. Deeper records fit too.
    pub(crate) segments: Vec<Option<String>>,
}

/// How a path stands to a pattern.
enum Fit {
    Yes,
    /// It is too short.
    No,
    /// Its segment that begins at `at` is not what is wanted; the last one that may be anything ends at `last_any`.
    Differs {
        at: usize,
        segment: usize,
        last_any: Option<usize>,
    },
}

enum Next {
    /// No record before this text fits.
    LeapTo(String),
    /// No later record fits.
    Over,
}

impl Pattern {
    /// Steps that judging one path takes beside passing over it.
    pub(crate) fn cost(&self) -> usize {
        self.segments.len().div_ceil(2)
    }

    /// Whether a path fits.
    pub(crate) fn fits(&self, path: &str) -> bool {
        matches!(self.judge(path), Fit::Yes)
    }

    fn judge(&self, path: &str) -> Fit {
        let mut at = self.root.len();
        let mut last_any = None;
        for (segment, wanted) in self.segments.iter().enumerate() {
            let Some(rest) = path.get(at + 1..) else { return Fit::No };
            let own = rest.split('/').next().unwrap_or(rest);
            match wanted {
                None => last_any = Some(at + 1 + own.len()),
                Some(wanted) if wanted == own => {}
                Some(_) => return Fit::Differs { at, segment, last_any },
            }
            at += 1 + own.len();
            if own.is_empty() {
                return Fit::No;
            }
        }
        Fit::Yes
    }
}

/// Where to go on after a path whose segment at `at` is not `wanted`.
fn leap(path: &str, at: usize, wanted: &str, last_any: Option<usize>) -> Next {
    let target = format!("{}/{wanted}", &path[..at]);
    let below = path::below(&target);
    if path < target.as_str() {
        return Next::LeapTo(target);
    }
    if path < below.as_str() {
        return Next::LeapTo(below);
    }
    last_any.map_or(Next::Over, |end| Next::LeapTo(path::beyond(&path[..end])))
}

impl Catalog {
    /// The records that fit a pattern, for at most about `limit` steps; where there are more, a window that `seed`
    /// chooses.
    pub(crate) fn matching(&self, pattern: &Pattern, seed: u64, limit: usize) -> Found<'_> {
        let size = self.size(&pattern.root);
        let (each, whole) = (1 + pattern.cost(), WINDOW.min(limit / (1 + pattern.cost())));
        if size <= whole {
            let fitting = self.below(&pattern.root, None).filter(|entry| pattern.fits(entry.path()));
            return Found { entries: fitting.collect(), cut: false, steps: SEEK + size * each };
        }
        let window = self.window(&pattern.root, seed);
        let (below, beyond) = (path::below(&pattern.root), path::beyond(&pattern.root));
        let mut found = Found { steps: SEEK + window::steps(size), ..Found::default() };
        self.scan(pattern, window.unwrap_or(&below), &beyond, limit, &mut found);
        if let Some(start) = window {
            self.scan(pattern, &below, start, limit, &mut found);
        }
        found.cut = found.steps >= limit;
        found
    }

    fn scan<'c>(&'c self, pattern: &Pattern, from: &str, to: &str, limit: usize, found: &mut Found<'c>) {
        let mut from = from.to_owned();
        while found.steps < limit && from.as_str() < to {
            let range = (Bound::Included(from.as_str()), Bound::Excluded(to));
            let mut next = None;
            for (_, entry) in self.tree.range::<_, str>(range) {
                found.steps += 1 + pattern.cost();
                match pattern.judge(entry.path()) {
                    Fit::Yes => {
                        found.steps += FITTING;
                        found.entries.push(entry);
                    }
                    Fit::No => {}
                    Fit::Differs { at, segment, last_any } => {
                        let wanted = pattern.segments[segment].as_deref().unwrap_or_default();
                        next = Some(leap(entry.path(), at, wanted, last_any));
                    }
                }
                if next.is_some() || found.steps >= limit {
                    break;
                }
            }
            let Some(Next::LeapTo(text)) = next else { return };
            found.steps += SEEK + text.len() / BYTES;
            from = text;
        }
    }
}
