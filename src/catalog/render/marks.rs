//! Text that others wrote, marked so that it stays harmless wherever a template puts it.
//!
//! A character that is not surely harmless is moved to a plane of Unicode that is for private use, one for each unit of
//! its UTF-16. Templates may cut, join and compare such text as any other. At the end each character that is still
//! marked becomes `_`; filters that quote take the marks away first.

use std::borrow::Cow;

/// Where the plane of the marks begins.
const PLANE: u32 = 0xF_0000;
/// The units of UTF-16 that are the second half of a character.
const SECOND: std::ops::RangeInclusive<u32> = 0xDC00..=0xDFFF;

/// Whether a character stays as it is when it is written bare.
fn is_harmless(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._:/@%+=,~ -".contains(character)
}

/// The unit of UTF-16 that a mark stands for.
fn unit(character: char) -> Option<u32> {
    u32::from(character).checked_sub(PLANE).filter(|unit| *unit <= 0xFFFF)
}

/// The text with all that is not harmless marked.
pub(super) fn marked(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut marked = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_harmless(character) {
            marked.push(character);
        } else {
            let units =
                character.encode_utf16(&mut [0; 2]).iter().map(|unit| PLANE + u32::from(*unit)).collect::<Vec<_>>();
            marked.extend(units.into_iter().filter_map(char::from_u32));
        }
    }
    Cow::Owned(marked)
}

/// The text as it was before it was marked.
pub(super) fn whole(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|character| unit(character).is_some()) {
        return Cow::Borrowed(text);
    }
    let units = text.chars().flat_map(|character| {
        let mut buffer = [0; 2];
        let units = match unit(character).and_then(|unit| u16::try_from(unit).ok()) {
            Some(unit) => {
                buffer[0] = unit;
                &buffer[..1]
            }
            None => character.encode_utf16(&mut buffer),
        };
        units.to_vec()
    });
    Cow::Owned(char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

/// What is written: each character that is still marked is `_`.
pub(super) fn bare(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|character| unit(character).is_some()) {
        return Cow::Borrowed(text);
    }
    let written = text.chars().filter_map(|character| match unit(character) {
        Some(unit) if SECOND.contains(&unit) => None,
        Some(_) => Some('_'),
        None => Some(character),
    });
    Cow::Owned(written.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_harmless_stays_and_each_other_character_is_one_underscore() {
        for (text, written) in [
            ("redis-1.core_02:6379/@%+=,~ x", "redis-1.core_02:6379/@%+=,~ x"),
            ("a\nb", "a_b"),
            ("x\"; rm -rf /", "x__ rm -rf /"),
            ("größe 東 😀", "gr__e _ _"),
            ("\u{f0041}\u{ffffe}", "__"),
            ("{{ x }}", "__ x __"),
        ] {
            assert_eq!(bare(&marked(text)), written, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn marks_can_be_taken_away(text in "\\PC*|(?s:.{0,20})") {
            let marked = marked(&text).into_owned();
            prop_assert_eq!(whole(&marked).into_owned(), text.as_str());
            prop_assert!(bare(&marked).chars().all(is_harmless));
            prop_assert_eq!(bare(&marked).chars().count(), text.chars().count());
        }
    }
}
