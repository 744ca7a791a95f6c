//! Text quoted whole for what will read the file. A character that a language has no way to write becomes `_`.

/// For a shell: one word.
pub(super) fn sh(text: &str) -> String {
    format!("'{}'", text.replace('\0', "_").replace('\'', r"'\''"))
}

/// For TOML: a basic string.
pub(super) fn toml(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            _ if character.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

/// For HAProxy's configuration: one word (section 2.2 of its manual). All that is not printable is written by its
/// bytes; a byte 0 would end the line.
pub(super) fn haproxy(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | b'$' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            0 => quoted.push('_'),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted + "\""
}

/// For nginx's configuration: one word. A `$` would begin a variable wherever one may be, and nothing escapes it.
pub(super) fn nginx(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '$' => quoted.push('_'),
            _ if character.is_control() => quoted.push('_'),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_reads_one_word() {
        let hostile = "a'b\"c\\d $e\n#;{}\0";
        assert_eq!(sh(hostile), "'a'\\''b\"c\\d $e\n#;{}_'");
        assert_eq!(haproxy(hostile), "\"a'b\\\"c\\\\d \\$e\\x0a#;{}_\"");
        assert_eq!(nginx(hostile), "\"a'b\\\"c\\\\d _e\\n#;{}_\"");
        let read: toml::Table = format!("x = {}", toml(hostile)).parse().expect("TOML");
        assert_eq!(read["x"].as_str(), Some(hostile));
        let said = std::process::Command::new("/bin/sh").args(["-c", &format!("printf %s {}", sh(hostile))]).output();
        assert_eq!(said.expect("a shell").stdout, hostile.replace('\0', "_").into_bytes());
    }
}
