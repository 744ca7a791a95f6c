//! The law of the shortcut: a plan that was shortened by what was done is the plan that working everything out anew
//! would give, whatever others do meanwhile and however late the store's words come.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::{desk_of, instance};
use super::*;
use crate::model::publish::op::{Change, Expect};
use crate::model::words::name::{Label, ServiceName};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The registrar asks for so many of the planned writes, if it would now.
    Commit(usize),
    /// It hears what came of them.
    Outcome,
    /// The watch brings so many events.
    Deliver(usize),
    /// It works everything out anew.
    Refresh,
    /// Someone else does this to the key of this number.
    Meddle(usize, Meddling),
    /// These instances begin to serve, or end.
    Offer(u16),
    /// The lease is another one.
    Lease,
}

#[derive(Clone, Copy, Debug)]
enum Meddling {
    Delete,
    Spoil,
    Take,
}

fn any_step() -> impl Strategy<Value = Step> {
    let meddling = prop_oneof![Just(Meddling::Delete), Just(Meddling::Spoil), Just(Meddling::Take)];
    prop_oneof![
        6 => (1..8_usize).prop_map(Step::Commit),
        6 => Just(Step::Outcome),
        6 => (1..8_usize).prop_map(Step::Deliver),
        6 => Just(Step::Refresh),
        4 => (0..32_usize, meddling).prop_map(|(number, meddling)| Step::Meddle(number, meddling)),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(some, others)| Step::Offer(some & others)),
        1 => Just(Step::Lease),
    ]
}

/// A commit under way: what was asked, and the revision at which it was made, or none if it was refused.
type UnderWay = (Vec<Op>, i64, Option<i64>);

/// A desk and a store whose words come when a test says.
struct World {
    desk: Desk,
    serves: u16,
    store: BTreeMap<String, Item>,
    revision: i64,
    events: VecDeque<Event>,
    under_way: Option<UnderWay>,
    /// What the registrar knows to have changed since it worked everything out.
    news: bool,
}

/// Every eighth has the label of another, every fourth a second service, and each container has two ports.
fn several(which: u16) -> Vec<Instance> {
    let one = |number: u16| {
        let mut one = instance(number / 2);
        (one.key.port, one.port) = (80 + number % 2, 80 + number % 2);
        one.label = Label::slug(&format!("id-{}", number % 8)).expect("a label");
        if number.is_multiple_of(4) {
            one.services.push(ServiceName::parse("api").expect("a name"));
        }
        one
    };
    (0..16).filter(|number| which & (1 << number) != 0).map(one).collect()
}

impl World {
    fn new(which: u16) -> Self {
        let desk = desk_of(several(which));
        let (store, events) = (BTreeMap::new(), VecDeque::new());
        Self { desk, serves: which, store, revision: 10, events, under_way: None, news: false }
    }

    fn put(&mut self, key: &str, value: Vec<u8>, lease: i64) {
        let item = Item { key: key.to_owned(), value: value.into(), lease, revision: self.revision, created: 1 };
        self.store.insert(key.to_owned(), item.clone());
        self.events.push_back(Event::Put(item));
    }

    fn delete(&mut self, key: &str) {
        if self.store.remove(key).is_some() {
            self.events.push_back(Event::Delete { key: key.to_owned(), revision: self.revision });
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Commit(count) => self.commit(count),
            Step::Outcome => self.outcome(),
            Step::Deliver(count) => self.deliver(count),
            Step::Refresh => self.refresh(),
            Step::Meddle(number, meddling) => self.meddle(number, meddling),
            Step::Offer(others) => {
                self.serves ^= others;
                let other = desk_of(several(self.serves));
                (self.desk.offer, self.desk.standings) = (other.offer, other.standings);
                self.news = true;
            }
            Step::Lease => {
                self.desk.lease += 1;
                self.news = true;
            }
        }
    }

    /// As the registrar does it: never while it knows of news or has a commit under way.
    fn commit(&mut self, count: usize) {
        if self.news || self.desk.overtaken() || self.under_way.is_some() || self.desk.ops.is_empty() {
            return;
        }
        let ops: Vec<Op> = self.desk.ops.iter().take(count).cloned().collect();
        let met = |op: &Op| match (&op.expect, self.store.get(&op.key)) {
            (Expect::Absent, there) => there.is_none(),
            (Expect::Holds(value), there) => there.is_some_and(|item| item.value == value[..]),
        };
        let lease = self.desk.lease;
        self.desk.view.read_begins();
        if !ops.iter().all(met) {
            self.under_way = Some((ops, lease, None));
            return;
        }
        self.revision += 1;
        for op in &ops {
            match &op.change {
                Change::Put(record) => self.put(&op.key, record.encode(), lease),
                Change::Delete => self.delete(&op.key),
            }
        }
        self.under_way = Some((ops, lease, Some(self.revision)));
    }

    fn outcome(&mut self) {
        match self.under_way.take() {
            None => {}
            Some((ops, lease, Some(revision))) => self.news |= !self.desk.committed(&ops, lease, revision),
            Some((ops, _, None)) => {
                let asked: Vec<String> = ops.into_iter().map(|op| op.key).collect();
                let items = asked.iter().filter_map(|key| self.store.get(key).cloned()).collect();
                self.desk.read(&asked, &Page { items, more: false, revision: self.revision });
                self.news = true;
            }
        }
    }

    fn deliver(&mut self, count: usize) {
        let events: Vec<Event> = self.events.drain(..count.min(self.events.len())).collect();
        let of = |event: &Event| match event {
            Event::Put(item) => item.revision,
            Event::Delete { revision, .. } => *revision,
        };
        // All of one revision come in one batch, as the store tells them.
        let Some(last) = events.last().map(of) else { return };
        let rest = self.events.iter().take_while(|event| of(event) == last).count();
        let events = events.into_iter().chain(self.events.drain(..rest)).collect();
        self.news |= self.desk.batch(&Batch { revision: last, events }) == Heard::News;
    }

    fn refresh(&mut self) {
        self.desk.refresh(Instant::now());
        self.news = false;
    }

    fn meddle(&mut self, number: usize, meddling: Meddling) {
        let keys: Vec<String> = self.desk.interest().into_iter().collect();
        let Some(key) = keys.get(number % keys.len().max(1)) else { return };
        self.revision += 1;
        let theirs = Record { host: "h".into(), owner: Some("owner-02".into()), ..Record::default() };
        match meddling {
            Meddling::Delete => self.delete(key),
            Meddling::Spoil => self.put(key, b"garbage".to_vec(), 0),
            Meddling::Take => self.put(key, theirs.encode(), 0),
        }
    }

    /// What would be planned now; those of one container in order, which is all of the order that matters.
    fn anew(&self) -> BTreeMap<String, Vec<Op>> {
        let desk = &self.desk;
        let assignment = assign(desk.made.values().flat_map(|made| &made.wanted), &desk.view, &desk.publisher);
        self.by_container(&plan(&assignment, &desk.view, desk.lease, false))
    }

    fn by_container(&self, ops: &[Op]) -> BTreeMap<String, Vec<Op>> {
        let mut sorted: BTreeMap<String, Vec<Op>> = BTreeMap::new();
        for op in ops {
            let record = match &op.change {
                Change::Put(record) => Some(record),
                Change::Delete => self.desk.view.ours().find(|(key, ..)| **key == op.key).map(|(.., record)| record),
            };
            let container = record.and_then(|record| record.container.as_deref()).unwrap_or_default();
            sorted.entry(container.to_owned()).or_default().push(op.clone());
        }
        sorted
    }

    /// Lets everything come to rest.
    fn settle(&mut self) {
        for _ in 0..16 {
            self.outcome();
            self.deliver(usize::MAX);
            self.refresh();
            self.commit(100);
        }
    }
}

proptest! {
    #[test]
    fn a_shortened_plan_is_a_plan_worked_out_anew(which in any::<u16>(), steps in prop::collection::vec(any_step(), 0..100)) {
        let mut world = World::new(which);
        for step in &steps {
            world.step(step);
            if !world.news && !world.desk.overtaken() && world.under_way.is_none() {
                prop_assert_eq!(world.by_container(&world.desk.ops), world.anew(), "after {:?}", step);
            }
        }
        world.settle();
        prop_assert_eq!(&world.desk.ops, &Vec::new(), "what was put right stays so");
        for (key, assigned) in &world.desk.assignment {
            let held = world.store.get(key).map(|item| (item.value.to_vec(), item.lease));
            prop_assert_eq!(held, Some((assigned.record.encode(), world.desk.lease)), "{}", key);
        }
    }
}
