//! `wharf proxies`: where the ambassadors of this host lead, and what runs through them.

use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::place::ConnectArgs;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::catalog::proxy::told::{Proxies, Proxy};

/// Show where the ambassadors of this host lead, and what runs through them
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "EXIT CODES:\n  0  shown\n  1  no such ambassador\n  2  wrong use\n  3  no agent answers")]
pub struct ProxiesArgs {
    /// Show this one only
    pub name: Option<String>,

    /// Show it as JSON
    #[arg(short, long, value_enum)]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,
}

/// Runs the command.
pub async fn run(args: ProxiesArgs, terminal: &mut Terminal) -> Exit {
    let mut told: Proxies = match args.agent.client_from_env().get("/v1/proxies").await {
        Ok(told) => told,
        Err(error) => return error.report(terminal),
    };
    if let Some(name) = &args.name {
        told.proxies.retain(|proxy| *proxy.name == **name);
        if told.proxies.is_empty() {
            terminal.fail(&format!("no ambassador {name:?} on this host"), "wharf proxies lists all");
            return Exit::NotMet;
        }
    }
    let text = match args.output {
        Some(JsonOutput::Json) => output::json(&told),
        None => render(&told, terminal),
    };
    terminal.print(&text);
    Exit::Done
}

fn render(told: &Proxies, terminal: &Terminal) -> String {
    if told.proxies.is_empty() {
        return "no ambassador on this host: a [[proxy]] table in the configuration makes one\n".to_owned();
    }
    let heading = ["NAME", "LISTEN", "TARGET", "CONNECTIONS", "PARKED", "CUT", "REFUSED", "MOVED", "REASON"];
    let mut table = Table::new(&heading);
    for proxy in &told.proxies {
        table.row(row(proxy));
    }
    table.render(terminal)
}

fn row(proxy: &Proxy) -> Vec<Cell> {
    let parked = if proxy.parked > 0 { Tone::Warning } else { Tone::Normal };
    vec![
        Cell::toned(&proxy.name, Tone::Strong),
        proxy.listen.join(", ").into(),
        proxy.target.as_deref().unwrap_or_default().into(),
        proxy.connections.to_string().into(),
        Cell::toned(proxy.parked.to_string(), parked),
        proxy.cut.to_string().into(),
        proxy.refused.to_string().into(),
        size(proxy.bytes).into(),
        Cell::toned(proxy.reason.as_deref().unwrap_or_default(), Tone::Warning),
    ]
}

/// A number of bytes as people read it.
fn size(bytes: u64) -> String {
    let mut left = bytes;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if left < 10_000 {
            return format!("{left} {unit}");
        }
        left /= 1_000;
    }
    format!("{left} PB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(9_999, "9999 B");
        check(10_000, "10 kB");
        check(12_345_678, "12 MB");
        check(u64::MAX, "18446 PB");
    }
}
