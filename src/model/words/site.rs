//! Where a host is: a path from large to small, such as `us-west-2/us-west-2a/rack-7`, and how far it is from another.
//!
//! What is near is near to the agent that was asked: a [`Standpoint`] is where that one is. A site that cannot be read
//! counts as none, and costs nothing else of its record.

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::name::Label;
use super::record::Text;

/// The attribute, as of `SERVICE_NEAR`, by which a service's SRV answers prefer what is near.
pub const NEAR: &str = "near";
/// The attribute, as of `SERVICE_NEAR_MIN`, that says how many endpoints a name of near ones shall hold.
pub const NEAR_MIN: &str = "near_min";
/// The most that may be asked for: more are not near each other.
pub const MOST_NEAR: u8 = 64;
/// The longest site, in bytes.
pub const MAX_SITE: usize = 255;
/// The most parts of a site: farther than all of them is one more.
pub const MAX_PARTS: usize = 8;
/// The longest part, in bytes: as long as a label of a name.
const MAX_PART: usize = 63;
/// The distance of what shares nothing with us, or says nothing of where it is.
pub const FARTHEST: u8 = 9;

/// A site, valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site(Text);

impl Site {
    /// Reads a site; what is none says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("{text:?} is no site such as us-west-2/us-west-2a/rack-7: {why}"));
        if text.len() > MAX_SITE || text.split('/').count() > MAX_PARTS {
            return Err(format!("a site of more than {MAX_PARTS} parts, or of more than {MAX_SITE} bytes"));
        }
        if text.split('/').any(|part| part.is_empty() || part.len() > MAX_PART) {
            return bad("a part has 1 to 63 letters");
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !text.bytes().all(|byte| byte == b'/' || fits(byte)) {
            return bad("letters, digits, - _ and . are for its parts");
        }
        Ok(Self(text.into()))
    }

    /// The site as it is written.
    pub fn text(&self) -> &Text {
        &self.0
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The site in another's record; what is none is as if it were not there.
pub(super) fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Text>, D::Error> {
    let said = Value::deserialize(from)?;
    Ok(said.as_str().and_then(|text| Site::parse(text).ok()).map(|site| site.0))
}

/// The sites that a site lies in, itself first, and last the whole world, which is the empty text.
pub fn around(site: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(site), |inner| {
        let outer = inner.rsplit_once('/').map_or("", |(outer, _)| outer);
        (!inner.is_empty()).then_some(outer)
    })
}

/// What the attribute `near` says; `None` when it cannot be read.
pub fn said_near(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// What the attribute `near_min` says; `None` when it cannot be read.
pub fn said_near_min(text: &str) -> Option<u8> {
    text.trim().parse().ok().filter(|count| (1..=MOST_NEAR).contains(count))
}

/// Whether a site lies in another one.
pub fn is_within(site: &str, outer: &str) -> bool {
    let rest = site.strip_prefix(outer);
    outer.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Where questions are answered from, and whether answers stand in the order of nearness unasked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standpoint {
    node: Option<Label>,
    site: Option<Site>,
    /// Every SRV answer prefers what is near, not only those of services that ask for it.
    pub prefers_near: bool,
}

impl Standpoint {
    /// Nowhere: everything is as far as everything else.
    pub const NOWHERE: &'static Self = &Self { node: None, site: None, prefers_near: false };

    /// On this host, at this site.
    pub fn new(node: &str, site: Option<Site>, prefers_near: bool) -> Self {
        Self { node: Label::slug(node), site, prefers_near }
    }

    /// The slug of this host's name.
    pub fn node(&self) -> Option<&str> {
        self.node.as_ref().map(Label::as_str)
    }

    /// Where this host is.
    pub fn site(&self) -> Option<&str> {
        self.site.as_ref().map(|site| &**site.text())
    }

    /// How far a site of another host is from here.
    pub fn distance_to(&self, site: Option<&str>) -> u8 {
        let Some(site) = site else { return FARTHEST };
        let mut own = self.site().into_iter().flat_map(|own| own.split('/'));
        let mut theirs = site.split('/');
        let mut not_shared = 0;
        let mut parts_are_shared = true;
        for part in own.by_ref() {
            parts_are_shared &= theirs.next() == Some(part);
            not_shared += u8::from(!parts_are_shared);
        }
        (1 + not_shared).min(FARTHEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(site: &str) -> Standpoint {
        let site = (!site.is_empty()).then(|| Site::parse(site).expect("a site"));
        Standpoint::new("core-01", site, false)
    }

    #[test]
    fn a_site_is_a_path_of_short_plain_parts() {
        let long = "a".repeat(63);
        for good in ["us-west-2", "us-west-2/us-west-2a/rack-7", "A_b.c/1", "1/2/3/4/5/6/7/8", &long] {
            assert_eq!(Site::parse(good).expect("a site").to_string(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", "/", "/a", "a/", "a//b", "a b", "a/\u{1b}", "ä", "1/2/3/4/5/6/7/8/9", &too_long] {
            assert!(Site::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_distance_is_one_and_what_of_our_path_is_not_shared() {
        for (own, other, expected) in [
            ("r/z/k", "r/z/k", 1),
            ("r/z/k", "r/z/k/shelf", 1),
            ("r/z/k", "r/z/l", 2),
            ("r/z/k", "r/z", 2),
            ("r/z/k", "r/y/k", 3),
            ("r/z/k", "s/z/k", 4),
            ("1/2/3/4/5/6/7/8", "x", 9),
            ("", "r/z/k", 1),
        ] {
            assert_eq!(from(own).distance_to(Some(other)), expected, "from {own} to {other}");
        }
        for own in ["", "r", "r/z/k"] {
            assert_eq!(from(own).distance_to(None), FARTHEST, "who says nothing is farthest");
        }
    }

    #[test]
    fn a_site_lies_in_those_around_it_and_in_no_other() {
        assert_eq!(around("r/z/k").collect::<Vec<_>>(), ["r/z/k", "r/z", "r", ""]);
        assert_eq!(around("").collect::<Vec<_>>(), [""]);
        for outer in around("r/z/k") {
            assert!(is_within("r/z/k", outer), "{outer}");
        }
        for other in ["r/z/k/s", "r/z/", "z", "r/z/kk", "r/zz"] {
            assert!(!is_within("r/z/k", other), "{other}");
        }
        assert!(!is_within("rr/z", "r"));
    }
}
