//! Server-sent events as they come from an agent.

use std::time::Duration;

use hyper::Method;
use tokio::time::timeout;

use super::client::{Answer, Client, ClientError};

/// The agent says something at least every 10 s; silence for longer means that it is gone.
const SILENCE: Duration = Duration::from_secs(25);
/// The longest event taken.
const MAX_EVENT: usize = 256 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its kind: `snapshot`, `change`, `local`, `nodes`.
    pub kind: String,
    /// Its data, JSON.
    pub data: String,
}

/// A stream of events.
pub struct Events {
    answer: Answer,
    pending: Pending,
}

impl Events {
    /// Begins to follow.
    pub async fn open(client: &Client, path: &str) -> Result<Self, ClientError> {
        Ok(Self { answer: client.open(Method::GET, path).await?, pending: Pending::default() })
    }

    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.take() {
                return Some(event);
            }
            if self.pending.text.len() > MAX_EVENT {
                return None;
            }
            let piece = timeout(SILENCE, self.answer.piece()).await.ok()??;
            self.pending.text.extend_from_slice(&piece);
        }
    }
}

/// What has been read and is no whole event yet.
#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
    /// Everything before has been looked at.
    looked: usize,
}

impl Pending {
    /// A whole event out of what has been read; comments and other fields are passed over.
    fn take(&mut self) -> Option<Event> {
        loop {
            let from = self.looked.saturating_sub(1);
            let Some(end) = self.text[from..].windows(2).position(|pair| pair == b"\n\n").map(|at| from + at) else {
                self.looked = self.text.len();
                return None;
            };
            let block: Vec<u8> = self.text.drain(..end + 2).collect();
            self.looked = 0;
            let block = String::from_utf8_lossy(&block);
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                return Some(Event { kind, data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_from_pieces_however_they_are_cut() {
        let stream =
            "retry: 1000\n\nid: 1\nevent: snapshot\ndata: {}\n\n:\n\nevent: change\ndata: {\"a\":1}\n\nevent: cha";
        let event = |kind: &str, data: &str| Event { kind: kind.into(), data: data.into() };
        for size in 1..stream.len() {
            let mut pending = Pending::default();
            let mut events = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                pending.text.extend_from_slice(piece);
                events.extend(std::iter::from_fn(|| pending.take()));
            }
            assert_eq!(events, [event("snapshot", "{}"), event("change", "{\"a\":1}")], "pieces of {size}");
        }
    }
}
