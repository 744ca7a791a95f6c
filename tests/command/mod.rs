//! Commands run in this process, with what they print and how they exit.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)] // each test file uses its own part

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use wharf::cli::drain::{self, DrainArgs};
use wharf::cli::exit::Exit;
use wharf::cli::explain::{self, ExplainArgs};
use wharf::cli::nodes::{self, NodesArgs};
use wharf::cli::resolve::{self, ResolveArgs};
use wharf::cli::services::{self, ServicesArgs};
use wharf::cli::terminal::Terminal;
use wharf::cli::wait::{self, WaitArgs};

#[derive(Debug, Parser)]
enum Command {
    Services(ServicesArgs),
    Wait(WaitArgs),
    Explain(ExplainArgs),
    Nodes(NodesArgs),
    Resolve(ResolveArgs),
    Drain(DrainArgs),
    Undrain(DrainArgs),
}

/// What a command wrote; can be read while it runs.
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

pub struct Ran {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

/// Runs `wharf <line>`.
pub async fn run(line: &str) -> Ran {
    let (out, err) = (Written::default(), Written::default());
    let exit = run_into(line, &out, &err, false).await;
    Ran { exit, out: out.text(), err: err.text() }
}

pub async fn run_into(line: &str, out: &Written, err: &Written, live: bool) -> Exit {
    let mut terminal = Terminal::new(Box::new(out.clone()), Box::new(err.clone()), live);
    let words = std::iter::once("wharf").chain(line.split_whitespace());
    match Command::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")) {
        Command::Services(args) => services::run(args, &mut terminal).await,
        Command::Wait(args) => wait::run(args, &mut terminal).await,
        Command::Explain(args) => explain::run(args, &mut terminal).await,
        Command::Resolve(args) => resolve::run(args, &mut terminal).await,
        Command::Nodes(args) => nodes::run(args, &mut terminal).await,
        Command::Drain(args) => drain::run(args, true, &mut terminal).await,
        Command::Undrain(args) => drain::run(args, false, &mut terminal).await,
    }
}

pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
