//! Times as people read them: how long ago.

use std::time::{Duration, SystemTime};

use crate::model::words::plain::plain;

/// `4s`, `12m`, `3h05m`, `2d4h` since an RFC 3339 time; the text itself, made plain, when it is none.
pub fn age(since: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339_weak(since) {
        Ok(then) => short(now.duration_since(then).unwrap_or_default()),
        Err(_) => plain(since).into_owned(),
    }
}

/// A duration in its one or two largest units.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let now = humantime::parse_rfc3339("2026-03-04T05:06:07Z").expect("a time");
        for (since, shown) in [
            ("2026-03-04T05:06:03Z", "4s"),
            ("2026-03-04T05:00:00Z", "6m07s"),
            ("2026-03-04T01:01:00Z", "4h05m"),
            ("2026-03-01T01:06:07Z", "3d4h"),
            ("2027-01-01T00:00:00Z", "0s"),
            ("yesterday", "yesterday"),
            ("never\n\u{1b}[2J", "never\\n\\u{1b}[2J"),
        ] {
            assert_eq!(age(since, now), shown);
        }
    }
}
