//! What is wrong with a template, with file, line and column.

use minijinja::Error;

/// The error in one line: `haproxy.cfg.j2:3:14: undefined value`.
pub(super) fn told(error: &Error, name: &str, source: &str) -> String {
    let mut what = error.kind().to_string();
    if let Some(detail) = error.detail() {
        what = format!("{what}: {detail}");
    }
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        what = format!("{what}: {deeper}");
        cause = deeper.source();
    }
    let place = error.range().map(|range| place(source, range.start)).or_else(|| error.line().map(|line| (line, 1)));
    match place {
        Some((line, column)) => format!("{name}:{line}:{column}: {what}"),
        None => format!("{name}: {what}"),
    }
}

/// Line and column of a byte, both from 1.
fn place(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..source.floor_char_boundary(at.min(source.len()))];
    let line_begins = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_begins..].chars().count() + 1)
}
