//! Documents made piece by piece as a client takes them, so that a large one is never in memory as text.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde::Serialize;
use tokio::task::yield_now;

use super::json;
use super::tickets::Ticket;

/// About how much text is made at a time: so little that a hundred clients that take as fast as they can leave
/// everybody else on their thread a turn every few milliseconds.
pub(super) const PIECE: usize = 8 * 1024;

/// Text under way to a client.
pub(super) type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// The JSON of each element of a list.
pub(super) type Elements = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// A body of these pieces. Between two of them everybody else on the thread has a turn: a client that takes a large
/// body fast must not keep the leases' keepalives waiting.
pub(super) fn body(pieces: impl Iterator<Item = Bytes> + Send + 'static, ticket: Ticket) -> Body {
    Body::from_stream(stream::unfold((pieces, ticket), |(mut pieces, ticket)| async move {
        yield_now().await;
        let piece = pieces.next()?;
        Some((Ok::<_, Infallible>(piece), (pieces, ticket)))
    }))
}

/// A JSON document whose lists are made element by element.
pub(super) struct Document {
    text: Vec<u8>,
    parts: VecDeque<Part>,
    /// Whether the next element needs no comma.
    first: bool,
}

enum Part {
    Text(Vec<u8>),
    List(Elements),
}

impl Document {
    /// `before`, a document as `empty` is with these lists filled, and `after`. Lists are named in the order of their
    /// fields.
    pub(super) fn new(before: &str, empty: &impl Serialize, lists: Vec<(&str, Elements)>, after: &str) -> Self {
        let mut rest = [before.as_bytes(), &json::bytes(empty)].concat();
        let mut parts = VecDeque::new();
        for (name, elements) in lists {
            // Quotation marks within texts are escaped: this stands nowhere but at the field.
            let field = format!("\"{name}\":[]");
            let found = rest.windows(field.len()).position(|text| text == field.as_bytes());
            debug_assert!(found.is_some(), "{name} is an empty list");
            let Some(at) = found else { continue };
            let behind = rest.split_off(at + field.len() - 1);
            parts.extend([Part::Text(std::mem::replace(&mut rest, behind)), Part::List(elements)]);
        }
        rest.extend_from_slice(after.as_bytes());
        parts.push_back(Part::Text(rest));
        Self { text: Vec::new(), parts, first: true }
    }

    /// A document that is one list, and `after`.
    pub(super) fn list(elements: Elements, after: &str) -> Self {
        let end = format!("]{after}").into_bytes();
        let parts = [Part::Text(b"[".to_vec()), Part::List(elements), Part::Text(end)];
        Self { text: Vec::new(), parts: parts.into(), first: true }
    }

    /// Adds a text or an element; `false` at the end.
    fn step(&mut self) -> bool {
        match self.parts.front_mut() {
            None => return false,
            Some(Part::Text(text)) => {
                self.text.append(text);
                self.first = true;
                self.parts.pop_front();
            }
            Some(Part::List(elements)) => match elements.next() {
                Some(element) => {
                    if !std::mem::replace(&mut self.first, false) {
                        self.text.push(b',');
                    }
                    self.text.extend(element);
                }
                None => drop(self.parts.pop_front()),
            },
        }
        true
    }
}

impl Iterator for Document {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.text.len() < PIECE && self.step() {}
        let piece = std::mem::take(&mut self.text);
        (!piece.is_empty()).then(|| piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default, Serialize)]
    struct Shape {
        name: &'static str,
        one: Vec<u32>,
        two: Vec<String>,
    }

    #[test]
    fn a_document_in_pieces_is_the_document() {
        for (ones, twos) in [(0, 0), (3, 0), (0, 2), (20_000, 5_000)] {
            let empty = Shape { name: "\"one\":[]", ..Shape::default() };
            let whole = Shape {
                one: (0..ones).collect(),
                two: (0..twos).map(|number| format!("text {number}\n")).collect(),
                ..empty.clone()
            };
            let expected = [&b"data: "[..], &json::bytes(&whole), b"\n"].concat();
            let one: Elements = Box::new(whole.one.into_iter().map(|one| json::bytes(&one)));
            let two: Elements = Box::new(whole.two.into_iter().map(|two| json::bytes(&two)));
            let pieces: Vec<Bytes> = Document::new("data: ", &empty, vec![("one", one), ("two", two)], "\n").collect();
            assert!(pieces.iter().all(|piece| piece.len() < 2 * PIECE));
            assert_eq!(pieces.concat(), expected, "{ones} {twos}");
        }
    }

    #[test]
    fn a_list_in_pieces_is_the_list() {
        let of = |count: u32| -> Vec<u8> {
            let elements: Elements = Box::new((0..count).map(|one| json::bytes(&one)));
            Document::list(elements, "\n").collect::<Vec<_>>().concat()
        };
        assert_eq!((of(0), of(3)), (b"[]\n".to_vec(), b"[0,1,2]\n".to_vec()));
    }
}
