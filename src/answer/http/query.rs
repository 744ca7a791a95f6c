//! The query part of a request's target.

/// The decoded `key=value` pairs, in order.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let escape = (*first == b'%').then(|| others.get(..2)).flatten();
        let escape = escape
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            pairs("role=primary&tag=a%20b+c&&node"),
            [pair("role", "primary"), pair("tag", "a b c"), pair("node", "")]
        );
        assert_eq!(pairs("a=%zz%4&b=%"), [pair("a", "%zz%4"), pair("b", "%")]);
        assert_eq!(pairs("a=%c3%bc%ff"), [pair("a", "ü\u{fffd}")]);
        assert_eq!(pairs("a=%+1"), [pair("a", "% 1")]);
    }
}
