//! The search for what costs most: the best so far are changed a little, and stay if that made them worse.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wharf::catalog::dns::{Answer, ResponseCode};
use wharf::catalog::steps::MOST;
use wharf::model::words::zone::Zones;

use super::asked::Asked;
use super::chance::Chance;
use super::naive;
use super::world::{World, zones};
use super::worst::known;

/// How long one search takes by default.
const SECONDS: u64 = 20;
/// Of each kind so many are kept.
const KEPT: usize = 8;
/// Questions asked of one world before it changes.
const QUESTIONS: usize = 40;
/// One question of so many is held against every record of the world.
const COMPARED: usize = 20;
/// How much longer a step may take than one of a plain question does.
const HONEST: f64 = 6.0;
/// Nanoseconds that a question may take.
const LONGEST: f64 = 1e6;
/// What takes less is quick, however few its steps: reading a name of 127 labels takes 80 µs on a busy machine, and
/// what is not counted there grows no further.
const SHORT: f64 = LONGEST / 10.0;
/// How much longer than the worst that is known one may take, asked at the same time, where both take longer than that:
/// others on the machine take caches away from each alike.
const WORSE: f64 = 1.4;
/// How often a question that seemed slow is asked again, 25 times each.
const PATIENCE: usize = 500;
/// A plain step takes longer only where the program is not optimized: then time tells nothing.
const OPTIMIZED: f64 = 150.0;
/// Steps that are not counted: reading the question, making the message.
const UNCOUNTED: f64 = 200.0;

static SERVED: LazyLock<Zones> = LazyLock::new(zones);

/// What is searched for the most of.
#[derive(Clone, Copy, Debug)]
enum Most {
    Steps,
    Time,
    TimePerStep,
}

const MOST_OF: [Most; 3] = [Most::Steps, Most::Time, Most::TimePerStep];

/// A question of a world, and what it cost.
#[derive(Clone, Debug)]
struct Case {
    world: World,
    asked: Asked,
    steps: usize,
    nanoseconds: f64,
}

impl Case {
    fn worth(&self, most: Most) -> f64 {
        match most {
            Most::Steps => as_float(self.steps),
            Most::Time => self.nanoseconds,
            Most::TimePerStep => self.per_step(),
        }
    }

    fn per_step(&self) -> f64 {
        self.nanoseconds / (as_float(self.steps) + UNCOUNTED)
    }

    /// What it takes when nothing disturbs it, of so many times.
    fn least_time(&self, times: usize) -> f64 {
        self.time_now(times).min(self.nanoseconds)
    }

    /// The same without what it took before.
    fn time_now(&self, times: usize) -> f64 {
        let once = |_| {
            let begun = cpu();
            self.asked.answer(&self.world.catalog, &SERVED);
            cpu() - begun
        };
        (0..times).map(once).fold(f64::INFINITY, f64::min)
    }
}

/// Nanoseconds that this thread has worked: a clock on the wall goes on while others do.
fn cpu() -> f64 {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap().as_secs_f64() * 1e9
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { world, asked, steps, nanoseconds } = self;
        let (micros, per_step) = (nanoseconds / 1e3, self.per_step());
        writeln!(f, "{steps} steps, {micros:.0} µs, {per_step:.0} ns a step\n    {asked}")?;
        world.fmt(f)
    }
}

#[allow(clippy::cast_precision_loss)] // Numbers of steps are small.
fn as_float(number: usize) -> f64 {
    number as f64
}

/// The worst of each kind.
struct Search {
    chance: Chance,
    kept: [Vec<Case>; 3],
    asked: u64,
    /// What a step of a plain question takes, where steps are timed: not in a short search, which is a test and holds
    /// on a busy machine too.
    plain: Option<f64>,
    /// What takes longest of all that is known, once that has been asked.
    known: Option<Case>,
}

impl Search {
    fn new(seed: u64, timed: bool) -> Self {
        let plain = timed.then(plain_step).filter(|plain| *plain <= OPTIMIZED);
        Self { chance: Chance(seed), kept: Default::default(), asked: 0, plain, known: None }
    }

    fn round(&mut self) {
        let chance = &mut self.chance;
        let kind = chance.below(3);
        let parent = self.kept[kind].get(chance.below(KEPT + 2)).cloned();
        let world = match &parent {
            Some(parent) if chance.one_in(2) => parent.world.clone(),
            Some(parent) => parent.world.mutated(chance),
            None => World::any(chance),
        };
        check_plain(&world);
        let mut asked = parent.map(|parent| parent.asked);
        for _ in 0..QUESTIONS {
            let next = match &asked {
                Some(asked) if !self.chance.one_in(4) => asked.mutated(&mut self.chance),
                _ => Asked::any(&mut self.chance, &world),
            };
            let compared = self.chance.one_in(COMPARED);
            let Some(case) = self.tried(&world, next, compared) else { continue };
            if self.keep(&case) {
                asked = Some(case.asked);
            }
        }
    }

    /// Asks, and holds the answer against the law.
    fn tried(&mut self, world: &World, asked: Asked, compared: bool) -> Option<Case> {
        self.asked += 1;
        let begun = cpu();
        let answer = asked.answer(&world.catalog, &SERVED)?;
        let nanoseconds = cpu() - begun;
        let mut case = Case { world: world.clone(), asked, steps: answer.steps, nanoseconds };
        let is_quick = self.is_quick_once(&mut case);
        let verdict = lawful(&case, &answer, compared);
        assert!(verdict.is_ok(), "{}: {case}", verdict.unwrap_err());
        assert!(is_quick, "not counted, a plain step takes {:.0?} ns: {case}", self.plain);
        if self.plain.is_some() && self.is_among_the_worst(&case) {
            case.nanoseconds = case.least_time(5);
        }
        Some(case)
    }

    /// Whether it was quick once, of many times: others take caches and half a core away, but not for so long.
    #[allow(clippy::disallowed_methods)] // plain threads: nobody's runtime is held up
    fn is_quick_once(&self, case: &mut Case) -> bool {
        (0..PATIENCE).any(|_| {
            if self.is_quick(case) || self.is_like_known(case) {
                return true;
            }
            case.nanoseconds = case.least_time(25);
            std::thread::sleep(Duration::from_millis(20));
            false
        })
    }

    /// Whether what is known to take longest does not take much less at this moment.
    fn is_like_known(&self, case: &Case) -> bool {
        let honest = self.plain.is_none_or(|plain| case.per_step() <= HONEST * plain);
        honest && self.known.as_ref().is_some_and(|known| case.nanoseconds <= WORSE * known.time_now(5))
    }

    /// Whether it takes no longer than a question may, and its steps no longer than steps do.
    fn is_quick(&self, case: &Case) -> bool {
        let honest = |plain| case.nanoseconds <= SHORT || case.per_step() <= HONEST * plain;
        self.plain.is_none_or(|plain| case.nanoseconds <= LONGEST && honest(plain))
    }

    fn is_among_the_worst(&self, case: &Case) -> bool {
        MOST_OF.into_iter().zip(&self.kept).any(|(most, best)| is_among(case, most, best))
    }

    fn keep(&mut self, case: &Case) -> bool {
        let mut kept = false;
        for (most, best) in MOST_OF.into_iter().zip(&mut self.kept) {
            if is_among(case, most, best) {
                best.push(case.clone());
                best.sort_by(|one, two| two.worth(most).total_cmp(&one.worth(most)));
                best.truncate(KEPT);
                kept = true;
            }
        }
        kept
    }

    fn tell(&self) {
        println!("{} questions asked; a step of a plain one takes {:.0?} ns", self.asked, self.plain);
        for (most, best) in MOST_OF.into_iter().zip(&self.kept) {
            best.first().into_iter().for_each(|case| println!("  {most:?}: {case}"));
        }
    }
}

/// Whether a case is worse than one of the worst so far.
fn is_among(case: &Case, most: Most, best: &[Case]) -> bool {
    best.len() < KEPT || best.last().is_some_and(|least| case.worth(most) > least.worth(most))
}

/// What a step takes of a question that has nothing special.
fn plain_step() -> f64 {
    let world = World::of(Vec::new());
    let asked = Asked::read("large.services.internal A");
    let time = |_| {
        let begun = cpu();
        let steps = asked.answer(&world.catalog, &SERVED).unwrap().steps;
        (cpu() - begun) / as_float(steps)
    };
    (0..50).map(time).fold(f64::INFINITY, f64::min)
}

/// What holds of every answer.
fn lawful(case: &Case, answer: &Answer, compared: bool) -> Result<(), String> {
    let Case { world, asked, .. } = case;
    if answer.steps > MOST {
        return Err(format!("{} steps", answer.steps));
    }
    if (answer.rcode == ResponseCode::ServFail) != answer.spent {
        return Err("SERVFAIL without its reason".to_owned());
    }
    if answer.spent && naive::is_plain(asked, &world.catalog) {
        return Err("a plain name is SERVFAIL".to_owned());
    }
    if compared { naive::compare(asked, &world.catalog, answer) } else { Ok(()) }
}

/// The plain service of a world, and the plain record in each folder, are answered.
pub fn check_plain(world: &World) {
    let addresses = |question: &str| {
        let answer = Asked::read(question).answer(&world.catalog, &SERVED).unwrap();
        let found = answer.answers.iter().chain(&answer.additional).filter_map(|record| record.data.ip_addr());
        let mut found: Vec<String> = found.map(|address| address.to_string()).collect();
        found.sort();
        found
    };
    let plain = ["10.9.9.1", "10.9.9.2", "10.9.9.3"];
    for question in ["plain.services.internal A", "plain.services.internal SRV", "_plain._tcp.services.internal SRV"] {
        assert_eq!(addresses(question), plain, "{question} beside\n{world}");
    }
    for (key, address) in world.plain() {
        let Some(path) = key.strip_prefix("/services/") else { continue };
        let labels = path.split('/').flat_map(|segment| segment.rsplit('.')).map(str::to_ascii_lowercase);
        let mut labels: Vec<String> = labels.collect();
        labels.reverse();
        let name = format!("{}.services.internal", labels.join("."));
        let selects = labels.iter().any(|label| label == "*" || label == "any");
        if name.len() <= 253 && !selects {
            assert_eq!(addresses(&format!("{name} A")), [address], "{name} among\n{world}");
        }
    }
}

/// Asks one question of a world, and says what it took; the answer when the law holds.
pub fn asked_of(world: &World, question: &str) -> Answer {
    let asked = Asked::read(question);
    let answer = asked.answer(&world.catalog, &SERVED).unwrap();
    let mut case = Case { world: world.clone(), asked, steps: answer.steps, nanoseconds: f64::INFINITY };
    let verdict = lawful(&case, &answer, true);
    assert!(verdict.is_ok(), "{}: {case}", verdict.unwrap_err());
    case.nanoseconds = case.least_time(5);
    println!("{question}: {} steps, {:.0} µs", case.steps, case.nanoseconds / 1e3);
    answer
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn search_for_what_costs_most() {
    let seed = number("WHARF_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("WHARF_SEED={seed}");
    let end = Instant::now() + Duration::from_secs(number("WHARF_SEARCH").unwrap_or(SECONDS));
    let mut search = Search::new(seed, number("WHARF_SEARCH").is_some());
    for (world, asked) in known() {
        search.tried(&world, asked, true).iter().for_each(|case| _ = search.keep(case));
        search.known = search.kept[Most::Time as usize].first().cloned();
    }
    let mut told = Instant::now();
    while Instant::now() < end {
        search.round();
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            search.tell();
        }
    }
    search.tell();
}
