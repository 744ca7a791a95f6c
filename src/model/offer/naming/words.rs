//! The small notations inside labels: tags with escaped commas, durations, names of images, keys that speak of secrets.

use std::time::Duration;

use crate::model::words::record::MAX_RECORD;

/// The first `most` parts of a list with commas, and whether there are more; `\,` is a comma, empty parts go, blanks
/// around a part go. Of a text longer than a record may be no more than that is read.
pub(super) fn split_tags(text: &str, most: usize) -> (Vec<String>, bool) {
    let read = text.char_indices().map(|(place, _)| place).take_while(|place| *place <= MAX_RECORD).last().unwrap_or(0);
    let (text, cut) = if text.len() > MAX_RECORD { (&text[..read], true) } else { (text, false) };
    let mut parts = parts(text);
    let more = cut || parts.len() > most;
    parts.truncate(most);
    (parts, more)
}

fn parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    for character in text.chars() {
        match character {
            ',' if part.ends_with('\\') => {
                part.pop();
                part.push(',');
            }
            ',' => parts.push(std::mem::take(&mut part)),
            other => part.push(other),
        }
    }
    parts.push(part);
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Reads `5s`, `1m30s`, `500ms`, `1.5h`, or plain seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * factor).ok()?)?;
        rest = tail;
    }
    Some(total)
}

/// The image's base name, without registry, path, tag and digest; `None` when it has none, as a bare image id has.
pub(super) fn image_base<'t>(image: &'t str, image_id: &str) -> Option<&'t str> {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let base = image.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = base.split(':').next().unwrap_or_default();
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let whole_id = base.strip_prefix("sha256:").is_some_and(hex);
    let bare_id = image_id.strip_prefix("sha256:").unwrap_or(image_id);
    let short_id = image.len() >= 6 && hex(image) && (bare_id.starts_with(image) || image.len() == 64);
    (!name.is_empty() && !whole_id && !short_id).then_some(name)
}

const SECRET_WORDS: [&str; 8] =
    ["pass", "password", "passwd", "passphrase", "secret", "token", "credential", "credentials"];
const SECRET_PARTS: [&str; 4] = ["api_key", "apikey", "private_key", "access_key"];

/// Whether an attribute's key says that its value is nobody's business.
pub(super) fn speaks_of_secrets(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.split('_').any(|word| SECRET_WORDS.contains(&word)) || SECRET_PARTS.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_split_at_commas_that_are_not_escaped() {
        for (text, expected) in [
            ("", &[][..]),
            (",,,,", &[]),
            ("foo", &["foo"]),
            ("foo,bar", &["foo", "bar"]),
            (r"foo\,bar", &["foo,bar"]),
            (r"\,foobar\,", &[",foobar,"]),
            (r"\,,a", &[",", "a"]),
            ("a, b ,,c", &["a", "b", "c"]),
        ] {
            assert_eq!(
                split_tags(text, 64),
                (expected.iter().map(|&part| part.to_owned()).collect(), false),
                "{text:?}"
            );
        }
    }

    #[test]
    fn no_more_tags_are_split_than_a_record_may_have() {
        let (tags, more) = split_tags("a,b,,c", 2);
        assert_eq!((tags.len(), more), (2, true));
        assert!(!split_tags("a,b,", 2).1);
        let (tags, more) = split_tags(&"ä,".repeat(40_000), 64);
        assert_eq!((tags.len(), more), (64, true));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, expected) in [
            ("5", ms(5000)),
            ("5s", ms(5000)),
            ("1m30s", ms(90_000)),
            ("500ms", ms(500)),
            ("1.5s", ms(1500)),
            ("0", ms(0)),
            ("", None),
            ("s", None),
            ("5x", None),
            ("-1s", None),
            ("99999999999999999999h", None),
            ("1..2s", None),
            ("5 parsecs", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_base_name_of_an_image() {
        let id = "sha256:4ed1812024ed78962a34727137627e8854a3b414d19e2c35a1dc727a47e16fba";
        for (image, expected) in [
            ("redis", Some("redis")),
            ("progrium/redis", Some("redis")),
            ("localhost:5000/team/redis:7.2-alpine", Some("redis")),
            ("redis:7@sha256:4ed1", Some("redis")),
            ("redis@sha256:4ed1812024ed", Some("redis")),
            (id, None),
            ("4ed1812024ed", None),
            ("cafe", Some("cafe")),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(image_base(image, id), expected, "{image:?}");
        }
    }

    #[test]
    fn keys_of_secrets_are_known_by_their_words() {
        for key in ["password", "db_pass", "AUTH_TOKEN", "aws_access_key_id", "apikey", "my_apikeys", "credentials"] {
            assert!(speaks_of_secrets(key), "{key}");
        }
        for key in ["region", "compass", "passage", "bypass_lb", "tokens", "key", "passwordless"] {
            assert!(!speaks_of_secrets(key), "{key}");
        }
    }
}
