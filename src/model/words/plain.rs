//! Text from outside, made safe to show.
//!
//! Names, labels, images and probe replies are written by others. On a terminal a control character moves the cursor
//! or changes the title, and a bidirectional override makes a line read as another one; both are shown as escapes.

use std::borrow::Cow;

/// Whether a character may not reach a reader as it is: controls, line and paragraph separators, bidirectional marks.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text with every unsafe character written as an escape: `\n`, `\u{1b}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        push(&mut shown, character);
    }
    Cow::Owned(shown)
}

fn push(shown: &mut String, character: char) {
    match character {
        '\n' | '\r' | '\t' => shown.extend(character.escape_default()),
        _ if is_unsafe(character) => shown.extend(character.escape_unicode()),
        _ => shown.push(character),
    }
}

/// Text of our own making in several lines, safe even where something of others has slipped in: line feeds stay, and so
/// do the codes of colours where they are shown.
pub fn plain_lines(text: &str, colours: bool) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|character| character != '\n' && is_unsafe(character)) {
        let (before, from) = rest.split_at(at);
        shown.push_str(before);
        let code = if colours { colour_code(from) } else { 0 };
        shown.push_str(&from[..code]);
        rest = &from[code..];
        if code == 0 {
            let mut characters = from.chars();
            characters.next().into_iter().for_each(|character| push(&mut shown, character));
            rest = characters.as_str();
        }
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// How long the code of a colour is that a text begins with (ECMA-48, SGR).
fn colour_code(text: &str) -> usize {
    let Some(inside) = text.strip_prefix("\x1b[") else { return 0 };
    let digits = inside.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if inside[digits..].starts_with('m') { "\x1b[".len() + digits + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_shown_and_letters_stay() {
        for (text, shown) in [
            ("redis", "redis"),
            ("größe 東", "größe 東"),
            ("a\nb\t", "a\\nb\\t"),
            ("\u{1b}[31m", "\\u{1b}[31m"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
        ] {
            assert_eq!(plain(text), shown);
            assert!(!plain(text).chars().any(is_unsafe));
        }
    }

    #[test]
    fn lines_keep_their_ends_and_where_shown_their_colours() {
        for (text, colours, shown) in [
            ("a\nb\n", false, "a\nb\n"),
            ("\x1b[1;31mred\x1b[0m\n", true, "\x1b[1;31mred\x1b[0m\n"),
            ("\x1b[31mred", false, "\\u{1b}[31mred"),
            ("\x1b[2J\x1b]0;title\u{7}\r", true, "\\u{1b}[2J\\u{1b}]0;title\\u{7}\\r"),
            ("\u{202e}x\x1b[", true, "\\u{202e}x\\u{1b}["),
        ] {
            assert_eq!(plain_lines(text, colours), shown, "{text:?}");
        }
    }
}
