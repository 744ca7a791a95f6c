//! `wharf nodes --spread`: over which sites a service is spread, so that one of them can be lost.
//!
//! What does not say where it is counts as one site: nobody knows that it is not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::source::Source;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::catalog::facade::api::{Nodes, Service};

/// How a service is spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The service.
    pub service: String,
    /// So many parts of a site are told apart.
    pub level: u8,
    /// No site holds all of it.
    pub spread: bool,
    /// Every site that has hosts.
    pub sites: Vec<Held>,
}

/// What one site holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The site, cut to the level; empty for what does not say where it is.
    pub site: String,
    /// How many endpoints.
    pub endpoints: usize,
    /// On which hosts.
    pub nodes: BTreeSet<String>,
}

/// Runs the command.
pub(super) async fn run(
    source: &Source,
    service: &str,
    level: u8,
    output: Option<JsonOutput>,
    terminal: &mut Terminal,
) -> Exit {
    let (found, nodes) = match (source.services(Some(service)).await, source.nodes().await) {
        (Ok(found), Ok(nodes)) => (found, nodes),
        (Err(error), _) | (_, Err(error)) => return error.report(terminal),
    };
    if found.stale || nodes.stale {
        terminal.note("stale: the store is away or not read yet; this is what was known last");
    }
    let spread = spread(found.services.first().unwrap_or(&Service::default()), &nodes, level);
    let text = match output {
        Some(JsonOutput::Json) => output::json(&spread),
        None => table(&spread, terminal),
    };
    terminal.print(&text);
    if spread.spread {
        return Exit::Done;
    }
    let parts = if level == 1 { "part" } else { "parts" };
    terminal.fail(
        &format!("one site holds all of {service}"),
        &format!("sites are told apart by their first {level} {parts}; --level says how many, --site where a host is"),
    );
    Exit::NotMet
}

/// How a service is spread, with the sites that hold none of it.
pub fn spread(service: &Service, nodes: &Nodes, level: u8) -> Spread {
    let empty = nodes.nodes.iter().map(|node| cut(node.site.as_deref(), level));
    let mut sites: BTreeMap<String, Held> = empty.map(|site| (site, Held::default())).collect();
    for endpoint in &service.endpoints {
        let held = sites.entry(cut(endpoint.record.site.as_deref(), level)).or_default();
        held.endpoints += 1;
        held.nodes.extend(endpoint.record.node.as_deref().map(str::to_owned));
    }
    let named = |(site, held)| Held { site, ..held };
    let sites: Vec<Held> = sites.into_iter().map(named).collect();
    let holding = sites.iter().filter(|held| held.endpoints > 0).count();
    Spread { service: service.name.to_string(), level, spread: holding > 1, sites }
}

fn cut(site: Option<&str>, level: u8) -> String {
    let parts: Vec<&str> = site.unwrap_or_default().split('/').take(usize::from(level)).collect();
    parts.join("/")
}

fn table(spread: &Spread, terminal: &Terminal) -> String {
    let mut table = Table::new(&["SITE", "ENDPOINTS", "NODES"]);
    for held in &spread.sites {
        let tone = if held.endpoints == 0 { Tone::Warning } else { Tone::Normal };
        let nodes: Vec<&str> = held.nodes.iter().map(String::as_str).collect();
        let site = Cell::toned(&held.site, Tone::Strong);
        table.row(vec![site, Cell::toned(held.endpoints.to_string(), tone), nodes.join(", ").into()]);
    }
    table.render(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::facade::api::Endpoint;
    use crate::model::words::node::NodeRecord;
    use crate::model::words::record::{Record, Text};

    fn site(text: &str) -> Option<Text> {
        (text != "-").then(|| text.into())
    }

    fn check(endpoints: &[&str], nodes: &[&str], level: u8, expected: &[(&str, usize)], is_spread: bool) {
        let record = |text: &&str| Record { site: site(text), node: Some((*text).into()), ..Record::default() };
        let endpoints = endpoints.iter().map(record).map(|record| Endpoint { record, ..Endpoint::default() });
        let service = Service { endpoints: endpoints.collect(), ..Service::default() };
        let node = |text: &&str| NodeRecord { site: site(text), ..NodeRecord::default() };
        let nodes = Nodes { nodes: nodes.iter().map(node).collect(), ..Nodes::default() };
        let found = spread(&service, &nodes, level);
        let counts: Vec<_> = found.sites.iter().map(|held| (held.site.as_str(), held.endpoints)).collect();
        assert_eq!((&*counts, found.spread), (expected, is_spread));
    }

    #[test]
    fn a_service_is_spread_when_no_site_of_the_level_holds_all_of_it() {
        check(&["r/a/1", "r/b/1"], &[], 2, &[("r/a", 1), ("r/b", 1)], true);
        check(&["r/a/1", "r/b/1"], &[], 1, &[("r", 2)], false);
        check(&["r/a/1", "r/a/2"], &["r/a/1", "r/b/1"], 2, &[("r/a", 2), ("r/b", 0)], false);
        check(&["r/a/1", "r/a/2"], &[], 3, &[("r/a/1", 1), ("r/a/2", 1)], true);
        check(&["-", "-"], &["-"], 2, &[("", 2)], false);
        check(&["-", "r"], &[], 2, &[("", 1), ("r", 1)], true);
        check(&[], &["r/a"], 2, &[("r/a", 0)], false);
    }
}
