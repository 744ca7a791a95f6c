//! `wharf import-skydns`: what SkyDNS keeps in etcd's v2 store is copied into the v3 store, keys and values as they
//! are.
//!
//! The tree is read whole, or in pieces where that is too much. Written is what is a record and stands in nobody's way,
//! a hundred keys at a time, each on the condition that the key is still as it was seen; a second run goes on where a
//! first one ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::etcd::{EtcdArgs, Reached, trouble};
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::table::Table;
use super::terminal::{Terminal, Tone};
use crate::model::skydns::config;
use crate::model::skydns::plan::{Group, Held, LeftOut, Sorted, Verdict, Wanted, config_key, root, sorted, verdict};
use crate::model::skydns::told::{Elsewhere, Told};
use crate::model::skydns::tree::{Asked, Leaf, Taken, Tree, Unread};
use crate::model::words::key::{MAX_LABELS, Prefix, shown};
use crate::model::words::plain::plain;
use crate::store::etcd::v2::{Answer, V2};
use crate::store::{Commit, Condition, Item, LeaseId, MAX_WRITES, Store, StoreError, Write};

/// The most requests that a tree is read with: one, and more where it is too deep or too large for one.
const MOST_REQUESTS: usize = 10_000;
/// What all answers together may have, in bytes.
const MOST_READ: usize = 1 << 30;
/// How often a commit that met other writers is tried.
const TRIES: usize = 3;
/// So many keys that are left out are named on a terminal.
const MOST_SHOWN: usize = 20;
/// A copy that would end sooner is not made.
const SHORTEST: u64 = 2;

/// Copy SkyDNS's records from etcd's v2 store into the v3 store, where wharf reads them
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "EXIT CODES:
  0  all of it is there
  1  some keys were left out; they are named
  2  wrong use
  3  etcd does not answer, or has no v2 store")]
pub struct ImportArgs {
    /// Key below which SkyDNS has its records
    #[arg(long, value_name = "KEY", default_value = "/skydns")]
    pub from: String,

    /// etcd that has the v2 store [default: --etcd-endpoints]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub v2_endpoints: Vec<String>,

    /// User to log in to the v2 store as, which has users of its own
    #[arg(long, value_name = "NAME", requires = "v2_password_file")]
    pub v2_user: Option<String>,

    /// File with that user's password
    #[arg(long, value_name = "FILE", requires = "v2_user")]
    pub v2_password_file: Option<PathBuf>,

    /// Only say what would be written
    #[arg(long)]
    pub dry_run: bool,

    /// Write over keys that have another value in the v3 store, and renew the leases of those that end
    #[arg(long)]
    pub overwrite: bool,

    /// Show it as JSON
    #[arg(short, long, value_enum)]
    pub output: Option<JsonOutput>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub etcd: EtcdArgs,
}

/// Why it ended before its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{1} at {0}")]
    Unread(String, Unread),
    #[error("{0} has no v2 store")]
    NoV2(String),
    #[error("the v2 store has no key {0}")]
    Nothing(String),
    #[error("{0} is more than is read: {1}")]
    TooMuch(String, &'static str),
}

/// Runs the command.
pub async fn run(args: &ImportArgs, from: &Prefix, v2: V2, reached: &Reached, terminal: &mut Terminal) -> Exit {
    let mut import = Import { args, from, reached, begun: Instant::now(), told: Told::default() };
    match import.run(v2).await {
        Ok(()) => import.tell(terminal),
        Err(failure) => {
            if import.told.written > 0 && !args.dry_run {
                terminal.note(&format!("{} keys were written; another run writes the rest", import.told.written));
            }
            report(&failure, terminal)
        }
    }
}

fn report(failure: &Failure, terminal: &mut Terminal) -> Exit {
    let (todo, exit) = match failure {
        Failure::Store(error) => return trouble(error, terminal),
        Failure::Unread(_, Unread::Refused { .. }) => ("--v2-user with --v2-password-file", Exit::NotMet),
        Failure::Unread(_, Unread::Strange(_)) => ("--v2-endpoints of an etcd", Exit::Unreachable),
        Failure::NoV2(_) => {
            ("start that etcd with --enable-v2, or name the one that has it by --v2-endpoints", Exit::Unreachable)
        }
        Failure::Nothing(_) => ("--from KEY, or --v2-endpoints of the etcd that SkyDNS uses", Exit::NotMet),
        Failure::Unread(_, Unread::TooMuch(_)) | Failure::TooMuch(..) => ("a part of it by --from KEY", Exit::NotMet),
    };
    terminal.fail(&failure.to_string(), todo);
    exit
}

struct Import<'a> {
    args: &'a ImportArgs,
    from: &'a Prefix,
    reached: &'a Reached,
    /// Before anything was read: what is left of a key's time is counted from here.
    begun: Instant,
    told: Told,
}

impl Import<'_> {
    async fn run(&mut self, mut v2: V2) -> Result<(), Failure> {
        self.told.from = self.from.to_string();
        self.told.dry_run = self.args.dry_run;
        let mut reader = Reader { v2: &mut v2, asked: 0, read: 0, too_deep: Vec::new() };
        let leaves = reader.tree(self.from).await?;
        let too_deep = std::mem::take(&mut reader.too_deep);
        let config = match reader.key(&config_key(self.from)).await? {
            Some(leaf) if leaf.size > leaf.value.len() => Some("too long".to_owned()),
            leaf => leaf.map(|leaf| leaf.value),
        };
        let Sorted { config: within, groups, left_out } = sorted(leaves, self.from);
        self.told.read = groups.iter().map(|group| group.wanted.len()).sum::<usize>() + left_out.len();
        left_out.into_iter().for_each(|left| self.told.leave_out(left));
        for key in too_deep {
            self.told.leave_out(LeftOut { key, reason: format!("more than {MAX_LABELS} directories deep") });
        }
        self.settings(config.or(within).as_deref(), &groups);
        for group in &groups {
            self.group(group).await?;
        }
        Ok(())
    }

    fn settings(&mut self, value: Option<&str>, groups: &[Group]) {
        let config::Told { domain, advice, unread } = config::told(value, root(self.from));
        let mut elsewhere = Elsewhere::default();
        let records = groups.iter().flat_map(|group| &group.wanted);
        records.for_each(|wanted| elsewhere.see(&wanted.key, self.from, &domain));
        if value.is_none() && !elsewhere.is_skydns() {
            return;
        }
        self.told.settings = advice;
        self.told.settings.extend(elsewhere.advice(self.from));
        self.told.notes = elsewhere.notes(&domain);
        let key = config_key(self.from);
        match (unread, value) {
            (Some(why), _) => self.told.notes.push(format!("{key} cannot be read: {why}")),
            (None, None) => self.told.notes.push(format!("there is no {key}: SkyDNS's defaults, or its own flags")),
            (None, Some(_)) => {}
        }
    }

    /// Writes the records of one lease.
    async fn group(&mut self, group: &Group) -> Result<(), Failure> {
        let mut lease = None;
        for (place, chunk) in group.wanted.chunks(MAX_WRITES).enumerate() {
            match self.chunk(chunk, group.ttl, &mut lease).await {
                Ok(true) => {}
                // The rest of them have ended meanwhile.
                Ok(false) | Err(Failure::Store(StoreError::NoLease(_))) => {
                    let rest = &group.wanted[place * MAX_WRITES..];
                    rest.iter().for_each(|wanted| self.leave(wanted, "its time is over"));
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Writes some; false when their time is over.
    async fn chunk(&mut self, chunk: &[Wanted], ttl: Option<u64>, lease: &mut Option<Lease>) -> Result<bool, Failure> {
        for _ in 0..TRIES {
            let verdicts = self.verdicts(chunk, ttl.is_some()).await?;
            let (mut conditions, mut writes) = (Vec::new(), Vec::new());
            let id = match ttl.filter(|_| verdicts.iter().any(writes_something)) {
                None => 0,
                Some(ttl) => match self.lease(ttl, lease).await? {
                    Some(id) => id,
                    None => return Ok(false),
                },
            };
            for (wanted, verdict) in chunk.iter().zip(&verdicts) {
                conditions.extend(condition(wanted, verdict));
                if writes_something(verdict) {
                    writes.push(Write::Put { key: wanted.key.clone(), value: wanted.value.clone().into(), lease: id });
                }
            }
            let is_done = writes.is_empty()
                || self.args.dry_run
                || matches!(self.reached.store.commit(&conditions, &writes).await?, Commit::Done(_));
            if is_done {
                let seconds = lease.as_ref().map(|lease| lease.seconds);
                chunk.iter().zip(verdicts).for_each(|(wanted, verdict)| self.count(wanted, verdict, seconds));
                return Ok(true);
            }
        }
        chunk.iter().for_each(|wanted| self.leave(wanted, "it, or one beside it, changed while it was written"));
        Ok(true)
    }

    async fn verdicts(&self, chunk: &[Wanted], ends: bool) -> Result<Vec<Verdict>, Failure> {
        let keys: Vec<String> = chunk.iter().map(|wanted| wanted.key.clone()).collect();
        let found = self.reached.store.get(&keys).await?.items;
        let held = |wanted: &Wanted| found.iter().find(|item| item.key == wanted.key).map(held);
        Ok(chunk.iter().map(|wanted| verdict(wanted, ends, held(wanted), self.args.overwrite)).collect())
    }

    /// The lease for what had so long left when it was read; none when that is over.
    async fn lease(&self, ttl: u64, lease: &mut Option<Lease>) -> Result<Option<LeaseId>, Failure> {
        if let Some(lease) = lease {
            return Ok(Some(lease.id));
        }
        let seconds = ttl.saturating_sub(self.begun.elapsed().as_secs() + 1);
        if seconds < SHORTEST {
            return Ok(None);
        }
        let id = match self.args.dry_run {
            true => 0,
            false => self.reached.store.grant(Duration::from_secs(seconds)).await?.0,
        };
        *lease = Some(Lease { id, seconds });
        Ok(Some(id))
    }

    fn count(&mut self, wanted: &Wanted, verdict: Verdict, lease: Option<u64>) {
        match verdict {
            Verdict::New => self.told.write(false, lease),
            Verdict::Over(_) => self.told.write(true, lease),
            Verdict::There => self.told.there += 1,
            Verdict::Other(reason) => self.leave(wanted, &reason),
        }
    }

    fn leave(&mut self, wanted: &Wanted, reason: &str) {
        self.told.leave_out(LeftOut { key: wanted.key.clone(), reason: reason.to_owned() });
    }

    fn tell(&self, terminal: &mut Terminal) -> Exit {
        let told = &self.told;
        let text = if self.args.output.is_some() { output::json(told) } else { in_words(told, terminal) };
        terminal.print(&text);
        if told.left_out > 0 { Exit::NotMet } else { Exit::Done }
    }
}

struct Lease {
    id: LeaseId,
    seconds: u64,
}

fn writes_something(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::New | Verdict::Over(_))
}

fn condition(wanted: &Wanted, verdict: &Verdict) -> Option<Condition> {
    match verdict {
        Verdict::New => Some(Condition::Absent(wanted.key.clone())),
        Verdict::Over(revision) => Some(Condition::Unchanged(wanted.key.clone(), *revision)),
        Verdict::There | Verdict::Other(_) => None,
    }
}

fn held(item: &Item) -> Held<'_> {
    Held { value: &item.value, revision: item.revision, leased: item.lease != 0 }
}

/// Asks the v2 store, and counts what that costs.
struct Reader<'v> {
    v2: &'v mut V2,
    asked: usize,
    read: usize,
    /// Directories that lie deeper than a name has labels.
    too_deep: Vec<String>,
}

impl Reader<'_> {
    /// Every key below this one.
    async fn tree(&mut self, from: &Prefix) -> Result<Vec<Leaf>, Failure> {
        let mut tree = Tree::new(from);
        let mut waiting = vec![from.to_string()];
        while let Some(key) = waiting.pop() {
            match self.take(&mut tree, &key, Asked::Whole).await {
                Ok(Some(_)) => continue,
                // A directory may end between the two looks.
                Err(Failure::Nothing(_)) if key != from.as_str() => continue,
                Ok(None) => {}
                Err(failure) => return Err(failure),
            }
            let Some(directories) = self.take(&mut tree, &key, Asked::Directory).await? else {
                return Err(Failure::TooMuch(shown(&key).into_owned(), "one directory fills more than an answer"));
            };
            for directory in directories {
                let is_name = directory.matches('/').count() <= MAX_LABELS + 1;
                if is_name { waiting.push(directory) } else { self.too_deep.push(directory) }
            }
        }
        Ok(tree.into_leaves())
    }

    /// One key, if it is there and no directory.
    async fn key(&mut self, key: &str) -> Result<Option<Leaf>, Failure> {
        let Some(prefix) = Prefix::parse(key) else { return Ok(None) };
        let mut tree = Tree::new(&prefix);
        match self.take(&mut tree, key, Asked::Directory).await {
            Ok(_) => Ok(tree.into_leaves().into_iter().find(|leaf| leaf.key == key)),
            Err(Failure::Nothing(_) | Failure::Unread(..)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Reads a key into the tree; none when the answer is too much at once.
    async fn take(&mut self, tree: &mut Tree, key: &str, asked: Asked) -> Result<Option<Vec<String>>, Failure> {
        self.asked += 1;
        let too_much = |why| Failure::TooMuch(shown(key).into_owned(), why);
        if self.asked > MOST_REQUESTS {
            return Err(too_much("so deep a tree takes more than 10000 requests"));
        }
        let (status, body) = match self.v2.get(key, asked == Asked::Whole).await? {
            Answer::Body(status, body) => (status, body),
            Answer::TooLong => return Ok(None),
        };
        self.read += body.len();
        if self.read > MOST_READ {
            return Err(too_much("all answers together have more than 1 GiB"));
        }
        match tree.take(&body, asked) {
            Ok(Taken::Read(directories)) => Ok(Some(directories)),
            Ok(Taken::TooDeep) => Ok(None),
            Ok(Taken::Nothing) => Err(Failure::Nothing(shown(key).into_owned())),
            Err(Unread::Strange(_)) if status == 404 => Err(Failure::NoV2(self.v2.place().to_owned())),
            Err(unread) => Err(Failure::Unread(self.v2.place().to_owned(), unread)),
        }
    }
}

fn in_words(told: &Told, terminal: &Terminal) -> String {
    let would = if told.dry_run { "would be written" } else { "written" };
    let mut text = format!("{}: {} read, {} {would}", plain(&told.from), told.read, told.written);
    if told.overwritten > 0 {
        text.push_str(&format!(" ({} of them over others)", told.overwritten));
    }
    text.push_str(&format!(", {} there already, {} left out\n", told.there, told.left_out));
    if let Some((least, most)) = told.lease_seconds {
        let (count, least, most) = (told.leased, time(least), time(most));
        text.push_str(&format!("{count} of them on a lease ({least} to {most}), which nothing refreshes\n"));
    }
    for left in told.reasons.iter().take(MOST_SHOWN) {
        let name = terminal.paint("left out", Tone::Warning);
        text.push_str(&format!("{name} {}: {}\n", plain(&left.key), plain(&left.reason)));
    }
    if told.left_out > MOST_SHOWN {
        text.push_str(&format!("and {} more: -o json names them\n", told.left_out - MOST_SHOWN));
    }
    told.notes.iter().for_each(|note| text.push_str(&format!("{}\n", plain(note))));
    if told.settings.is_empty() {
        return text;
    }
    text.push('\n');
    let mut table = Table::new(&["SKYDNS", "SAYS", "WHARF AGENT"]);
    for advice in &told.settings {
        let here = if advice.flags.is_empty() { advice.note.to_owned() } else { advice.flags.join(" ") };
        table.row(vec![(&advice.setting).into(), (&advice.says).into(), here.into()]);
    }
    text + &table.render(terminal)
}

fn time(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
