//! What an event of the engine means for a container.
//!
//! An event's time serves only to resume the stream, never to drop an event.

use std::fmt;

use bollard::models::{EventMessage, EventMessageTypeEnum};

use super::inspect::signal_number;

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
pub(super) const FILTERS: [(&str, &[&str]); 2] = [
    ("type", &["container", "network"]),
    (
        "event",
        &[
            "start",
            "die",
            "stop",
            "kill",
            "pause",
            "unpause",
            "rename",
            "health_status",
            "destroy",
            "oom",
            "restart",
            "update",
            "connect",
            "disconnect",
        ],
    ),
];

/// What bollard's event says of a container, if anything.
pub(super) fn event_of(message: &EventMessage) -> Option<Event> {
    let actor = message.actor.as_ref()?;
    let attribute = |key: &str| actor.attributes.as_ref()?.get(key).map(String::as_str);
    let word = message.action.as_deref()?.split(':').next()?.trim();
    let (id, what) = match message.typ {
        Some(EventMessageTypeEnum::NETWORK) if matches!(word, "connect" | "disconnect") => {
            (attribute("container"), What::Changed)
        }
        Some(EventMessageTypeEnum::CONTAINER | EventMessageTypeEnum::EMPTY) | None => {
            (actor.id.as_deref(), container_event(word, attribute("signal"))?)
        }
        Some(_) => return None,
    };
    let id = id.filter(|id| !id.is_empty())?;
    Some(Event { id: id.to_owned(), what, at: since(message) })
}

fn container_event(word: &str, signal: Option<&str>) -> Option<What> {
    Some(match word {
        "die" | "destroy" => What::Ended,
        "kill" => What::Signalled(signal.and_then(signal_number)?),
        "start" | "stop" | "pause" | "unpause" | "rename" | "health_status" | "oom" | "restart" | "update" => {
            What::Changed
        }
        _ => return None,
    })
}

fn since(message: &EventMessage) -> Option<Since> {
    const SECOND: u64 = 1_000_000_000;
    if let Some(nanoseconds) = message.time_nano.and_then(|time| u64::try_from(time).ok()) {
        return Some(Since { seconds: nanoseconds / SECOND, nanoseconds: nanoseconds % SECOND });
    }
    message.time.and_then(|time| u64::try_from(time).ok()).map(|seconds| Since { seconds, nanoseconds: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &str) -> Option<Event> {
        event_of(&serde_json::from_str(event).expect("an event"))
    }

    #[test]
    fn events_name_a_container_and_what_happened() {
        for (event, expected) in [
            (r#"{"Type":"container","Action":"start","Actor":{"ID":"a"}}"#, Some(("a", What::Changed))),
            (r#"{"Type":"container","Action":"die","Actor":{"ID":"a"}}"#, Some(("a", What::Ended))),
            (
                r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"a"}}"#,
                Some(("a", What::Changed)),
            ),
            (
                r#"{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"signal":"15"}}}"#,
                Some(("a", What::Signalled(15))),
            ),
            (
                r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"b"}}}"#,
                Some(("b", What::Changed)),
            ),
            (r#"{"Type":"network","Action":"create","Actor":{"ID":"n"}}"#, None),
            (r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"a"}}"#, None),
            (r#"{"Type":"container","Action":"kill","Actor":{"ID":"a"}}"#, None),
            (r#"{"Type":"container","Action":"start","Actor":{"ID":""}}"#, None),
            (r#"{"Type":"container","Action":"start"}"#, None),
            (r#"{"Type":"image","Action":"start","Actor":{"ID":"a"}}"#, None),
            (r#"{}"#, None),
        ] {
            let read = read(event);
            assert_eq!(read.as_ref().map(|event| (event.id.as_str(), event.what)), expected, "{event}");
        }
    }

    #[test]
    fn the_time_to_resume_from_is_told_to_the_nanosecond() {
        for (time, expected) in [
            (r#""timeNano":1500000000000000007,"time":1500000000"#, Some("1500000000.000000007")),
            (r#""time":1500000000"#, Some("1500000000.000000000")),
            (r#""timeNano":-1"#, None),
        ] {
            let event = format!(r#"{{"Type":"container","Action":"start","Actor":{{"ID":"a"}},{time}}}"#);
            let at = read(&event).expect("an event").at;
            assert_eq!(at.map(|at| at.to_string()).as_deref(), expected, "{time}");
        }
    }
}
