//! One history: a store, hosts with disks, and what befalls them.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf::model::steer::ordinal::claim::{Act, Agent, Claimer, Me, Seen, Write};
use wharf::model::steer::ordinal::entry::{Entry, Holding, Stored};

use crate::Mischief;
use crate::dice::Dice;

const HOSTS: usize = 5;
/// How long trouble comes, and how long there is peace then.
const TROUBLE: Duration = Duration::from_secs(90);
const PEACE: Duration = Duration::from_secs(45);
/// How long two that see the store may both think that they have a number: one who comes back to a store that went back
/// gives holders their 2 s, then a look and a commit.
const BOTH: Duration = Duration::from_millis(3_500);
/// How long holders have in a store that went back.
const FIRST: Duration = Duration::from_secs(4);
/// How long an agent is thought to live that was cut off.
const LEASE: Duration = Duration::from_secs(30);

/// What was lived through.
#[derive(Debug, Default)]
pub struct Lived {
    pub broken: Option<String>,
    pub held: u64,
    pub lost: u64,
    pub restores: u64,
    /// Numbers that were written again.
    pub again: u64,
}

impl Lived {
    pub fn add(&mut self, other: &Self) {
        self.held += other.held;
        self.lost += other.lost;
        self.restores += other.restores;
        self.again += other.again;
    }
}

#[derive(Clone, Default)]
struct State {
    revision: i64,
    numbers: BTreeMap<u32, Stored>,
}

struct Store {
    now: State,
    copy: State,
    generation: u64,
}

struct Host {
    name: String,
    machine: String,
    disk: Option<Holding>,
    claimer: Option<Claimer>,
    is_cut: bool,
    /// When it was last heard of.
    heard: Duration,
    generation: u64,
    look_at: Duration,
    /// A write on its way.
    on_its_way: Option<(Duration, Write)>,
    /// What it thinks that it has.
    has: Option<u32>,
    /// The store's history in which it saw last that it has it.
    seen_in: u64,
    /// The number that it had in this life, as long as nobody freed it.
    had: Option<u32>,
    /// It saw all of a store that went back, since then, and had a number.
    sees_it_all: Option<(Duration, u32)>,
    /// A number that it claimed as one who had none, and since when it counts.
    given: Option<(Duration, u32)>,
    /// Its node record is in the store.
    is_told: bool,
}

struct World {
    dice: Dice,
    now: Duration,
    store: Store,
    hosts: Vec<Host>,
    mischief: Option<Mischief>,
    traces: bool,
    lived: Lived,
    /// A number that was just given may not be taken again. That can befall a host where the store goes back right
    /// then, so it only tells a planted mischief from none, in one and the same history.
    is_strict: bool,
    /// Two hosts bear one name: a person only tells them apart.
    has_twins: bool,
    /// Nothing has happened that may change the number of a name.
    numbers_stay: bool,
    /// The number of each name then.
    first: BTreeMap<String, u32>,
    both: BTreeMap<u32, Duration>,
}

/// Lives a history.
pub fn live(seed: u64, mischief: Option<Mischief>, traces: bool) -> Lived {
    run(World::new(seed, mischief, traces))
}

/// Lives the same one with a stricter judge.
pub fn live_strictly(seed: u64, mischief: Option<Mischief>) -> Lived {
    run(World { is_strict: true, ..World::new(seed, mischief, false) })
}

fn run(mut world: World) -> Lived {
    while world.now < TROUBLE + PEACE && world.lived.broken.is_none() {
        world.step();
    }
    world.judge_end();
    world.lived
}

impl World {
    fn new(seed: u64, mischief: Option<Mischief>, traces: bool) -> Self {
        let mut dice = Dice::new(seed);
        let has_twins = dice.chance(30);
        let host = |number: usize| {
            // The last one may bear the name of the first.
            let name = if has_twins && number == HOSTS - 1 { 0 } else { number };
            Host {
                name: format!("n{name}"),
                machine: format!("m{number}"),
                disk: None,
                claimer: None,
                is_cut: false,
                heard: Duration::ZERO,
                generation: 0,
                look_at: Duration::ZERO,
                on_its_way: None,
                has: None,
                seen_in: 0,
                had: None,
                sees_it_all: None,
                given: None,
                is_told: false,
            }
        };
        let store = Store { now: State { revision: 1, ..State::default() }, copy: State::default(), generation: 0 };
        Self {
            dice,
            now: Duration::ZERO,
            store,
            hosts: (0..HOSTS).map(host).collect(),
            mischief,
            traces,
            lived: Lived::default(),
            is_strict: false,
            has_twins,
            numbers_stay: !has_twins,
            first: BTreeMap::new(),
            both: BTreeMap::new(),
        }
    }

    fn is(&self, mischief: Mischief) -> bool {
        self.mischief == Some(mischief)
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(100);
        if self.now < TROUBLE {
            self.trouble();
        } else {
            self.peace();
        }
        for at in 0..HOSTS {
            self.arrive(at);
            if self.hosts[at].look_at <= self.now {
                self.look(at);
            }
        }
        self.judge();
    }

    fn trouble(&mut self) {
        let at = self.dice.below(HOSTS);
        let what = self.dice.below(1_000);
        if self.traces && (80..164).contains(&what) {
            eprintln!("{:?} trouble {what} for m{at}: {:?}", self.now, self.store.now.numbers);
        }
        match what {
            0..=79 => self.start(at),
            80..=91 => self.crash(at),
            92..=99 => {
                self.crash(at);
                self.hosts[at].disk = None;
            }
            100..=111 => {
                self.hosts[at].is_cut = true;
                self.hosts[at].sees_it_all = None;
            }
            112..=143 => self.hosts[at].is_cut = false,
            144..=151 => self.store.copy = self.store.now.clone(),
            152..=154 => self.restore(),
            155 => {
                self.store.copy = State { revision: 1, ..State::default() };
                self.restore();
            }
            156..=159 => self.release(at),
            160..=163 => self.renumber(at),
            _ => {}
        }
    }

    fn peace(&mut self) {
        for at in 0..HOSTS {
            self.hosts[at].is_cut = false;
            self.start(at);
        }
    }

    fn start(&mut self, at: usize) {
        let forgets = self.is(Mischief::ForgetsItsName) && self.hosts[at].disk.is_none() && self.dice.chance(50);
        let host = &mut self.hosts[at];
        if host.claimer.is_some() {
            return;
        }
        let name = if forgets { format!("{}x", host.name) } else { host.name.clone() };
        let me = Me { node: name.as_str().into(), machine: Some(host.machine.as_str().into()) };
        host.claimer = Some(Claimer::new(me, host.disk.clone()));
        (host.generation, host.heard, host.look_at) = (self.store.generation, self.now, self.now);
        host.is_told = false;
    }

    fn crash(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        (host.claimer, host.on_its_way, host.has, host.had, host.sees_it_all) = (None, None, None, None, None);
        host.given = None;
    }

    fn restore(&mut self) {
        self.store.now = self.store.copy.clone();
        self.store.now.revision = self.store.now.revision.max(1);
        let before = self.store.generation;
        self.store.generation += 1;
        self.lived.restores += 1;
        self.numbers_stay = false;
        self.both.clear();
        let alone = |number| self.hosts.iter().filter(|host| host.has == Some(number)).count() == 1;
        let sees: Vec<_> = self
            .hosts
            .iter()
            .map(|host| {
                // Two hosts of one name are told apart by a person only.
                let has_twin = self.hosts.iter().filter(|other| other.name == host.name).count() > 1;
                let is_there = host.claimer.is_some() && !host.is_cut && host.seen_in == before;
                host.has.filter(|number| is_there && !has_twin && alone(*number))
            })
            .collect();
        for (host, sees) in self.hosts.iter_mut().zip(sees) {
            host.sees_it_all = sees.map(|number| (self.now, number));
            host.is_told = false;
        }
    }

    /// A person frees the number of a host.
    fn release(&mut self, at: usize) {
        let name = self.hosts[at].name.clone();
        let own = self
            .store
            .now
            .numbers
            .iter()
            .find(|(_, stored)| stored.entry.as_ref().is_some_and(|entry| *entry.node == *name));
        let Some((number, stored)) = own.map(|(number, stored)| (*number, stored.clone())) else { return };
        let lives = self.agents().iter().any(|agent| *agent.node == *name && agent.number == Some(number));
        self.numbers_stay = false;
        self.hosts.iter_mut().filter(|host| host.name == name).for_each(|host| {
            (host.had, host.sees_it_all) = (None, None);
        });
        self.store.now.revision += 1;
        if lives {
            let entry = stored.entry.map(|entry| Entry { released: true, ..entry });
            self.store.now.numbers.insert(number, Stored { revision: self.store.now.revision, entry });
        } else {
            self.store.now.numbers.remove(&number);
        }
    }

    /// A person lets a host that lost its number have another one, after having stopped what ran by it.
    fn renumber(&mut self, at: usize) {
        let seen = self.seen();
        let now = self.now;
        let host = &mut self.hosts[at];
        if host.is_cut || host.on_its_way.is_some() {
            return;
        }
        if let Some(claimer) = &mut host.claimer
            && matches!(claimer.clone().look(now, &time(now), &seen), Act::Lost { .. })
        {
            claimer.forget();
            (host.disk, host.has, host.had) = (None, None, None);
            self.numbers_stay = false;
        }
    }

    fn agents(&self) -> Vec<Agent> {
        let lives = |host: &&Host| host.is_told && host.claimer.is_some() && self.now < host.heard + LEASE;
        let agent = |host: &Host| Agent {
            node: host.name.as_str().into(),
            machine: Some(host.machine.as_str().into()),
            number: host.has,
        };
        self.hosts.iter().filter(lives).map(agent).collect()
    }

    fn seen(&self) -> Seen {
        Seen { numbers: self.store.now.numbers.clone(), agents: self.agents() }
    }

    /// A write that was on its way is made, or not; its word may be lost.
    fn arrive(&mut self, at: usize) {
        let Some((when, write)) = self.hosts[at].on_its_way.take() else { return };
        if when > self.now {
            self.hosts[at].on_its_way = Some((when, write));
            return;
        }
        if self.hosts[at].is_cut && self.dice.chance(50) {
            return;
        }
        let (blind, store) = (self.is(Mischief::BlindWrites), &mut self.store.now);
        let is_so = |number: u32, revision: Option<i64>| store.numbers.get(&number).map(|it| it.revision) == revision;
        let instead_of = write.instead_of.is_none_or(|(number, revision)| is_so(number, Some(revision)));
        let holds = is_so(write.number, write.over) && instead_of;
        if !(blind || holds) {
            return;
        }
        store.revision += 1;
        let revision = store.revision;
        store.numbers.insert(write.number, Stored { revision, entry: Some(write.entry.clone()) });
        if let Some((number, _)) = write.instead_of {
            store.numbers.remove(&number);
        }
        self.lived.again += u64::from(!write.entry.tentative && self.hosts[at].disk.is_some());
        let is_heard = !self.hosts[at].is_cut && self.dice.chance(90);
        let (host, now) = (&mut self.hosts[at], self.now);
        if let Some(claimer) = host.claimer.as_mut().filter(|_| is_heard) {
            claimer.wrote(now, &write, revision);
        }
    }

    fn look(&mut self, at: usize) {
        let pause = 100 + self.dice.below(400) as u64;
        let (seen, now, generation) = (self.seen(), self.now, self.store.generation);
        let ignores = self.is(Mischief::IgnoresHistory);
        let host = &mut self.hosts[at];
        host.look_at = now + Duration::from_millis(pause);
        if host.is_cut || host.on_its_way.is_some() {
            return;
        }
        let Some(claimer) = &mut host.claimer else { return };
        host.heard = now;
        if std::mem::replace(&mut host.generation, generation) != generation && !ignores {
            claimer.went_back(now);
        }
        let act = claimer.look(now, &time(now), &seen);
        // It is told of some time later than it claims.
        host.is_told |= self.dice.chance(30);
        self.act(at, act);
    }

    fn act(&mut self, at: usize, act: Act) {
        let delay = Duration::from_millis(self.dice.below(300) as u64);
        let (counts_at_once, never_again) = (self.is(Mischief::CountsAtOnce), self.is(Mischief::NeverWritesAgain));
        let by_itself = self.is(Mischief::RenumbersByItself);
        let (now, host) = (self.now, &mut self.hosts[at]);
        if self.traces && !matches!(act, Act::Have(_)) {
            eprintln!("{now:?} {}/{} {act:?}", host.name, host.machine);
        }
        match act {
            Act::Write(write) if never_again && host.has == Some(write.number) => {}
            Act::Write(mut write) => {
                write.entry.tentative &= !counts_at_once;
                host.on_its_way = Some((now + delay, write));
            }
            Act::Have(holding) => {
                self.lived.held += u64::from(host.has.is_none());
                if host.disk.is_none() {
                    host.given = Some((now, holding.number));
                }
                (host.has, host.seen_in) = (Some(holding.number), host.generation);
                host.disk = Some(holding);
            }
            Act::Lost { number, .. } => {
                self.lived.lost += u64::from(host.has.is_some());
                host.has = None;
                host.disk = host.claimer.as_ref().and_then(Claimer::holding).cloned();
                if let Some((since, had)) = host.sees_it_all
                    && had == number
                    && now < since + FIRST
                {
                    self.lived.broken = Some(format!("{} lost {number} though it was there", host.name));
                }
                if let Some((since, given)) = host.given.take()
                    && given == number
                    && now < since + FIRST
                    && self.is_strict
                    && !self.has_twins
                {
                    self.lived.broken = Some(format!("{} was given {number}, and it was taken again", host.name));
                }
                if by_itself && let Some(claimer) = &mut host.claimer {
                    claimer.forget();
                }
            }
            Act::Released { number, revision } => {
                let numbers = &mut self.store.now.numbers;
                if numbers.get(&number).is_some_and(|stored| stored.revision == revision) {
                    numbers.remove(&number);
                    self.store.now.revision += 1;
                    (host.disk, host.has, host.had) = (None, None, None);
                    host.claimer.iter_mut().for_each(Claimer::forget);
                }
            }
            Act::At(_) | Act::Refused { .. } => {}
            Act::Full => self.lived.broken = Some("full".to_owned()),
        }
    }

    fn judge(&mut self) {
        let mut broken = None;
        let mut holders = BTreeMap::<u32, usize>::new();
        for host in &mut self.hosts {
            let Some(number) = host.has else { continue };
            let had = *host.had.get_or_insert(number);
            if had != number {
                broken = Some(format!("{} had {had} and has {number}", host.name));
            }
            if !host.is_cut {
                *holders.entry(number).or_default() += 1;
            }
            if self.numbers_stay {
                let first = *self.first.entry(host.name.clone()).or_insert(number);
                if first != number {
                    broken = Some(format!("{} was {first} and is {number}", host.name));
                }
            }
        }
        self.both.retain(|number, _| holders.get(number).is_some_and(|count| *count > 1));
        for (number, _) in holders.iter().filter(|(_, count)| **count > 1) {
            let since = *self.both.entry(*number).or_insert(self.now);
            if self.now > since + BOTH {
                broken = Some(format!("two have {number}"));
            }
        }
        self.lived.broken = self.lived.broken.take().or(broken.map(|what| format!("{:?}: {what}", self.now)));
    }

    /// In peace everybody has a number of his own, or knows that he has none.
    fn judge_end(&mut self) {
        if self.lived.broken.is_some() {
            return;
        }
        let seen = self.seen();
        let mut has = BTreeMap::<u32, &str>::new();
        for host in &self.hosts {
            let act = host.claimer.clone().map(|mut claimer| claimer.look(self.now, &time(self.now), &seen));
            let what = match act {
                Some(Act::Have(holding)) => match has.insert(holding.number, &host.machine) {
                    None => continue,
                    Some(other) => format!("{} and {other} have {}", host.machine, holding.number),
                },
                Some(Act::Lost { .. } | Act::Refused { .. }) => continue,
                other => format!("{} is not done: {other:?}", host.machine),
            };
            self.lived.broken = Some(what);
            return;
        }
    }
}

fn time(now: Duration) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + now).to_string()
}
