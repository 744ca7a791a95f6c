//! Paths: what stands for a DNS name in the tree of keys, which is the name's labels reversed and joined by `/`.
//!
//! A key's own segments are nearly always labels. Where they are not (a dot within a segment, capitals), the record is
//! found under the path of the name that the key reads as, and that path is its alias. A prefix is no name: it stays as
//! it is.

pub(super) use crate::model::words::key::alias;

/// Every path above `path`, nearest first, without the root.
pub(super) fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |path| parent(path))
}

/// The path one level up; `None` at the top.
pub(super) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())
}

/// What every path below `path` begins with.
pub(super) fn below(path: &str) -> String {
    format!("{path}/")
}

/// The first text after everything below `path`.
pub(super) fn beyond(path: &str) -> String {
    format!("{path}0") // '0' follows '/'
}

/// Whether other programs keep what is no record under this key, so that it is not a bad one.
pub(super) fn is_foreign_layout(key: &str) -> bool {
    key.split('/').any(|part| part == "instances" || part == "master" || part.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_capitals_have_an_alias() {
        assert_eq!(alias("/services", "/services/redis/core-01"), None);
        let key = "/s/redis/core-01.example:redis:1";
        assert_eq!(alias("/s", key).as_deref(), Some("/s/redis/example:redis:1/core-01"));
        assert_eq!(alias("/s", "/s/Web/x").as_deref(), Some("/s/web/x"));
    }

    #[test]
    fn a_prefix_stays_as_it_is() {
        assert_eq!(alias("/my.App", "/my.App/web/x"), None);
        assert_eq!(alias("/my.App/V2", "/my.App/V2/Web/x.y").as_deref(), Some("/my.App/V2/web/y/x"));
    }

    #[test]
    fn paths_above_end_below_the_root() {
        assert_eq!(above("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a"]);
        assert_eq!(above("/a").count(), 0);
    }
}
