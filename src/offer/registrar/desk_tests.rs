//! The desk's row of commits, its echoes, and what others do meanwhile.

use super::*;
use crate::model::health::standing::{Standing, State};
use crate::model::offer::instance::{Check, DockerStanding, Source};
use crate::model::publish::op::Change;
use crate::model::words::key::Prefix;
use crate::model::words::name::{Label, ServiceName};
use crate::model::words::record::Proto;

/// A desk with `count` serving instances and lease 1, whose plan is whole.
fn desk(count: u16) -> Desk {
    desk_of((0..count).map(instance).collect())
}

/// The same with these.
pub(super) fn desk_of(instances: Vec<Instance>) -> Desk {
    let prefix = Prefix::parse("/services").expect("a prefix");
    let publisher = Publisher { node: "core-01".into(), owner: "owner-01".into(), prefix, site: None };
    let mut desk = Desk::new(publisher, Adopted::default(), false);
    let instances = instances.into_iter().map(|instance| (instance.key.clone(), Arc::new(instance)));
    desk.offer = Arc::new(Offer { instances: instances.collect(), listed: true, ..Offer::default() });
    let standing = Standing { state: State::Ready, role: None, since: SystemTime::UNIX_EPOCH, error: None };
    let standing = Arc::new(standing);
    desk.standings = Arc::new(desk.offer.instances.keys().map(|key| (key.clone(), Arc::clone(&standing))).collect());
    desk.lease = 1;
    desk.refresh(Instant::now());
    desk
}

pub(super) fn instance(number: u16) -> Instance {
    let id = format!("id-{number:05}");
    Instance {
        key: InstanceKey { source: Source::Container(id.as_str().into()), port: 80, proto: Proto::Tcp },
        services: vec![ServiceName::parse("web").expect("a name")],
        label: Label::slug(&id).expect("a label"),
        id: id.into(),
        host: "10.0.0.1".parse().expect("an address"),
        host6: None,
        port: 80,
        role: None,
        priority: None,
        weight: None,
        ttl: None,
        tags: Vec::new(),
        attrs: BTreeMap::new(),
        container_name: "web".into(),
        image: "web".into(),
        check: Check::default(),
        docker: DockerStanding::Running,
        started: "".into(),
    }
}

fn echo(ops: &[Op], lease: i64, revision: i64) -> Batch {
    let put = |op: &Op| match &op.change {
        Change::Put(record) => {
            let item = Item { key: op.key.clone(), value: record.encode().into(), lease, revision, created: 1 };
            Event::Put(item)
        }
        Change::Delete => Event::Delete { key: op.key.clone(), revision },
    };
    Batch { revision, events: ops.iter().map(put).collect() }
}

#[test]
fn a_row_of_commits_goes_on_without_working_anything_out_anew() {
    let mut desk = desk(250);
    let planned = desk.ops.clone();
    for (turn, ops) in planned.chunks(100).enumerate() {
        let revision = 10 + i64::try_from(turn).expect("few");
        // The echo of a commit comes before or after its outcome.
        if turn % 2 == 0 {
            assert_eq!(desk.batch(&echo(ops, 1, revision)), Heard::Echo);
        }
        assert!(desk.committed(ops, 1, revision));
        assert!(desk.batch(&echo(ops, 1, revision)) < Heard::News);
        assert_eq!(desk.pending.len(), desk.ops.len());
    }
    assert_eq!((desk.ops.len(), desk.written), (0, 12));
    desk.refresh(Instant::now());
    assert_eq!(desk.ops, [], "and working it out anew finds nothing left to do");
    assert!(desk.local().instances.iter().all(|shown| shown.published));
}

#[test]
fn what_was_planned_otherwise_meanwhile_is_worked_out_anew() {
    let mut desk = desk(3);
    let under_way = desk.ops.clone();
    desk.lease = 2;
    desk.refresh(Instant::now());
    assert!(!desk.committed(&under_way, 1, 10));
    desk.refresh(Instant::now());
    assert_eq!(desk.ops.len(), 3, "on the other lease");
}

#[test]
fn a_write_undone_before_its_outcome_came_is_made_again() {
    let mut desk = desk(1);
    let ops = desk.ops.clone();
    assert_eq!(desk.batch(&echo(&ops, 1, 11)), Heard::Echo);
    let deleted = Event::Delete { key: ops[0].key.clone(), revision: 12 };
    assert_eq!(desk.batch(&Batch { revision: 12, events: vec![deleted] }), Heard::News);
    desk.refresh(Instant::now());
    assert!(!desk.committed(&ops, 1, 11), "the delete came after it");
    assert_eq!(desk.ops, ops);
}

#[test]
fn what_others_do_to_a_key_is_news() {
    let mut desk = desk(2);
    let ops = desk.ops.clone();
    assert!(desk.committed(&ops, 1, 10));
    desk.refresh(Instant::now());
    let foreign = Item { key: ops[0].key.clone(), value: "{}".into(), lease: 0, revision: 11, created: 11 };
    assert_eq!(desk.batch(&Batch { revision: 11, events: vec![Event::Put(foreign)] }), Heard::News);
    let deleted = Event::Delete { key: ops[1].key.clone(), revision: 12 };
    assert_eq!(desk.batch(&Batch { revision: 12, events: vec![deleted] }), Heard::News);
    desk.refresh(Instant::now());
    assert_eq!(desk.ops.len(), 2);
}

#[test]
fn what_goes_is_no_news_once_it_is_gone() {
    let mut desk = desk(2);
    let puts = desk.ops.clone();
    assert!(desk.committed(&puts, 1, 10));
    desk.offer = Arc::new(Offer { listed: true, ..Offer::default() });
    desk.refresh(Instant::now());
    let deletes = desk.ops.clone();
    assert_eq!(deletes.len(), 2);
    assert_eq!(desk.batch(&echo(&deletes, 1, 11)), Heard::Echo);
    assert!(desk.committed(&deletes, 1, 11));
    desk.refresh(Instant::now());
    assert_eq!(desk.ops, []);
}
