//! Laws of assignment and plan: what is held after a plan is what was wanted, and nobody else's key is touched.

use proptest::prelude::*;

use super::super::op::same_instance;
use super::*;
use crate::model::offer::instance::Source;
use crate::model::publish::view::Seen;
use crate::model::words::record::Proto;

const OWNER: &str = "0123456789abcdef";

fn publisher() -> Publisher {
    let prefix = Prefix::parse("/services").expect("a prefix");
    Publisher { node: "core-01".into(), owner: OWNER.into(), prefix, site: None }
}

/// A record of container `number` that would like the label `label`.
fn want(number: u8, label: &str, tag: &str) -> Wanted {
    let service = ServiceName::parse("redis").expect("a name");
    let record = Record {
        host: "10.0.0.1".into(),
        port: 6000 + u16::from(number),
        id: Some(label.into()),
        service: Some("redis".into()),
        owner: Some(OWNER.into()),
        proto: Some(Proto::Tcp),
        tags: vec![tag.into()],
        container: Some(format!("{number:012}").as_str().into()),
        ..Record::default()
    };
    let source = Source::Container(format!("{number:064}").as_str().into());
    let instance = InstanceKey { source, port: 6379, proto: Proto::Tcp };
    let plain = format!("/services/redis/{label}");
    Wanted { instance, service, label: Label::parse(label).expect("a label"), plain, record: Arc::new(record) }
}

/// What is held at a key: by whom, and on which lease.
#[derive(Clone, Debug)]
enum Was {
    Ours(u8, &'static str, i64),
    Other,
    Garbage,
}

/// The last is cut where a hash is put behind it.
const LABELS: [&str; 3] = ["a", "b", "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-abcdefghi"];

fn view_of(was: &BTreeMap<String, Was>, wanted: &[Wanted]) -> View {
    let mut view = View::new(OWNER.into());
    let interest = Interest::of(wanted);
    for (place, (key, was)) in was.iter().enumerate() {
        let other = Record { host: "h".into(), owner: Some("other".into()), ..Record::default() };
        let (value, lease) = match was {
            Was::Ours(number, tag, lease) => (want(*number, "x", tag).record.encode(), *lease),
            Was::Other => (other.encode(), 0),
            Was::Garbage => (b"garbage".to_vec(), 0),
        };
        let revision = 10 + i64::try_from(place).expect("few");
        view.put(Seen { key, value: &value, lease, revision, read_at: None }, |key| interest.covers(key));
    }
    view
}

/// What a store would hold after the operations, or the operation whose condition does not hold.
fn apply(view: &View, ops: &[Op], lease: i64) -> Result<View, Op> {
    let mut after = view.clone();
    for op in ops {
        let met = match (&op.expect, after.held(&op.key)) {
            (Expect::Absent, held) => held.is_none(),
            (Expect::Holds(value), held) => held.is_some_and(|held| held.value == *value),
        };
        if !met {
            return Err(op.clone());
        }
        after.committed(std::slice::from_ref(op), lease, 1_000);
    }
    Ok(after)
}

prop_compose! {
    fn any_wanted()(numbers in prop::collection::btree_map(0..8_u8, (0..3_usize, prop::bool::ANY), 0..8)) -> Vec<Wanted> {
        let tag = |new: bool| if new { "new" } else { "old" };
        numbers.into_iter().map(|(number, (label, new))| want(number, LABELS[label], tag(new))).collect()
    }
}

fn any_was() -> impl Strategy<Value = BTreeMap<String, Was>> {
    let key = prop_oneof![
        prop::sample::select(&LABELS[..]).prop_map(|label| format!("/services/redis/{label}")),
        (0..3_usize, 0..8_u8, 0..3_usize).prop_map(|(label, number, turn)| {
            let wanted = want(number, LABELS[label], "old");
            hashed_keys(&wanted, &publisher()).nth(turn).expect("endless")
        }),
    ];
    let was = prop_oneof![
        3 => (0..8_u8, 0..2_i64).prop_map(|(number, lease)| Was::Ours(number, "old", lease)),
        1 => Just(Was::Other),
        1 => Just(Was::Garbage),
    ];
    prop::collection::btree_map(key, was, 0..6)
}

proptest! {
    #[test]
    fn what_is_held_after_a_plan_is_what_was_wanted(wanted in any_wanted(), was in any_was()) {
        let view = view_of(&was, &wanted);
        let assignment = assign(&wanted, &view, &publisher());
        prop_assert_eq!(assignment.len(), wanted.len(), "every instance has a key of its own");
        let after = apply(&view, &plan(&assignment, &view, 1, false), 1);
        let after = after.map_err(|op| TestCaseError::fail(format!("not as expected: {op:?}")))?;
        let held: BTreeMap<&String, &Arc<Record>> = after.ours().map(|(key, _, record)| (key, record)).collect();
        let expected: BTreeMap<&String, &Arc<Record>> = assignment.iter().map(|(key, it)| (key, &it.record)).collect();
        prop_assert_eq!(held, expected);
        prop_assert_eq!(plan(&assignment, &after, 1, false), vec![], "and then there is nothing left to do");
    }

    #[test]
    fn another_owners_key_is_never_touched(wanted in any_wanted(), was in any_was()) {
        let view = view_of(&was, &wanted);
        let ops = plan(&assign(&wanted, &view, &publisher()), &view, 1, false);
        for op in ops {
            // A hashed key that nobody has looked at may be another's: then the store refuses the put.
            prop_assert!(!matches!(was.get(&op.key), Some(Was::Other)) || op.expect == Expect::Absent, "{op:?}");
        }
    }

    #[test]
    fn an_instance_is_never_without_a_record_on_its_way(wanted in any_wanted(), was in any_was()) {
        let view = view_of(&was, &wanted);
        let assignment = assign(&wanted, &view, &publisher());
        let serves = |view: &View, wanted: &Wanted| view.ours().any(|(_, _, held)| same_instance(held, &wanted.record));
        let mut now = view.clone();
        for op in plan(&assignment, &view, 1, false) {
            let Ok(next) = apply(&now, std::slice::from_ref(&op), 1) else { continue };
            for wanted in &wanted {
                // One whose key is given to another instance of this host is the exception: it has no claim on it.
                let given_away = assignment.get(&op.key).is_some_and(|it| !same_instance(&it.record, &wanted.record));
                prop_assert!(!serves(&now, wanted) || serves(&next, wanted) || given_away, "{op:?}");
            }
            now = next;
        }
    }

    #[test]
    fn nothing_is_deleted_before_docker_has_been_listed(wanted in any_wanted(), was in any_was()) {
        let view = view_of(&was, &wanted);
        let ops = plan(&assign(&wanted, &view, &publisher()), &view, 1, true);
        prop_assert!(ops.iter().all(|op| op.change != Change::Delete));
    }

    #[test]
    fn every_instance_has_a_key_however_many_are_taken(wanted in any_wanted(), taken in 1..20_usize, label in 0..3_usize) {
        let publisher = publisher();
        let all = wanted.iter().flat_map(|wanted| hashed_keys(wanted, &publisher).take(taken));
        let all = all.chain([format!("/services/redis/{}", LABELS[label])]);
        let was: BTreeMap<String, Was> = all.map(|key| (key, Was::Other)).collect();
        let view = view_of(&was, &wanted);
        let assignment = assign(&wanted, &view, &publisher);
        prop_assert_eq!(assignment.len(), wanted.len());
        prop_assert!(assignment.keys().all(|key| !was.contains_key(key)), "{assignment:?}");
    }

    #[test]
    fn what_is_remembered_is_all_that_an_assignment_rests_on(wanted in any_wanted(), was in any_was()) {
        let mut everything = View::new(OWNER.into());
        let other = Record { host: "h".into(), owner: Some("other".into()), ..Record::default() }.encode();
        for key in was.keys() {
            everything.put(Seen { key, value: &other, lease: 0, revision: 5, read_at: None }, |_| true);
        }
        let mut remembered = everything.clone();
        let interest = Interest::of(&wanted);
        remembered.retain(|key| interest.covers(key));
        let assigned = |view: &View| assign(&wanted, view, &publisher());
        prop_assert_eq!(assigned(&remembered), assigned(&everything));
    }

    #[test]
    fn a_newcomer_takes_nobodys_key(wanted in any_wanted(), was in any_was(), label in 0..3_usize) {
        // It is first in order, so that only holding keeps the others where they are.
        let newcomer = want(0, LABELS[label], "new");
        let wanted: Vec<Wanted> = wanted.into_iter().filter(|it| it.instance != newcomer.instance).collect();
        let others = was.into_iter().filter(|(_, was)| matches!(was, Was::Other)).collect();
        let mut view = view_of(&others, &wanted);
        let before = assign(&wanted, &view, &publisher());
        view.committed(&plan(&before, &view, 1, false), 1, 1_000);
        let mut after = assign(wanted.iter().chain([&newcomer]), &view, &publisher());
        after.retain(|_, it| it.instance != newcomer.instance);
        prop_assert_eq!(after, before);
    }

    #[test]
    fn who_has_a_key_keeps_it(wanted in any_wanted()) {
        let first = view_of(&BTreeMap::new(), &wanted);
        let assignment = assign(&wanted, &first, &publisher());
        let held = apply(&first, &plan(&assignment, &first, 1, false), 1).expect("free keys");
        let turned: Vec<Wanted> = wanted.into_iter().rev().collect();
        prop_assert_eq!(assign(&turned, &held, &publisher()), assignment);
    }
}

#[test]
fn an_occupied_plain_key_gives_a_hash_of_owner_and_id() {
    let wanted = [want(1, "a", "t")];
    let view = view_of(&[("/services/redis/a".to_owned(), Was::Other)].into(), &wanted);
    let keys: Vec<String> = assign(&wanted, &view, &publisher()).into_keys().collect();
    let hash = crate::model::words::name::short_hash(&format!("{OWNER}/a"));
    assert_eq!(keys, [format!("/services/redis/a-{hash}")]);
    assert_eq!(asides("/services/redis/a", &wanted[0].record).next(), Some(format!("/services/redis/a-{hash}")));
}

#[test]
fn the_plain_key_is_put_before_the_hashed_one_is_deleted() {
    let wanted = [want(1, "a", "old")];
    let hashed = hashed_keys(&wanted[0], &publisher()).next().expect("endless");
    let mut view = View::new(OWNER.into());
    let value = wanted[0].record.encode();
    view.put(Seen { key: &hashed, value: &value, lease: 1, revision: 5, read_at: None }, |_| true);
    let ops = plan(&assign(&wanted, &view, &publisher()), &view, 1, false);
    let told: Vec<(&str, bool)> = ops.iter().map(|op| (op.key.as_str(), op.change == Change::Delete)).collect();
    assert_eq!(told, [("/services/redis/a", false), (hashed.as_str(), true)]);
}

#[test]
fn a_lease_of_before_is_a_reason_to_write_and_the_same_record_is_none() {
    let wanted = [want(1, "a", "old")];
    let mut view = View::new(OWNER.into());
    let value = wanted[0].record.encode();
    view.put(Seen { key: "/services/redis/a", value: &value, lease: 1, revision: 5, read_at: None }, |_| true);
    let assignment = assign(&wanted, &view, &publisher());
    assert_eq!(plan(&assignment, &view, 1, false), []);
    assert_eq!(plan(&assignment, &view, 2, false).len(), 1);
}

#[test]
fn one_container_s_hundreds_do_not_go_before_another_s_only_one() {
    let mut wanted: Vec<Wanted> = (0..500).map(|number| want(1, &format!("a-{number}"), "t")).collect();
    wanted.push(want(2, "z", "t"));
    // What a third container leaves behind is no reason to wait either.
    let mut view = View::new(OWNER.into());
    for number in 0..300 {
        let (key, value) = (format!("/services/redis/gone-{number}"), want(3, "gone", "t").record.encode());
        view.put(Seen { key: &key, value: &value, lease: 1, revision: 5, read_at: None }, |_| true);
    }
    let ops = plan(&assign(&wanted, &view, &publisher()), &view, 1, false);
    assert_eq!(ops.len(), 801);
    let place = |key: &str| ops.iter().position(|op| op.key == key).expect("planned");
    assert!(place("/services/redis/z") < 3, "{}", place("/services/redis/z"));
    assert!(place("/services/redis/gone-9") < place("/services/redis/a-499"));
    assert!(apply(&view, &ops, 1).is_ok());
}
