//! Labels and service names: what may stand between two slashes of a key and between two dots of a DNS name.
//!
//! Whatever text a container brings is made to fit by [`Label::slug`]; nothing it says can leave its own label. The
//! surprising part: `instances`, `master` and everything that begins with `_` are legal DNS but never given, because
//! other layouts of the same tree keep things of their own under those labels; nor does an instance get a label that
//! asks for some instances of its service, like `primary`.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The longest label that DNS carries.
pub const MAX_LABEL: usize = 63;
/// The longest name, in bytes of text without the final dot.
pub const MAX_NAME: usize = 253;
const HASH_HEX: usize = 8;

/// One lower-case DNS label, valid by construction: `[a-z0-9-_]`, 1 to 63 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

impl Label {
    /// Takes `text` as it is, when it is a label already.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX_LABEL && text.bytes().all(is_label_byte);
        fits.then(|| Self(text.into()))
    }

    /// Makes a label of any text: lower case, each run of other characters one `-`, none at the ends. Nothing left
    /// is `None`; a label too long, or one that other layouts use, carries a hash of the whole text.
    pub fn slug(text: &str) -> Option<Self> {
        Self::slug_unless(text, is_of_other_layout)
    }

    /// The same for an instance: one that means something in front of a service's name carries a hash too.
    pub fn of_instance(text: &str) -> Option<Self> {
        Self::slug_unless(text, |label| is_of_other_layout(label) || SELECTORS.contains(&label))
    }

    fn slug_unless(text: &str, reserved: impl Fn(&str) -> bool) -> Option<Self> {
        let plain = plain_slug(text);
        if plain.is_empty() {
            return None;
        }
        if plain.len() > MAX_LABEL || reserved(&plain) {
            return Self::hashed(plain.trim_start_matches('_'), text);
        }
        Some(Self(plain.into()))
    }

    /// This label plus `-` and the 8-hex hash of `of`, cut where it would grow too long.
    pub fn with_hash(&self, of: &str) -> Self {
        Self::hashed(&self.0, of).unwrap_or_else(|| self.clone())
    }

    /// What [`Self::with_hash`] keeps of this label, before the `-` and the hash.
    pub fn stem(&self) -> &str {
        cut(&self.0)
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn hashed(stem: &str, of: &str) -> Option<Self> {
        let stem = cut(stem);
        let hash = short_hash(of);
        let text = if stem.is_empty() { hash } else { format!("{stem}-{hash}") };
        Self::parse(&text)
    }
}

/// A label's text with room left for `-` and a hash.
fn cut(label: &str) -> &str {
    let room = MAX_LABEL - HASH_HEX - 1;
    label[..label.len().min(room)].trim_end_matches('-')
}

/// What a text that may end with `-` and a hash is without them.
pub fn without_hash(text: &str) -> Option<&str> {
    let (stem, hash) = text.rsplit_once('-')?;
    (hash.len() == HASH_HEX && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(stem)
}

/// The first 8 hex digits of the text's SHA-256.
pub fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(HASH_HEX / 2).map(|byte| format!("{byte:02x}")).collect()
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
}

fn is_of_other_layout(label: &str) -> bool {
    label == "instances" || label == "master" || label.starts_with('_')
}

/// What asks for some instances of a service when it stands in front of the service's name.
const SELECTORS: [&str; 10] =
    ["primary", "replica", "replicas", "slave", "slaves", "near", "local", "node", "any", "master"];

fn plain_slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len().min(256));
    for character in text.chars() {
        let lower = character.to_ascii_lowercase();
        if lower.is_ascii() && is_label_byte(lower as u8) {
            slug.push(lower);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_matches('-').to_owned()
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A service's name as it is dotted, most particular label first: `cache.prod`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Vec<Label>);

impl ServiceName {
    /// Takes a dotted name whose labels are valid already.
    pub fn parse(text: &str) -> Option<Self> {
        let labels = text.split('.').map(Label::parse).collect::<Option<Vec<_>>>()?;
        Self::of(labels)
    }

    /// Slugs each dotted part of any text; empty parts go. Nothing left, or a name past 253 bytes, is `None`. In front
    /// of others a part that selects carries a hash, as an instance's label does: service `primary.redis` would answer
    /// for the primary of `redis`. Only `node` may be there, which many an image is called.
    pub fn slug(text: &str) -> Option<Self> {
        // No more than a name has room for is slugged of a text without end.
        let mut parts = text.split('.').filter(|part| Label::slug(part).is_some()).take(MAX_NAME).peekable();
        let mut labels = Vec::new();
        while let Some(part) = parts.next() {
            let selects = |label: &str| is_of_other_layout(label) || (label != "node" && SELECTORS.contains(&label));
            let in_front = parts.peek().is_some();
            labels.push(if in_front { Label::slug_unless(part, selects)? } else { Label::slug(part)? });
        }
        Self::of(labels)
    }

    /// A name of one label.
    pub fn single(label: Label) -> Self {
        Self(vec![label])
    }

    /// The labels as dotted: most particular first.
    pub fn labels(&self) -> &[Label] {
        &self.0
    }

    fn of(labels: Vec<Label>) -> Option<Self> {
        let length: usize = labels.iter().map(|label| label.as_str().len() + 1).sum();
        (!labels.is_empty() && length <= MAX_NAME + 1).then_some(Self(labels))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, label) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(".")?;
            }
            f.write_str(label.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Whether a text is a host that can be connected to: an address, or a name as DNS has it.
pub fn is_host(host: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label =
        |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(of_name) && !label.starts_with('-');
    let name = host.strip_suffix('.').unwrap_or(host);
    host.parse::<std::net::IpAddr>().is_ok() || (name.len() <= MAX_NAME && name.split('.').all(is_label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_slug(text: &str, expected: Option<&str>) {
        assert_eq!(Label::slug(text).as_ref().map(Label::as_str), expected, "slug of {text:?}");
    }

    #[test]
    fn any_text_becomes_one_label() {
        check_slug("core-01:redis.0:6379", Some("core-01-redis-0-6379"));
        check_slug("My_Cache", Some("my_cache"));
        check_slug("team/pg", Some("team-pg"));
        check_slug("../../etc/passwd", Some("etc-passwd"));
        check_slug("--a  b--", Some("a-b"));
        check_slug("a\u{0}\n\u{7f}b", Some("a-b"));
        check_slug("größe", Some("gr-e"));
        check_slug("", None);
        check_slug("///", None);
    }

    #[test]
    fn labels_of_other_layouts_get_a_hash() {
        check_slug("master", Some(&format!("master-{}", short_hash("master"))));
        check_slug("instances", Some(&format!("instances-{}", short_hash("instances"))));
        check_slug("_tcp", Some(&format!("tcp-{}", short_hash("_tcp"))));
        check_slug("_", Some(&short_hash("_")));
    }

    #[test]
    fn what_selects_is_no_instance_and_stands_in_front_of_no_service() {
        for word in SELECTORS {
            for text in [word.to_owned(), word.to_uppercase(), format!(".{word}.")] {
                let label = Label::of_instance(&text).expect("not empty");
                assert_eq!(label.as_str(), format!("{word}-{}", short_hash(&text)), "{text}");
            }
            let whole = ServiceName::slug(&format!("{word}.redis")).expect("a name").to_string();
            assert_eq!(whole == "node.redis", word == "node", "{whole}");
        }
        let alone = ServiceName::slug("Replica").expect("a name");
        assert_eq!(alone.to_string(), "replica", "a service may be called so");
        assert_eq!(ServiceName::slug("redis.primary").expect("a name").to_string(), "redis.primary");
    }

    #[test]
    fn long_labels_are_cut_and_stay_distinct() {
        let one = Label::slug(&format!("{}1", "a".repeat(80))).expect("not empty");
        let two = Label::slug(&format!("{}2", "a".repeat(80))).expect("not empty");
        assert_eq!(one.as_str().len(), MAX_LABEL);
        assert_ne!(one, two);
    }

    #[test]
    fn a_hash_is_put_behind_the_stem_and_found_there_again() {
        for text in ["a".to_owned(), "a-b".to_owned(), "a".repeat(63), format!("{}-{}", "a".repeat(53), "b".repeat(9))]
        {
            let label = Label::parse(&text).expect("a label");
            assert_eq!(without_hash(label.with_hash("of").as_str()), Some(label.stem()), "{text}");
        }
        assert_eq!((without_hash("core-01"), without_hash("deadbeef")), (None, None));
    }

    #[test]
    fn dots_separate_labels_of_a_service() {
        let name = ServiceName::slug("cache..Prod.").expect("two labels");
        assert_eq!(name.to_string(), "cache.prod");
        assert_eq!(ServiceName::slug("..."), None);
        assert_eq!(ServiceName::slug(&"abcdefgh.".repeat(40)), None);
    }

    #[test]
    fn hosts_are_addresses_and_names_and_nothing_else() {
        for host in ["10.0.0.1", "2001:db8::1", "core-01", "a.b.example.com", "_x.y", "x."] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", ".", "a..b", "a b", "a\nb", "a;b", "-x", "ä.de", "[::1]", "10.0.0.1:80", &"a.".repeat(200)] {
            assert!(!is_host(host), "{host}");
        }
    }
}
