//! Logs: one subscriber writing text or JSON lines to standard error, whose filter can be changed while it runs.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

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
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<_> + Send + Sync> = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    let started = tracing_subscriber::registry().with(filter.and_then(lines)).try_init();
    if let Err(error) = started {
        tracing::warn!(%error, "another subscriber logs already");
    }
    LogFilter(handle)
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
    use tracing::Level;

    use super::*;

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
