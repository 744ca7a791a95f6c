//! What is broken on purpose, and how it is made whole again. Each fault notes what it breaks, and from when to when,
//! for the judge; what it does to etcd is seen by asking etcd, too.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::bounds;
use crate::churn;
use crate::field::{Field, clock_file, hold, state_dir};
use crate::lab::host::lock;
use crate::lab::wait::{pause, poll_for};
use crate::query;
use crate::trouble::{Trouble, What};
use crate::truth::{Moment, Span};

/// A fault. Hosts and servers are numbered from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and started again well within its lease.
    KillAgent(usize),
    /// SIGKILL, and started again long after its lease.
    LoseAgent(usize),
    /// SIGKILL for all of them at once.
    RestartAllAgents,
    KillMember(usize),
    HangMember(usize),
    /// Two of three members hang.
    LoseQuorum(usize),
    /// Every member loses all of its data.
    WipeEtcd,
    Cut(usize),
    LossyLinks(usize),
    SlowLinks(usize),
    RestartEngine(usize),
    /// A server stands still.
    Freeze(usize),
    /// The clock of one agent jumps, by seconds.
    StepClock(usize, i32),
    FillDisk(usize),
}

/// The faults by name, each with the dice for where.
pub const NAMES: [&str; 14] = [
    "kill-agent",
    "lose-agent",
    "restart-all-agents",
    "kill-member",
    "hang-member",
    "lose-quorum",
    "wipe-etcd",
    "cut",
    "lossy-links",
    "slow-links",
    "restart-engine",
    "freeze",
    "step-clock",
    "fill-disk",
];

impl Fault {
    /// The fault of a name, somewhere.
    pub fn named(name: &str, field: &Field<'_>, dice: &mut StdRng) -> Option<Self> {
        let host = dice.random_range(0..field.lab.hosts().len());
        let slot = dice.random_range(0..field.slots.len());
        // Less than the day after which a kept catalog does not count any more.
        let step = [-72_000, -3600, -30, 30, 3600, 72_000][dice.random_range(0..6)];
        Some(match name {
            "kill-agent" => Self::KillAgent(host),
            "lose-agent" => Self::LoseAgent(host),
            "restart-all-agents" => Self::RestartAllAgents,
            "kill-member" => Self::KillMember(host),
            "hang-member" => Self::HangMember(host),
            "lose-quorum" => Self::LoseQuorum(host),
            "wipe-etcd" => Self::WipeEtcd,
            "cut" => Self::Cut(host),
            "lossy-links" => Self::LossyLinks(host),
            "slow-links" => Self::SlowLinks(host),
            "restart-engine" => Self::RestartEngine(host),
            "freeze" => Self::Freeze(slot),
            "step-clock" => Self::StepClock(host, step),
            "fill-disk" => Self::FillDisk(host),
            _ => return None,
        })
    }

    /// How long it lasts.
    pub fn length(self, long: bool, dice: &mut StdRng) -> Duration {
        let between = |dice: &mut StdRng, from, to| Duration::from_millis(dice.random_range(from..to));
        match self {
            Self::KillAgent(_) | Self::RestartAllAgents => between(dice, 0, 1000),
            Self::LoseAgent(_) | Self::Freeze(_) => between(dice, 9000, 12_000),
            Self::LoseQuorum(_) if long => Duration::from_secs(60),
            // Long after the others went on without it, and long after its leases are over by its own reckoning.
            Self::HangMember(_) if long => between(dice, 20_000, 30_000),
            Self::RestartEngine(_) => between(dice, 0, 3000),
            Self::WipeEtcd => between(dice, 0, 2000),
            _ => between(dice, 4000, 12_000),
        }
    }

    /// Breaks it, waits, and makes it whole again.
    pub fn happen(self, field: &Field<'_>, length: Duration) {
        if let Self::Freeze(slot) = self {
            return freeze(field, slot, length);
        }
        let from = field.now();
        self.strike(field);
        let sure = field.now();
        pause(length);
        let mending = field.now();
        self.mend(field);
        for what in self.breaks(field) {
            match self {
                // What is left of the cluster goes on: only those who were connected to this member have to move.
                Self::KillMember(_) | Self::HangMember(_) => {
                    field.note(Trouble { what, span: Span { from, to: sure + bounds::SILENT.length }, sure });
                    field.note(Trouble { what, span: Span { from: mending, to: field.now() }, sure: mending });
                }
                _ => field.note(Trouble { what, span: Span { from, to: field.now() }, sure }),
            }
        }
    }

    /// No two of a kind at once; etcd's members, above all, are wiped or started by one alone.
    fn kind(self) -> std::mem::Discriminant<Self> {
        let store = matches!(self, Self::KillMember(_) | Self::HangMember(_) | Self::LoseQuorum(_));
        std::mem::discriminant(if store { &Self::WipeEtcd } else { &self })
    }

    fn breaks(self, field: &Field<'_>) -> Vec<What> {
        match self {
            Self::KillAgent(n) | Self::LoseAgent(n) => vec![What::Agent(n)],
            Self::RestartAllAgents => (0..field.agents.len()).map(What::Agent).collect(),
            Self::KillMember(_) | Self::HangMember(_) | Self::LoseQuorum(_) | Self::WipeEtcd => vec![What::Store],
            Self::Cut(n) => vec![What::Cut(n)],
            Self::LossyLinks(n) | Self::SlowLinks(n) => vec![What::Links(n)],
            Self::RestartEngine(n) => vec![What::Engine(n)],
            Self::FillDisk(n) => vec![What::Disk(n)],
            Self::Freeze(_) | Self::StepClock(..) => vec![],
        }
    }

    fn strike(self, field: &Field<'_>) {
        match self {
            Self::KillAgent(n) | Self::LoseAgent(n) => lock(&field.agents[n]).process().kill(),
            Self::RestartAllAgents => field.agents.iter().for_each(|agent| lock(agent).process().kill()),
            Self::KillMember(n) => field.host(n).etcd().kill(),
            Self::HangMember(n) => hang(field, n),
            Self::LoseQuorum(n) => [n, (n + 1) % 3].into_iter().for_each(|n| hang(field, n)),
            Self::WipeEtcd => field.lab.hosts().iter().for_each(crate::lab::host::Host::wipe_etcd),
            Self::Cut(n) => field.host(n).cut(),
            Self::LossyLinks(n) => field.host(n).lose(10),
            Self::SlowLinks(n) => field.host(n).throttle("1mbit"),
            Self::RestartEngine(n) => drop(field.host(n).engine().terminate()),
            Self::StepClock(n, by) => write(&clock_file(field.host(n)), format!("{by:+}").as_bytes()),
            Self::FillDisk(n) => fill(field, n),
            Self::Freeze(_) => {}
        }
    }

    fn mend(self, field: &Field<'_>) {
        match self {
            Self::KillAgent(n) | Self::LoseAgent(n) => start_agent(field, n),
            Self::RestartAllAgents => (0..field.agents.len()).for_each(|n| start_agent(field, n)),
            Self::KillMember(_) | Self::HangMember(_) | Self::LoseQuorum(_) | Self::WipeEtcd => mend_store(field),
            Self::Cut(n) => field.host(n).heal(),
            Self::LossyLinks(n) | Self::SlowLinks(n) => field.host(n).calm_links(),
            Self::RestartEngine(n) => field.host(n).start_engine(),
            Self::StepClock(n, _) => write(&clock_file(field.host(n)), b"+0"),
            Self::FillDisk(n) => drop(fs::remove_file(state_dir(field.host(n)).join(BALLAST))),
            Self::Freeze(_) => {}
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn freeze(field: &Field<'_>, slot: usize, length: Duration) {
    let never = AtomicBool::new(false);
    // The churn may have it in its hands; then it has its fate already.
    if let Some(_hands) = hold(&field.slots[slot]) {
        let _ = churn::freeze(field, slot, length, &never);
    }
}

fn start_agent(field: &Field<'_>, n: usize) {
    let mut agent = lock(&field.agents[n]);
    if !agent.process().runs() {
        agent.process().start_again();
    }
}

fn hang(field: &Field<'_>, n: usize) {
    let mut member = field.host(n).etcd();
    if member.runs() {
        member.hang();
    }
}

/// Every member runs again, and those that can reach each other answer.
fn mend_store(field: &Field<'_>) {
    for host in field.lab.hosts() {
        let mut member = host.etcd();
        if member.runs() {
            member.thaw();
        } else {
            member.start_again();
        }
    }
    let answers = |n: usize| query::store_term(std::net::SocketAddrV4::new(field.host(n).address(), 2379)).is_some();
    poll_for(Duration::from_secs(20), || (0..field.lab.hosts().len()).any(answers));
}

const BALLAST: &str = "ballast";

fn fill(field: &Field<'_>, n: usize) {
    let file = state_dir(field.host(n)).join(BALLAST);
    let mut ballast = fs::File::create(&file).unwrap_or_else(|error| panic!("create {}: {error}", file.display()));
    // The disk holds a mebibyte.
    let full = (0..4096).any(|_| ballast.write_all(&[0; 1024]).is_err());
    assert!(full, "{} takes ever more", file.display());
}

fn write(file: &std::path::Path, text: &[u8]) {
    fs::write(file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
}

/// How long all is watched before the first fault.
pub const LEAD_IN: Duration = Duration::from_secs(1);

/// A drill: what happens, each for how long, and how much later than the one before.
pub type Plan = Vec<(Fault, Duration, Duration)>;

const TRIES: usize = 100;

/// One to three faults of these names, overlapping as it comes.
pub fn random_plan(field: &Field<'_>, names: &[&str], dice: &mut StdRng, clock: bool) -> Plan {
    let count = [1, 1, 2, 2, 3][dice.random_range(0..5)];
    let mut plan = Plan::new();
    // Of a few names not all may go together.
    for _ in 0..TRIES {
        if plan.len() == count {
            break;
        }
        let name = names[dice.random_range(0..names.len())];
        let Some(fault) = Fault::named(name, field, dice) else { continue };
        let again = plan.iter().any(|(other, ..)| other.kind() == fault.kind());
        if again || (!clock && matches!(fault, Fault::StepClock(..))) {
            continue;
        }
        let length = fault.length(dice.random_range(0..5) == 0, dice);
        plan.push((fault, length, Duration::from_millis(dice.random_range(0..4000))));
    }
    plan
}

/// How long all must have been quiet before a plan: agents that start again are to find everything in their files.
pub fn quiet_before(plan: &Plan) -> Duration {
    let mut at = LEAD_IN;
    let restarts = plan.iter().find_map(|(fault, _, later)| {
        at += *later;
        matches!(fault, Fault::KillAgent(_) | Fault::RestartAllAgents).then_some(at)
    });
    restarts.map_or(Duration::ZERO, |at| bounds::FILED.length.saturating_sub(at))
}

/// A seed to run the same drill again.
pub fn any_seed() -> u64 {
    rand::rng().next_u64() % 1_000_000
}

/// When all of a plan is over.
pub fn carry_out(field: &Field<'_>, plan: &Plan) -> Moment {
    std::thread::scope(|scope| {
        for (fault, length, later) in plan {
            pause(*later);
            scope.spawn(move || fault.happen(field, *length));
        }
    });
    field.now()
}
