//! Tables with one reload command: which of them owe it, and when it is run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalog::render::Backoff;

/// One reload command.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Tables that were written and are not loaded, with the digest of what they are.
    owed: BTreeMap<String, String>,
    /// Those that are being loaded now.
    under_way: Option<BTreeMap<String, String>>,
    /// When one last began.
    last: Option<Duration>,
    retry: Backoff,
    began: Duration,
}

impl Group {
    /// A table was written.
    pub(super) fn owes(&mut self, table: &str, digest: String) {
        self.owed.insert(table.to_owned(), digest);
    }

    /// Whether it is due.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        self.began = now;
        self.next().is_some_and(|next| next <= now)
    }

    /// When it is due; none while nothing is owed, or one is under way.
    pub(super) fn next(&self) -> Option<Duration> {
        let is_due = self.under_way.is_none() && !self.owed.is_empty();
        is_due.then(|| self.retry.next().unwrap_or_default())
    }

    /// When the last one began.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }

    /// It begins; for these tables, with their digests.
    pub(super) fn begin(&mut self) -> BTreeMap<String, String> {
        self.last = Some(self.began);
        self.retry.begin();
        self.under_way = Some(self.owed.clone());
        self.owed.clone()
    }

    /// It has ended; these tables were in it.
    pub(super) fn end(&mut self, is_well: bool, now: Duration) -> Vec<String> {
        let under_way = self.under_way.take().unwrap_or_default();
        if is_well {
            self.retry.reset();
            // What was written meanwhile is not loaded by it.
            self.owed.retain(|name, digest| under_way.get(name) != Some(digest));
        } else {
            self.retry.failed(now);
        }
        under_way.into_keys().collect()
    }

    /// Whether a table is still to be loaded.
    pub(super) fn still_owes(&self, table: &str) -> bool {
        self.owed.contains_key(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reload_is_for_all_that_were_written_and_what_comes_meanwhile_is_owed_another() {
        let (mut group, second) = (Group::default(), Duration::from_secs(1));
        assert!(!group.is_due(second));
        group.owes("a", "1".into());
        group.owes("b", "1".into());
        assert!(group.is_due(second));
        assert_eq!(group.begin().len(), 2);
        assert!(!group.is_due(second), "it is under way");
        group.owes("b", "2".into());
        assert_eq!(group.end(true, second), ["a", "b"]);
        assert!(!group.still_owes("a") && group.still_owes("b") && group.is_due(second));
        group.begin();
        group.end(false, second);
        assert_eq!((group.is_due(second), group.next()), (false, Some(2 * second)));
        assert!(group.is_due(2 * second) && group.last() == Some(second));
    }
}
