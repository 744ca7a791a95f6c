//! `wharf lock`: how it is asked for, what is told of a lock, and a person's word that a program is dead.
//!
//! What runs a program is [`crate::lock`]; `app` brings the two together.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use super::age::short;
use super::etcd::{EtcdArgs, Reached, trouble};
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::terminal::{Terminal, Tone};
use crate::model::steer::lock::certificate::Certificate;
use crate::model::steer::lock::hold::{LONGEST, SHORTEST};
use crate::model::steer::lock::queue::{Keys, LockName, Place, in_order};
use crate::model::steer::lock::told::{Holder, Status};
use crate::model::words::plain::plain;
use crate::store::{Condition, Revision, Store, StoreError, Write, lease_as_told};

const CODES: &str = "EXIT CODES:
  the program's own, 128 and more by a signal
  124  not won within --wait
  125  the lock was lost, or etcd cannot be reached
  126  the program cannot be executed
  127  the program does not exist
  With --status and --clear: 0 shown or done, 1 the lock is free, or refused, 2 wrong use, 3 etcd does not answer";

/// Run a program on one host of the cluster at a time; the others wait for it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct LockArgs {
    /// Lock to have, by a name
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    pub name: Option<String>,

    /// Key to hold instead, which is there while the program runs
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,

    /// Value of that key [default: the node's name]
    #[arg(long, requires = "key", value_name = "VALUE")]
    pub value: Option<String>,

    /// The lock is lost when etcd has not answered for this long
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = ttl)]
    pub ttl: Duration,

    /// How long before its end the program gets TERM [default: a third of the TTL]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub grace: Option<Duration>,

    /// How long to wait for the lock [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait: Option<Duration>,

    /// Start only when the last program is known to be dead, never because its time is over
    #[arg(long)]
    pub strict: bool,

    /// Show which host has the lock and which wait for it, and run nothing
    #[arg(long, conflicts_with_all = ["clear", "command"])]
    pub status: bool,

    /// Confirm that the last program is dead, so that the next one starts
    #[arg(long, conflicts_with = "command")]
    pub clear: bool,

    /// Show it as JSON
    #[arg(short, long, value_enum, requires = "status")]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub etcd: EtcdArgs,

    /// Program to run, and its arguments
    #[arg(last = true, required_unless_present_any = ["status", "clear"])]
    pub command: Vec<String>,
}

/// What the guardian holds: `wharf lock` starts it.
#[derive(Clone, Debug, clap::Args)]
pub struct GuardianArgs {
    /// Program to run, and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// A process that becomes the program: the guardian starts it.
#[derive(Clone, Debug, clap::Args)]
pub struct HeldArgs {
    /// The guardian
    pub parent: i32,

    /// Program to run, and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|_| format!("{text:?} is no time such as 15s"))?;
    let fits = (SHORTEST..=LONGEST).contains(&ttl);
    fits.then_some(ttl).ok_or_else(|| format!("{text} is not between 2s and 1day"))
}

impl LockArgs {
    /// The lock that is meant.
    pub fn lock(&self) -> Result<LockName, String> {
        match (&self.key, &self.name) {
            (Some(key), _) if !key.starts_with('/') => {
                Err(format!("{key:?} is no key such as /services/postgres/master"))
            }
            (Some(text), _) | (None, Some(text)) => LockName::parse(text),
            (None, None) => Err("no lock is named".to_owned()),
        }
    }
}

/// Shows a lock, or clears its certificate.
pub async fn run(args: &LockArgs, name: &LockName, reached: &Reached, terminal: &mut Terminal) -> Exit {
    let lock = Lock { reached, name, keys: Keys::new(&reached.prefix, name) };
    let done = if args.clear { lock.clear(terminal).await } else { lock.show(args.output.is_some(), terminal).await };
    done.unwrap_or_else(|error| trouble(&error, terminal))
}

struct Lock<'l> {
    reached: &'l Reached,
    name: &'l LockName,
    keys: Keys,
}

impl Lock<'_> {
    async fn line(&self) -> Result<Vec<Place>, StoreError> {
        let (places, _) = self.reached.store.queue(&self.keys.queue).await?;
        Ok(in_order(&self.keys, places))
    }

    async fn certificate(&self) -> Result<Option<(Certificate, Revision)>, StoreError> {
        let page = self.reached.store.get(std::slice::from_ref(&self.keys.child)).await?;
        Ok(page.items.first().map(|item| (Certificate::decode(&item.value), item.revision)))
    }

    async fn show(&self, as_json: bool, terminal: &mut Terminal) -> Result<Exit, StoreError> {
        let line = self.line().await?;
        let left = match line.first().filter(|head| head.lease != 0) {
            None => None,
            Some(head) => lease_as_told(&self.reached.store, head.lease).await.ok().map(|(info, _)| info.left),
        };
        let left = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let certificate = self.certificate().await?.map(|(certificate, _)| certificate);
        let status = Status::new(self.name.as_str(), &line, certificate, left);
        terminal.print(&if as_json { output::json(&status) } else { in_words(&status, terminal) });
        Ok(if status.is_free() { Exit::NotMet } else { Exit::Done })
    }

    /// Whoever is in the queue under that token may run at this moment: he is not cleared.
    async fn clear(&self, terminal: &mut Terminal) -> Result<Exit, StoreError> {
        let Some((certificate, revision)) = self.certificate().await? else {
            terminal.fail("no program is left that anybody would wait for", "wharf lock --status");
            return Ok(Exit::NotMet);
        };
        if self.line().await?.iter().any(|place| place.created == certificate.token) {
            terminal.fail("its holder lives, and may run it now", "stop it there, or wait until its lease has ended");
            return Ok(Exit::NotMet);
        }
        let child = self.keys.child.clone();
        let unchanged = [Condition::Unchanged(child.clone(), revision)];
        let done = self.reached.store.commit(&unchanged, &[Write::Delete(child)]).await?;
        if matches!(done, crate::store::Commit::Refused(_)) {
            terminal.fail("it changed just now", "wharf lock --status, and again");
            return Ok(Exit::NotMet);
        }
        terminal.print(&format!("cleared: the program that {} started is taken for dead\n", certificate.node));
        Ok(Exit::Done)
    }
}

fn in_words(status: &Status, terminal: &Terminal) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut text = format!("{}: ", terminal.paint(&status.name, Tone::Strong));
    match &status.holder {
        Some(holder) => text.push_str(&held(holder, now)),
        None => text.push_str("nobody has it"),
    }
    text.push('\n');
    if let Some(left) = &status.certificate {
        let whose = called(&left.node, "somebody");
        let age = short(Duration::from_secs(now.saturating_sub(left.since)));
        text.push_str(&format!(
            "a program that {whose} started {age} ago is not known to be dead (token {})\n",
            left.token
        ));
    }
    for (place, waiting) in status.waiting.iter().enumerate() {
        let node = called(&waiting.node, "somebody");
        let age = short(Duration::from_secs(now.saturating_sub(waiting.since)));
        text.push_str(&format!("{:>3}. {node}, for {age}\n", place + 1));
    }
    text
}

/// A host by its name, whoever wrote that.
fn called<'n>(node: &'n str, nobody: &'n str) -> Cow<'n, str> {
    if node.is_empty() { Cow::Borrowed(nobody) } else { plain(node) }
}

fn held(holder: &Holder, now: u64) -> String {
    let node = called(&holder.node, "somebody who is not wharf");
    let left = holder.left.map(|left| format!(", lease {}s", left / 1000)).unwrap_or_default();
    match holder.since {
        Some(since) => {
            let age = short(Duration::from_secs(now.saturating_sub(since)));
            format!("{node} has it for {age} (token {}{left})", holder.token)
        }
        None => format!("{node} is next, and nothing of it runs yet (token {}{left})", holder.token),
    }
}
