//! Where a command writes: results to one side, progress and errors to the other.
//!
//! Colour and repainting are for terminals only. A reader that went away (`| head`) is no error.

use std::io::{self, IsTerminal, Write};

use crate::model::words::plain::{plain, plain_lines};

/// Output of one command.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    colour: bool,
    live: bool,
    open: bool,
}

/// How a word stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It does not.
    Normal,
    /// A heading.
    Strong,
    /// Well.
    Good,
    /// Wants a look.
    Warning,
    /// Not well.
    Bad,
    /// Of less interest.
    Dim,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::Strong => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }
}

impl Terminal {
    /// The process's own standard output and error.
    pub fn stdio() -> Self {
        let live = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), colour: live && !plain, live, open: true }
    }

    /// Any two writers; `colour` and `live` as a terminal would have them.
    pub fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, live: bool) -> Self {
        Self { out, err, colour: live, live, open: true }
    }

    /// Whether the results go to a terminal, which can be repainted.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether somebody still reads the results.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Wraps text in a tone, where colour is shown. The text must be plain already.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        if self.colour && tone != Tone::Normal { format!("{}{text}\x1b[0m", tone.code()) } else { text.to_owned() }
    }

    /// Writes results. What others wrote is plain by now; should some of it not be, it is here at the latest.
    pub fn print(&mut self, text: &str) {
        let colour = self.colour;
        self.print_raw(&plain_lines(text, colour));
    }

    /// Writes what is all our own, as it is.
    pub fn print_raw(&mut self, text: &str) {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.open &= written.is_ok();
    }

    /// Replaces what is shown; without a terminal one picture follows the other, an empty line between.
    pub fn repaint(&mut self, text: &str, first: bool) {
        if self.live {
            self.print_raw("\x1b[H\x1b[2J");
            self.print(text);
        } else if first {
            self.print(text);
        } else {
            self.print(&format!("\n{text}"));
        }
    }

    /// One line of progress.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", plain(text)); // nobody to tell when standard error is gone
    }

    /// What failed, and what to do.
    pub fn fail(&mut self, what: &str, todo: &str) {
        let _ = writeln!(self.err, "wharf: {}", plain(what));
        if !todo.is_empty() {
            let _ = writeln!(self.err, "  try: {}", plain(todo));
        }
    }
}
