//! `wharf services [NAME]`: what the cluster has.

use std::time::SystemTime;

use super::age::age;
use super::exit::Exit;
use super::output::{self, Output};
use super::source::{Source, SourceArgs};
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::catalog::facade::api::{Endpoint, Service, Services, hostport};
use crate::model::words::record::{Record, Role};

const STALE: &str = "stale: the store is away or not read yet; this is what was known last";

/// Show the services of the cluster and their endpoints
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  shown\n  1  no such service\n  2  wrong use\n  3  no agent answers, nor the store"
)]
pub struct ServicesArgs {
    /// Show this service only; the name is exact
    pub name: Option<String>,

    /// How to show it: json is for programs, hostport one address a line, wide every field
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,

    /// Go on, and show it again whenever it changes
    #[arg(short, long)]
    pub watch: bool,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub source: SourceArgs,
}

/// Runs the command.
pub async fn run(args: ServicesArgs, terminal: &mut Terminal) -> Exit {
    let source = match args.source.source(terminal) {
        Ok(source) => source,
        Err(exit) => return exit,
    };
    if args.watch {
        return follow(source, &args, terminal).await;
    }
    match source.services(args.name.as_deref()).await {
        Ok(found) => {
            if found.stale {
                terminal.note(STALE);
            }
            let text = render(&found, args.name.is_some(), args.output, terminal, SystemTime::now());
            terminal.print(&text);
            Exit::Done
        }
        Err(error) => error.report(terminal),
    }
}

/// Shows every state until interrupted, or until nobody reads any more.
async fn follow(source: Source, args: &ServicesArgs, terminal: &mut Terminal) -> Exit {
    let mut follow = source.follow(args.name.clone());
    let mut first = true;
    while terminal.is_open() {
        match follow.next().await {
            Ok(found) => {
                let mut text = render(&found, false, args.output, terminal, SystemTime::now());
                if found.stale && args.output.is_none() {
                    text.push_str(STALE);
                    text.push('\n');
                }
                terminal.repaint(&text, std::mem::take(&mut first));
            }
            Err(error) if first => return error.report(terminal),
            Err(error) => terminal.note(&format!("{error}; asking again")),
        }
    }
    Exit::Done
}

/// The services as text. `alone` shows the one service as its own JSON document.
pub fn render(found: &Services, alone: bool, output: Option<Output>, terminal: &Terminal, now: SystemTime) -> String {
    match (output, found.services.as_slice()) {
        (Some(Output::Json), [service]) if alone => output::json(service),
        (Some(Output::Json), _) => output::json(found),
        (Some(Output::Hostport), services) => services
            .iter()
            .flat_map(|service| &service.endpoints)
            .map(|endpoint| word(&hostport(&endpoint.record)) + "\n")
            .collect(),
        (_, []) => "no services yet\n".to_owned(),
        (output, services) => table(services, output == Some(Output::Wide), terminal, now),
    }
}

/// One address as one word: a script that splits what it reads gets no more addresses than there are endpoints.
fn word(address: &str) -> String {
    let mut word = String::with_capacity(address.len());
    for character in address.chars() {
        match character {
            '!'..='~' => word.push(character),
            _ => word.extend(character.escape_unicode()),
        }
    }
    word
}

fn table(services: &[Service], wide: bool, terminal: &Terminal, now: SystemTime) -> String {
    let mut heading = vec!["SERVICE", "ADDRESS", "ROLE", "NODE", "FOR"];
    if wide {
        heading.extend(["SITE", "PROTO", "ID", "TAGS", "CONTAINER", "IMAGE", "SINCE", "WRITER", "KEY"]);
    }
    let mut table = Table::new(&heading);
    for service in services {
        for endpoint in &service.endpoints {
            let mut row = narrow_row(service, endpoint, now);
            if wide {
                row.extend(wide_cells(endpoint));
            }
            table.row(row);
        }
    }
    table.render(terminal)
}

fn narrow_row(service: &Service, endpoint: &Endpoint, now: SystemTime) -> Vec<Cell> {
    let record = &endpoint.record;
    let role = match record.role {
        Some(Role::Primary) if service.contested => Cell::toned("primary (contested)", Tone::Bad),
        Some(role) => Cell::from(role.as_str()),
        None => Cell::from(""),
    };
    let mut since = record.since.as_deref().map(|since| age(since, now)).unwrap_or_default();
    let mut tone = Tone::Normal;
    if endpoint.held {
        since.push_str(" (held)");
        tone = Tone::Warning;
    }
    let node = record.node.as_deref().unwrap_or_default();
    vec![Cell::toned(&service.name, Tone::Strong), hostport(record).into(), role, node.into(), Cell::toned(since, tone)]
}

/// Who wrote a record: the agent of a host, or another program.
fn writer(record: &Record) -> String {
    let node = record.node.as_deref().unwrap_or_default();
    record.owner.as_ref().map_or_else(|| "other".to_owned(), |_| format!("wharf@{node}"))
}

fn wide_cells(endpoint: &Endpoint) -> [Cell; 9] {
    let record = &endpoint.record;
    let text = |text: &Option<crate::model::words::record::Text>| Cell::from(text.as_deref().unwrap_or_default());
    [
        text(&record.site),
        record.proto.map_or("", |proto| proto.as_str()).into(),
        text(&record.id),
        record.tags.join(",").into(),
        text(&record.container),
        text(&record.image),
        text(&record.since),
        writer(record).into(),
        Cell::from(&*endpoint.key),
    ]
}
