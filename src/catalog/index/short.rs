//! A text that is nearly always short and hardly ever shared: up to 22 bytes cost no allocation.

use crate::model::words::record::Text;

const INLINE: usize = 22;

/// A text, or none.
#[derive(Clone, Debug)]
pub(super) enum Short {
    Inline(u8, [u8; INLINE]),
    Shared(Text),
    None,
}

impl Short {
    pub(super) fn new(text: Option<&Text>) -> Self {
        let Some(text) = text else { return Self::None };
        let mut inline = [0; INLINE];
        match (inline.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Inline(length, inline)
            }
            _ => Self::Shared(text.clone()),
        }
    }

    pub(super) fn text(&self) -> Option<Text> {
        match self {
            Self::Inline(length, bytes) => {
                let text = bytes.get(..usize::from(*length)).and_then(|bytes| std::str::from_utf8(bytes).ok());
                text.map(Text::from)
            }
            Self::Shared(text) => Some(text.clone()),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for text in
            ["", "2026-11-21T11:35:05Z", "twenty-two bytes long!", "twenty-three bytes long", "ä".repeat(11).as_str()]
        {
            let text = Text::from(text);
            assert_eq!(Short::new(Some(&text)).text(), Some(text));
        }
        assert_eq!(Short::new(None).text(), None);
        assert_eq!(size_of::<Short>(), 24);
    }
}
