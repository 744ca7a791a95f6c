//! The catalog kept as a file, so that an agent that starts while the store is away can answer from it.
//!
//! A header line with the cluster, one line for each record, a last line with their number: a file that was cut short
//! is seen as such. A line that cannot be read costs that one record. It takes its place by a rename. Its modification time is when the catalog was last in step: a quiet
//! cluster costs no writing, and what is written while the store is away is as old as it is.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::model::catalog::{Catalog, LeaseId};
use crate::model::key::Prefix;
use crate::model::record::{MAX_RECORD, Record};
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

    /// The catalog of the last run, if it is worth anything.
    /// What is of none of the prefixes, or is more than `empty` takes, is left out.
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

/// Hands `take` each line of a record, or none for one that is too long or no text; returns the cluster and the revision
/// of the whole.
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
    Some(Item { key: key.to_owned(), value: value.as_bytes().to_vec().into(), lease, revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Catalog {
        let mut catalog = Catalog::default();
        for number in 0..3 {
            let value = format!(r#"{{"host":"10.0.0.{number}","port":80,"tags":["a\tb"],"owner":"one"}}"#);
            catalog.put(&format!("/services/web/{number}"), value.as_bytes(), 0x77, 10 + number).expect("a record");
        }
        catalog.set_revision(12);
        catalog
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("catalog");
        (dir, path)
    }

    fn load(path: &Path, cluster: Option<u64>) -> Result<Option<Kept>, Useless> {
        let prefixes = [Prefix::parse("/services").expect("a prefix")];
        read(path, Catalog::bounded(&prefixes, 100), &prefixes, cluster)
    }

    fn shown(catalog: &Catalog) -> Vec<(String, i64, i64, Vec<u8>)> {
        let one = |found: crate::model::catalog::Endpoint| {
            (found.key().to_string(), found.lease(), found.revision(), found.record().encode())
        };
        catalog.endpoints().map(one).collect()
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let (_dir, path) = file();
        write(&path, &sample(), Some(0xabc), Duration::ZERO).expect("written");
        let (catalog, of) = load(&path, None).expect("whole").expect("there");
        assert_eq!((shown(&catalog), catalog.revision(), of), (shown(&sample()), 12, Some(0xabc)));
    }

    #[test]
    fn an_owners_records_are_found_among_the_others() {
        let (_dir, path) = file();
        let mut catalog = sample();
        let other = br#"{"host":"10.0.0.9","port":80,"owner":"two","attrs":{"of":"one"}}"#;
        catalog.put("/services/web/9", other, 0x77, 12).expect("a record");
        write(&path, &catalog, Some(1), Duration::ZERO).expect("written");
        let hosts = |cluster, owner| {
            let own = own_records(&path, cluster, owner);
            own.items.iter().map(|(_, record)| record.host.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(hosts(Some(1), "one"), ["10.0.0.0", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(hosts(None, "two"), ["10.0.0.9"]);
        assert_eq!(hosts(Some(2), "one"), [] as [&str; 0]);
        fs::write(&path, &fs::read(&path).expect("there")[..100]).expect("written");
        assert_eq!(hosts(Some(1), "one"), [] as [&str; 0], "a file cut short");
        assert!(own_records(Path::new("/nonexistent/catalog"), None, "one").items.is_empty());
    }

    #[test]
    fn nothing_kept_is_no_problem() {
        let (_dir, path) = file();
        assert!(load(&path, None).expect("no problem").is_none());
    }

    #[test]
    fn a_bad_line_costs_itself() {
        let (_dir, path) = file();
        write(&path, &sample(), Some(1), Duration::ZERO).expect("written");
        let whole = fs::read_to_string(&path).expect("there");
        let (key, host) = ("k".repeat(40_000), "h".repeat(8_200));
        let bad = [
            format!("/services/web/{key}\t0\t1\t{{\"host\":\"10.0.0.9\"}}").into_bytes(),
            format!("/services/web/8\t0\t1\t{{\"host\":\"{host}\",\"port\":80}}").into_bytes(),
            b"/services/web/7\t0\t1\t{\"host\":\"\xff\"}".to_vec(),
            b"/services/web/6\tzz\t1\t{\"host\":\"10.0.0.9\"}".to_vec(),
            b"no line".to_vec(),
            b"".to_vec(),
        ];
        for bad in bad {
            let mut lines: Vec<&[u8]> = whole.lines().map(str::as_bytes).collect();
            lines.insert(2, &bad);
            *lines.last_mut().expect("some") = b"end 4";
            fs::write(&path, [&lines.join(&b'\n')[..], b"\n"].concat()).expect("written");
            let (catalog, _) = load(&path, None).expect("readable").expect("there");
            assert_eq!(shown(&catalog), shown(&sample()), "{}", String::from_utf8_lossy(&bad[..bad.len().min(40)]));
            assert_eq!(own_records(&path, None, "one").items.len(), 3);
        }
    }

    #[test]
    fn every_value_that_is_a_record_is_kept_and_read_again() {
        let (_dir, path) = file();
        let long = |rest: &str| format!("{}{rest}", "h".repeat(255 - rest.len()));
        let mut values =
            vec![format!("{}:80", long("")), format!("{}:80", long(r#"\""#)), format!("[{}]:65535", "\\".repeat(255))];
        values.push(format!(r#"{{"text":"{}"}}"#, "x".repeat(8_192 - 11)));
        values.push(format!(r#"{{"text":"{}"}}"#, r"\n".repeat((8_192 - 11) / 2)));
        values.push(format!(r#"{{"text":"{}"}}"#, "\u{7f}".repeat(8_192 - 11)));
        let mut catalog = sample();
        for (number, value) in values.iter().enumerate() {
            let key = format!("/services/{}/{number}", ["a".repeat(63).as_str(); 3].join("/"));
            catalog.put(&key, value.as_bytes(), 0, 1).expect("a record");
        }
        write(&path, &catalog, None, Duration::ZERO).expect("written");
        assert_eq!(shown(&load(&path, None).expect("readable").expect("there").0), shown(&catalog));
    }

    #[test]
    fn what_is_of_no_prefix_served_is_not_taken_up_again() {
        let (_dir, path) = file();
        let mut catalog = sample();
        catalog.put("/skydns/local/web", b"10.0.0.9:80", 0, 1).expect("a record");
        catalog.put("/services-of-old/web", b"10.0.0.9:80", 0, 1).expect("a record");
        write(&path, &catalog, None, Duration::ZERO).expect("written");
        assert_eq!(shown(&load(&path, None).expect("readable").expect("there").0), shown(&sample()));
    }

    #[test]
    fn another_clusters_catalog_is_not_used() {
        let (_dir, path) = file();
        write(&path, &sample(), Some(1), Duration::ZERO).expect("written");
        assert!(matches!(load(&path, Some(2)), Err(Useless::OtherCluster)));
        assert!(load(&path, Some(1)).is_ok());
    }

    #[test]
    fn a_file_cut_anywhere_is_not_used() {
        let (_dir, path) = file();
        write(&path, &sample(), Some(1), Duration::ZERO).expect("written");
        let whole = fs::read(&path).expect("there");
        for length in 0..whole.len() - 2 {
            fs::write(&path, &whole[..length]).expect("written");
            assert!(load(&path, None).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_catalog_older_than_a_day_is_not_used() {
        let (_dir, path) = file();
        write(&path, &sample(), Some(1), Duration::ZERO).expect("written");
        let file = File::options().write(true).open(&path).expect("there");
        file.set_modified(SystemTime::now() - OLDEST - Duration::from_secs(60)).expect("set");
        assert!(matches!(load(&path, None), Err(Useless::Old(_))));
        renewed(&path);
        assert!(load(&path, None).is_ok());
    }

    fn age(path: &Path) -> Duration {
        let modified = fs::metadata(path).and_then(|file| file.modified()).expect("there");
        modified.elapsed().unwrap_or_default()
    }

    async fn ended(keep: &mut Keep) {
        let writing = keep.writing.as_mut().expect("being written");
        assert!(writing.await.expect("no panic"), "not written");
        keep.writing = None;
    }

    #[tokio::test]
    async fn it_is_written_at_most_every_ten_seconds() {
        let (_dir, path) = file();
        let mut keep = Keep::new(path.clone());
        let at = |secs| Duration::from_secs(secs);
        keep.changed(1);
        keep.write_if_due(&sample(), None, Duration::ZERO, at(1));
        ended(&mut keep).await;
        assert!(path.exists());
        keep.changed(2);
        keep.write_if_due(&sample(), None, Duration::ZERO, at(10));
        assert!(keep.writing.is_none());
        keep.write_if_due(&sample(), None, Duration::ZERO, at(11));
        assert!(keep.writing.is_some());
    }

    #[tokio::test]
    async fn what_is_kept_while_the_store_is_away_is_as_old_as_it_is() {
        let (_dir, path) = file();
        let hour = Duration::from_secs(3_600);
        let mut keep = Keep::new(path.clone());
        keep.changed(1);
        keep.write_if_due(&sample(), None, hour, Duration::ZERO);
        ended(&mut keep).await;
        assert!(age(&path) >= hour && age(&path) < 2 * hour);
        // Nothing new, and not in step: the file's time stays.
        keep.write_if_due(&sample(), None, hour, EVERY);
        assert!(keep.writing.is_none());
        keep.write_if_due(&sample(), None, Duration::ZERO, 2 * EVERY);
        ended(&mut keep).await;
        assert!(age(&path) < hour, "in step again");
        keep.write_now(&sample(), None, 2 * OLDEST).await;
        assert!(matches!(load(&path, None), Err(Useless::Old(_))));
        keep.write_now(&sample(), None, hour).await;
        assert!(load(&path, None).is_ok());
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_next_time() {
        let (dir, _) = file();
        let folder = dir.path().join("not yet");
        let mut keep = Keep::new(folder.join("catalog"));
        keep.changed(1);
        keep.write_if_due(&sample(), None, Duration::ZERO, Duration::ZERO);
        while !keep.writing.as_ref().expect("tried").is_finished() {
            tokio::task::yield_now().await;
        }
        fs::create_dir(&folder).expect("created");
        keep.write_if_due(&sample(), None, Duration::ZERO, EVERY);
        ended(&mut keep).await;
        assert!(load(&folder.join("catalog"), None).expect("whole").is_some());
    }
}
