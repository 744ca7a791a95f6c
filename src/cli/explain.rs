//! `wharf explain [CONTAINER]`: what became of each container port of this host, and why.

use std::time::SystemTime;

use super::age::age;
use super::elsewhere::{self, Elsewhere};
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::place::ConnectArgs;
use super::terminal::{Terminal, Tone};
use crate::catalog::facade::api::{
    EtcdV2, EtcdV2Trouble, Local, LocalInstance, LocalSkipped, LocalWithheld, Maintained, Ordinals,
};
use crate::catalog::facade::autodiscovery::told::{Autodiscoveries, Autodiscovery};
use crate::catalog::proxy::told::Proxies;
use crate::catalog::render::told::Renders;
use crate::model::steer::ordinal::told::Standing;
use crate::model::steer::told::{Instance, Topologies, Topology};
use crate::model::words::name::Label;
use crate::model::words::place::place;
use crate::model::words::plain::plain;
use crate::model::words::record::Text;

/// Show what became of each container port of this host, and why
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  told\n  1  no such container is known here, and no such service in the cluster\n  2  wrong use\n  3  no agent answers"
)]
pub struct ExplainArgs {
    /// Container to explain, by name or by the beginning of its id; also a service's or an instance's name
    pub container: Option<String>,

    /// Tell it as JSON
    #[arg(short, long, value_enum)]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,
}

/// Runs the command.
pub async fn run(args: ExplainArgs, terminal: &mut Terminal) -> Exit {
    let client = args.agent.client_from_env();
    let mut local: Local = match client.get("/v1/local").await {
        Ok(local) => local,
        Err(error) => return error.report(terminal),
    };
    if let Some(asked) = &args.container {
        local.instances.retain(|instance| is_meant(instance, asked));
        local.skipped.retain(|skipped| is_named(&skipped.container, asked));
        if local.instances.is_empty() && local.skipped.is_empty() {
            let known = Elsewhere::ask(&client, asked).await;
            if let Some(text) = elsewhere::words(&known, asked, &local.node, terminal, SystemTime::now()) {
                terminal.print(&text);
                return Exit::Done;
            }
            let todo = if local.docker.reachable {
                "`docker ps` for whether it runs and publishes a port; a container without ports is nothing to offer"
            } else {
                "see that Docker runs: the agent cannot reach it now"
            };
            terminal.fail(&format!("nothing called {asked:?} is known on {} or in the cluster", local.node), todo);
            return Exit::NotMet;
        }
    }
    let text = match args.output {
        Some(JsonOutput::Json) => output::json(&local),
        None => {
            // An agent that steers nothing, or an older one, has none to tell of.
            let topologies = client.get::<Topologies>("/v1/topology").await.unwrap_or_default();
            let numbers = client.get::<Ordinals>("/v1/ordinals").await.unwrap_or_default();
            let renders = client.get::<Renders>("/v1/renders").await.unwrap_or_default();
            let discovery = client.get::<Autodiscoveries>("/v1/autodiscovery").await.unwrap_or_default();
            let story = words(&local, &topologies, terminal, SystemTime::now());
            let mut text = numbers_in_words(&numbers, terminal) + &story;
            if args.container.is_none() {
                let etcd_v2 = client.get::<EtcdV2>("/v1/etcd-v2").await.unwrap_or_default();
                text.push_str(&met_by_clients_of_v2(&etcd_v2, terminal, SystemTime::now()));
                text.push_str(&files(&renders, terminal));
                text.push_str(&discovered(&discovery, terminal));
                text.push_str(&ambassadors(&client.get::<Proxies>("/v1/proxies").await.unwrap_or_default(), terminal));
            }
            text
        }
    };
    terminal.print(&text);
    Exit::Done
}

fn is_meant(instance: &LocalInstance, asked: &str) -> bool {
    let is_id = |id: &str| asked.len() >= 4 && (id.starts_with(asked) || asked.starts_with(id));
    is_named(&instance.container_name, asked)
        || instance.container.as_deref().is_some_and(is_id)
        || instance.services.iter().any(|service| **service == *asked)
        || *instance.id == *asked
}

/// Whether a container has this name; Docker writes it with a slash before it.
fn is_named(container: &str, asked: &str) -> bool {
    container.trim_start_matches('/') == asked.trim_start_matches('/')
}

/// The whole story in words.
pub fn words(local: &Local, topologies: &Topologies, terminal: &Terminal, now: SystemTime) -> String {
    let mut text = String::new();
    for warning in warnings(local, now) {
        text.push_str(&terminal.paint(&warning, Tone::Warning));
        text.push('\n');
    }
    for instance in &local.instances {
        text.push_str(&instance_words(local, instance, terminal, now));
        for line in steered(instance, topologies) {
            text.push_str(&format!("  topology  {}\n", plain(&line)));
        }
    }
    for skipped in &local.skipped {
        text.push_str(&skipped_words(skipped, terminal));
    }
    if local.instances.is_empty() && local.skipped.is_empty() {
        text.push_str("no container of this host has a port to offer\n");
    }
    text
}

/// How this host stands with its numbers.
fn numbers_in_words(told: &Ordinals, terminal: &Terminal) -> String {
    let line = |(role, standing): (&Text, &Standing)| {
        let tone = if standing.is_trouble() { Tone::Bad } else { Tone::Normal };
        let line = plain(&format!("this host's number of {role} {standing}")).into_owned();
        terminal.paint(&line, tone) + "\n"
    };
    told.ordinals.iter().map(line).collect()
}

/// What clients of etcd's v2 API met lately.
fn met_by_clients_of_v2(told: &EtcdV2, terminal: &Terminal, now: SystemTime) -> String {
    let at = told.listen.as_deref().unwrap_or_default();
    let line = |trouble: &EtcdV2Trouble| {
        let EtcdV2Trouble { kind, since, count, client, request, why } = trouble;
        let since = age(since, now);
        let line = match (client, request) {
            (Some(client), Some(request)) => {
                let requests = if *count == 1 { "request" } else { "requests" };
                format!(
                    "etcd's v2 API at {at} {kind} {count} {requests}, last {since} ago {request} of {client}: {why}"
                )
            }
            _ => format!("etcd's v2 API at {at} is {kind} for {since}: {why}"),
        };
        terminal.paint(&plain(&line), Tone::Warning) + "\n"
    };
    told.troubles.iter().map(line).collect()
}

/// Files that follow the cluster and are not as they should be.
fn files(renders: &Renders, terminal: &Terminal) -> String {
    let mut text = String::new();
    for render in &renders.renders {
        let why = match &render.reason {
            Some(reason) => format!("is {}: {reason}", render.state),
            None if render.reload_owed => "is written, and not loaded yet".to_owned(),
            None => continue,
        };
        let line = format!("the file {} ({}) {why}", render.destination, render.name);
        text.push_str(&terminal.paint(&plain(&line), Tone::Warning));
        text.push('\n');
    }
    text
}

/// Whom clients of ElastiCache are told of here.
fn discovered(told: &Autodiscoveries, terminal: &Terminal) -> String {
    let mut text = String::new();
    for table in &told.autodiscoveries {
        let (line, tone) = told_members(table);
        let line = format!("auto-discovery of {} at {}{line}", table.service, table.listen);
        text.push_str(&terminal.paint(&plain(&line), tone));
        text.push('\n');
        for member in table.away() {
            let node = member.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
            let (at, away) = (place(&member.host, member.port), member.away_s.unwrap_or_default());
            let line = format!("  {at}{node} has no record for {away}s, and leaves after {}s", table.leave_after_s);
            text.push_str(&terminal.paint(&plain(&line), Tone::Warning));
            text.push('\n');
        }
    }
    text
}

/// Ambassadors that lead nowhere, or do not listen.
fn ambassadors(told: &Proxies, terminal: &Terminal) -> String {
    let mut text = String::new();
    for proxy in &told.proxies {
        let Some(reason) = &proxy.reason else { continue };
        let waiting = match proxy.parked {
            0 => String::new(),
            parked => format!(", {parked} connections wait"),
        };
        let line = format!("the ambassador {} leads nowhere: {reason}{waiting}", proxy.name);
        text.push_str(&terminal.paint(&plain(&line), Tone::Warning));
        text.push('\n');
    }
    text
}

fn told_members(table: &Autodiscovery) -> (String, Tone) {
    if let Some(reason) = &table.reason {
        return (format!(" is not served: {reason}"), Tone::Bad);
    }
    let stale = if table.stale { "; the store is away, this is what was seen last" } else { "" };
    let tone = if table.stale { Tone::Warning } else { Tone::Normal };
    let Some(version) = table.version else {
        return (format!(" has no members to tell of yet{stale}"), Tone::Warning);
    };
    let members =
        if table.members.len() == 1 { "1 member".to_owned() } else { format!("{} members", table.members.len()) };
    (format!(" tells of {members}, version {version}{stale}"), tone)
}

/// What concerns everything on this host.
fn warnings(local: &Local, now: SystemTime) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(since) = &local.drained {
        let word = local.maintenance.iter().find(|one| one.what.is_none()).map(word).unwrap_or_default();
        warnings.push(format!(
            "{} is drained for {}{word}: nothing is offered until `wharf undrain`",
            plain(&local.node),
            age(since, now)
        ));
        if let Some(awaits) = &local.store.awaits {
            warnings.push(format!("it is not withdrawn yet: {}", plain(awaits)));
        }
    }
    for (one, what) in local.maintenance.iter().filter_map(|one| Some((one, one.what.as_deref()?))) {
        let (what, word, age) = (plain(what), word(one), age(&one.since, now));
        warnings.push(format!("{what} is drained for {age}{word}: it is not offered until `wharf undrain {what}`"));
    }
    if let Some(since) = &local.addresses_unread {
        let age = age(since, now);
        warnings.push(format!("this host's addresses cannot be read for {age}: what was known of them stands"));
    }
    for address in &local.addresses_remembered {
        warnings.push(format!("{} is the address of before the restart: no default route tells it", plain(address)));
    }
    if !local.docker.reachable {
        warnings.push("Docker does not answer: this is what was last known of its containers".to_owned());
    } else if !local.docker.listed {
        warnings.push("Docker has not been listed yet: more may come".to_owned());
    }
    if let Some(trouble) = &local.store.trouble {
        warnings.push(format!(
            "etcd is away for {}: {}: {}",
            age(&trouble.since, now),
            plain(&trouble.endpoint),
            plain(&trouble.why)
        ));
    }
    if &*local.store.session != "alive" {
        warnings.push(format!(
            "the store does not confirm this host's lease ({}): other hosts may not see its records",
            plain(&local.store.session)
        ));
    }
    warnings
}

/// By whose word, and why.
fn word(one: &Maintained) -> String {
    let who = if one.who.is_empty() { String::new() } else { format!(" by {}", plain(&one.who)) };
    let why = if one.reason.is_empty() { String::new() } else { format!(" ({})", plain(&one.reason)) };
    format!("{who}{why}")
}

fn instance_words(local: &Local, instance: &LocalInstance, terminal: &Terminal, now: SystemTime) -> String {
    let (verdict, tone) = verdict(instance);
    let since = instance.since.as_deref().map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
    let title = terminal.paint(&title(instance), Tone::Strong);
    let mut text = format!("{title}\n  {}{since}\n", terminal.paint(&verdict, tone));
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<9} {}\n", plain(value)));
    if let Some(error) = &instance.error {
        line("because", error);
    }
    line("offered", &format!("as {}, at {}", instance.services.join(", "), address(instance)));
    if let Some(role) = instance.role {
        line("role", role.as_str());
    }
    line("check", &check(instance));
    if let Some(warning) = &instance.warning {
        line("warning", warning);
    }
    for key in &instance.keys {
        line("key", key);
    }
    for attr in withheld(local, instance) {
        line("withheld", &format!("{attr}: its key speaks of a secret, so it is in no record"));
    }
    if let Some(todo) = todo(local, instance) {
        line("try", todo);
    }
    text
}

/// What the topologies of its services have it for, and why it is not so.
fn steered(instance: &LocalInstance, topologies: &Topologies) -> Vec<String> {
    let is_of = |topology: &&Topology| instance.services.iter().any(|service| **service == *topology.service);
    let slug = Label::slug(&instance.id).map(|label| label.to_string());
    let is_it = |told: &&Instance| {
        let is_there = *told.host == *instance.host && told.port == instance.port;
        Some(&told.key) == slug.as_ref() || is_there
    };
    let told = topologies.topologies.iter().filter(is_of).filter_map(|topology| {
        let told = topology.instances.iter().find(is_it)?;
        let role = told.role.as_deref().unwrap_or("not part of it");
        let why = told.why.as_deref().map(|why| format!(", but {why}")).unwrap_or_default();
        Some(format!("{role}{why}"))
    });
    told.collect()
}

/// What it is: a container with its id, or a table of the settings with its service, and the port.
fn title(instance: &LocalInstance) -> String {
    let name = match &instance.container {
        Some(id) => format!("{} ({})", plain(instance.container_name.trim_start_matches('/')), plain(id)),
        None => format!("[[service]] {}", plain(&instance.service)),
    };
    format!("{name} {}/{}", instance.exposed, instance.proto)
}

/// Whether it is found, in one sentence.
fn verdict(instance: &LocalInstance) -> (String, Tone) {
    let state = plain(&instance.state).into_owned();
    let serves = matches!(&*instance.state, "ready" | "saturated");
    match (serves, instance.published) {
        (true, true) if state == "saturated" => ("saturated (full), and published".to_owned(), Tone::Warning),
        (true, true) => ("ready, and published".to_owned(), Tone::Good),
        (true, false) => (format!("{state}, but not published yet"), Tone::Warning),
        (false, true) => (format!("{state}, its record is on its way out"), Tone::Warning),
        (false, false) => (format!("{state}, so not published"), Tone::Bad),
    }
}

/// The keys of the attributes that this instance's record lacks.
fn withheld<'l>(local: &'l Local, instance: &LocalInstance) -> impl Iterator<Item = &'l str> {
    let port = format!("{}/{}", instance.exposed, instance.proto);
    let name = if instance.container.is_none() { &instance.service } else { &instance.container_name };
    let of = move |withheld: &&LocalWithheld| *withheld.port == port && is_named(&withheld.container, name);
    let all: Vec<&str> = local.withheld.iter().filter(of).map(|withheld| &*withheld.attr).collect();
    all.into_iter()
}

fn address(instance: &LocalInstance) -> String {
    let other = instance.host6.as_deref().map(|host| format!(" and {}", place(host, instance.port)));
    format!("{}{}", place(&instance.host, instance.port), other.unwrap_or_default())
}

/// What is asked, where, and at whose word.
fn check(instance: &LocalInstance) -> String {
    let kind = &instance.check;
    if &**kind == "none" {
        let who = if instance.container.is_none() { "the table that names it" } else { "Docker's word" };
        return format!("none: {who} is enough");
    }
    let at = instance.target.as_deref().map(|target| format!(" at {target}")).unwrap_or_default();
    let asks = instance.asks.as_deref().map_or_else(|| format!("{kind}{at}"), str::to_owned);
    let by = if instance.guessed {
        format!(
            ", guessed from the image {}; the label SERVICE_{}_CHECK=none ends it",
            instance.image, instance.exposed
        )
    } else {
        ", asked for".to_owned()
    };
    format!("{asks}{by}")
}

fn todo(local: &Local, instance: &LocalInstance) -> Option<&'static str> {
    match &*instance.state {
        "drained" => Some("wharf undrain"),
        "paused" => Some("docker unpause it"),
        "unhealthy" => Some("docker inspect it for the output of its HEALTHCHECK"),
        "down" | "starting" if instance.container.is_none() => {
            Some("see that it runs; the check above asks what a client would")
        }
        "down" | "starting" => Some("docker logs of it; the check above asks what a client would"),
        "ready" | "saturated" if !instance.published && &*local.store.session != "alive" => {
            Some("see whether etcd answers this host")
        }
        _ => None,
    }
}

fn skipped_words(skipped: &LocalSkipped, terminal: &Terminal) -> String {
    let title = format!("{} {}", plain(skipped.container.trim_start_matches('/')), plain(&skipped.port));
    let verdict = terminal.paint("not offered", Tone::Bad);
    format!("{}\n  {verdict}\n  because   {}\n", terminal.paint(title.trim_end(), Tone::Strong), plain(&skipped.reason))
}
