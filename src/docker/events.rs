//! What an event of the engine means for a container.
//!
//! An event's time serves only to resume the stream, never to drop an event.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

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

impl Since {
    fn after(self, earlier: Self) -> Duration {
        let time = |since: Self| Duration::from_secs(since.seconds) + Duration::from_nanos(since.nanoseconds);
        time(self).saturating_sub(time(earlier))
    }
}

/// How many of the latest events a resumed stream may tell again without their being taken for new ones.
const REMEMBERED: usize = 256;

/// What has been heard: where to resume from, and what a resumed stream tells again. `since` includes the event that it
/// names, and some engines know only seconds.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The time of the newest event, by the engine's clock and by ours.
    newest: Option<(Since, Instant)>,
    latest: VecDeque<Event>,
    /// The same time as it was when the stream was resumed, until what it tells again is over.
    resumed: Option<(Since, Instant)>,
}

impl Heard {
    /// The stream is opened once more; returns where to resume from.
    pub(super) fn resume(&mut self) -> Option<Since> {
        self.resumed = self.newest;
        self.newest.map(|(since, _)| since)
    }

    /// What was told again is over: whatever comes now is new.
    pub(super) fn caught_up(&mut self) {
        self.resumed = None;
    }

    /// The stream cannot be resumed: the list says what it may have said.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// How long ago an event happened that is news; none for one that was heard before. Only what a resumed stream
    /// tells is ever old, and its age is counted from the last event heard, so a clock that was set may make it too
    /// young at worst.
    pub(super) fn take(&mut self, event: &Event, now: Instant) -> Option<Duration> {
        if self.resumed.is_some() && self.latest.contains(event) {
            return None;
        }
        let age = match (self.resumed, event.at) {
            (Some((since, heard)), Some(at)) => now.saturating_duration_since(heard).saturating_sub(at.after(since)),
            _ => Duration::ZERO,
        };
        self.newest = event.at.map(|at| (at, now)).or(self.newest);
        if self.latest.len() == REMEMBERED {
            self.latest.pop_front();
        }
        self.latest.push_back(event.clone());
        Some(age)
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
            // As Podman calls `die` and `destroy`, and what it does with checkpoints.
            "died",
            "remove",
            "checkpoint",
            "restore",
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
            // Podman names the container where Docker names the network.
            (attribute("container").or(actor.id.as_deref()), What::Changed)
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
        "die" | "destroy" | "died" | "remove" => What::Ended,
        // Podman does not tell which signal it was.
        "kill" => signal.and_then(signal_number).map_or(What::Changed, What::Signalled),
        "start" | "stop" | "pause" | "unpause" | "rename" | "health_status" | "oom" | "restart" | "update"
        | "checkpoint" | "restore" => What::Changed,
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
            (r#"{"Type":"container","Action":"kill","Actor":{"ID":"a"}}"#, Some(("a", What::Changed))),
            (r#"{"Type":"container","Action":"died","Actor":{"ID":"a"}}"#, Some(("a", What::Ended))),
            (r#"{"Type":"container","Action":"remove","Actor":{"ID":"a"}}"#, Some(("a", What::Ended))),
            (r#"{"Type":"container","Action":"restore","Actor":{"ID":"a"}}"#, Some(("a", What::Changed))),
            (
                r#"{"Type":"network","Action":"connect","Actor":{"ID":"b","Attributes":{"name":"x"}}}"#,
                Some(("b", What::Changed)),
            ),
            (r#"{"Type":"container","Action":"start","Actor":{"ID":""}}"#, None),
            (r#"{"Type":"container","Action":"start"}"#, None),
            (r#"{"Type":"image","Action":"start","Actor":{"ID":"a"}}"#, None),
            (r#"{}"#, None),
        ] {
            let read = read(event);
            assert_eq!(read.as_ref().map(|event| (event.id.as_str(), event.what)), expected, "{event}");
        }
    }

    fn at(action: &str, id: &str, nanoseconds: u64) -> Event {
        let time = 1_500_000_000_000_000_000 + nanoseconds;
        let actor = format!(r#"{{"ID":"{id}","Attributes":{{"signal":"15"}}}}"#);
        read(&format!(r#"{{"Type":"container","Action":"{action}","Actor":{actor},"timeNano":{time}}}"#))
            .expect("an event")
    }

    #[test]
    fn what_a_resumed_stream_tells_again_is_no_news() {
        let (mut heard, now) = (Heard::default(), Instant::now());
        let (start, kill) = (at("start", "a", 0), at("kill", "a", 7));
        assert_eq!(heard.resume(), None);
        assert!(heard.take(&start, now).is_some() && heard.take(&kill, now).is_some());
        assert_eq!(heard.resume(), kill.at);
        assert_eq!((heard.take(&start, now), heard.take(&kill, now)), (None, None));
        assert_eq!(heard.take(&at("kill", "b", 7), now), Some(Duration::ZERO), "another one of that moment");
        heard.caught_up();
        assert!(heard.take(&kill, now).is_some(), "only what is told again is left out");
    }

    #[test]
    fn what_happened_while_nobody_listened_is_as_old_as_it_is() {
        let (mut heard, then) = (Heard::default(), Instant::now());
        let second = Duration::from_secs(1);
        let whole = 1_000_000_000;
        assert_eq!(heard.take(&at("start", "a", 0), then), Some(Duration::ZERO));
        heard.resume();
        let now = then + 60 * second;
        assert_eq!(heard.take(&at("kill", "a", 20 * whole), now), Some(40 * second));
        assert_eq!(heard.take(&at("kill", "b", 60 * whole), now), Some(Duration::ZERO));
        assert_eq!(heard.take(&at("kill", "c", 900 * whole), now), Some(Duration::ZERO), "the engine's clock was set");
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
