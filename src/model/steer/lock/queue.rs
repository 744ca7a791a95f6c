//! Where a lock is in the store, and who comes before whom: etcd's own recipe, so that `etcdctl lock` of the same path
//! and wharf exclude each other.
//!
//! A queue key is the lease's number in hex below the queue's path; whoever's was created first is the head. What else
//! lies there is nobody's.

use crate::model::words::key::{Prefix, text};

/// The longest name, or key, of a lock.
const LONGEST: usize = 512;

/// What a lock is called: a name of its own, or a key of somebody else's that is to be there while it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockName {
    text: String,
    is_key: bool,
}

impl LockName {
    /// A name, or what begins with a slash: a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') { Self::key(text) } else { Self::name(text) }
    }

    fn name(text: &str) -> Result<Self, String> {
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if text.is_empty() || text.len() > LONGEST || !fits || text.starts_with('.') {
            return Err(format!("{text:?} is no name for a lock: letters, digits, - _ and . are"));
        }
        Ok(Self { text: text.to_owned(), is_key: false })
    }

    fn key(text: &str) -> Result<Self, String> {
        let fits = Prefix::parse(text).is_some() && !text.ends_with('/') && text.len() <= LONGEST;
        // The lock's own keys would hold themselves.
        if !fits || text.starts_with("/wharf/") {
            return Err(format!("{text:?} is no key such as /services/postgres/master"));
        }
        Ok(Self { text: text.to_owned(), is_key: true })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key that is there while it is held, if it is called by one.
    pub fn held_key(&self) -> Option<&str> {
        self.is_key.then_some(&*self.text)
    }
}

/// The keys of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// What every queue key begins with.
    pub queue: String,
    /// The certificate.
    pub child: String,
    /// The key of somebody else's.
    pub held: Option<String>,
}

impl Keys {
    /// The keys of this lock in the tree of this prefix.
    pub fn new(prefix: &Prefix, name: &LockName) -> Self {
        let root = format!("{}{}", prefix.locks(), name.text.trim_start_matches('/'));
        Self {
            queue: format!("{root}/queue/"),
            child: format!("{root}/child"),
            held: name.held_key().map(str::to_owned),
        }
    }

    /// The queue key of a lease.
    pub fn of_lease(&self, lease: i64) -> String {
        format!("{}{lease:x}", self.queue)
    }

    /// Whether it is somebody's place in the queue.
    pub fn is_place(&self, key: &str) -> bool {
        let rest = key.strip_prefix(&self.queue);
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

/// One key of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key.
    pub key: String,
    /// The revision that created it, which is its token.
    pub created: i64,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
    /// What it says.
    pub value: Vec<u8>,
}

impl Place {
    /// One read from the store.
    pub fn new(key: Vec<u8>, created: i64, lease: i64, value: Vec<u8>) -> Self {
        Self { key: text(key), created, lease, value }
    }
}

/// The places in order of arrival.
pub fn in_order(keys: &Keys, places: Vec<Place>) -> Vec<Place> {
    let mut line: Vec<Place> = places.into_iter().filter(|place| keys.is_place(&place.key)).collect();
    line.sort_by_key(|place| place.created);
    line
}

/// Those before the one with this key; `None` when it is not there.
pub fn before<'l>(line: &'l [Place], key: &str) -> Option<&'l [Place]> {
    line.iter().position(|place| place.key == key).map(|at| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(name: &str) -> Keys {
        let name = LockName::parse(name).unwrap_or_else(|error| panic!("{error}"));
        Keys::new(&Prefix::parse("/services").expect("a prefix"), &name)
    }

    #[test]
    fn a_lock_has_its_keys_below_the_prefix() {
        let named = keys("postgres");
        assert_eq!(named.queue, "/wharf/services/locks/postgres/queue/");
        assert_eq!(named.child, "/wharf/services/locks/postgres/child");
        assert_eq!(named.of_lease(0x694d), "/wharf/services/locks/postgres/queue/694d");
        let keyed = keys("/services/postgres/master");
        assert_eq!(keyed.queue, "/wharf/services/locks/services/postgres/master/queue/");
        assert_eq!(keyed.held.as_deref(), Some("/services/postgres/master"));
    }

    #[test]
    fn what_is_no_name_and_no_key_is_refused() {
        for bad in ["", "a b", "a/b", ".", "..", "/", "//", "/a//b", "/a/", "/a/../b", "/wharf/services/x", "ä"] {
            assert!(LockName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_locks_keys_are_no_place_of_another() {
        let (short, long) = (keys("/a"), keys("/a/queue"));
        assert!(!short.is_place(&long.child) && !short.is_place(&long.of_lease(1)), "{short:?} {long:?}");
    }

    #[test]
    fn the_first_to_come_is_the_head() {
        let keys = keys("x");
        let place = |lease: i64, created| Place::new(keys.of_lease(lease).into_bytes(), created, lease, vec![]);
        let stranger = Place::new(format!("{}readme", keys.queue).into_bytes(), 1, 0, vec![]);
        let line = in_order(&keys, vec![place(1, 9), place(2, 5), stranger, place(3, 7)]);
        let leases: Vec<i64> = line.iter().map(|place| place.lease).collect();
        assert_eq!(leases, [2, 3, 1]);
        assert_eq!(before(&line, &keys.of_lease(3)).map(<[_]>::len), Some(1));
        assert_eq!(before(&line, &keys.of_lease(4)), None);
    }
}
