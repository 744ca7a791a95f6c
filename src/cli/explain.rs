//! `wharf explain [CONTAINER]`: what became of each container port of this host, and why.

use std::time::SystemTime;

use super::age::age;
use super::client::ConnectArgs;
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::terminal::{Terminal, Tone};
use crate::model::api::{Local, LocalInstance, LocalSkipped};
use crate::model::plain::plain;

/// Tell what became of each container port of this host, and why
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  told\n  1  no such container is known here\n  2  wrong use\n  3  no agent answers"
)]
pub struct ExplainArgs {
    /// Container to tell of, by name or by the beginning of its id; also a service's or an instance's name
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
        local.skipped.retain(|skipped| skipped.container.trim_start_matches('/') == asked.trim_start_matches('/'));
        if local.instances.is_empty() && local.skipped.is_empty() {
            let todo = if local.docker.reachable {
                "`docker ps` for whether it runs and publishes a port; a container without ports is nothing to offer"
            } else {
                "see that Docker runs: the agent cannot reach it now"
            };
            terminal.fail(&format!("nothing called {asked:?} is known on {}", local.node), todo);
            return Exit::NotMet;
        }
    }
    let text = match args.output {
        Some(JsonOutput::Json) => output::json(&local),
        None => words(&local, terminal, SystemTime::now()),
    };
    terminal.print(&text);
    Exit::Done
}

fn is_meant(instance: &LocalInstance, asked: &str) -> bool {
    let is_id = |id: &str| asked.len() >= 4 && (id.starts_with(asked) || asked.starts_with(id));
    instance.container_name.trim_start_matches('/') == asked.trim_start_matches('/')
        || instance.container.as_deref().is_some_and(is_id)
        || instance.services.iter().any(|service| **service == *asked)
        || *instance.id == *asked
}

/// The whole story in words.
pub fn words(local: &Local, terminal: &Terminal, now: SystemTime) -> String {
    let mut text = String::new();
    for warning in warnings(local, now) {
        text.push_str(&terminal.paint(&warning, Tone::Warning));
        text.push('\n');
    }
    for instance in &local.instances {
        text.push_str(&instance_words(local, instance, terminal, now));
    }
    for skipped in &local.skipped {
        text.push_str(&skipped_words(skipped, terminal));
    }
    if local.instances.is_empty() && local.skipped.is_empty() {
        text.push_str("no container of this host has a port to offer\n");
    }
    text
}

/// What concerns everything on this host.
fn warnings(local: &Local, now: SystemTime) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(since) = &local.drained {
        warnings.push(format!(
            "{} is drained for {}: nothing is offered until `wharf undrain`",
            plain(&local.node),
            age(since, now)
        ));
    }
    if !local.docker.reachable {
        warnings.push("Docker does not answer: this is what was last known of its containers".to_owned());
    } else if !local.docker.listed {
        warnings.push("Docker has not been listed yet: more may come".to_owned());
    }
    if &*local.store.session != "alive" {
        warnings.push(format!(
            "the store does not confirm this host's lease ({}): other hosts may not see its records",
            local.store.session
        ));
    }
    warnings
}

fn instance_words(local: &Local, instance: &LocalInstance, terminal: &Terminal, now: SystemTime) -> String {
    let name = if instance.container_name.is_empty() {
        "[[service]]"
    } else {
        instance.container_name.trim_start_matches('/')
    };
    let container = instance.container.as_deref().map(|id| format!(" ({id})")).unwrap_or_default();
    let title = format!("{}{container} {}/{}", plain(name), instance.exposed, instance.proto);
    let (verdict, tone) = verdict(instance);
    let since = instance.since.as_deref().map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
    let mut text = format!("{}\n  {}{since}\n", terminal.paint(&title, Tone::Strong), terminal.paint(&verdict, tone));
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
    if let Some(todo) = todo(local, instance) {
        line("try", todo);
    }
    text
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

fn address(instance: &LocalInstance) -> String {
    let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let other = instance.host6.as_deref().map(|host| format!(" and {}:{}", bracketed(host), instance.port));
    format!("{}:{}{}", bracketed(&instance.host), instance.port, other.unwrap_or_default())
}

/// What is asked, where, and at whose word.
fn check(instance: &LocalInstance) -> String {
    let kind = &instance.check;
    if &**kind == "none" {
        return "none: Docker's word is enough".to_owned();
    }
    let at = instance.target.as_deref().map(|target| format!(" at {target}")).unwrap_or_default();
    let by = if instance.guessed {
        format!(
            ", guessed from the image {}; the label SERVICE_{}_CHECK=none ends it",
            instance.image, instance.exposed
        )
    } else {
        ", asked for".to_owned()
    };
    format!("{kind}{at}{by}")
}

fn todo(local: &Local, instance: &LocalInstance) -> Option<&'static str> {
    match &*instance.state {
        "drained" => Some("wharf undrain"),
        "paused" => Some("docker unpause it"),
        "unhealthy" => Some("docker inspect it for the output of its HEALTHCHECK"),
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
