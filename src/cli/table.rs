//! Aligned tables. Every cell is made plain here, so nothing from outside reaches the terminal as it is.

use super::terminal::{Terminal, Tone};
use crate::model::words::plain::plain;

/// One cell: text and how it stands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell that stands out.
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: plain(text.as_ref()).into_owned(), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Normal)
    }
}

/// Rows below a heading.
#[derive(Clone, Debug)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.heading.len());
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table's text: columns two spaces apart, no blanks at the ends of lines.
    pub fn render(&self, terminal: &Terminal) -> String {
        let mut widths: Vec<usize> = self.heading.iter().map(|title| width(title)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(shown(cell)));
            }
        }
        let mut text = String::new();
        let heading: Vec<Cell> = self.heading.iter().map(|title| Cell::toned(title, Tone::Strong)).collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            line(&mut text, row, &widths, terminal);
        }
        text
    }
}

fn line(text: &mut String, row: &[Cell], widths: &[usize], terminal: &Terminal) {
    for (position, (cell, column)) in row.iter().zip(widths).enumerate() {
        let content = shown(cell);
        text.push_str(&terminal.paint(content, cell.tone));
        if position + 1 < row.len() {
            text.extend(std::iter::repeat_n(' ', column - width(content) + 2));
        }
    }
    text.push('\n');
}

fn shown(cell: &Cell) -> &str {
    if cell.text.is_empty() { "-" } else { &cell.text }
}

/// Columns on a terminal; near enough for names, which are ASCII.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(live: bool) -> Terminal {
        Terminal::new(Box::new(std::io::sink()), Box::new(std::io::sink()), live)
    }

    fn sample() -> Table {
        let mut table = Table::new(&["SERVICE", "ROLE", "NODE"]);
        table.row(vec!["redis".into(), Cell::toned("primary", Tone::Good), "core-01".into()]);
        table.row(vec!["a\u{1b}[2Jb".into(), "".into(), "core-02".into()]);
        table.row(vec!["last".into(), "x".into(), "".into()]);
        table
    }

    #[test]
    fn columns_align_and_controls_are_shown() {
        let expected = "\
SERVICE      ROLE     NODE
redis        primary  core-01
a\\u{1b}[2Jb  -        core-02
last         x        -
";
        assert_eq!(sample().render(&terminal(false)), expected);
    }

    #[test]
    fn colour_is_for_terminals_and_moves_nothing() {
        let coloured = sample().render(&terminal(true));
        assert!(coloured.contains("\x1b[32mprimary\x1b[0m  core-01"), "{coloured:?}");
        assert!(!sample().render(&terminal(false)).contains('\x1b'));
    }
}
