//! `wharf wait NAME`: blocks until so many endpoints are ready.
//!
//! Whatever cannot be trusted is "not yet": an agent that does not answer, a catalog that is stale, an endpoint that is
//! only held. The decision is [`Goal::look`], without a clock or a socket.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::client::ClientError;
use super::exit::Exit;
use super::output::Output;
use super::services::render;
use super::source::{Source, SourceArgs};
use super::terminal::Terminal;
use crate::catalog::facade::api::{Service, Services};
use crate::model::words::record::{Role, Text};

/// Wait until a service has enough endpoints, then print them
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  enough are ready\n  1  they were not at the deadline\n  2  wrong use\n  3  at the \
                  deadline no agent answered, or what it knew was stale"
)]
pub struct WaitArgs {
    /// Service to wait for; the name is exact
    pub name: String,

    /// How many endpoints must be ready
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,

    /// Count endpoints of this role only: primary or replica
    #[arg(short, long, value_name = "ROLE", value_parser = role)]
    pub role: Option<Role>,

    /// How long the same endpoints must have been there without a break
    #[arg(short, long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub stable: Duration,

    /// How long to wait at most [default: no limit]
    #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,

    /// How to print them
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,

    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub source: SourceArgs,
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "role is primary or replica".to_owned())
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// The service.
    pub name: String,
    /// How many endpoints.
    pub count: usize,
    /// Of which role, when only those count.
    pub role: Option<Role>,
}

/// What one look at the services says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The endpoints that count, as the service would be if it had no others.
    pub service: Service,
    /// It is as wanted.
    pub met: bool,
    /// It cannot be trusted.
    pub stale: bool,
}

impl Goal {
    /// Judges what is known: of this service alone, whose name may be spelt otherwise than it was asked for.
    pub fn look(&self, known: &Services) -> Look {
        let found = known.services.first();
        let mut service =
            found.cloned().unwrap_or_else(|| Service { name: self.name.as_str().into(), ..Service::default() });
        let counts = |role: Option<Role>| self.role.is_none_or(|wanted| role == Some(wanted));
        service.endpoints.retain(|endpoint| counts(endpoint.record.role) && !endpoint.held);
        // DNS names no primary while several claim to be it.
        let contested = service.contested && self.role == Some(Role::Primary);
        let met = !known.stale && !contested && service.endpoints.len() >= self.count;
        Look { service, met, stale: known.stale }
    }

    /// How far it is, in words.
    fn progress(&self, look: &Look) -> String {
        let role = self.role.map(|role| format!(" {role}")).unwrap_or_default();
        let mut text =
            format!("waiting for {}: {} of {}{role} ready", self.name, look.service.endpoints.len(), self.count);
        if look.stale {
            text.push_str(", but the catalog is stale");
        } else if look.service.contested && self.role == Some(Role::Primary) {
            text.push_str(", but several claim to be the primary");
        }
        text
    }
}

/// Runs the command.
pub async fn run(args: WaitArgs, terminal: &mut Terminal) -> Exit {
    let source = match args.source.source(terminal) {
        Ok(source) => source,
        Err(exit) => return exit,
    };
    wait(source, &args, terminal).await
}

/// Where the waiting stands.
struct Waiting {
    /// What is known, or why nothing is.
    look: Option<Result<Look, ClientError>>,
    /// Since when the goal has been met by the same endpoints.
    since: Option<Instant>,
    same: BTreeSet<Text>,
    noted: String,
}

async fn wait(source: Source, args: &WaitArgs, terminal: &mut Terminal) -> Exit {
    let goal = Goal { name: args.name.clone(), count: args.count as usize, role: args.role };
    let deadline = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let place = source.place();
    let mut follow = source.follow(Some(args.name.clone()));
    let mut waiting = Waiting { look: None, since: None, same: BTreeSet::new(), noted: String::new() };
    loop {
        let settled = waiting.since.and_then(|since| since.checked_add(args.stable));
        if settled.is_some_and(|settled| settled <= Instant::now()) {
            return finish(&waiting, args, terminal);
        }
        tokio::select! {
            biased;
            told = follow.next() => waiting.take(told.map(|known| goal.look(&known))),
            () = at(settled) => continue,
            () = at(deadline) => return give_up(&goal, &waiting, &place, args, terminal),
        }
        waiting.note(&goal, args, terminal);
    }
}

impl Waiting {
    fn take(&mut self, look: Result<Look, ClientError>) {
        let keys: BTreeSet<Text> = match &look {
            Ok(look) if look.met => look.service.endpoints.iter().map(|endpoint| endpoint.key.clone()).collect(),
            _ => BTreeSet::new(),
        };
        if keys.is_empty() {
            self.since = None;
        } else if self.since.is_none() || keys != self.same {
            self.since = Some(Instant::now());
        }
        self.same = keys;
        self.look = Some(look);
    }

    /// Says how far it is, when that has changed.
    fn note(&mut self, goal: &Goal, args: &WaitArgs, terminal: &mut Terminal) {
        let text = match &self.look {
            None => return,
            Some(Err(error)) => format!("waiting for {}: {error}", goal.name),
            Some(Ok(look)) if look.met && args.stable.is_zero() => return,
            Some(Ok(look)) if look.met => format!("{}, waiting for it to be stable", goal.progress(look)),
            Some(Ok(look)) => goal.progress(look),
        };
        if !args.quiet && text != self.noted {
            terminal.note(&text);
            self.noted = text;
        }
    }
}

fn finish(waiting: &Waiting, args: &WaitArgs, terminal: &mut Terminal) -> Exit {
    let Some(Ok(look)) = &waiting.look else { return Exit::Unreachable };
    let found = Services { services: vec![look.service.clone()], ..Services::default() };
    let text = render(&found, true, args.output, terminal, SystemTime::now());
    terminal.print(&text);
    Exit::Done
}

fn give_up(goal: &Goal, waiting: &Waiting, place: &str, args: &WaitArgs, terminal: &mut Terminal) -> Exit {
    let waited = humantime::format_duration(args.timeout.unwrap_or_default());
    match &waiting.look {
        Some(Ok(look)) if !look.stale => {
            terminal.fail(
                &format!("{} (gave up after {waited})", goal.progress(look)),
                "`wharf explain` on the hosts that run it, `wharf nodes` for what is down where",
            );
            Exit::NotMet
        }
        Some(Ok(look)) => {
            terminal.fail(&format!("{} (gave up after {waited})", goal.progress(look)), "see whether etcd answers");
            Exit::Unreachable
        }
        Some(Err(error)) => {
            error.report(terminal);
            Exit::Unreachable
        }
        None => {
            terminal.fail(
                &format!("no answer from {place} within {waited}"),
                "start it with `wharf agent`, or name another one by --http ADDR",
            );
            Exit::Unreachable
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::facade::api::Endpoint;
    use crate::model::words::record::Record;

    fn services(endpoints: &[(&str, bool)], stale: bool, contested: bool) -> Services {
        let endpoint = |(role, held): &(&str, bool)| Endpoint {
            record: Record { role: Role::parse(role), ..Record::default() },
            held: *held,
            ..Endpoint::default()
        };
        let endpoints = endpoints.iter().map(endpoint).collect();
        let service = Service { name: "redis".into(), contested, endpoints, ..Service::default() };
        Services { revision: 1, stale, services: vec![service] }
    }

    fn met(name: &str, count: usize, role: &str, known: &Services) -> bool {
        Goal { name: name.into(), count, role: Role::parse(role) }.look(known).met
    }

    #[test]
    fn what_counts_is_ready_known_for_sure_and_of_the_role() {
        let two = services(&[("primary", false), ("replica", false)], false, false);
        for (name, count, role, expected) in [
            ("redis", 1, "", true),
            ("redis", 2, "", true),
            ("redis", 3, "", false),
            ("redis", 1, "primary", true),
            ("redis", 2, "primary", false),
            ("redis", 1, "replica", true),
        ] {
            assert_eq!(met(name, count, role, &two), expected, "{name} {count} {role}");
        }
        assert!(met("Redis.", 1, "", &two), "names are spelt as people like");
        assert!(!met("redis", 1, "", &Services::default()), "what is not there is not yet");
        assert!(!met("redis", 1, "", &services(&[("", false)], true, false)), "stale is not yet");
        assert!(!met("redis", 2, "", &services(&[("", false), ("", true)], false, false)), "held is not yet");
        let contested = services(&[("primary", false), ("primary", false)], false, true);
        assert!(!met("redis", 1, "primary", &contested), "DNS would name none");
        assert!(met("redis", 2, "", &contested));
    }
}
