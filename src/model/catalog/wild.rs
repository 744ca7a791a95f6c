//! Wildcards: records whose path fits a pattern, found by leaping over what does not fit.
//!
//! The order of keys is that of bytes, so `a-x` stands before `a/x`; a leap therefore never assumes that a segment's
//! leaf and its subtree are neighbours.

use std::ops::Bound;
use std::sync::Arc;

use super::entry::Entry;
use super::read::Found;
use super::{Catalog, WINDOW, path};

/// A leap costs about as much as passing over so many records in a row, and so does a record that fits where there are
/// too many.
const LEAP: usize = 4;

/// Segments below a path, of which some may be anything.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// The path above the first wildcard.
    pub(crate) root: String,
    /// What must follow; `None` is anything. Deeper records fit too.
    pub(crate) segments: Vec<Option<String>>,
}

enum Fit {
    Yes,
    /// No record before this text fits.
    LeapTo(String),
    /// No later record fits.
    Over,
}

impl Pattern {
    /// `None` when `path` is too short to fit.
    fn judge(&self, path: &str) -> Option<Fit> {
        let mut at = self.root.len();
        let mut last_any = None;
        for segment in &self.segments {
            let rest = path.get(at + 1..)?;
            let own = rest.split('/').next().unwrap_or(rest);
            match segment {
                None => last_any = Some(at + 1 + own.len()),
                Some(wanted) if wanted == own => {}
                Some(wanted) => return Some(leap(path, at, wanted, last_any)),
            }
            at += 1 + own.len();
            if own.is_empty() {
                return None;
            }
        }
        Some(Fit::Yes)
    }
}

/// Where to go on after a path whose segment at `at` is not `wanted`.
fn leap(path: &str, at: usize, wanted: &str, last_any: Option<usize>) -> Fit {
    let target = format!("{}/{wanted}", &path[..at]);
    let below = path::below(&target);
    if path < target.as_str() {
        return Fit::LeapTo(target);
    }
    if path < below.as_str() {
        return Fit::LeapTo(below);
    }
    last_any.map_or(Fit::Over, |end| Fit::LeapTo(path::beyond(&path[..end])))
}

impl Catalog {
    /// The records that fit a pattern, at most `limit` steps' worth; where there are more, a window that `seed` chooses.
    pub(crate) fn matching(&self, pattern: &Pattern, seed: u64, limit: usize) -> Found<'_> {
        let limit = limit.min(WINDOW);
        let size = self.size(&pattern.root);
        if size <= limit {
            let fits = |entry: &&Arc<Entry>| matches!(pattern.judge(entry.path()), Some(Fit::Yes));
            let entries = self.below(&pattern.root, None).filter(fits).collect();
            return Found { entries, cut: false, looked: size + 1 };
        }
        let window = self.window(&pattern.root, seed);
        let (below, beyond) = (path::below(&pattern.root), path::beyond(&pattern.root));
        let mut found = Found::default();
        let mut steps = limit;
        self.scan(pattern, window.unwrap_or(&below), &beyond, &mut steps, &mut found.entries);
        if let Some(start) = window {
            self.scan(pattern, &below, start, &mut steps, &mut found.entries);
        }
        found.cut = steps == 0;
        found.looked = limit - steps;
        found
    }

    fn scan<'c>(&'c self, pattern: &Pattern, from: &str, to: &str, steps: &mut usize, found: &mut Vec<&'c Arc<Entry>>) {
        let mut from = from.to_owned();
        while *steps > 0 && from.as_str() < to {
            let range = (Bound::Included(from.as_str()), Bound::Excluded(to));
            let mut next = None;
            for (_, entry) in self.tree.range::<_, str>(range) {
                *steps = steps.saturating_sub(1);
                match pattern.judge(entry.path()) {
                    Some(Fit::Yes) => {
                        *steps = steps.saturating_sub(LEAP - 1);
                        found.push(entry);
                    }
                    Some(Fit::Over) => return,
                    Some(Fit::LeapTo(text)) => next = Some(text),
                    _ => {}
                }
                if next.is_some() || *steps == 0 {
                    break;
                }
            }
            let Some(text) = next else { return };
            *steps = steps.saturating_sub(LEAP);
            from = text;
        }
    }
}
