//! What this host's agent knows of something that runs on other hosts: their records, and what their node records tell
//! of what is not ready.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::age::age;
use super::client::{Client, escaped};
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::catalog::facade::api::{Nodes, Service, hostport};
use crate::model::words::node::{NodeRecord, Waiting};
use crate::model::words::place::place;
use crate::model::words::plain::plain;

/// What the agent knows of the cluster: a service of this name, and every node.
#[derive(Debug)]
pub(super) struct Elsewhere {
    service: Option<Service>,
    nodes: Nodes,
}

impl Elsewhere {
    /// Asks the agent.
    pub(super) async fn ask(client: &Client, asked: &str) -> Self {
        let service = client.get::<Service>(&format!("/v1/services/{}", escaped(asked))).await.ok();
        let nodes = client.get::<Nodes>("/v1/nodes").await.unwrap_or_default();
        Self { service, nodes }
    }
}

/// The story of a service, or of an instance that is not ready, on other hosts; none if no host tells of one.
pub(super) fn words(
    known: &Elsewhere,
    asked: &str,
    here: &str,
    terminal: &Terminal,
    now: SystemTime,
) -> Option<String> {
    let Elsewhere { service, nodes } = known;
    let mut table = Table::new(&["NODE", "ID", "ADDRESS", "STATE", "FOR", "BECAUSE"]);
    let mut hosts = BTreeSet::new();
    for endpoint in service.iter().flat_map(|service| &service.endpoints) {
        let record = &endpoint.record;
        let node = record.node.as_deref().unwrap_or("nobody's");
        hosts.insert(node.to_owned());
        let since = record.since.as_deref().map(|since| age(since, now)).unwrap_or_default();
        let id = record.id.as_deref().unwrap_or(&endpoint.key);
        let state = Cell::toned("ready", Tone::Good);
        table.row(vec![node.into(), id.into(), hostport(record).into(), state, since.into(), "".into()]);
    }
    for (node, waiting) in nodes.nodes.iter().flat_map(|node| node.waiting.iter().map(move |waiting| (node, waiting))) {
        if is_meant(waiting, asked) {
            hosts.insert(node.node.to_string());
            table.row(row(node, waiting, now));
        }
    }
    let first = hosts.first()?.clone();
    let hosts: Vec<_> = hosts.into_iter().collect();
    let title = format!("{} is not on {}, but on {}", plain(asked), plain(here), plain(&hosts.join(", ")));
    let hint = format!("more of it there: ssh {} wharf explain {}", plain(&first), plain(asked));
    Some(format!("{}\n{}{hint}\n", terminal.paint(&title, Tone::Strong), table.render(terminal)))
}

fn row(node: &NodeRecord, waiting: &Waiting, now: SystemTime) -> Vec<Cell> {
    let at = waiting.host.zip(waiting.port).map(|(host, port)| place(&host.to_string(), port)).unwrap_or_default();
    let since = waiting.since.as_deref().map(|since| age(since, now)).unwrap_or_default();
    vec![
        (*node.node).into(),
        (*waiting.id).into(),
        at.into(),
        Cell::toned(&waiting.state, Tone::Bad),
        since.into(),
        waiting.reason.as_deref().unwrap_or_default().into(),
    ]
}

/// Whether it is of this service, has this id, or is a port of a container of this name.
fn is_meant(waiting: &Waiting, asked: &str) -> bool {
    *waiting.service == *asked || waiting.id.split(':').any(|part| part == asked) || *waiting.id == *asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_hosts_tell_is_told_with_its_reason() {
        let waiting = Waiting {
            id: "core-02:web:80".into(),
            service: "web".into(),
            state: "down".into(),
            reason: Some("status 500".into()),
            ..Waiting::default()
        };
        let node = NodeRecord { node: "core-02".into(), waiting: vec![waiting], ..NodeRecord::default() };
        let known = Elsewhere { service: None, nodes: Nodes::of(false, vec![node], &[]) };
        let terminal = Terminal::new(Box::new(std::io::sink()), Box::new(std::io::sink()), false);
        let text = words(&known, "web", "core-01", &terminal, SystemTime::UNIX_EPOCH).expect("it is known");
        assert!(text.starts_with("web is not on core-01, but on core-02\n"), "{text}");
        assert!(text.contains("status 500") && text.contains("ssh core-02 wharf explain web"), "{text}");
        assert_eq!(words(&known, "redis", "core-01", &terminal, SystemTime::UNIX_EPOCH), None);
    }
}
