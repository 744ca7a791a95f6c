//! The engine's event stream: bytes to events.
//!
//! Events come as JSON objects one after another, several in a piece or one over many pieces. One that cannot be read is
//! left out, up to the next line. An event's time serves only to resume the stream, never to drop an event.

use std::fmt;

use serde_json::Value;

use super::inspect::signal_number;

/// The largest event that is waited for.
const MAX_EVENT: usize = 8 * 1024 * 1024;

/// What an event says of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) what: What,
    /// Where to resume from: `seconds.nanoseconds`.
    pub(super) at: Option<Since>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It must be looked at.
    Changed,
    /// It has ended.
    Ended,
    /// It was sent this signal.
    Signalled(u32),
}

/// A time of the engine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since {
    seconds: u64,
    nanoseconds: u64,
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanoseconds)
    }
}

/// The filter that the engine is asked to apply.
pub(super) const FILTERS: &str = concat!(
    r#"{"type":["container","network"],"event":["start","die","stop","kill","pause","unpause","rename","#,
    r#""health_status","destroy","oom","restart","update","connect","disconnect"]}"#
);

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    unreadable: u64,
}

impl Reader {
    /// Takes a piece in and gives every event that is whole now.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(piece);
        let mut events = Vec::new();
        let mut done = 0;
        loop {
            let rest = &self.buffer[done..];
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x1e).count();
            done += blank;
            let rest = &self.buffer[done..];
            if rest.is_empty() {
                break;
            }
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
            match values.next() {
                Some(Ok(value)) => {
                    done += values.byte_offset();
                    events.extend(event_of(&value));
                }
                Some(Err(error)) if error.is_eof() && rest.len() < MAX_EVENT && !rest.contains(&b'\n') => break,
                _ => {
                    self.unreadable += 1;
                    done += rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
                }
            }
        }
        self.buffer.drain(..done);
        events
    }

    /// How many events could not be read since this was last asked.
    pub(super) fn take_unreadable(&mut self) -> u64 {
        std::mem::take(&mut self.unreadable)
    }
}

fn event_of(value: &Value) -> Option<Event> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let action = match text("/Action") {
        "" => text("/status"),
        action => action,
    };
    let word = action.split(':').next().unwrap_or_default().trim();
    let (id, what) = match text("/Type") {
        "network" if matches!(word, "connect" | "disconnect") => (text("/Actor/Attributes/container"), What::Changed),
        "network" => return None,
        "container" | "" => (container_id(text("/Actor/ID"), text("/id")), container_event(word, value)?),
        _ => return None,
    };
    (!id.is_empty()).then(|| Event { id: id.to_owned(), what, at: since(value) })
}

fn container_id<'t>(actor: &'t str, old: &'t str) -> &'t str {
    if actor.is_empty() { old } else { actor }
}

fn container_event(word: &str, value: &Value) -> Option<What> {
    Some(match word {
        "die" | "destroy" => What::Ended,
        "kill" => {
            let signal = &value["Actor"]["Attributes"]["signal"];
            let number = signal.as_str().and_then(signal_number);
            What::Signalled(number.or(signal.as_u64().and_then(|number| u32::try_from(number).ok()))?)
        }
        "start" | "stop" | "pause" | "unpause" | "rename" | "health_status" | "oom" | "restart" | "update" => {
            What::Changed
        }
        _ => return None,
    })
}

fn since(value: &Value) -> Option<Since> {
    const SECOND: u64 = 1_000_000_000;
    if let Some(nanoseconds) = value["timeNano"].as_u64() {
        return Some(Since { seconds: nanoseconds / SECOND, nanoseconds: nanoseconds % SECOND });
    }
    value["time"].as_u64().map(|seconds| Since { seconds, nanoseconds: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, id: &str) -> String {
        format!(r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{id}"}},"timeNano":1500000000000000007}}"#)
    }

    #[test]
    fn events_are_cut_wherever_the_pieces_end() {
        let stream =
            format!("{}\n{}{}\r\n", event("start", "a"), event("die", "b"), event("health_status: healthy", "c"));
        for size in [1, 7, 64, 4096] {
            let mut reader = Reader::default();
            let events: Vec<Event> = stream.as_bytes().chunks(size).flat_map(|piece| reader.feed(piece)).collect();
            let seen: Vec<_> = events.iter().map(|event| (event.id.as_str(), event.what)).collect();
            assert_eq!(seen, [("a", What::Changed), ("b", What::Ended), ("c", What::Changed)], "pieces of {size}");
            assert_eq!(events[0].at.expect("a time").to_string(), "1500000000.000000007");
        }
    }

    #[test]
    fn what_cannot_be_read_costs_itself_only() {
        let mut reader = Reader::default();
        let stream = format!("nonsense\n{{\"Type\":7}}\n{{\"half\":\n{}\n", event("start", "a"));
        let events = reader.feed(stream.as_bytes());
        assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["a"]);
        assert!(reader.take_unreadable() >= 2);
    }

    #[test]
    fn signals_and_networks_are_understood() {
        let mut reader = Reader::default();
        let kill = r#"{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"signal":"15"}}}"#;
        let join = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"b"}}}"#;
        let other = r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"a"}}"#;
        let events = reader.feed(format!("{kill}\n{join}\n{other}\n").as_bytes());
        let seen: Vec<_> = events.iter().map(|event| (event.id.as_str(), event.what)).collect();
        assert_eq!(seen, [("a", What::Signalled(15)), ("b", What::Changed)]);
    }
}
