//! `wharf render --once`: every file made now, or (dry run) what would change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::renders::{agent, agent_args, blank, environment, tables};
use super::{settings, sight, translate};
use crate::catalog::render::{Fault, Sight, Source, difference};
use crate::cli::client::ClientError;
use crate::cli::direct::Direct;
use crate::cli::exit::Exit;
use crate::cli::render::RenderArgs;
use crate::cli::source::Source as From;
use crate::cli::terminal::Terminal;
use crate::config::Config;
use crate::model::publish::memory::Resumed;
use crate::render::{Asked, End, Table, load, make, pass, recover, there};
use crate::store::Store;

/// Templates may name keys by what other keys say: so often they are asked for what they call.
const ROUNDS: usize = 8;

/// A table with its template.
struct Wanted {
    table: Table,
    source: Result<Source, String>,
}

/// Runs the command.
pub(super) async fn once(args: &RenderArgs, terminal: &mut Terminal) -> Exit {
    let config = match settings::join(&agent_args(args)) {
        Ok(config) => config,
        Err(problems) => {
            terminal.fail(&problems.to_string(), "see docs/render.md");
            return Exit::Usage;
        }
    };
    let is_wanted = |table: &Table| args.name.as_ref().is_none_or(|name| *name == table.name);
    let wanted = tables(&config).into_iter().filter(is_wanted);
    let wanted: Vec<Wanted> = wanted.map(|table| Wanted { source: table.source(), table }).collect();
    if wanted.is_empty() {
        let what = match &args.name {
            Some(name) => format!("no [[render]] table is called {name:?}"),
            None => "there is no [[render]] table".to_owned(),
        };
        terminal.fail(&what, "name the file with the tables by --config FILE");
        return Exit::Usage;
    }
    let sight = match seen(args, &config, &wanted).await {
        Ok(sight) => sight,
        Err(error) => {
            error.report(terminal);
            return Exit::Unreachable;
        }
    };
    let mut work = Once { args, sight: &sight, environment: environment(), terminal, worst: Exit::Done };
    if args.dry_run {
        work.compare(&wanted);
    } else {
        work.write(&wanted);
    }
    work.worst
}

/// All that the templates call.
async fn seen(args: &RenderArgs, config: &Config, wanted: &[Wanted]) -> Result<Sight, ClientError> {
    let store = config.store.etcd.is_some().then(|| translate::store(config, &Resumed::default(), false));
    let from = match (agent(args, config), &store) {
        (None, Some(store)) => {
            let zones = Arc::new(translate::zones(config).map_err(|error| away("the settings", &error))?);
            let place = format!("etcd at {}", args.from.store.etcd_endpoints.join(", "));
            From::Store(Direct::of(Arc::clone(store), config.store.prefix.clone(), zones, place))
        }
        (Some(agent), _) => From::Agent(agent),
        (None, None) => From::Agent(args.from.agent.client_from_env()),
    };
    let mut sight = blank(config);
    sight.snapshot(from.services(None).await?);
    sight.nodes = Some(Arc::new(from.nodes().await?.nodes));
    let environment = environment();
    let mut known = Asked::default();
    for _ in 0..ROUNDS {
        let mut asked = Asked::default();
        for (table, source) in wanted.iter().filter_map(|wanted| Some((&wanted.table, wanted.source.as_ref().ok()?))) {
            asked.add(make(table, source, &sight, &environment).needs.iter());
        }
        if asked == known {
            break;
        }
        if let Some(store) = &store {
            ask_store(&**store, config, &asked, &mut sight).await?;
        }
        ask_discovery(&asked, &known, &mut sight).await;
        known = asked;
    }
    Ok(sight)
}

async fn ask_store(store: &dyn Store, config: &Config, asked: &Asked, sight: &mut Sight) -> Result<(), ClientError> {
    if asked.keys.is_empty() && asked.members.is_empty() {
        return Ok(());
    }
    let read = sight::read(store, &config.store.prefix, asked).await.map_err(|error| away("etcd", &error))?;
    (sight.keys, sight.members) = (Arc::new(read.0), Arc::new(read.1));
    Ok(())
}

async fn ask_discovery(asked: &Asked, known: &Asked, sight: &mut Sight) {
    for from in asked.discovered.difference(&known.discovered) {
        match sight::servers(from).await {
            Ok(servers) => {
                let servers = crate::catalog::render::Seen::Known(servers);
                Arc::make_mut(&mut sight.discovered).insert(from.clone(), servers);
            }
            Err(why) => tracing::error!(from, why, "an endpoint of auto-discovery does not tell its servers"),
        }
    }
}

fn away(tried: &str, error: &dyn std::error::Error) -> ClientError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    ClientError::Unreachable { tried: tried.to_owned(), why: format!("{error}{cause}") }
}

/// The command at work.
struct Once<'a> {
    args: &'a RenderArgs,
    sight: &'a Sight,
    environment: BTreeMap<String, String>,
    terminal: &'a mut Terminal,
    worst: Exit,
}

impl Once<'_> {
    /// Tells what would change.
    fn compare(&mut self, wanted: &[Wanted]) {
        for Wanted { table, source } in wanted {
            let text = match self.text(table, source.as_ref()) {
                Ok(text) => text,
                Err((exit, what)) => {
                    self.fails(table, exit, &what);
                    continue;
                }
            };
            match there(table) {
                Ok(now) if now.as_deref() == Some(text.as_bytes()) => self.says(table, "is as it should be"),
                Ok(now) => {
                    self.says(table, "would change");
                    self.shows(table, now.as_deref(), &text);
                    self.ends(Exit::NotMet);
                }
                Err(error) => self.fails(table, Exit::NotMet, &error.to_string()),
            }
        }
    }

    /// What a table's file should be; else how that ends, and why.
    fn text(&self, table: &Table, source: Result<&Source, &String>) -> Result<String, (Exit, String)> {
        let source = source.map_err(|what| (Exit::Usage, what.clone()))?;
        let made = make(table, source, self.sight, &self.environment);
        let is_new = !there(table).is_ok_and(|there| there.is_some());
        match (made.text, made.held) {
            (_, Some(held)) if !(is_new && held.has_something()) => Err((Exit::Unreachable, held.to_string())),
            (Err(Fault::Unread), _) => Err((Exit::Unreachable, "what it calls cannot be read".to_owned())),
            (Err(Fault::Wrong(what)), _) => Err((Exit::Usage, what)),
            (Ok(text), _) => Ok(text),
        }
    }

    /// Makes the files, and has them loaded.
    fn write(&mut self, wanted: &[Wanted]) {
        let mut owed: Vec<(&Table, String)> = Vec::new();
        for Wanted { table, source } in wanted {
            if let Err(error) = recover(table) {
                self.fails(table, Exit::NotMet, &error.to_string());
                continue;
            }
            let before = if self.args.diff { there(table).ok().flatten() } else { None };
            let pass = pass(table, source.as_ref().map_err(String::as_str), self.sight, &self.environment);
            owed.extend(pass.owed.map(|digest| (table, digest)));
            match pass.end {
                End::Same => self.says(table, "is as it should be"),
                End::Written => {
                    self.says(table, "written");
                    let after = there(table).ok().flatten().unwrap_or_default();
                    self.shows(table, before.as_deref(), &String::from_utf8_lossy(&after));
                    if let Some(held) = pass.held {
                        self.fails(table, Exit::Unreachable, &held.to_string());
                    }
                }
                End::Waits(why) => self.fails(table, Exit::Unreachable, &why),
                End::Wrong(what) => self.fails(table, Exit::Usage, &what),
                End::Refused(what) => self.fails(table, Exit::NotMet, &format!("check: {what}; the old file stays")),
                End::Failed(what) => self.fails(table, Exit::NotMet, &what),
            }
        }
        self.load(owed);
    }

    /// Equal commands are run once.
    fn load(&mut self, mut owed: Vec<(&Table, String)>) {
        while let Some((first, _)) = owed.first() {
            let argv = first.reload.clone();
            let (group, rest): (Vec<_>, Vec<_>) = owed.into_iter().partition(|(table, _)| table.reload == argv);
            owed = rest;
            let timeout = group.iter().map(|(table, _)| table.timeout).max().unwrap_or(Duration::ZERO);
            if let Err(what) = load(&argv, timeout, &group) {
                for (table, _) in group {
                    self.fails(table, Exit::NotMet, &format!("reload: {what}"));
                }
            }
        }
    }

    fn says(&mut self, table: &Table, what: &str) {
        self.terminal.print(&format!("{}: {} {what}\n", table.name, table.destination.display()));
    }

    fn shows(&mut self, table: &Table, before: Option<&[u8]>, after: &str) {
        if self.args.diff {
            let before = String::from_utf8_lossy(before.unwrap_or_default());
            self.terminal.print(&difference(&table.destination.display().to_string(), &before, after));
        }
    }

    fn fails(&mut self, table: &Table, exit: Exit, what: &str) {
        self.terminal.fail(&format!("{}: {what}", table.name), "");
        self.ends(exit);
    }

    /// What is wrong for good comes before what may come right, and that before what went wrong now.
    fn ends(&mut self, exit: Exit) {
        let rank = |exit: Exit| match exit {
            Exit::Done => 0,
            Exit::NotMet | Exit::Taken => 1,
            Exit::Unreachable => 2,
            Exit::Usage => 3,
        };
        if rank(exit) > rank(self.worst) {
            self.worst = exit;
        }
    }
}
