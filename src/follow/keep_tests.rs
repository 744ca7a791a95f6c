//! What is kept, what is read again, and when it is written.

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
    let one = |found: crate::catalog::index::Endpoint| {
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
