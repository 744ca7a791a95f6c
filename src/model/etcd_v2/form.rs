//! Fields of a request: the query of its target, and a form in its body.

/// Fields by name, in order; of one given twice the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(Vec<u8>, Vec<u8>)>);

impl Form {
    /// Those of the body, then those of the query. An error says what cannot be read.
    pub fn parse(body: &[u8], query: &str) -> Result<Self, String> {
        let mut form = Self::default();
        form.take(body)?;
        form.take(query.as_bytes())?;
        Ok(form)
    }

    fn take(&mut self, text: &[u8]) -> Result<(), String> {
        for field in text.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
            if field.contains(&b';') {
                return Err("invalid semicolon separator in query".to_owned());
            }
            let at = field.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((field, &b""[..]), |at| (&field[..at], &field[at + 1..]));
            self.0.push((decoded(name, true)?, decoded(value, true)?));
        }
        Ok(())
    }

    /// A field's value.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(own, _)| own == name.as_bytes()).map(|(_, value)| value.as_slice())
    }
}

/// The bytes that a text with `%` escapes stands for; `+` is a space in fields.
pub fn decoded(text: &[u8], is_field: bool) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        match first {
            b'%' => {
                let (byte, others) = escape(others)?;
                bytes.push(byte);
                rest = others;
            }
            b'+' if is_field => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Ok(bytes)
}

fn escape(behind: &[u8]) -> Result<(u8, &[u8]), String> {
    let digits = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let byte = digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let bad = || {
        let shown = String::from_utf8_lossy(&behind[..behind.len().min(2)]).into_owned();
        format!("invalid URL escape {:?}", format!("%{shown}"))
    };
    Ok((byte.ok_or_else(bad)?, &behind[2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_the_bodys_come_first() {
        let form = Form::parse(b"value=a%20b+c&x", "value=later&ttl=5&&=").expect("a form");
        assert_eq!(form.get("value"), Some(&b"a b c"[..]));
        assert_eq!(form.get("x"), Some(&b""[..]));
        assert_eq!(form.get("ttl"), Some(&b"5"[..]));
        assert_eq!(form.get("dir"), None);
        assert_eq!(Form::parse(b"value=%ff", "").expect("a form").get("value"), Some(&[0xff][..]));
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        for (text, why) in
            [("a=%zz", "invalid URL escape \"%zz\""), ("a=%4", "invalid URL escape \"%4\""), ("%", "\"%\"")]
        {
            let told = Form::parse(b"", text).expect_err(text);
            assert!(told.contains(why), "{told}");
        }
        assert!(Form::parse(b"a=1;b=2", "").is_err());
        assert_eq!(decoded(b"a+b%2Fc", false), Ok(b"a+b/c".to_vec()));
    }
}
