//! Files that follow the cluster: rendered, checked, put in place and loaded.
//!
//! What is due, and why not, is decided in `catalog::render`; here templates are read, files written, commands run.
//!
//! | part | does |
//! |---|---|
//! | [`Renders`] | one loop: sees changes, begins passes and reloads when they are due |
//! | [`job`], one a table | what it depends on, when it is due |
//! | [`mod@pass`], on a thread of its own | render, compare, write, check, put |
//! | [`place`] | the only code that writes files; what a crash leaves, and how it is taken up |
//! | [`command`] | checks and reloads |
//! | [`templates`] | templates that are edited |
//!
//! Tables with equal reload commands are a group: it is run once for all that were written, when none of them is being
//! written. One that fails is run again, with pauses that grow; a crash forgets none (the journal of [`place`]).

mod accounts;
mod board;
mod command;
mod job;
mod journal;
mod pass;
mod place;
mod reload;
mod table;
mod templates;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::catalog::render::{Need, Sight, told};
use board::Board;
use job::Job;
pub(crate) use pass::{End, Pass, load, make, pass, recover, there};
use reload::Group;
pub(crate) use table::{Origin, Table};
use templates::Templates;

/// Edits of a template come in several steps: it is read when no other has come for so long.
const SETTLED: Duration = Duration::from_millis(50);

/// How long the reload of a file may take whose table is gone.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// What templates call that has to be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Keys of the store.
    pub(crate) keys: BTreeSet<String>,
    /// Services whose members are asked for.
    pub(crate) members: BTreeSet<String>,
    /// Endpoints of auto-discovery.
    pub(crate) discovered: BTreeSet<String>,
}

impl Asked {
    /// Adds what is called.
    pub(crate) fn add<'n>(&mut self, needs: impl Iterator<Item = &'n Need>) {
        for need in needs {
            match need {
                Need::Key(key) => drop(self.keys.insert(key.clone())),
                Need::Members(service) => drop(self.members.insert(service.clone())),
                Need::Discovered(from) => drop(self.discovered.insert(from.clone())),
                Need::Names | Need::Service(_) | Need::Nodes => {}
            }
        }
    }
}

/// Tells how the files of this process stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handle(Arc<ArcSwap<Vec<Arc<Board>>>>);

impl Handle {
    /// Every table, as it is now.
    pub(crate) fn told(&self) -> told::Renders {
        told::Renders { renders: self.0.load().iter().map(|board| board.told()).collect() }
    }
}

/// Why they are followed no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// A pass or a reload ended with a panic.
    #[error("the making of a file ended")]
    Ended(#[from] JoinError),
}

/// All tables of a process.
pub(crate) struct Renders {
    tables: watch::Receiver<Arc<Vec<Table>>>,
    sight: watch::Receiver<Arc<Sight>>,
    asked: watch::Sender<Asked>,
    environment: Arc<BTreeMap<String, String>>,
    templates: Templates,
    /// Templates were edited: they are read at that time, unless they are edited again before.
    edited: Option<Instant>,
    /// By name.
    jobs: BTreeMap<String, Job>,
    groups: HashMap<Vec<String>, Group>,
    passes: JoinSet<(String, Pass)>,
    reloads: JoinSet<(Vec<String>, Result<(), String>)>,
    handle: Handle,
    began: Instant,
}

impl Renders {
    /// Those of these tables, what they call that has to be asked for, and what tells how they stand.
    pub(crate) fn new(
        tables: watch::Receiver<Arc<Vec<Table>>>,
        sight: watch::Receiver<Arc<Sight>>,
        environment: BTreeMap<String, String>,
    ) -> (Self, watch::Receiver<Asked>, Handle) {
        let (asked, seen) = watch::channel(Asked::default());
        let handle = Handle::default();
        let renders = Self {
            tables,
            sight,
            asked,
            environment: Arc::new(environment),
            templates: Templates::default(),
            edited: None,
            jobs: BTreeMap::new(),
            groups: HashMap::new(),
            passes: JoinSet::new(),
            reloads: JoinSet::new(),
            handle: handle.clone(),
            began: Instant::now(),
        };
        (renders, seen, handle)
    }

    /// Works until `stop`; what is being written then is finished, and loaded.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), RenderError> {
        self.adopt();
        loop {
            self.begin_due();
            let next = self.next_due();
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.sight.changed() => self.look(),
                Ok(()) = self.tables.changed() => self.adopt(),
                () = self.templates.changed() => self.edited = Some(Instant::now() + SETTLED),
                () = until(self.edited) => {
                    self.edited = None;
                    self.read();
                }
                Some(ended) = self.passes.join_next() => self.finish(ended?),
                Some(ended) = self.reloads.join_next() => self.reloaded(ended?),
                () = until(next) => {}
            }
        }
        while let Some(ended) = self.passes.join_next().await {
            self.finish(ended?);
        }
        self.begin_reloads(self.now());
        while let Some(ended) = self.reloads.join_next().await {
            self.reloaded(ended?);
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Begins tables that are new, tells others of their settings, and ends those that are gone.
    fn adopt(&mut self) {
        let tables = Arc::clone(&self.tables.borrow_and_update());
        self.jobs.retain(|name, job| job.is_busy || tables.iter().any(|table| table.name == *name));
        for table in tables.iter() {
            match self.jobs.get_mut(&table.name) {
                Some(job) => job.adopt(table),
                None => drop(self.jobs.insert(table.name.clone(), Job::new(table))),
            }
        }
        let boards = tables.iter().filter_map(|table| self.jobs.get(&table.name));
        self.handle.0.store(Arc::new(boards.map(|job| Arc::clone(&job.board)).collect()));
        let files = tables.iter().filter_map(|table| match &table.from {
            Origin::File(path) => Some(path.as_path()),
            Origin::Builtin(_) => None,
        });
        self.templates.watch(files);
        for table in tables.iter().filter(|table| !table.reload.is_empty()) {
            self.groups.entry(table.reload.clone()).or_default();
        }
    }

    /// Reads all templates again.
    fn read(&mut self) {
        self.jobs.values_mut().for_each(Job::read);
    }

    /// Takes in what there is to be seen now.
    fn look(&mut self) {
        let sight = Arc::clone(&self.sight.borrow_and_update());
        let now = self.now();
        self.jobs.values_mut().for_each(|job| job.look(&sight, now));
    }

    /// Begins every pass and reload that is due.
    fn begin_due(&mut self) {
        let now = self.now();
        let due: Vec<String> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.due(not_before(&self.groups, job)).is_some_and(|due| due <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.begin_pass(&name);
        }
        self.begin_reloads(now);
    }

    fn begin_pass(&mut self, name: &str) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        let source = job.source.clone();
        let is_first = job.begin();
        let (table, name) = (Arc::clone(&job.table), name.to_owned());
        let (sight, environment) = (Arc::clone(&self.sight.borrow()), Arc::clone(&self.environment));
        self.passes.spawn_blocking(move || {
            if is_first && let Err(error) = recover(&table) {
                tracing::warn!(name, %error, "what a process left that was ended cannot be taken up");
            }
            let pass = pass(&table, source.as_deref().map_err(String::as_str), &sight, &environment);
            (name, pass)
        });
    }

    fn finish(&mut self, (name, pass): (String, Pass)) {
        if self.sight.has_changed().unwrap_or(false) {
            self.look();
        }
        let (sight, now) = (Arc::clone(&self.sight.borrow()), self.now());
        let Some(job) = self.jobs.get_mut(&name) else { return };
        if let Some(digest) = job.finish(pass, &sight, now) {
            let group = self.groups.entry(job.table.reload.clone()).or_default();
            group.owes(&name, digest);
        }
        if self.tables.borrow().iter().all(|table| table.name != name) {
            self.jobs.remove(&name); // its table went while it was written
        }
        let mut asked = Asked::default();
        self.jobs.values().for_each(|job| asked.add(job.needs()));
        self.asked.send_if_modified(|known| std::mem::replace(known, asked.clone()) != asked);
    }

    /// Begins the reload of every group that owes one, when none of its files is being written.
    fn begin_reloads(&mut self, now: Duration) {
        for (argv, group) in &mut self.groups {
            let is_written = self.jobs.values().any(|job| job.is_busy && job.table.reload == *argv);
            if is_written || !group.is_due(now) {
                continue;
            }
            let of = |name: &String| self.jobs.get(name).map(|job| Arc::clone(&job.table));
            let tables: Vec<(Arc<Table>, String)> =
                group.begin().iter().filter_map(|(name, digest)| Some((of(name)?, digest.clone()))).collect();
            let timeout = tables.iter().map(|(table, _)| table.timeout).max().unwrap_or(FORGOTTEN);
            let argv = argv.clone();
            self.reloads.spawn_blocking(move || {
                let tables: Vec<(&Table, String)> =
                    tables.iter().map(|(table, digest)| (&**table, digest.clone())).collect();
                let ended = load(&argv, timeout, &tables);
                (argv, ended)
            });
        }
    }

    fn reloaded(&mut self, (argv, ended): (Vec<String>, Result<(), String>)) {
        let now = self.now();
        let Some(group) = self.groups.get_mut(&argv) else { return };
        for name in group.end(ended.is_ok(), now) {
            let Some(job) = self.jobs.get_mut(&name) else { continue };
            job.reloaded(ended.as_ref().err().map(String::as_str), group.still_owes(&name), now);
        }
    }

    /// When something is due next.
    fn next_due(&self) -> Option<Instant> {
        let passes = self.jobs.values().filter_map(|job| job.due(not_before(&self.groups, job)));
        let reloads = self.groups.values().filter_map(Group::next);
        passes.chain(reloads).min().map(|due| self.began + due)
    }
}

/// The earliest moment for a file's next pass, as its reload may not come sooner after the last.
fn not_before(groups: &HashMap<Vec<String>, Group>, job: &Job) -> Duration {
    let group = groups.get(&job.table.reload);
    group.and_then(Group::last).map_or(Duration::ZERO, |last| last + job.table.min_interval)
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}
