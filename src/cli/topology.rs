//! `wharf topology`: which Redis server of a service is master, and giving it another one.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use tokio::time::{MissedTickBehavior, interval};

use super::age::age;
use super::client::{Client, ClientError, escaped};
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::place::ConnectArgs;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use super::token;
use crate::model::steer::told::{Answer, Instance, Topologies, Topology};
use crate::model::words::name::Label;
use crate::model::words::place::place;
use crate::model::words::plain::plain;

/// How often it is looked how far a switch is.
const LOOK: Duration = Duration::from_millis(50);

/// Show which Redis server is master, and give a service another one
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "EXIT CODES:\n  0  shown, or done\n  1  no such topology; refused, or given up: the reason is printed\n  2  wrong use\n  3  no agent answers"
)]
pub struct TopologyArgs {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub verb: Option<Verb>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub show: ShowArgs,
}

/// What is to be done.
#[derive(Clone, Debug, Subcommand)]
#[allow(missing_docs)] // a doc comment here would replace the command's own help
pub enum Verb {
    /// Show the topologies, or one
    Show(ShowArgs),
    Put(PutArgs),
    Switch(SwitchArgs),
    /// Have every agent leave this topology's servers alone, until it is resumed
    Pause(PauseArgs),
    /// End a pause
    Resume(PauseArgs),
}

/// What is shown.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Service to show
    pub name: Option<String>,

    /// Show it as JSON
    #[arg(short, long, value_enum)]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub agent: ConnectArgs,
}

/// How a change is asked for.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// File with the agent's token, where it asks for one
    #[arg(long, env = "WHARF_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// Print the result as JSON
    #[arg(short, long, value_enum)]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub agent: ConnectArgs,
}

/// How an operation is asked for.
#[derive(Clone, Debug, Args)]
pub struct HowArgs {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// Go ahead in spite of a refusal that may be overruled: what it says would be lost is lost
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub ask: AskArgs,
}

/// Bring about the topology that a file describes
#[derive(Clone, Debug, Args)]
pub struct PutArgs {
    /// Service
    pub name: String,

    /// File with {"master":{"address":A},"slaves":[{"address":A},…]}; - is standard input
    pub file: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub how: HowArgs,
}

/// Make another server the master; all others follow it
#[derive(Clone, Debug, Args)]
pub struct SwitchArgs {
    /// Service
    pub name: String,

    /// Who is to be master: a node, or an instance by its name
    #[arg(long, value_name = "NODE|INSTANCE")]
    pub to: String,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub how: HowArgs,
}

/// Whose pause.
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    /// Service
    pub name: String,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: TopologyArgs, terminal: &mut Terminal) -> Exit {
    let done = match args.verb {
        None => show(args.show, terminal).await,
        Some(Verb::Show(args)) => show(args, terminal).await,
        Some(Verb::Put(args)) => put(args, terminal).await,
        Some(Verb::Switch(args)) => switch(args, terminal).await,
        Some(Verb::Pause(args)) => pause(args, true, terminal).await,
        Some(Verb::Resume(args)) => pause(args, false, terminal).await,
    };
    done.unwrap_or_else(|exit| exit)
}

/// A command that ends early ends with the code that is its error.
type Done = Result<Exit, Exit>;

async fn show(args: ShowArgs, terminal: &mut Terminal) -> Done {
    let client = args.agent.client_from_env();
    let all = match &args.name {
        None => client.get::<Topologies>("/v1/topology").await.map_err(|error| error.report(terminal))?.topologies,
        Some(name) => vec![one(&client, name).await.map_err(|error| error.report(terminal))?],
    };
    let text = match (args.output, args.name) {
        (Some(JsonOutput::Json), None) => output::json(&Topologies { topologies: all }),
        (Some(JsonOutput::Json), Some(_)) => all.iter().map(output::json).collect(),
        (None, _) => words(&all, terminal, SystemTime::now()),
    };
    terminal.print(&text);
    Ok(Exit::Done)
}

async fn one(client: &Client, name: &str) -> Result<Topology, ClientError> {
    client.get(&format!("/v1/topology/{}", escaped(name))).await
}

async fn put(args: PutArgs, terminal: &mut Terminal) -> Done {
    let read = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map(String::into_bytes)
    } else {
        std::fs::read(&args.file)
    };
    let desired = read.map_err(|error| {
        terminal.fail(&format!("cannot read {}: {error}", args.file.display()), "give a file with the topology");
        Exit::Usage
    })?;
    let client = client(&args.how.ask, terminal)?;
    operate(&client, &args.name, desired.into(), &args.how, terminal).await
}

async fn switch(args: SwitchArgs, terminal: &mut Terminal) -> Done {
    let client = client(&args.how.ask, terminal)?;
    let known = one(&client, &args.name).await.map_err(|error| error.report(terminal))?;
    let master = meant(&known, &args.to).map_err(|(what, todo)| {
        terminal.fail(&what, &todo);
        Exit::NotMet
    })?;
    operate(&client, &args.name, desired(&known, &master), &args.how, terminal).await
}

/// The instance that a name means: an instance's own, or that of the node which has just one.
fn meant(known: &Topology, to: &str) -> Result<String, (String, String)> {
    if known.instances.iter().any(|instance| instance.key == to) {
        return Ok(to.to_owned());
    }
    let slug = Label::slug(to);
    let is_on = |node: &str| node == to || slug.is_some() && Label::slug(node) == slug;
    let there: Vec<&Instance> = known.instances.iter().filter(|instance| is_on(&instance.node)).collect();
    let keys = |all: &[&Instance]| all.iter().map(|instance| instance.key.clone()).collect::<Vec<_>>().join(" or ");
    match there.as_slice() {
        [one] => Ok(one.key.clone()),
        [] => {
            let all: Vec<&Instance> = known.instances.iter().collect();
            Err((
                format!("{to:?} is no instance of {} and no node of one", known.service),
                format!("--to {}", keys(&all)),
            ))
        }
        several => Err((format!("{to:?} has several instances"), format!("--to {}", keys(several)))),
    }
}

/// The topology in which `master` is master and all others follow.
fn desired(known: &Topology, master: &str) -> Bytes {
    let address = |key: &str| serde_json::json!({ "address": format!("{key}.{}", known.service) });
    let slaves = known.instances.iter().filter(|instance| instance.key != master);
    let slaves: Vec<_> = slaves.map(|instance| address(&instance.key)).collect();
    serde_json::json!({ "master": address(master), "slaves": slaves }).to_string().into()
}

async fn operate(client: &Client, name: &str, desired: Bytes, how: &HowArgs, terminal: &mut Terminal) -> Done {
    let path =
        format!("/v1/topology/{}?dry_run={}&force={}", escaped(name), u8::from(how.dry_run), u8::from(how.force));
    let mut asked = std::pin::pin!(client.change(Method::PUT, &path, desired));
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = String::new();
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut asked => break answer,
            // Dropped half way, a look is made again.
            _ = looks.tick(), if !how.dry_run => {
                let look = one(client, name);
                tokio::select! {
                    biased;
                    answer = &mut asked => break answer,
                    found = look => tell_phase(found.ok(), &mut shown, terminal),
                }
            }
        }
    };
    tell(answer, how.ask.output, terminal)
}

/// Tells each phase once.
fn tell_phase(found: Option<Topology>, shown: &mut String, terminal: &mut Terminal) {
    if let Some(phase) = found.and_then(|found| found.phase).filter(|phase| phase != shown) {
        terminal.note(&phase);
        *shown = phase;
    }
}

async fn pause(args: PauseArgs, pause: bool, terminal: &mut Terminal) -> Done {
    let client = client(&args.ask, terminal)?;
    let method = if pause { Method::POST } else { Method::DELETE };
    let answer = client.change(method, &format!("/v1/topology/{}/pause", escaped(&args.name)), Bytes::new()).await;
    tell(answer, args.ask.output, terminal)
}

fn client(args: &AskArgs, terminal: &mut Terminal) -> Result<Client, Exit> {
    let token = token::read(args.http_token_file.as_deref(), terminal)?;
    Ok(args.agent.client_from_env().with_token(token))
}

/// Tells what came of a change.
fn tell(answer: Result<Answer, ClientError>, form: Option<JsonOutput>, terminal: &mut Terminal) -> Done {
    let answer = answer.map_err(|error| error.report(terminal))?;
    let exit = if answer.error.is_some() { Exit::NotMet } else { Exit::Done };
    if form.is_some() {
        terminal.print(&output::json(&answer));
        return Ok(exit);
    }
    if let Some(error) = &answer.error {
        terminal.fail(error, answer.hint.as_deref().unwrap_or_default());
        return Ok(exit);
    }
    let result = answer.result.as_deref().unwrap_or("done");
    let text = match (&answer.plan, answer.gap_ms) {
        (Some(plan), _) => format!("would be done: {}", plain(plan)),
        (None, Some(gap)) => format!("{}: no write was taken for {gap} ms", plain(result)),
        (None, None) => plain(result).into_owned(),
    };
    terminal.print(&format!("{text}\n"));
    Ok(exit)
}

/// The topologies in words.
pub fn words(all: &[Topology], terminal: &Terminal, now: SystemTime) -> String {
    if all.is_empty() {
        return "no [[topology]] table: this agent steers nothing\n".to_owned();
    }
    let told: Vec<String> = all.iter().map(|topology| topology_words(topology, terminal, now)).collect();
    told.join("\n")
}

fn topology_words(topology: &Topology, terminal: &Terminal, now: SystemTime) -> String {
    let mut text = terminal.paint(&plain(&topology.service), Tone::Strong);
    match &topology.applied {
        Some(applied) => {
            let (master, since) = (plain(&applied.master).into_owned(), age(&applied.since, now));
            text.push_str(&format!("  master {master} for {since}, epoch {}\n", applied.epoch));
        }
        None => text.push_str("  no topology was applied yet\n"),
    }
    for (line, tone) in remarks(topology, now) {
        text.push_str(&format!("  {}\n", terminal.paint(&plain(&line), tone)));
    }
    let mut table = Table::new(&["INSTANCE", "NODE", "ADDRESS", "ROLE", "FOLLOWS", "LINK", "OFFSET", "KEYS"]);
    for instance in &topology.instances {
        table.row(row(instance));
    }
    if table.is_empty() {
        text.push_str("  no instance is known\n");
    } else {
        text.push_str(&table.render(terminal));
    }
    for instance in &topology.instances {
        if let Some(why) = &instance.why {
            let line = format!("{}: {}", plain(&instance.key), plain(why));
            text.push_str(&format!("{}\n", terminal.paint(&line, Tone::Warning)));
        }
    }
    text
}

fn remarks(topology: &Topology, now: SystemTime) -> Vec<(String, Tone)> {
    let mut remarks = Vec::new();
    if topology.stale {
        remarks.push(("stale: the store is away or not read yet".to_owned(), Tone::Warning));
    }
    if let Some(paused) = &topology.paused {
        let age = age(&paused.since, now);
        remarks
            .push((format!("paused on {} for {age}: nothing is done until it is resumed", paused.by), Tone::Warning));
    }
    if let Some(phase) = &topology.phase {
        remarks.push((format!("under way: {phase}"), Tone::Warning));
    }
    if topology.pending {
        remarks.push(("pending: another topology is desired than was applied".to_owned(), Tone::Warning));
    }
    if let Some(last) = &topology.last {
        let why = if last.why.is_empty() { String::new() } else { format!(" ({})", last.why) };
        let gap = last.gap_ms.map(|gap| format!(", gap {gap} ms")).unwrap_or_default();
        let ago = age(&last.at, now);
        let tone = if last.why.is_empty() { Tone::Normal } else { Tone::Warning };
        remarks.push((format!("last: {}{why}{gap}, {ago} ago", last.result), tone));
    }
    remarks
}

fn row(instance: &Instance) -> Vec<Cell> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let link = text(&instance.link);
    let tone = if link == "down" { Tone::Bad } else { Tone::Normal };
    vec![
        instance.key.as_str().into(),
        instance.node.as_str().into(),
        place(&instance.host, instance.port).into(),
        text(&instance.role).into(),
        text(&instance.follows).into(),
        Cell::toned(link, tone),
        number(instance.offset).into(),
        number(instance.keys).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Topology {
        let instance = |key: &str, node: &str| Instance {
            key: key.to_owned(),
            node: node.to_owned(),
            host: "10.0.0.1".to_owned(),
            port: 6379,
            ..Instance::default()
        };
        let instances = vec![instance("a", "core-01"), instance("b-1", "Core 02"), instance("b-2", "Core 02")];
        Topology { service: "redis-1".to_owned(), instances, ..Topology::default() }
    }

    #[test]
    fn a_switch_goes_to_an_instance_or_to_a_node_that_has_one() {
        for (to, expected) in [("a", Ok("a")), ("core-01", Ok("a")), ("b-2", Ok("b-2"))] {
            assert_eq!(meant(&known(), to), expected.map(str::to_owned), "{to}");
        }
        assert_eq!(meant(&known(), "core-02").expect_err("two").1, "--to b-1 or b-2");
        assert_eq!(meant(&known(), "core-09").expect_err("none").1, "--to a or b-1 or b-2");
        let text = String::from_utf8(desired(&known(), "a").to_vec()).expect("text");
        assert_eq!(
            text,
            r#"{"master":{"address":"a.redis-1"},"slaves":[{"address":"b-1.redis-1"},{"address":"b-2.redis-1"}]}"#
        );
    }

    #[test]
    fn a_topology_is_told_with_what_is_not_as_it_should_be() {
        let terminal = Terminal::new(Box::new(std::io::sink()), Box::new(std::io::sink()), false);
        let mut topology = known();
        topology.pending = true;
        topology.instances[0].why = Some("it cannot be reached: no answer\u{1b}[2J".to_owned());
        let text = words(&[topology], &terminal, SystemTime::UNIX_EPOCH);
        for part in ["redis-1  no topology was applied yet", "pending", "10.0.0.1:6379", "a: it cannot be reached"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(words(&[], &terminal, SystemTime::UNIX_EPOCH).contains("no [[topology]] table"));
    }
}
