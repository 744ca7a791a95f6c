//! One history: servers, the store, clients and two hosts with an operator each, and whatever the dice let happen.

mod operators;
mod rest;
mod trouble;

use std::collections::VecDeque;

use wharf::model::steer::command::Command;
use wharf::model::steer::journal::Journal;
use wharf::model::steer::server::Sight;
use wharf::model::steer::topology::Applied;

use crate::Mischief;
use crate::dice::Dice;
use crate::machine::{Follows, Machine, Writes};
use crate::operator::{Operator, servers};
use crate::store::{Commit, Store};

const HOSTS: usize = 2;
const STEPS: usize = 160;
/// Writes are bits of one word.
const MOST_WRITES: u8 = 60;

/// A promise that a history broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub promise: Promise,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Never two that take writes.
    OneMaster,
    /// No acknowledged write is lost while one copy lives.
    NothingLost,
    /// A master again after an operator's death.
    MasterAgain,
    /// No command of an operation that is over takes a master away.
    MasterStays,
}

/// A connection that an operation has to a server, with what it has sent and the server has not read.
#[derive(Clone, Debug, Default)]
struct Connection {
    operator: u64,
    queue: VecDeque<Option<Command>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Somebody restored or emptied the store.
    store: bool,
    /// A server lost data by itself: its host rebooted, or it came back empty or old.
    data: bool,
}

pub struct World {
    dice: Dice,
    time: u64,
    machines: Vec<Machine>,
    /// Whether host `h` reaches server `s`.
    cut: Vec<[bool; HOSTS]>,
    connections: Vec<Vec<Connection>>,
    store: Store,
    commits: Vec<Commit>,
    /// What planted bugs have sent: where, whose, what.
    strays: Vec<(usize, u64, Command)>,
    operators: [Option<Operator>; HOSTS],
    /// The highest number that a host has seen, which it keeps over a crash, and the last journal.
    known: [u64; HOSTS],
    read: [Option<Journal>; HOSTS],
    acked: Writes,
    writes: u8,
    names: u64,
    trouble: Trouble,
    mischief: Option<Mischief>,
    broken: Option<Broken>,
    trace: bool,
}

/// Lives one history; what it broke, if anything.
pub fn live(seed: u64, mischief: Option<Mischief>, trace: bool) -> Option<Broken> {
    let mut world = World::new(seed, mischief, trace);
    for _ in 0..STEPS {
        world.event();
        world.look();
        if world.broken.is_some() {
            return world.broken;
        }
    }
    world.come_to_rest();
    world.broken
}

impl World {
    fn new(seed: u64, mischief: Option<Mischief>, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let count = 2 + dice.below(2);
        let append_only = dice.chance(60);
        let mut machines: Vec<Machine> =
            (0..count).map(|at| Machine::new(at as u32 + 1, at as u64 + 1, append_only)).collect();
        // A topology that works, as `applied` has it.
        for at in 1..count {
            machines[at].follows = Follows::At(0);
            let master = machines[0].clone();
            machines[at].sync(&master);
        }
        let mut world = Self {
            dice,
            time: 0,
            cut: vec![[false; HOSTS]; count],
            connections: vec![vec![]; count],
            machines,
            store: Store::default(),
            commits: vec![],
            strays: vec![],
            operators: [None, None],
            known: [0; HOSTS],
            read: [None, None],
            acked: 0,
            writes: 0,
            names: 100,
            trouble: Trouble::default(),
            mischief,
            broken: None,
            trace,
        };
        let state = world.machines[0].state();
        let mut list = servers(count);
        let mut master = list.remove("0").map(|(server, _)| server).unwrap_or_default();
        (master.run, master.position) = (state.run, state.position);
        let replicas = (1..count).map(|at| at.to_string()).collect();
        let applied = Applied { epoch: 1, master, replicas, ..Applied::default() };
        world.store.now.applied = Some((applied, 1));
        world.store.now.revision = 1;
        world.store.save();
        world
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>6} {}", self.time, what());
        }
    }

    /// What a planted bug sent is read at last.
    fn read_a_stray(&mut self) {
        let which = self.dice.below(self.strays.len());
        let (at, operator, command) = self.strays.swap_remove(which);
        if self.machines[at].up {
            self.execute(at, operator, &command);
        }
    }

    /// One thing happens.
    fn event(&mut self) {
        if !self.strays.is_empty() && self.dice.chance(2) {
            return self.read_a_stray();
        }
        match self.dice.below(100) {
            0..22 => self.read_a_command(),
            22..46 => self.operator_acts(),
            46..54 => self.deliver_a_commit(),
            54..56 => self.go_well(),
            56..66 => self.write(),
            66..78 => self.replicate(),
            78..84 => self.pass_time(),
            84..92 => self.begin(),
            92..95 => self.crash(),
            95..97 => self.trouble_a_server(),
            97 => self.trouble_a_link(),
            98 => self.store.save(),
            _ => self.trouble_the_store(),
        }
    }

    fn pass_time(&mut self) {
        self.time += [1, 50, 300, 1_500, 6_000][self.dice.below(5)];
        self.store.expire(self.time);
    }

    fn write(&mut self) {
        let at = self.dice.below(self.machines.len());
        if self.writes < MOST_WRITES && self.machines[at].takes_writes(self.time) {
            self.machines[at].write(self.writes);
            self.acked |= 1 << self.writes;
            self.writes += 1;
        }
        if self.dice.chance(20) && self.machines[at].is_master() {
            self.machines[at].ping();
        }
        if self.dice.chance(10) {
            self.machines[at].save();
        }
    }

    /// One replica takes a little, or begins to follow.
    fn replicate(&mut self) {
        let at = self.dice.below(self.machines.len());
        let most = 1 + self.dice.below(4);
        self.follow(at, most);
    }

    fn follow(&mut self, at: usize, most: usize) {
        let Follows::At(of) = self.machines[at].follows else { return };
        if of == at || !self.machines[at].up || !self.machines[of].up {
            return;
        }
        let master = self.machines[of].clone();
        if self.machines[at].link {
            self.machines[at].pull(&master, most);
        } else if master.feeds() {
            let before = self.machines[at].data;
            if self.machines[at].sync(&master) {
                self.drop_links_to(at);
            }
            let kept = self.machines.iter().fold(0, |all, machine| all | machine.data);
            let lost = before & self.acked & !kept;
            if lost != 0 {
                self.breaks(Promise::NothingLost, format!("{at} followed {of} and lost {lost:b}"));
            }
        }
    }

    fn drop_links_to(&mut self, of: usize) {
        for machine in &mut self.machines {
            if machine.follows == Follows::At(of) {
                machine.link = false;
            }
        }
    }

    /// A server reads the next command of one of its connections, and its operator hears of it, now or never.
    fn read_a_command(&mut self) {
        let at = self.dice.below(self.machines.len());
        let Some(which) = (!self.connections[at].is_empty()).then(|| self.dice.below(self.connections[at].len()))
        else {
            return;
        };
        self.execute_next(at, which);
    }

    fn execute_next(&mut self, at: usize, which: usize) {
        if !self.machines[at].up {
            return;
        }
        let operator = self.connections[at][which].operator;
        let Some(command) = self.connections[at][which].queue.pop_front() else { return };
        if let Some(command) = &command {
            self.execute(at, operator, command);
        }
        let state = self.machines[at].state();
        let sight = Sight::Answers(Box::new(state));
        self.reply(at, operator, command.as_ref(), &sight);
    }

    fn execute(&mut self, at: usize, operator: u64, command: &Command) {
        let fresh = self.name() as u32;
        self.tell(|| format!("server {at} executes {command:?} of {operator}"));
        if matches!(command, Command::Release { .. }) && self.machines[at].is_master() {
            self.breaks(Promise::MasterStays, format!("{operator} gave the master {at} away"));
        }
        if self.machines[at].execute(command, self.time, fresh).promoted {
            self.drop_links_to(at);
            self.check_new_master(at);
        }
    }

    fn reply(&mut self, at: usize, operator: u64, command: Option<&Command>, sight: &Sight) {
        let time = self.time;
        for own in self.operators.iter_mut().flatten().filter(|own| own.id == operator) {
            own.hears(at, command, sight.clone(), time);
        }
    }

    /// Whoever becomes master has all that anybody has, but for what a reboot left on an old disk.
    fn check_new_master(&mut self, at: usize) {
        let rebooted = |machine: &Machine| machine.rebooted == Some(true);
        let others =
            self.machines.iter().filter(|machine| !rebooted(machine)).fold(0, |all, machine| all | machine.data);
        let lacks = others & self.acked & !self.machines[at].data;
        if lacks != 0 {
            self.breaks(Promise::NothingLost, format!("{at} became master and lacks {lacks:b}"));
        }
    }

    /// The promises that hold at every moment.
    fn look(&mut self) {
        let masters: Vec<usize> = (0..self.machines.len()).filter(|&at| self.machines[at].is_master()).collect();
        if masters.len() > 1 {
            self.breaks(Promise::OneMaster, format!("{masters:?} take writes"));
        }
    }

    fn breaks(&mut self, promise: Promise, what: String) {
        self.tell(|| format!("BROKEN {promise:?}: {what}"));
        self.broken.get_or_insert(Broken { promise, what });
    }
}
