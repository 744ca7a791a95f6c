//! Logs: one subscriber writing text or JSON lines to standard error, whose filter can be changed while it runs.
//!
//! Whatever others wrote (keys, labels, errors of servers) comes out in one line, with control characters escaped: not
//! each place that logs sees to that, but the one that writes.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::model::words::plain::{is_unsafe, plain_lines};

/// Changes what is logged from now on.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<Targets, Registry>);

impl LogFilter {
    /// Takes another filter, valid already.
    pub fn set(&self, filter: &str) {
        let changed = self.0.reload(targets(filter));
        if let Err(error) = changed {
            tracing::warn!(%error, "log filter stays as it was");
        }
    }
}

/// Starts logging for this process.
pub fn start(filter: &str, json: bool) -> LogFilter {
    let (filter, handle) = reload::Layer::new(targets(filter));
    let colours = io::stderr().is_terminal();
    let form = if json { Form::Json } else { Form::Text { colours } };
    let lines = fmt::layer().with_writer(move || Line { to: io::stderr(), form });
    let lines: Box<dyn Layer<_> + Send + Sync> = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_target(false).with_ansi(colours).boxed()
    };
    let started = tracing_subscriber::registry().with(filter.and_then(lines)).try_init();
    if let Err(error) = started {
        tracing::warn!(%error, "another subscriber logs already");
    }
    // A panic over some input is caught where that input came in; what it says may hold pieces of it.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    LogFilter(handle)
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text { colours: bool },
    Json,
}

/// Writes one event as one line in which nothing unsafe is left as it is.
struct Line<W> {
    to: W,
    form: Form,
}

impl<W: Write> Write for Line<W> {
    /// Takes a whole event, as the subscriber hands it over.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut safe = match self.form {
            Form::Text { colours } => plain_lines(&line.replace('\n', "\\n"), colours).into_owned(),
            Form::Json => json_line(line),
        };
        safe.push('\n');
        self.to.write_all(safe.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// JSON in which what JSON itself leaves as it is (such as U+009B) is escaped too.
fn json_line(line: &str) -> String {
    let mut safe = String::with_capacity(line.len() + 1);
    for character in line.chars() {
        if is_unsafe(character) {
            let _ = write!(safe, "\\u{:04x}", u32::from(character)); // all of them lie in the basic plane
        } else {
            safe.push(character);
        }
    }
    safe
}

/// An error with everything that caused it, in one line.
pub fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// bollard's own lines below this would show every container's environment, and with it its secrets.
const BOLLARD: LevelFilter = LevelFilter::INFO;

fn targets(filter: &str) -> Targets {
    let asked = filter.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let shown = ["bollard", "bollard::docker", "bollard::read", "bollard::uri"];
    shown.into_iter().fold(asked, |targets, target| targets.with_target(target, BOLLARD))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    const HOSTILE: &str = "a\nINFO forged\r\u{1b}[2J\u{9b}1m\u{202e}\u{7f}\u{2028}\0ü";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of an event that holds such text wherever an event can.
    fn logged(form: Form) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let lines = fmt::layer().with_writer(move || Line { to: to.clone(), form });
        let lines: Box<dyn Layer<_> + Send + Sync> = match form {
            Form::Json => lines.json().flatten_event(true).boxed(),
            Form::Text { colours } => lines.with_ansi(colours).boxed(),
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let _span = tracing::info_span!("probe", shown = %HOSTILE, debug = ?HOSTILE).entered();
            tracing::warn!(text = HOSTILE, shown = %HOSTILE, debug = ?HOSTILE, "said {HOSTILE}");
        });
        String::from_utf8(kept.0.lock().expect("no panic").clone()).expect("text")
    }

    #[test]
    fn an_event_is_one_line_without_control_characters_whatever_it_tells() {
        for form in [Form::Text { colours: false }, Form::Json] {
            let text = logged(form);
            let line = text.strip_suffix('\n').expect("a line");
            assert!(!line.chars().any(is_unsafe), "{form:?}: {line:?}");
            assert!(line.contains("forged") && line.contains('ü'), "{line}");
        }
        let line: serde_json::Value = serde_json::from_str(&logged(Form::Json)).expect("JSON");
        assert_eq!(line["text"], HOSTILE, "a parser reads back the very same text");
    }

    #[test]
    fn colours_are_all_that_a_terminal_is_told() {
        let text = logged(Form::Text { colours: true });
        assert!(text.contains("\u{1b}[33m"), "{text:?}");
        let others = text.split("\u{1b}[").skip(1).filter(|code| {
            let end = code.find(|letter: char| !letter.is_ascii_digit() && letter != ';');
            end.is_none_or(|end| !code[end..].starts_with('m'))
        });
        assert_eq!(others.count(), 0, "{text:?}");
        assert_eq!(
            text.trim_end_matches('\n').chars().filter(|c| is_unsafe(*c) && *c != '\u{1b}').count(),
            0,
            "{text:?}"
        );
    }

    #[test]
    fn no_filter_shows_what_the_engine_answers() {
        for filter in ["debug", "trace", "bollard=trace", "bollard::docker=trace", "not=a=filter"] {
            let targets = targets(filter);
            for target in ["bollard::docker", "bollard::read", "bollard::uri"] {
                assert!(!targets.would_enable(target, &Level::DEBUG), "{filter:?} shows {target}");
            }
        }
        assert!(targets("debug").would_enable("wharf::docker::watch", &Level::DEBUG));
    }
}
