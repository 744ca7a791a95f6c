//! One history: three hosts with a clock each, a store, programs, guards, and whatever the dice let happen.
//!
//! Time is in microseconds. A guard acts late by a tick at most when it does not stand still; the kernel's timer never
//! does.

use std::time::Duration;

use wharf::model::steer::lock::hold::{Hold, Verdict};

use crate::Mischief;
use crate::dice::Dice;
use crate::program::{Act, Program, Stage, keys};
use crate::store::{Reply, Request, Store};

const HOSTS: usize = 3;
const LONG: u64 = 22_000_000;
const MS: u64 = 1_000;
/// How much later than the guardian's own timer the kernel ends it.
const KERNEL: Duration = Duration::from_millis(150);

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub started: u64,
    pub by_time: u64,
    pub broken: Option<String>,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.by_time += other.by_time;
    }
}

/// A program under its guardian.
#[derive(Clone, Debug)]
struct Guard {
    hold: Hold,
    /// The guardian stands still until then.
    paused: u64,
    /// What it has not read, as it stands still.
    unread: Option<Hold>,
    started: bool,
    alive: bool,
    dies: Option<u64>,
    /// `wharf lock` is gone.
    orphan: bool,
    /// It does not end when it is asked to.
    stubborn: bool,
}

#[derive(Clone, Debug, Default)]
struct Host {
    offset: u64,
    /// Thousandths of the true rate.
    rate: u64,
    program: Option<Program>,
    paused: u64,
    cut: u64,
    guard: Option<Guard>,
    /// Guards whose `wharf lock` was killed.
    orphans: Vec<Guard>,
    life: u64,
}

enum Word {
    Request(Request),
    Reply(Reply, u64),
}

struct Message {
    at: u64,
    host: usize,
    life: u64,
    sent: Duration,
    word: Word,
}

struct World {
    dice: Dice,
    time: u64,
    store_rate: u64,
    hung: u64,
    store: Store,
    hosts: Vec<Host>,
    messages: Vec<Message>,
    /// Nobody new comes until then: who came just after a store was emptied would know of nobody.
    closed: u64,
    ttl: Duration,
    strict: bool,
    mischief: Option<Mischief>,
    outcome: Outcome,
    trace: bool,
}

/// Lives one history.
pub fn live(seed: u64, mischief: Option<Mischief>, trace: bool) -> Outcome {
    let mut dice = Dice::new(seed);
    let host = |dice: &mut Dice| Host {
        offset: dice.next() % (1_000_000 * MS),
        rate: 995 + dice.next() % 11,
        ..Host::default()
    };
    let hosts = (0..HOSTS).map(|_| host(&mut dice)).collect();
    let (ttl, strict) = (Duration::from_secs(2 + dice.next() % 3), dice.chance(10));
    let store_rate = 995 + dice.next() % 11;
    let (time, messages, outcome, store) = (0, vec![], Outcome::default(), Store::new());
    let mut world = World {
        dice,
        time,
        store_rate,
        hung: 0,
        store,
        hosts,
        messages,
        closed: 0,
        ttl,
        strict,
        mischief,
        outcome,
        trace,
    };
    while world.time < LONG && world.outcome.broken.is_none() {
        world.tick();
    }
    world.outcome
}

impl World {
    fn tell(&self, what: &str) {
        if self.trace {
            eprintln!("{:>9.3} {what}", self.time as f64 / 1e6);
        }
    }

    fn clock(&self, host: usize) -> Duration {
        let Host { offset, rate, .. } = self.hosts[host];
        Duration::from_micros(offset + self.time * rate / 1000)
    }

    fn store_clock(&self) -> Duration {
        Duration::from_micros(self.time * self.store_rate / 1000)
    }

    fn tick(&mut self) {
        self.time += (5 + self.dice.next() % 50) * MS;
        if self.time >= self.hung {
            let clock = self.store_clock();
            self.store.expire(clock, &mut self.dice);
        }
        self.deliver();
        for host in 0..HOSTS {
            self.guards(host);
            self.run(host);
        }
        self.trouble();
        self.look();
    }

    fn deliver(&mut self) {
        let due = |message: &Message, world: &Self| {
            let needs_store = matches!(message.word, Word::Request(_));
            let stands =
                if needs_store { world.time < world.hung } else { world.time < world.hosts[message.host].paused };
            message.at <= world.time && !stands
        };
        let messages = std::mem::take(&mut self.messages);
        let (now, later): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| due(message, self));
        self.messages = later;
        for message in now {
            let Message { host, life, sent, .. } = message;
            match message.word {
                Word::Request(request) => {
                    let clock = self.store_clock();
                    let reply = self.store.answer(request, clock, &keys());
                    let history = self.store.history;
                    self.post(host, life, sent, Word::Reply(reply, history));
                }
                Word::Reply(reply, history) if life == self.hosts[host].life => {
                    let now = self.clock(host);
                    self.tell(&format!("host {host} hears {reply:?} of history {history}"));
                    let Some(program) = &mut self.hosts[host].program else { continue };
                    let acts = program.reply(reply, history, sent, now);
                    self.act(host, acts);
                }
                Word::Reply(..) => {}
            }
        }
    }

    fn post(&mut self, host: usize, life: u64, sent: Duration, word: Word) {
        if self.time < self.hosts[host].cut || self.dice.chance(2) {
            return;
        }
        let most = if self.dice.chance(5) { 4_000 } else { 30 };
        let at = self.time + (1 + self.dice.next() % most) * MS;
        self.messages.push(Message { at, host, life, sent, word });
    }

    fn run(&mut self, host: usize) {
        if self.time < self.hosts[host].paused {
            return;
        }
        let now = self.clock(host);
        if self.hosts[host].program.is_none() && self.time >= self.closed && self.dice.chance(4) {
            self.hosts[host].program = Some(Program::new(self.ttl, self.strict, self.mischief));
            self.hosts[host].life += 1;
        }
        let dead = self.hosts[host].guard.as_ref().is_some_and(|guard| !guard.alive);
        let Some(program) = &mut self.hosts[host].program else { return };
        if dead && program.stage == Stage::Running {
            program.ended();
            self.hosts[host].guard = None;
        }
        let Some(program) = &mut self.hosts[host].program else { return };
        let acts = program.tick(now);
        let over = program.stage == Stage::Over;
        self.act(host, acts);
        if over {
            self.hosts[host].program = None;
        }
    }

    fn act(&mut self, host: usize, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Send(request, sent) => {
                    // The moment in which most depends on what comes next.
                    if matches!(request, Request::Start { .. }) && self.dice.chance(8) {
                        self.hosts[host].paused = self.time + self.dice.next() % 8_000 * MS;
                    }
                    let life = self.hosts[host].life;
                    self.post(host, life, sent, Word::Request(request));
                }
                Act::Start(hold) => self.start(host, hold),
                Act::Prolong(hold) => {
                    if let Some(guard) = &mut self.hosts[host].guard {
                        guard.unread = Some(hold);
                    }
                }
                Act::Kill => self.kill(host),
            }
        }
    }

    fn start(&mut self, host: usize, hold: Hold) {
        let by_time = self.hosts[host].program.as_ref().is_some_and(Program::is_by_time);
        self.outcome.by_time += u64::from(by_time);
        let paused = if self.dice.chance(3) { self.time + self.dice.next() % 6_000 * MS } else { 0 };
        let stubborn = self.dice.chance(60);
        self.hosts[host].guard = Some(Guard {
            hold,
            paused,
            unread: None,
            started: false,
            alive: true,
            dies: None,
            orphan: false,
            stubborn,
        });
        self.tell(&format!("host {host} starts, by time: {by_time}"));
    }

    /// Ended by `wharf lock`: with much time left, what is asked of the kernel may take some.
    fn kill(&mut self, host: usize) {
        let (now, time) = (self.clock(host), self.time);
        let slow = self.dice.next() % 1_000 * MS;
        let quick = self.dice.next() % 60 * MS;
        let early = self.mischief == Some(Mischief::CertifiesEarly);
        let Some(guard) = &mut self.hosts[host].guard else { return };
        let left = guard.hold.left(now);
        if guard.dies.is_none() {
            guard.dies = Some(time + if left > Duration::from_millis(1_500) { slow } else { quick });
            self.tell(&format!("host {host} kills"));
        }
        if early && let Some(guard) = self.hosts[host].guard.take() {
            self.hosts[host].orphans.push(guard);
            if let Some(program) = &mut self.hosts[host].program {
                program.ended();
            }
        }
    }

    fn guards(&mut self, host: usize) {
        let now = self.clock(host);
        let mut guard = self.hosts[host].guard.take();
        let mut orphans = std::mem::take(&mut self.hosts[host].orphans);
        for guard in guard.iter_mut().chain(&mut orphans) {
            self.guard(guard, now);
        }
        orphans.retain(|guard| guard.alive);
        (self.hosts[host].guard, self.hosts[host].orphans) = (guard, orphans);
    }

    fn guard(&mut self, guard: &mut Guard, now: Duration) {
        let stands = self.time < guard.paused;
        if !stands {
            if let Some(hold) = guard.unread.take() {
                guard.hold = hold;
            }
            let verdict = guard.hold.verdict(now, false);
            if verdict == Verdict::Kill {
                guard.dies = guard.dies.or(Some(self.time + self.dice.next() % 60 * MS));
            } else if !guard.started {
                guard.started = true;
                self.outcome.started += 1;
            }
            let asked = verdict == Verdict::Term || guard.orphan;
            if guard.started && (asked && !guard.stubborn && self.dice.chance(5) || self.dice.next() % 1_000 < 2) {
                guard.dies = guard.dies.or(Some(self.time));
            }
        }
        let kernel = self.mischief != Some(Mischief::NoKernelTimer) && now >= guard.hold.deadline() + KERNEL;
        if kernel || guard.dies.is_some_and(|dies| dies <= self.time) {
            guard.alive = false;
        }
    }

    fn trouble(&mut self) {
        let host = self.dice.below(HOSTS);
        let long = self.dice.next() % 7_000 * MS;
        let until = self.time + long;
        match self.dice.next() % 4_000 {
            0..20 => {
                self.tell(&format!("host {host}: wharf lock stands still for {long}"));
                self.hosts[host].paused = until;
            }
            20..40 => {
                self.tell(&format!("host {host}: the guardian stands still for {long}"));
                if let Some(guard) = &mut self.hosts[host].guard {
                    guard.paused = until;
                }
            }
            40..60 => {
                self.tell(&format!("host {host} is cut off for {long}"));
                self.hosts[host].cut = until;
            }
            60..75 => self.crash(host),
            75..82 => {
                if let Some(guard) = &mut self.hosts[host].guard {
                    guard.dies = Some(self.time);
                }
            }
            82..97 => {
                if let Some(lease) = self.store.head() {
                    self.tell(&format!("lease {lease} is revoked"));
                    self.store.revoke(lease);
                }
            }
            97..107 => {
                if let Some(lease) = self.store.head() {
                    self.tell(&format!("key {lease} is deleted"));
                    self.store.delete(lease);
                }
            }
            107..117 => {
                self.tell(&format!("the store hangs for {long}"));
                self.hung = until;
            }
            117..122 => {
                let clock = self.store_clock();
                self.store.change_leader(clock);
            }
            122..127 => self.store.save(),
            127..131 => self.go_back(true),
            131..135 => self.go_back(false),
            _ => {}
        }
    }

    fn crash(&mut self, host: usize) {
        self.tell(&format!("host {host}: wharf lock is killed"));
        let state = &mut self.hosts[host];
        (state.program, state.life) = (None, state.life + 1);
        if let Some(mut guard) = state.guard.take() {
            guard.orphan = true;
            state.orphans.push(guard);
        }
    }

    /// Whoever had not heard of the store yet knows of nobody, as one who comes just after: neither is in the promise.
    fn go_back(&mut self, empty: bool) {
        let clock = self.store_clock();
        if empty {
            self.store.wipe();
        } else {
            self.store.restore(clock);
        }
        self.tell(if empty { "the store is emptied" } else { "the store is restored" });
        self.closed = self.time + self.ttl.as_micros() as u64 * 11 / 10 + 1_500 * MS;
        for state in &mut self.hosts {
            if state.program.as_ref().is_some_and(|program| !program.has_heard()) {
                (state.program, state.life) = (None, state.life + 1);
            }
        }
    }

    fn look(&mut self) {
        let mut running = vec![];
        for (place, host) in self.hosts.iter().enumerate() {
            let guards = host.guard.iter().chain(&host.orphans);
            running.extend(guards.filter(|guard| guard.alive && guard.started).map(|_| place));
        }
        if running.len() > 1 {
            self.outcome.broken = Some(format!("at {} ms programs run on hosts {running:?}", self.time / MS));
            self.tell("two run");
        }
    }
}
