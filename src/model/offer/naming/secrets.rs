//! `[[secret]]`: which containers may have which password file read for them.
//!
//! A container is told by its name alone: that is the operator's word, while labels, environment and image may be
//! anybody's.

use globset::{GlobBuilder, GlobMatcher};

/// One table: these containers may have this file.
#[derive(Clone, Debug)]
pub struct SecretRule {
    file: String,
    pattern: String,
    containers: GlobMatcher,
}

impl SecretRule {
    /// A rule for a bare file name and a pattern of container names; what is wrong, by key.
    pub fn new(file: &str, container: &str) -> Result<Self, (&'static str, String)> {
        if !is_bare(file) {
            return Err(("file", format!("{file:?} is no bare file name inside --check-secrets")));
        }
        if container.is_empty() || container.contains('/') {
            return Err(("container", format!("{container:?} is no pattern of container names, such as redis-*")));
        }
        // Names of containers have both cases, and are told apart by them.
        let glob = GlobBuilder::new(container).literal_separator(true).build();
        let glob = glob.map_err(|error| ("container", format!("{container:?}: {}", error.kind())))?;
        Ok(Self { file: file.to_owned(), pattern: container.to_owned(), containers: glob.compile_matcher() })
    }

    /// Whether a container of this name may have this file.
    pub fn lets(&self, container: &str, file: &str) -> bool {
        self.file == file && is_name(container) && self.containers.is_match(container)
    }
}

impl PartialEq for SecretRule {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, &self.pattern) == (&other.file, &other.pattern)
    }
}

/// Whether it names a file of a directory, and nothing outside or below.
pub(super) fn is_bare(name: &str) -> bool {
    !name.contains(['/', '\\', '\0']) && !matches!(name, "" | "." | "..") && name.len() <= 255
}

/// What an engine takes for a name. One that is not written so is nobody's.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets(container: &str, name: &str) -> bool {
        SecretRule::new("redis.pw", container).is_ok_and(|rule| rule.lets(name, "redis.pw"))
    }

    #[test]
    fn the_name_alone_decides() {
        for (pattern, name, expected) in [
            ("redis-*", "redis-1", true),
            ("redis-*", "redis-", true),
            ("redis-*", "Redis-1", false),
            ("redis-*", "my-redis-1", false),
            ("redis-*", "redis-1/web", false),
            ("redis-*", "/redis-1", false),
            ("redis-?", "redis-12", false),
            ("{redis,cache}", "cache", true),
            ("*", "anything", true),
            ("*", "", false),
            ("*", "a b", false),
            ("redis", "redis\n", false),
        ] {
            assert_eq!(lets(pattern, name), expected, "{pattern} {name:?}");
        }
        let rule = SecretRule::new("redis.pw", "*").expect("a rule");
        assert!(!rule.lets("redis", "postgres.pw") && !rule.lets("redis", "REDIS.PW"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (file, container, key) in [
            ("", "*", "file"),
            ("a/b", "*", "file"),
            ("..", "*", "file"),
            ("redis.pw", "", "container"),
            ("redis.pw", "/redis", "container"),
            ("redis.pw", "[", "container"),
        ] {
            assert_eq!(SecretRule::new(file, container).expect_err("wrong").0, key, "{file:?} {container:?}");
        }
    }
}
