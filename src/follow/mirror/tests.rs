//! Lists, changes and holds, as the fold sees them.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::fold::Fold;
use super::lately::{LATELY, PUBLISHED};
use super::leases::{Desk, times};
use super::source::ListPage;
use crate::catalog::index::Catalog;
use crate::model::publish::local::Overlay;
use crate::model::words::key::Prefix;
use crate::model::words::record::Record;
use crate::store::{Batch, Event, Item, Revision};

const TTL: Duration = Duration::from_secs(30);
const BACK: Option<Duration> = Some(Duration::ZERO);

/// `name owner lease revision [port [id]]`: a record under `/services/s/name`, whose id is the name where none is
/// given.
fn item(text: &str) -> Item {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let value = match parts[1] {
        "-" => r#"{"host":"10.0.0.1","port":1}"#.to_owned(),
        owner => {
            let (port, id) = (parts.get(4).unwrap_or(&"1"), parts.get(5).unwrap_or(&parts[0]));
            format!(r#"{{"host":"10.0.0.1","port":{port},"node":"{owner}","owner":"{owner}","id":"{id}"}}"#)
        }
    };
    Item {
        key: key(parts[0]),
        value: value.into(),
        lease: parts[2].parse().expect("a lease"),
        revision: parts[3].parse().expect("a revision"),
        created: 1,
    }
}

fn key(name: &str) -> String {
    format!("/services/s/{name}")
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

struct Bench {
    fold: Fold,
    desk: Desk,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let prefix = Prefix::parse("/services").expect("a prefix");
        Self { fold: Fold::new(vec![prefix], "own".into(), TTL), desk: Desk::default(), now: secs(100) }
    }

    fn of(items: &[&str]) -> Self {
        let mut bench = Self::new();
        bench.list(items, 10, false, None);
        bench
    }

    fn page(&mut self, items: &[Item], after: Option<&str>, last: bool, revision: Revision) {
        let page = ListPage { prefix: 0, revision, after: after.map(key), items: items.to_vec(), last };
        self.fold.page(&page, &mut self.desk);
    }

    fn list(&mut self, items: &[&str], revision: Revision, rewound: bool, returned: Option<Duration>) {
        let items: Vec<Item> = items.iter().map(|text| item(text)).collect();
        self.fold.begin(rewound.then_some(revision));
        self.page(&items, None, true, revision);
        self.fold.listed(revision, returned, self.now, &mut self.desk);
    }

    fn batch(&mut self, events: Vec<Event>, revision: Revision, returned: Option<Duration>) {
        self.fold.batch(&Batch { events, revision }, returned, self.now, &mut self.desk);
    }

    /// This host says what it offers; whether something is over by that.
    fn offer(&mut self, items: &[&str]) -> bool {
        let record = |item: Item| (item.key, Arc::new(Record::decode(&item.value).expect("a record")));
        let records = items.iter().map(|text| record(item(text))).collect();
        self.fold.offers(&Arc::new(Overlay { owner: "own".into(), records, ..Overlay::default() }))
    }

    fn lose_lease(&mut self) -> bool {
        self.fold.lease_was_lost(self.now, &mut self.desk)
    }

    fn shown(&self) -> Vec<String> {
        shown(self.fold.catalog())
    }
}

/// The names answered, with a star where they are held.
fn shown(catalog: &Catalog) -> Vec<String> {
    let one = |found: crate::catalog::index::Endpoint| {
        let name = found.key().trim_start_matches("/services/s/").to_owned();
        if found.held() { name + "*" } else { name }
    };
    catalog.endpoints().map(one).collect()
}

fn deleted(names: &[&str]) -> Vec<Event> {
    deleted_at(names, 21)
}

fn deleted_at(names: &[&str], revision: Revision) -> Vec<Event> {
    names.iter().map(|name| Event::Delete { key: key(name), revision }).collect()
}

#[test]
fn a_list_is_seen_when_it_is_whole() {
    let mut bench = Bench::of(&["a - 0 1", "b - 0 2"]);
    bench.fold.begin(None);
    bench.page(&[item("a - 0 1")], None, false, 20);
    bench.page(&[item("c - 0 15")], Some("a"), true, 20);
    assert_eq!(bench.shown(), ["a", "b"]);
    bench.fold.listed(20, None, bench.now, &mut bench.desk);
    assert_eq!((bench.shown(), bench.fold.catalog().revision()), (vec!["a".to_owned(), "c".to_owned()], 20));
}

#[test]
fn a_list_that_broke_off_leaves_no_trace() {
    let mut bench = Bench::of(&["a - 0 1", "b - 0 2"]);
    bench.fold.begin(None);
    bench.page(&[item("c - 0 15")], None, false, 20);
    bench.list(&["a - 0 1", "b - 0 2"], 21, false, None);
    assert_eq!(bench.shown(), ["a", "b"]);
}

#[test]
fn what_a_list_lacks_is_gone_in_quiet_times_and_held_after_an_outage() {
    let all = ["a one 1 1", "b two 2 2", "c - 0 3", "d own 4 4"];
    let cases: [(bool, Option<Duration>, &[&str]); 3] =
        [(false, None, &["a"]), (false, BACK, &["a", "b*"]), (true, BACK, &["a", "b*", "c*"])];
    for (rewound, returned, left) in cases {
        let mut bench = Bench::of(&all);
        bench.offer(&[]);
        bench.list(&["a one 1 1"], 20, rewound, returned);
        assert_eq!(bench.shown(), left, "rewound {rewound}, returned {returned:?}");
    }
}

#[test]
fn own_records_are_held_like_others_until_this_host_knows_what_it_offers() {
    let mut bench = Bench::of(&["a one 1 1", "d own 4 4"]);
    bench.list(&["a one 1 1"], 20, false, BACK);
    assert_eq!(bench.shown(), ["a", "d*"]);
    assert!(!bench.offer(&["d own 0 0"]));
    assert_eq!(bench.shown(), ["a", "d*"]);
    assert!(bench.offer(&["d own 0 0 2"]));
    assert_eq!(bench.shown(), ["a"], "it offers another one there");
}

#[test]
fn own_records_that_go_with_their_lease_are_held_for_as_long_as_this_host_offers_them() {
    let mut bench = Bench::of(&["a one 1 1", "d own 4 4", "e own 4 4"]);
    bench.offer(&["d own 0 0", "e own 0 0"]);
    bench.batch(deleted(&["d", "e"]), 21, None);
    assert_eq!(bench.shown(), ["a", "d*", "e*"]);
    assert_eq!(bench.desk.next(bench.now), Some(4), "whether the lease lives is asked");
    bench.fold.lease_is_dead(4);
    assert!(bench.offer(&["d own 0 0"]), "the other one has died meanwhile");
    assert_eq!(bench.shown(), ["a", "d*"]);
    bench.batch(vec![Event::Put(item("d own 9 22"))], 22, None);
    assert_eq!(bench.shown(), ["a", "d"]);
}

#[test]
fn what_this_host_lets_go_goes_at_once() {
    let mut bench = Bench::of(&["a one 1 1", "d own 4 4"]);
    bench.offer(&[]);
    bench.batch(deleted(&["d"]), 21, BACK);
    assert_eq!(bench.shown(), ["a"]);
    bench.batch(deleted_at(&["a"], 22), 22, None);
    assert_eq!(bench.shown(), [] as [&str; 0], "and is no reason to doubt others");
}

#[test]
fn an_own_record_that_is_to_move_is_held_when_it_goes_first_and_there_once_when_it_moves() {
    let mut bench = Bench::of(&["d-1f own 4 4 1 d"]);
    bench.offer(&["d own 0 0"]);
    bench.batch(deleted(&["d-1f"]), 21, None);
    assert_eq!(bench.shown(), ["d-1f*"]);
    bench.batch(vec![Event::Put(item("d own 9 22"))], 22, None);
    assert_eq!(bench.shown(), ["d"]);
    for revision in [21, 22] {
        let mut bench = Bench::of(&["a one 1 1", "d-1f own 4 4 1 d"]);
        bench.offer(&["d own 0 0"]);
        let moved = [vec![Event::Put(item("d own 4 21"))], deleted_at(&["d-1f"], revision)].concat();
        bench.batch(moved, revision, None);
        assert_eq!(bench.shown(), ["a", "d"]);
        bench.batch(deleted_at(&["a"], 23), 23, None);
        assert_eq!(bench.shown(), ["d"], "a move is no loss that would make this host doubt others'");
    }
}

#[test]
fn an_own_record_deleted_by_hand_is_out_once_its_lease_is_known_to_live() {
    let mut bench = Bench::of(&["a one 1 1", "d own 4 4"]);
    bench.offer(&["d own 0 0"]);
    bench.batch(deleted(&["d"]), 21, None);
    bench.fold.lease_lives(4, times(TTL, TTL, bench.now), Some(&[]));
    assert_eq!(bench.shown(), ["a"]);
    bench.batch(deleted_at(&["a"], 22), 22, None);
    assert_eq!(bench.shown(), [] as [&str; 0], "and nobody else is doubted for it");
}

#[test]
fn what_goes_after_own_records_went_with_their_lease_is_held_like_after_an_outage() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2", "d own 4 4"]);
    bench.offer(&["d own 0 0"]);
    bench.batch([deleted_at(&["d"], 21), deleted_at(&["a"], 22)].concat(), 22, None);
    assert_eq!(bench.shown(), ["a*", "b", "d*"]);
    bench.now += LATELY + secs(1);
    bench.batch(deleted_at(&["b"], 23), 23, None);
    assert_eq!(bench.shown(), ["a*", "d*"], "for a moment only");
}

#[test]
fn what_went_in_the_moment_before_is_held_when_this_hosts_lease_turns_out_to_be_lost() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2", "c three 3 3"]);
    for (name, revision) in [("a", 21), ("b", 22), ("c", 23)] {
        bench.batch(deleted_at(&[name], revision), revision, None);
        bench.now += Duration::from_millis(300);
    }
    bench.batch(vec![Event::Put(item("c three 9 24"))], 24, None);
    assert_eq!(bench.shown(), ["c"]);
    assert!(bench.lose_lease());
    assert_eq!(bench.shown(), ["a*", "b*", "c"], "what was published again is there once");
    bench.fold.lease_lives(1, times(TTL, TTL, bench.now), Some(&[]));
    bench.fold.lease_is_dead(2);
    assert_eq!(bench.shown(), ["b*", "c"], "the first one had been let go by its owner");
    assert!(!bench.lose_lease(), "once");
}

#[test]
fn leases_of_several_owners_that_end_together_take_nothing_with_them_until_their_owners_had_time_to_publish() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2", "c three 3 3", "d three 3 3"]);
    bench.batch(deleted(&["a"]), 21, None);
    assert_eq!(bench.shown(), ["b", "c", "d"], "like the end of a lost node");
    bench.now += Duration::from_millis(100);
    bench.batch(deleted_at(&["b"], 22), 22, None);
    assert_eq!(bench.shown(), ["a*", "b*", "c", "d"]);
    bench.now += Duration::from_millis(100);
    bench.batch(deleted_at(&["c", "d"], 23), 23, None);
    assert_eq!(bench.shown(), ["a*", "b*", "c*", "d*"], "and every one that goes with them");
    bench.fold.lease_lives(2, times(TTL, TTL, bench.now), Some(&[]));
    [1, 3].into_iter().for_each(|lease| bench.fold.lease_is_dead(lease));
    assert_eq!(bench.shown(), ["a*", "c*", "d*"], "the second had been let go by its owner");
    bench.batch(vec![Event::Put(item("a one 9 24"))], 24, None);
    assert!(bench.fold.expire(bench.now + PUBLISHED));
    assert_eq!(bench.shown(), ["a"], "the third is lost");
}

#[test]
fn a_move_is_no_end_of_a_lease() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2"]);
    let moved = [deleted(&["b"]), vec![Event::Put(item("c two 2 21 1 b"))]].concat();
    bench.batch(moved, 21, None);
    bench.batch(deleted_at(&["a"], 22), 22, None);
    assert_eq!(bench.shown(), ["c"]);
}

#[test]
fn leases_that_end_one_after_another_are_those_of_lost_nodes() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2"]);
    bench.batch(deleted(&["a"]), 21, None);
    bench.now += Duration::from_millis(250);
    bench.batch(deleted_at(&["b"], 22), 22, None);
    assert_eq!(bench.shown(), [] as [&str; 0]);
}

#[test]
fn what_its_owner_let_go_while_more_hung_on_its_lease_is_gone() {
    let mut bench = Bench::of(&["a one 1 1", "b one 1 1", "c two 2 2"]);
    bench.batch([deleted_at(&["a"], 21), deleted_at(&["b"], 22)].concat(), 22, None);
    assert!(bench.lose_lease());
    assert_eq!(bench.shown(), ["b*", "c"]);
}

#[test]
fn what_went_longer_ago_is_gone() {
    let mut bench = Bench::of(&["a one 1 1"]);
    bench.batch(deleted(&["a"]), 21, None);
    assert_eq!(bench.fold.next(), Some(bench.now + LATELY));
    bench.now += LATELY;
    assert!(!bench.lose_lease());
    assert_eq!((bench.shown(), bench.fold.next()), (vec![], None));
}

#[test]
fn a_held_record_goes_with_its_time() {
    let mut bench = Bench::of(&["a one 1 1"]);
    bench.list(&[], 20, true, BACK);
    assert!(!bench.fold.expire(bench.now + TTL - secs(1)));
    assert_eq!(bench.shown(), ["a*"]);
    assert!(bench.fold.expire(bench.now + TTL));
    assert_eq!(bench.shown(), [] as [&str; 0]);
}

#[test]
fn the_time_of_a_held_record_is_its_leases_where_that_is_known() {
    let mut bench = Bench::of(&["a one 1 1"]);
    bench.fold.lease_lives(1, times(secs(7), secs(3), bench.now), Some(&[]));
    bench.list(&[], 20, true, BACK);
    assert!(!bench.fold.expire(bench.now + secs(6)) && bench.fold.expire(bench.now + secs(7)));
}

#[test]
fn an_owner_who_publishes_again_ends_the_hold() {
    let mut bench = Bench::of(&["a one 1 1", "b one 1 2"]);
    bench.list(&[], 20, true, BACK);
    assert_eq!(bench.shown(), ["a*", "b*"]);
    bench.batch(vec![Event::Put(item("a one 9 21"))], 21, BACK);
    assert_eq!(bench.shown(), ["a", "b*"]);
    assert!(bench.fold.expire(bench.now + crate::catalog::fold::hold::BURST));
    assert_eq!(bench.shown(), ["a"]);
}

#[test]
fn an_owner_who_publishes_in_the_list_ends_the_hold_too() {
    let mut bench = Bench::of(&["a one 1 1", "b one 1 2"]);
    bench.list(&[], 20, true, BACK);
    bench.list(&["a one 9 21"], 25, false, BACK);
    assert_eq!(bench.shown(), ["a", "b*"]);
    assert!(bench.fold.expire(bench.now + crate::catalog::fold::hold::BURST));
    assert_eq!(bench.shown(), ["a"]);
}

#[test]
fn what_a_restored_store_still_has_of_an_owner_is_no_sign_of_it() {
    let mut bench = Bench::of(&["a one 1 1", "b one 1 9"]);
    bench.list(&["a one 3 4"], 5, true, BACK);
    assert_eq!(bench.shown(), ["a", "b*"]);
    assert!(!bench.fold.expire(bench.now + 2 * crate::catalog::fold::hold::BURST));
}

#[test]
fn what_its_owner_put_in_a_restored_store_since_that_was_seen_is_a_sign_of_it() {
    for (begun, held) in [(20, true), (21, false)] {
        let mut bench = Bench::of(&["a one 1 1", "b one 1 9"]);
        bench.fold.begin(Some(begun));
        bench.page(&[item("a one 3 21")], None, true, 21);
        bench.fold.listed(21, BACK, bench.now, &mut bench.desk);
        assert_eq!(bench.shown(), ["a", "b*"]);
        assert_eq!(bench.fold.expire(bench.now + crate::catalog::fold::hold::BURST), held, "seen at {begun}");
    }
}

#[test]
fn a_delete_under_a_living_lease_counts() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2"]);
    bench.batch(deleted(&["a"]), 21, BACK);
    assert_eq!(bench.shown(), ["a*", "b"], "until the lease has been asked about");
    assert_eq!(bench.desk.next(bench.now), Some(1));
    bench.fold.lease_lives(1, times(TTL, TTL, bench.now), Some(&[]));
    assert_eq!(bench.shown(), ["b"]);
}

#[test]
fn a_delete_in_quiet_times_counts_at_once() {
    let mut bench = Bench::of(&["a one 1 1", "b one 1 2"]);
    bench.batch(deleted(&["a"]), 21, None);
    assert_eq!(bench.shown(), ["b"]);
}

#[test]
fn what_one_revision_takes_from_several_owners_is_held() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2", "c three 3 3"]);
    bench.batch(deleted(&["a", "b"]), 21, None);
    assert_eq!(bench.shown(), ["a*", "b*", "c"]);
}

#[test]
fn what_several_revisions_take_is_judged_one_by_one() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2", "c one 1 1", "d two 2 2"]);
    let events = [deleted_at(&["a"], 21), deleted_at(&["b"], 22)].concat();
    bench.batch(events, 22, None);
    assert_eq!(bench.shown(), ["c", "d"]);
}

#[test]
fn what_is_held_is_shown_elsewhere_when_another_takes_its_key() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2"]);
    bench.list(&[], 20, true, BACK);
    bench.batch(vec![Event::Put(item("a two 9 21 7"))], 21, BACK);
    let aside = format!("a-{}", crate::model::words::name::short_hash("one/a"));
    assert_eq!(bench.shown(), ["a".to_owned(), format!("{aside}*"), "b*".to_owned()]);
    bench.batch(vec![Event::Put(item(&format!("{aside} one 8 22 1 a")))], 22, BACK);
    assert_eq!(bench.shown(), ["a".to_owned(), aside, "b*".to_owned()]);
}

#[test]
fn what_another_owner_is_put_over_is_shown_elsewhere_unless_its_lease_lives() {
    let mut bench = Bench::of(&["a one 1 1", "b - 0 2"]);
    bench.batch(vec![Event::Put(item("a two 9 21 7")), Event::Put(item("b two 9 21"))], 21, None);
    let aside = format!("a-{}", crate::model::words::name::short_hash("one/a"));
    assert_eq!(bench.shown(), ["a".to_owned(), format!("{aside}*"), "b".to_owned()]);
    assert_eq!(bench.desk.next(bench.now), Some(1), "whether it lives is asked at once");
    bench.fold.lease_lives(1, times(TTL, TTL, bench.now), Some(&[]));
    assert_eq!(bench.shown(), ["a", "b"], "done by hand");
}

#[test]
fn what_is_held_elsewhere_ends_with_its_owners_put_under_any_key_and_with_its_time() {
    let mut bench = Bench::of(&["a one 1 1"]);
    bench.list(&[], 20, true, BACK);
    bench.batch(vec![Event::Put(item("a two 9 21 7"))], 21, BACK);
    assert_eq!(bench.shown().len(), 2);
    bench.batch(vec![Event::Put(item("c one 8 22 1 a"))], 22, BACK);
    assert_eq!(bench.shown(), ["a", "c"]);
    let mut bench = Bench::of(&["a one 1 1"]);
    bench.list(&[], 20, true, BACK);
    bench.batch(vec![Event::Put(item("a two 9 21 7"))], 21, BACK);
    assert!(bench.fold.expire(bench.now + TTL));
    assert_eq!(bench.shown(), ["a"]);
}

#[test]
fn a_list_with_a_held_record_under_another_key_and_a_new_one_under_its_own_has_both() {
    let mut bench = Bench::of(&["k one 1 1 1 a"]);
    bench.list(&[], 20, true, BACK);
    assert_eq!(bench.shown(), ["k*"]);
    bench.list(&["cache one 8 22 1 a", "k one 8 22 2 b"], 25, false, BACK);
    assert_eq!(bench.shown(), ["cache", "k"]);
    assert!(!bench.fold.expire(bench.now + TTL), "nothing is held any more");
}

#[test]
fn a_list_that_has_anothers_record_under_a_key_is_no_reason_to_forget_the_first() {
    let mut bench = Bench::of(&["a one 1 1"]);
    bench.list(&["a two 9 21 7"], 25, true, BACK);
    let aside = format!("a-{}", crate::model::words::name::short_hash("one/a"));
    assert_eq!(bench.shown(), ["a".to_owned(), format!("{aside}*")]);
    let mut bench = Bench::of(&["a one 1 1"]);
    bench.list(&["a two 9 21 7", "c one 8 22 1 a"], 25, true, BACK);
    assert_eq!(bench.shown(), ["a", "c"], "it is published elsewhere");
}

#[test]
fn what_a_restored_store_has_under_a_key_is_no_reason_to_forget_what_its_owner_had_there_since() {
    let mut bench = Bench::of(&["a one 1 9 7 new"]);
    bench.list(&["a one 1 2 8 old"], 5, true, BACK);
    let aside = format!("a-{}", crate::model::words::name::short_hash("one/new"));
    assert_eq!(bench.shown(), ["a".to_owned(), format!("{aside}*")]);
    bench.batch(vec![Event::Put(item("a one 2 6 7 new"))], 6, BACK);
    assert_eq!(bench.shown(), ["a"], "published again");
    let mut bench = Bench::of(&["a one 1 9 7 old"]);
    bench.list(&["a one 1 12 8 new"], 15, false, BACK);
    assert_eq!(bench.shown(), ["a"], "its owner has put another one there");
}

#[test]
fn what_was_under_way_when_all_was_deleted_ends_no_hold() {
    let mut bench = Bench::of(&["a one 1 1", "b two 2 2"]);
    bench.batch(deleted(&["a", "b"]), 21, None);
    bench.batch(vec![Event::Put(item("c one 1 22"))], 22, None);
    assert!(!bench.fold.expire(bench.now + 2 * crate::catalog::fold::hold::BURST));
    assert_eq!(bench.shown(), ["a*", "b*", "c"]);
}

#[test]
fn a_revision_of_another_history_is_no_reason_to_keep_a_value() {
    let mut bench = Bench::of(&["a one 1 5 7", "b one 1 6 7"]);
    bench.list(&["a one 1 5 8", "b one 1 6 7"], 6, false, None);
    let stored = bench.fold.catalog().endpoints().filter(|found| !found.held());
    assert_eq!(stored.map(|found| found.port()).collect::<Vec<u16>>(), [8, 7]);
}

#[test]
fn a_value_that_is_no_record_costs_itself_only() {
    let mut bench = Bench::of(&["a - 0 1"]);
    let bad = Item { value: "no record".into(), ..item("b - 0 2") };
    bench.batch(vec![Event::Put(bad), Event::Put(item("c - 0 3"))], 3, None);
    assert_eq!((bench.shown(), bench.fold.catalog().counts().bad), (vec!["a".to_owned(), "c".to_owned()], 1));
}

fn change() -> impl Strategy<Value = (u8, bool)> {
    (0..12_u8, any::<bool>())
}

proptest! {
    /// However a catalog came to be, a list makes it what the list says.
    #[test]
    fn a_list_says_it_all(before in prop::collection::vec(change(), 0..40), after in prop::collection::btree_set(0..12_u8, 0..12), pages in 1..4_usize) {
        let mut bench = Bench::new();
        let mut revision = 0;
        for (name, put) in before {
            revision += 1;
            let text = format!("{name:02} one 1 {revision}");
            let event = if put { Event::Put(item(&text)) } else { Event::Delete { key: key(&format!("{name:02}")), revision } };
            bench.batch(vec![event], revision, None);
        }
        let items: Vec<Item> = after.iter().map(|name| item(&format!("{name:02} one 1 {}", revision + 1))).collect();
        bench.fold.begin(None);
        let size = items.len().div_ceil(pages).max(1);
        let mut last_name = None;
        let chunks: Vec<&[Item]> = if items.is_empty() { vec![&[]] } else { items.chunks(size).collect() };
        for (place, chunk) in chunks.iter().enumerate() {
            bench.page(chunk, last_name.as_deref(), place + 1 == chunks.len(), revision + 1);
            last_name = chunk.last().map(|item| item.key.trim_start_matches("/services/s/").to_owned());
        }
        bench.fold.listed(revision + 1, None, bench.now, &mut bench.desk);
        let names: Vec<String> = after.iter().map(|name| format!("{name:02}")).collect();
        prop_assert_eq!(bench.shown(), names);
    }

    /// The events after a list lead where a list after the events would.
    #[test]
    fn events_lead_where_a_list_would(changes in prop::collection::vec(change(), 0..60)) {
        let mut bench = Bench::new();
        let mut standing = std::collections::BTreeMap::new();
        for (number, (name, put)) in changes.into_iter().enumerate() {
            let revision = i64::try_from(number).expect("small") + 1;
            let name = format!("{name:02}");
            let text = format!("{name} one 1 {revision}");
            let event = if put { Event::Put(item(&text)) } else { Event::Delete { key: key(&name), revision } };
            if put { standing.insert(name, text); } else { standing.remove(&name); }
            bench.batch(vec![event], revision, None);
        }
        let texts: Vec<&str> = standing.values().map(String::as_str).collect();
        let fresh = Bench::of(&texts);
        let whole = |bench: &Bench| bench.fold.catalog().endpoints().map(|found| (found.key().clone(), found.revision(), found.record())).collect::<Vec<_>>();
        prop_assert_eq!(whole(&bench), whole(&fresh));
    }
}

/// Every page may end with a key that is no text, whose bytes stand elsewhere in the order than its text does.
#[test]
fn what_vanished_is_seen_between_keys_that_are_no_text() {
    let odd = |bytes: &[u8]| Item { key: crate::model::words::key::text(bytes.to_vec()), ..item("x - 0 9") };
    let mut bench = Bench::of(&["a - 0 1", "b - 0 2", "c - 0 3", "d - 0 4"]);
    bench.fold.begin(None);
    let pages = [
        vec![item("a - 0 1"), odd(b"/services/s/a\x80")],
        vec![odd(b"/services/s/b\xff"), odd(b"/services/s/b\xff\x01")],
        vec![odd(b"/services/s/c\x80"), item("d - 0 4")],
    ];
    let mut after = None;
    for (number, items) in pages.into_iter().enumerate() {
        let next = items.last().map(|item| item.key.clone());
        let page =
            ListPage { prefix: 0, revision: 20, after: std::mem::replace(&mut after, next), items, last: number == 2 };
        bench.fold.page(&page, &mut bench.desk);
    }
    bench.fold.listed(20, None, bench.now, &mut bench.desk);
    let kept: Vec<String> = bench.fold.catalog().endpoints().map(|found| found.key().to_string()).collect();
    assert_eq!(kept, [key("a"), key("d")]);
    assert_eq!(bench.fold.catalog().counts().bad, 4);
}
