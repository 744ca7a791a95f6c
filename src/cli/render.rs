//! `wharf render`: the files that follow the cluster. Only the shape of the command, and the list, are here; what
//! renders is the business of [`crate::app`].

use std::path::PathBuf;
use std::time::SystemTime;

use super::age::age;
use super::client::Client;
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::source::SourceArgs;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::catalog::render::told::{Render, Renders};
use crate::config::Raw;

/// Show the files that follow the cluster, or make them: once, or for as long as it runs
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  shown; equal or written\n  1  no such file is shown; a check or a reload failed, or (dry run) a file would change\n  2  wrong use: the template or the table is wrong\n  3  no agent and no store answers, what is known is stale, or there are fewer endpoints than `min`"
)]
pub struct RenderArgs {
    /// This table only
    pub name: Option<String>,

    /// Make the files now, as far as they would change
    #[arg(long)]
    pub once: bool,

    /// Make them whenever what they depend on has changed
    #[arg(long, conflicts_with_all = ["once", "name"])]
    pub follow: bool,

    /// Write nothing, run nothing: only say what would change
    #[arg(long, requires = "once")]
    pub dry_run: bool,

    /// Show what changes in each file
    #[arg(long, requires = "once")]
    pub diff: bool,

    /// File with the `[[render]]` tables, as TOML: the agent's own
    #[arg(long, env = "WHARF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Show the list as JSON
    #[arg(short, long, value_enum, conflicts_with_all = ["once", "follow"])]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub from: SourceArgs,
}

impl RenderArgs {
    /// The settings that were given as flags; where the store is asked without an agent, those of its own.
    pub fn settings(&self, mut from_environment: Raw) -> Raw {
        let store = &self.from.store;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let raw = &mut from_environment;
        if !store.etcd_endpoints.is_empty() {
            (raw.store, raw.etcd_endpoints) = (None, Some(store.etcd_endpoints.clone()));
            raw.etcd_ca = path(&store.etcd_ca).or(raw.etcd_ca.take());
            raw.etcd_cert = path(&store.etcd_cert).or(raw.etcd_cert.take());
            raw.etcd_key = path(&store.etcd_key).or(raw.etcd_key.take());
            raw.etcd_user = store.etcd_user.clone().or(raw.etcd_user.take());
            raw.etcd_password_file = path(&store.etcd_password_file).or(raw.etcd_password_file.take());
        }
        // The flags' own defaults say nothing: the file may say otherwise.
        if store.prefix != "/services" {
            raw.prefix = Some(store.prefix.clone());
        }
        if store.domain != "services.internal" {
            raw.domain = Some(store.domain.clone());
        }
        if !store.zone.is_empty() {
            raw.zone = Some(store.zone.clone());
        }
        from_environment
    }
}

/// Shows the list that the agent has.
pub async fn list(args: &RenderArgs, agent: &Client, terminal: &mut Terminal) -> Exit {
    let mut told: Renders = match agent.get("/v1/renders").await {
        Ok(told) => told,
        Err(error) => return error.report(terminal),
    };
    if let Some(name) = &args.name {
        told.renders.retain(|render| *render.name == **name);
        if told.renders.is_empty() {
            terminal.fail(&format!("no file {name:?} is rendered on this host"), "wharf render lists all");
            return Exit::NotMet;
        }
    }
    let text = match args.output {
        Some(JsonOutput::Json) => output::json(&told),
        None => shown(&told, args.name.is_some(), terminal),
    };
    terminal.print(&text);
    Exit::Done
}

fn shown(told: &Renders, is_one: bool, terminal: &Terminal) -> String {
    if told.renders.is_empty() {
        return "no file is rendered on this host: `wharf render --follow` renders those of [[render]] tables\n"
            .to_owned();
    }
    let mut table = Table::new(&["NAME", "FILE", "STATE", "CHANGED", "WRITES", "RELOADS", "REASON"]);
    for render in &told.renders {
        table.row(row(render));
    }
    let mut text = table.render(terminal);
    if let [render] = &told.renders[..]
        && is_one
    {
        text.push_str(&details(render));
    }
    text
}

fn row(render: &Render) -> Vec<Cell> {
    let tone = match &*render.state {
        "current" if !render.reload_owed => Tone::Good,
        "current" | "starting" | "waiting" => Tone::Warning,
        _ => Tone::Bad,
    };
    let changed = render.changed.as_deref().map(|since| format!("{} ago", age(since, SystemTime::now())));
    let owed = if render.reload_owed { "reload owed" } else { "" };
    vec![
        (&*render.name).into(),
        (&*render.destination).into(),
        Cell::toned(&render.state, tone),
        changed.unwrap_or_default().into(),
        render.writes.to_string().into(),
        render.reloads.to_string().into(),
        render.reason.as_deref().unwrap_or(owed).into(),
    ]
}

fn details(render: &Render) -> String {
    let needs = if render.needs.is_empty() { "nothing".to_owned() } else { render.needs.join(", ") };
    format!(
        "\nmade from   {}\ndepends on  {needs}\nrefusals    {}\nfailed reloads  {}\n",
        render.template, render.refusals, render.failures
    )
}
