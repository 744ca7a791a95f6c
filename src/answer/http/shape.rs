//! What several answers have in common: whether they are stale, and how names are compared.

use crate::catalog::index::Catalog;
use crate::model::words::name::Label;
use crate::view::{CatalogView, Progress};

/// Whether what is shown may be out of date: the store is away, or has not been read since the start.
pub(super) fn is_stale(view: &CatalogView, catalog: &Catalog) -> bool {
    catalog.is_stale() || view.progress() != Progress::Read
}

/// Whether a node's name or a tag is the one asked for: the same text, or the same slug, as in DNS.
pub(super) fn alike(given: &str, asked: &str) -> bool {
    given == asked || Label::slug(asked).is_some_and(|asked| Label::slug(given) == Some(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_tags_are_compared_as_dns_does() {
        assert!(alike("Core 01", "core-01"));
        assert!(alike("blue", "blue"));
        assert!(!alike("blue", "green"));
    }
}
