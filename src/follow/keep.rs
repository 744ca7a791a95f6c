//! The catalog kept as a file, so that an agent that starts while the store is away can answer from it.
//!
//! A header line with the cluster, one line for each record, a last line with their number: a file that was cut short
//! is seen as such. A line that cannot be read costs that one record. It takes its place by a rename. Its modification
//! time is when the catalog was last in step: a quiet cluster costs no writing, and what is written while the store is
//! away is as old as it is.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::catalog::index::{Catalog, LeaseId};
use crate::model::words::key::Prefix;
use crate::model::words::record::{MAX_RECORD, Record};
use crate::store::{Item, Revision};

/// The file is written, or its time renewed, at most this often.
pub const EVERY: Duration = Duration::from_secs(10);
/// While it is being written, this is when to look again.
const BUSY: Duration = Duration::from_secs(1);
/// An older catalog is none.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);
/// What the first line begins with; another number is another format.
const MAGIC: &str = "wharf-catalog 1";
/// A line longer than this is no record.
const LONGEST: usize = 4 * MAX_RECORD;

/// Why a kept catalog is not used.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("was last in step {0:?} ago")]
    Old(Duration),
    #[error("is of another cluster")]
    OtherCluster,
    #[error("is broken at line {0}")]
    Broken(usize),
}

/// The file and when it was written.
#[derive(Debug)]
pub(super) struct Keep {
    path: PathBuf,
    /// The cluster of the catalog that was read at start.
    kept_of: Option<u64>,
    written: Option<u64>,
    due: Duration,
    wanted: u64,
    /// Whether what is being written has been.
    writing: Option<JoinHandle<bool>>,
}

impl Keep {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, kept_of: None, written: None, due: Duration::ZERO, wanted: 0, writing: None }
    }

    /// The catalog of the last run, if it is worth anything. What is of none of the prefixes, or is more than `empty`
    /// takes, is left out.
    pub(super) async fn load(
        &mut self,
        empty: Catalog,
        prefixes: Vec<Prefix>,
        cluster: Option<u64>,
    ) -> Option<Catalog> {
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || read(&path, empty, &prefixes, cluster)).await;
        match loaded {
            Ok(Ok(Some((catalog, of)))) => {
                self.kept_of = of;
                Some(catalog)
            }
            Ok(Ok(None)) => None,
            Ok(Err(reason)) => {
                tracing::warn!(file = ?self.path, %reason, "kept catalog not used");
                None
            }
            Err(panic) => {
                tracing::error!(file = ?self.path, %panic, "kept catalog not used");
                None
            }
        }
    }

    /// Whether what was loaded belongs to another cluster than this one.
    pub(super) fn is_of_another(&self, cluster: Option<u64>) -> bool {
        matches!((self.kept_of, cluster), (Some(kept), Some(cluster)) if kept != cluster)
    }

    /// There is something new to be kept.
    pub(super) fn changed(&mut self, generation: u64) {
        self.wanted = generation;
    }

    /// When to look again.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// Writes what changed, or renews the file's time, when it is time. The catalog was last in step `behind` ago.
    pub(super) fn write_if_due(&mut self, catalog: &Catalog, cluster: Option<u64>, behind: Duration, now: Duration) {
        if now < self.due {
            return;
        }
        if self.is_writing() {
            self.due = now + BUSY;
            return;
        }
        self.due = now + EVERY;
        let changed = self.written != Some(self.wanted);
        if !changed && !behind.is_zero() {
            return;
        }
        let (path, catalog) = (self.path.clone(), catalog.clone());
        self.written = Some(self.wanted);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if changed { written(&path, &catalog, cluster, behind) } else { renewed(&path) }
        }));
    }

    /// Writes it now, at the end of the run.
    pub(super) async fn write_now(&mut self, catalog: &Catalog, cluster: Option<u64>, behind: Duration) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
        let (path, catalog) = (self.path.clone(), catalog.clone());
        let _ = tokio::task::spawn_blocking(move || written(&path, &catalog, cluster, behind)).await;
    }

    /// Whether the last writing goes on. One that failed is to be done again: the file is older than what was said.
    fn is_writing(&mut self) -> bool {
        let Some(writing) = &mut self.writing else { return false };
        let Some(ended) = writing.now_or_never() else { return true };
        if !ended.unwrap_or(false) {
            self.written = None;
        }
        self.writing = None;
        false
    }
}

fn written(path: &Path, catalog: &Catalog, cluster: Option<u64>, behind: Duration) -> bool {
    let written = write(path, catalog, cluster, behind);
    if let Err(error) = &written {
        tracing::warn!(file = ?path, %error, "catalog not kept");
    }
    written.is_ok()
}

fn renewed(path: &Path) -> bool {
    let renewed = File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = &renewed {
        tracing::warn!(file = ?path, %error, "kept catalog not renewed");
    }
    renewed.is_ok()
}

fn write(path: &Path, catalog: &Catalog, cluster: Option<u64>, behind: Duration) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = BufWriter::new(File::create(&fresh)?);
    let cluster = cluster.map_or_else(|| "-".to_owned(), |cluster| format!("{cluster:x}"));
    writeln!(file, "{MAGIC} {cluster} {}", catalog.revision())?;
    let mut records = 0;
    for endpoint in catalog.endpoints() {
        let key = endpoint.key();
        write!(file, "{key}\t{:x}\t{}\t", endpoint.lease(), endpoint.revision())?;
        file.write_all(&endpoint.record().encode())?;
        file.write_all(b"\n")?;
        records += 1;
    }
    writeln!(file, "end {records}")?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Some(in_step) = SystemTime::now().checked_sub(behind) {
        file.set_modified(in_step)?;
    }
    file.sync_all()?;
    fs::rename(fresh, path)
}

type Kept = (Catalog, Option<u64>);

fn read(path: &Path, mut catalog: Catalog, prefixes: &[Prefix], cluster: Option<u64>) -> Result<Option<Kept>, Useless> {
    let mut unread = 0_usize;
    let read = read_lines(path, cluster, |line| match line.and_then(item) {
        Some(item) if !prefixes.iter().any(|prefix| prefix.parts(&item.key).is_some()) => {}
        Some(item) => {
            // What is no record here is none in the store: it is counted when that has been read.
            if catalog.put(&item.key, &item.value, item.lease, item.revision).is_err() {
                catalog.delete(&item.key);
                unread += 1;
            }
        }
        None => unread += 1,
    })?;
    let Some((of, revision)) = read else { return Ok(None) };
    if unread > 0 {
        tracing::warn!(file = ?path, lines = unread, "lines of the kept catalog cannot be read: skipped");
    }
    catalog.set_revision(revision);
    Ok(Some((catalog, of)))
}

/// What one owner had published by a kept catalog.
#[derive(Debug, Default)]
pub struct Own {
    /// The revision of the whole.
    pub revision: Revision,
    /// How long ago the catalog was in step.
    pub age: Duration,
    /// The owner's keys and records.
    pub items: Vec<(Item, Record)>,
}

/// What `owner` had published by the catalog kept at `path`, if that is worth anything: for the agent that starts again
/// while the store is away, or is itself the store. Only its own lines are read as records, so that it is quick among a
/// hundred thousand.
pub fn own_records(path: &Path, cluster: Option<u64>, owner: &str) -> Own {
    let mut items = Vec::new();
    let read = read_lines(path, cluster, |line| {
        if let Some(item) = line.filter(|line| line.contains(owner)).and_then(item) {
            let record = Record::decode(&item.value).ok().filter(|record| record.owner.as_deref() == Some(owner));
            items.extend(record.map(|record| (item, record)));
        }
    });
    // Why it is worth nothing the mirror says, which reads it too.
    let Ok(Some((_, revision))) = read else { return Own::default() };
    Own { revision, age: age(path).unwrap_or_default(), items }
}

fn age(path: &Path) -> io::Result<Duration> {
    Ok(fs::metadata(path)?.modified()?.elapsed().unwrap_or_default())
}

/// Hands `take` each line of a record, or none for one that is too long or no text; returns the cluster and the
/// revision of the whole.
fn read_lines(
    path: &Path,
    cluster: Option<u64>,
    mut take: impl FnMut(Option<&str>),
) -> Result<Option<(Option<u64>, i64)>, Useless> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
    if age > OLDEST {
        return Err(Useless::Old(age));
    }
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    next_line(&mut file, &mut line)?;
    let (of, revision) = text(&line).and_then(header).ok_or(Useless::Broken(1))?;
    if matches!((of, cluster), (Some(of), Some(cluster)) if of != cluster) {
        return Err(Useless::OtherCluster);
    }
    let mut records = 0_usize;
    while next_line(&mut file, &mut line)? {
        if let Some(count) = text(&line).and_then(|line| line.strip_prefix("end ")) {
            let whole = count.parse() == Ok(records);
            return if whole { Ok(Some((of, revision))) } else { Err(Useless::Broken(records + 2)) };
        }
        take(text(&line));
        records += 1;
    }
    Err(Useless::Broken(records + 2))
}

/// Reads a line, of one that is too long only so much as shows that; whether there was one.
fn next_line(mut file: impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    file.by_ref().take(LONGEST as u64 + 2).read_until(b'\n', line)?;
    if line.len() > LONGEST && line.last() != Some(&b'\n') {
        file.skip_until(b'\n')?;
    }
    Ok(!line.is_empty())
}

/// A line that was written whole, without its end.
fn text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line.strip_suffix(b"\n")?).ok()
}

fn header(line: &str) -> Option<(Option<u64>, i64)> {
    let (cluster, revision) = line.strip_prefix(MAGIC)?.trim_start().split_once(' ')?;
    let of = if cluster == "-" { None } else { Some(u64::from_str_radix(cluster, 16).ok()?) };
    Some((of, revision.parse().ok()?))
}

fn item(line: &str) -> Option<Item> {
    let mut parts = line.splitn(4, '\t');
    let (key, lease, revision, value) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (lease, revision) = (LeaseId::from_str_radix(lease, 16).ok()?, revision.parse().ok()?);
    Some(Item { key: key.to_owned(), value: value.as_bytes().to_vec().into(), lease, revision, created: revision })
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
