//! Plans for small stores, written as keys; what is expected is written as the commit, or as the code of the refusal.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::*;
use crate::model::etcd_v2::request::{Ask, read};
use crate::model::etcd_v2::sight::Step;
use crate::model::words::key::Prefix;

fn places() -> Places {
    Places::new(&Prefix::parse("/services").expect("a prefix"))
}

fn path(text: &str) -> NodePath {
    NodePath::parse(text).unwrap_or_else(|problem| panic!("{problem}"))
}

/// Keys of the tree as `/a=value`, marks of directories as `/a/`, with `@7` on lease 7, which has 50 s left of 100 s.
fn sight(at: &str, keys: &[&str]) -> Sight {
    let mut held = BTreeMap::new();
    for (number, text) in keys.iter().enumerate() {
        let (text, lease) =
            text.split_once('@').map_or((*text, 0), |(text, lease)| (text, lease.parse().expect("a lease")));
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.as_bytes().to_vec()),
            None => (places().mark(&path(text)), Vec::new()),
        };
        let revision = i64::try_from(number).expect("few") + 2;
        held.insert(key.clone(), Held { key, value, lease, created: revision, modified: revision });
    }
    let own = path(at);
    let step = |path: NodePath| Step {
        file: held.get(path.as_str()).cloned(),
        mark: held.get(&places().mark(&path)).cloned(),
        can_be_file: !path.is_root(),
        path,
    };
    let below = |held: &&Held| held.key.starts_with(&own.below()) || held.key.starts_with(&places().marks_below(&own));
    let life =
        |lease| (lease, Life { granted: Duration::from_secs(100), left: Duration::from_secs(50), is_alone: true });
    Sight {
        revision: 9,
        above: own.ancestors().into_iter().map(step).collect(),
        first_child: held.values().find(below).map(|held| held.created),
        missing: Some(own.clone()),
        lives: [7, 8].map(life).into(),
        is_locked: false,
        kept_below: None,
        below: held.values().filter(below).cloned().collect(),
        own: step(own),
    }
}

/// The plan in words: what is written, and on which lease.
fn planned(request: &str, keys: &[&str]) -> String {
    let (method, rest) = request.split_once(' ').expect("a method");
    let (at, fields) = rest.split_once('?').unwrap_or((rest, ""));
    let Ok(Ask::Change(change)) = read(method, at, fields, b"") else { panic!("{request}") };
    let plan = match plan(&change, &sight(at, keys), &places(), SystemTime::UNIX_EPOCH) {
        Ok(plan) => plan,
        Err(fault) => return format!("{} {}", fault.code as u16, fault.status),
    };
    let dirs = places().mark(&path("/"));
    let word = |will: &Will| match will {
        Will::Put { key, .. } if key == places().act() => None,
        Will::Put { key, lease, .. } => {
            let lease = lease.map_or(String::new(), |lease| format!("@{lease}"));
            Some(format!("+{}{lease}", key.replacen(&dirs, "dir:/", 1)))
        }
        Will::Delete(key) => Some(format!("-{}", key.replacen(&dirs, "dir:/", 1))),
        Will::DeleteAll(prefix) => Some(format!("-{}*", prefix.replacen(&dirs, "dir:/", 1))),
    };
    let mut words: Vec<String> = plan.writes.iter().filter_map(word).collect();
    match plan.lease {
        Wish::Held(0) => {}
        Wish::Held(lease) => words.push(format!("on {lease}")),
        Wish::Fresh(ttl) => words.push(format!("for {}", ttl.as_secs())),
        Wish::Renewed(lease) => words.push(format!("renews {lease}")),
    }
    words.join(" ")
}

#[test]
fn files_are_made_replaced_and_deleted() {
    for (request, keys, expected) in [
        ("PUT /a?value=x", &[][..], "+/a"),
        ("PUT /a/b?value=x&ttl=5", &[], "+/a/b for 5"),
        ("PUT /a?value=x", &["/a=w"], "+/a"),
        ("PUT /a?value=x&prevExist=false", &["/a=w"], "105 412"),
        ("PUT /a?value=x&prevExist=true", &[], "100 404"),
        ("PUT /a?value=x&prevValue=w", &["/a=w"], "+/a"),
        ("PUT /a?value=x&prevValue=v", &["/a=w"], "101 412"),
        ("PUT /a?value=x&prevIndex=8195", &["/a=w"], "+/a"),
        ("PUT /a?value=x&prevIndex=12288", &["/a=w"], "101 412"),
        ("PUT /a/b?value=x", &["/a=w"], "104 400"),
        ("PUT /a?value=x", &["/a/b=w"], "102 403"),
        ("PUT /?value=x", &[], "107 400"),
        ("DELETE /a/b", &["/a/b=w"], "-/a/b +dir:/a@0"),
        ("DELETE /a/b", &["/a/b=w", "/a"], "-/a/b"),
        ("DELETE /a/00000000000000000001", &["/a/00000000000000000001=w", "/a"], "-/a/00000000000000000001 +dir:/a@0"),
        ("DELETE /a", &["/a=w"], "-/a"),
        ("DELETE /a?prevValue=v", &["/a=w"], "101 412"),
    ] {
        assert_eq!(planned(request, keys), expected, "{request} {keys:?}");
    }
}

#[test]
fn directories_are_remembered_and_go_whole() {
    for (request, keys, expected) in [
        ("PUT /a?dir=true", &[][..], "+dir:/a"),
        ("PUT /a?dir=true&ttl=9", &["/a=w"], "-/a +dir:/a for 9"),
        ("PUT /a?dir=true", &["/a/b=w"], "102 403"),
        ("DELETE /a", &["/a"], "102 403"),
        ("DELETE /a?dir=true", &["/a"], "-dir:/a"),
        ("DELETE /a?dir=true", &["/a", "/a/b"], "108 403"),
        ("DELETE /a?recursive=true", &["/a/b=w"], "-/a/* -dir:/a/* -dir:/a"),
        ("DELETE /a/b?recursive=true", &["/a/b/c=w"], "-/a/b/* -dir:/a/b/* -dir:/a/b +dir:/a@0"),
        ("DELETE /?recursive=true", &["/a=w"], "107 400"),
        ("POST /a?value=x", &["/a/b=w"], "+/a/00000000000000040960"),
        ("POST /a?value=x", &["/a=w"], "104 400"),
    ] {
        assert_eq!(planned(request, keys), expected, "{request} {keys:?}");
    }
}

#[test]
fn what_lies_in_a_directory_with_a_time_ends_with_it_or_sooner() {
    for (request, keys, expected) in [
        ("PUT /a/b?value=x", &["/a@7"][..], "+/a/b on 7"),
        ("PUT /a/b?value=x&ttl=600", &["/a@7"], "+/a/b on 7"),
        ("PUT /a/b?value=x&ttl=5", &["/a@7"], "+/a/b for 5"),
        ("POST /a?value=x", &["/a@7"], "+/a/00000000000000040960 on 7"),
        (
            "PUT /a?prevExist=true&ttl=20",
            &["/a@7", "/a/b=w@7", "/a/c=w@8", "/a/d=w"],
            "+dir:/a +/a/b +/a/c +/a/d for 20",
        ),
        ("PUT /a?prevExist=true&ttl=70", &["/a@7", "/a/b=w@7", "/a/c=w@8"], "+dir:/a +/a/b for 70"),
        ("PUT /a?prevExist=true", &["/a@7", "/a/b=w@7", "/a/c=w@8"], "+dir:/a +/a/b"),
        ("PUT /a?prevExist=true&value=x", &["/a@7"], "102 403"),
        ("PUT /a?refresh=true&ttl=100&prevExist=true", &["/a@7", "/a/b=w@7"], "renews 7"),
        ("PUT /a?refresh=true&ttl=100&prevExist=true", &["/a=w@7"], "renews 7"),
        ("PUT /a?refresh=true&ttl=99&prevExist=true", &["/a=w@7"], "+/a for 99"),
        ("PUT /a/b?refresh=true&ttl=100", &["/a@7", "/a/b=w@7"], "+/a/b on 7"),
    ] {
        assert_eq!(planned(request, keys), expected, "{request} {keys:?}");
    }
}

#[test]
fn what_is_an_agents_or_a_locks_is_left_alone() {
    let owned = r#"/a/b={"host":"10.0.0.1","owner":"ab12"}"#;
    for request in ["PUT /a/b?value=x", "PUT /a/b?value=x&prevExist=true", "DELETE /a/b", "DELETE /a/b?prevIndex=8192"]
    {
        assert_eq!(planned(request, &[owned]), "110 403", "{request}");
    }
    assert_eq!(planned("PUT /c?value={\"owner\":1}", &[]), "110 403");
    assert_eq!(planned("PUT /wharf/services/v2/act?value=x", &[]), "110 403");
    let Ok(Ask::Change(change)) = read("DELETE", "/a", "recursive=true", b"") else { panic!() };
    let kept = Sight { kept_below: Some((path("/a/b"), "somebody's".to_owned())), ..sight("/a", &[owned]) };
    assert!(plan(&change, &kept, &places(), SystemTime::UNIX_EPOCH).is_err());
}

#[test]
fn no_commit_has_more_than_one_may() {
    let many: Vec<String> = (0..150).map(|number| format!("/a/{number}=w")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(planned("PUT /a?prevExist=true&ttl=20", &many), "209 400");
    let deep = format!("{}/a", "/d".repeat(39));
    let Ok(Ask::Change(change)) = read("PUT", &deep, "value=x", b"") else { panic!() };
    let plan = plan(&change, &sight(&deep, &[]), &places(), SystemTime::UNIX_EPOCH).expect("a plan");
    assert!(plan.conditions.len() <= MOST && plan.writes.len() <= MOST);
}
