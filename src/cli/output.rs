//! The forms a result is shown in.

use serde::Serialize;

use crate::model::words::plain::is_unsafe;

/// How a result is shown, when not as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// JSON, as HTTP has it.
    Json,
    /// `host:port`, one a line.
    Hostport,
    /// A table with every field.
    Wide,
}

/// How a result without addresses is shown, when not in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum JsonOutput {
    /// JSON, as HTTP has it.
    Json,
}

/// A value as indented JSON in which no control character is left as it is.
pub fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("our shapes have text keys");
    let mut safe = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        // Between strings there are line feeds and blanks only; within them JSON has escaped the line feeds.
        if character != '\n' && is_unsafe(character) {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe.push('\n');
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_safe_to_show_and_reads_back() {
        let value = serde_json::json!({"a": "x\u{1b}[2J\u{9b}\u{202e}\n"});
        let shown = json(&value);
        assert!(!shown.chars().any(|character| character != '\n' && is_unsafe(character)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}
