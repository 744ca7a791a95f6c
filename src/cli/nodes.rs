//! `wharf nodes`: every host of the cluster, and what is down there.

use std::path::PathBuf;
use std::time::SystemTime;

use hyper::Method;

use super::age::age;
use super::client::escaped;
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::source::SourceArgs;
use super::spread;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use super::token;
use crate::catalog::facade::api::{Absent, Forgotten, Nodes};
use crate::model::words::node::{NodeRecord, twins};
use crate::model::words::plain::plain;

/// Show every host of the cluster, and what is not ready there
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  shown, or forgotten\n  1  no such node or service, or one site holds all of it\n  2  wrong use\n  3  no agent answers, nor the store"
)]
pub struct NodesArgs {
    /// Show this node only
    pub name: Option<String>,

    /// Show hosts whose agents have stopped, too
    #[arg(long)]
    pub all: bool,

    /// Forget this host, which is lost and does not come back
    #[arg(long, value_name = "NODE", conflicts_with_all = ["name", "spread", "output"])]
    pub forget: Option<String>,

    /// With --forget: file with the agent's token, where it asks for one
    #[arg(long, env = "WHARF_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// Show how this service is spread over the sites of its hosts instead; exit 1 when one holds all of it
    #[arg(long, value_name = "SERVICE", conflicts_with = "name")]
    pub spread: Option<String>,

    /// With --spread: how many parts of a site count, such as 1 for regions and 2 for zones
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub level: u8,

    /// Show it as JSON
    #[arg(short, long, value_enum)]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub source: SourceArgs,
}

/// Runs the command.
pub async fn run(args: NodesArgs, terminal: &mut Terminal) -> Exit {
    if let Some(node) = &args.forget {
        return forget(&args, node, terminal).await;
    }
    let source = match args.source.source(terminal) {
        Ok(source) => source,
        Err(exit) => return exit,
    };
    if let Some(service) = &args.spread {
        return spread::run(&source, service, args.level, args.output, terminal).await;
    }
    let mut nodes = match source.nodes().await {
        Ok(nodes) => nodes,
        Err(error) => return error.report(terminal),
    };
    if !args.all {
        nodes.stopped.clear();
    }
    if let Some(name) = &args.name {
        nodes.nodes.retain(|node| *node.node == **name);
        for absent in [&mut nodes.lost, &mut nodes.stopped] {
            absent.retain(|node| *node.node == **name);
        }
        if nodes.nodes.is_empty() && nodes.lost.is_empty() && nodes.stopped.is_empty() {
            if nodes.stale {
                terminal
                    .fail(&format!("no node {name:?} is known, but the store is away"), "ask again once etcd answers");
                return Exit::Unreachable;
            }
            terminal.fail(
                &format!("no node {name:?}"),
                "wharf nodes --all lists every host that is known, those whose agents have stopped among them",
            );
            return Exit::NotMet;
        }
    }
    if nodes.stale {
        terminal.note("stale: the store is away or not read yet; this is what was known last");
    }
    let text = match args.output {
        Some(JsonOutput::Json) => output::json(&nodes),
        None => render(&nodes, terminal, SystemTime::now()),
    };
    terminal.print(&text);
    Exit::Done
}

/// Asks the agent to forget a host.
async fn forget(args: &NodesArgs, node: &str, terminal: &mut Terminal) -> Exit {
    let token = match token::read(args.http_token_file.as_deref(), terminal) {
        Ok(token) => token,
        Err(exit) => return exit,
    };
    let client = args.source.agent.client_from_env().with_token(token);
    match client.call::<Forgotten>(Method::DELETE, &format!("/v1/nodes/{}", escaped(node))).await {
        Ok(forgotten) => {
            terminal.print(&format!("{} is forgotten\n", plain(&forgotten.forgotten)));
            Exit::Done
        }
        Err(error) => error.report(terminal),
    }
}

/// The nodes, and below them what is not ready.
pub fn render(nodes: &Nodes, terminal: &Terminal, now: SystemTime) -> String {
    if nodes.nodes.is_empty() && nodes.lost.is_empty() && nodes.stopped.is_empty() {
        return "no nodes yet\n".to_owned();
    }
    let mut table = Table::new(&["NODE", "VERSION", "UP", "READY", "NOT READY", "DRAINED", "SITE", "ADDRESSES"]);
    let mut down = Table::new(&["NODE", "SERVICE", "ID", "STATE", "FOR", "REASON"]);
    for lost in &nodes.lost {
        table.row(absent(lost, "LOST", Tone::Bad, now));
        let services = lost.services.iter().map(|service| vec![(*lost.node).into(), (**service).into(), "".into()]);
        for mut cells in services {
            cells.extend([Cell::toned("lost", Tone::Bad), since(lost, now).into(), "its host is lost".into()]);
            down.row(cells);
        }
    }
    for stopped in &nodes.stopped {
        table.row(absent(stopped, "stopped", Tone::Dim, now));
    }
    for node in &nodes.nodes {
        table.row(row(node, now));
        for waiting in &node.waiting {
            let since = waiting.since.as_deref().map(|since| age(since, now)).unwrap_or_default();
            let cells = [&*node.node, &*waiting.service, &*waiting.id].map(Cell::from);
            let mut cells = Vec::from(cells);
            cells.extend([Cell::toned(&waiting.state, Tone::Bad), since.into()]);
            cells.push(waiting.reason.as_deref().unwrap_or_default().into());
            down.row(cells);
        }
        if node.more > 0 {
            let more = format!("and {} more", node.more);
            down.row(vec![(*node.node).into(), more.into(), "".into(), "".into(), "".into(), "".into()]);
        }
    }
    let mut text = table.render(terminal);
    for twin in twins(&nodes.nodes) {
        let warning = format!("several agents are called {}: give each its own --node\n", plain(&twin));
        text.push_str(&terminal.paint(&warning, Tone::Warning));
    }
    if !down.is_empty() {
        text.push('\n');
        text.push_str(&down.render(terminal));
    }
    text
}

/// Since when a host has been gone, as far as anybody has written it down.
fn since(absent: &Absent, now: SystemTime) -> String {
    absent.since.as_deref().map(|since| age(since, now)).unwrap_or_default()
}

/// A host whose agent does not live.
fn absent(absent: &Absent, word: &str, tone: Tone, now: SystemTime) -> Vec<Cell> {
    let ago = match since(absent, now) {
        since if since.is_empty() => String::new(),
        since => format!(" {since} ago"),
    };
    let addresses: Vec<String> = absent.addresses.iter().map(ToString::to_string).collect();
    vec![
        Cell::toned(&absent.node, Tone::Strong),
        (*absent.version).into(),
        Cell::toned(format!("{word}{ago}"), tone),
        "".into(),
        "".into(),
        "".into(),
        "".into(),
        addresses.join(", ").into(),
    ]
}

fn row(node: &NodeRecord, now: SystemTime) -> Vec<Cell> {
    let serves = |state: &str| matches!(state, "ready" | "saturated");
    let counts = |wanted: bool| node.states.iter().filter(move |(state, _)| serves(state) == wanted);
    // What an agent says is another's word: it may be any numbers.
    let sum = |wanted: bool| counts(wanted).fold(0_usize, |sum, (_, count)| sum.saturating_add(*count));
    let (ready, others) = (sum(true), sum(false));
    let drained = node.drained.as_deref().map(|since| format!("for {}", age(since, now))).unwrap_or_default();
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    vec![
        Cell::toned(&node.node, Tone::Strong),
        (*node.version).into(),
        age(&node.started, now).into(),
        ready.to_string().into(),
        Cell::toned(others.to_string(), if others > 0 { Tone::Bad } else { Tone::Normal }),
        Cell::toned(drained, Tone::Warning),
        node.site.as_deref().unwrap_or_default().into(),
        addresses.join(", ").into(),
    ]
}
