//! Operators, agents and servers that die or hang at any step of a switch, under writers that must lose nothing.
//!
//! A few in `make test`; `WHARF_DRILL=1` makes it two hundred. `WHARF_SEED` repeats one run's choices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use wharf::model::steer::journal::Stage;
use wharf::steer::{Ask, Outcome, Request};
use wharf::store::embedded::Embedded;

use crate::agent::{agent, all_are_shown, started, switched};
use crate::dice::Dice;
use crate::program::{Agent, wharf};
use crate::servers::{Client, Server};
use crate::writers::Writers;
use crate::{Operator, REDIS, all_follow, desired, eventually, journal, operator, three};

/// How long the steps between two writes of the journal take, about: deaths are spread over it.
const STEPS: Duration = Duration::from_millis(5);
/// What the journal says when the time of a death begins.
const STAGES: [Stage; 4] = [Stage::Intent, Stage::Promote, Stage::Publish, Stage::Done];
/// Clients at work.
const WRITERS: usize = 4;

fn rounds(few: usize, many: usize) -> usize {
    if std::env::var_os("WHARF_DRILL").is_some() { many } else { few }
}

fn dice() -> Dice {
    let given = std::env::var("WHARF_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("WHARF_SEED={seed}");
    Dice::new(seed)
}

async fn up_to(most: Duration, dice: &mut Dice) {
    sleep(Duration::from_micros(dice.below(most.as_micros() as usize) as u64)).await;
}

/// Sees to it that no two servers are master at once.
struct Judge {
    found: Arc<AtomicBool>,
    _running: AbortOnDropHandle<()>,
}

impl Judge {
    fn start(ports: [u16; 3]) -> Self {
        let found = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&found);
        let running = tokio::spawn(async move {
            let mut clients = [const { None }; 3];
            loop {
                if let Some(two) = two_masters(&mut clients, ports).await {
                    eprintln!("two masters at once: {two:?}");
                    told.store(true, Ordering::Relaxed);
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { found, _running: AbortOnDropHandle::new(running) }
    }
}

/// Two of them, of which the first still is master after the second has said so.
async fn two_masters(clients: &mut [Option<Client>; 3], ports: [u16; 3]) -> Option<(u16, u16)> {
    let mut masters = vec![];
    for (client, port) in clients.iter_mut().zip(ports) {
        if is_master(client, port).await {
            masters.push(port);
        }
    }
    let [first, second, ..] = masters[..] else { return None };
    let place = ports.iter().position(|port| *port == first)?;
    is_master(&mut clients[place], first).await.then_some((first, second))
}

async fn is_master(client: &mut Option<Client>, port: u16) -> bool {
    let asked = async {
        if client.is_none() {
            *client = Client::open(([127, 0, 0, 1], port).into()).await.ok();
        }
        client.as_mut()?.ask(&["ROLE"]).await.ok()
    };
    let role = timeout(Duration::from_millis(200), asked).await.ok().flatten();
    if role.is_none() {
        *client = None;
    }
    role.is_some_and(|role| role.starts_with("master"))
}

/// The one that takes writes, once there is one and all others have their link to it.
async fn settled(servers: &[Server; 3]) -> usize {
    let mut master = None;
    eventually("one server is master", async || {
        let mut masters = vec![];
        for (index, server) in servers.iter().enumerate() {
            if is_master(&mut None, server.port).await {
                masters.push(index);
            }
        }
        master = masters.first().copied().filter(|_| masters.len() == 1);
        master.is_some()
    })
    .await;
    let master = master.unwrap();
    all_follow(&servers.each_ref(), master).await;
    master
}

fn report(what: &str, worst: Duration, tally: &crate::writers::Tally) {
    eprintln!("{what}: {tally:?}; the longest time without a write {worst:?}");
    assert_eq!(tally.missing, 0, "{tally:?}");
    assert!(tally.acked > 100, "{tally:?}");
}

/// What befalls whom in the midst of a switch.
#[derive(Clone, Copy, Debug)]
enum Fate {
    OperatorDies,
    ServerDies(usize),
    ServerHangs(usize),
}

/// One of the fates, and whether the operator dies with a server.
fn fate(dice: &mut Dice, master: usize, target: usize) -> (Fate, bool) {
    let whom = if dice.chance(50) { master } else { target };
    let fate = match dice.below(4) {
        0 | 1 => Fate::OperatorDies,
        2 => Fate::ServerDies(whom),
        _ => Fate::ServerHangs(whom),
    };
    (fate, dice.chance(50))
}

async fn befall(fate: Fate, servers: &mut [Server; 3], dice: &mut Dice) {
    match fate {
        Fate::OperatorDies => {}
        Fate::ServerDies(whom) => {
            servers[whom].down();
            up_to(Duration::from_millis(300), dice).await;
            servers[whom].up();
        }
        Fate::ServerHangs(whom) => {
            servers[whom].signal(Signal::STOP);
            up_to(Duration::from_millis(2_500), dice).await;
            servers[whom].signal(Signal::CONT);
        }
    }
}

async fn ask(operator: &Operator, servers: &[Server; 3], target: usize) -> oneshot::Receiver<Outcome> {
    let (reply, outcome) = oneshot::channel();
    let ask = Ask::Apply { desired: desired(&servers.each_ref(), target), force: false, dry_run: false };
    operator.handle.requests.send(Request { ask, reply }).await.unwrap();
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_operators_and_servers_cost_no_acknowledged_write() {
    let (mut dice, store) = (dice(), Embedded::new());
    let (mut servers, first) = three(REDIS, &store).await;
    let ports = servers.each_ref().map(|server| server.port);
    let judge = Judge::start(ports);
    let writers = Writers::hunting(ports.to_vec(), WRITERS, Duration::from_millis(2));
    let (mut at_work, mut master) = (first, 0);
    let count = rounds(5, 150);
    for round in 0..count {
        writers.progress().await;
        let target = (master + 1 + dice.below(2)) % 3;
        let before = journal(&store).await.map_or(0, |journal| journal.number);
        // Who asked stays until the round is over: a request that nobody waits for any more is not begun.
        let _waits = ask(&at_work, &servers, target).await;
        let from = STAGES[dice.below(STAGES.len())];
        let reached = async {
            while journal(&store).await.is_none_or(|journal| journal.number <= before || journal.stage < from) {
                tokio::task::yield_now().await;
            }
        };
        // One that is refused never gets there.
        _ = timeout(Duration::from_secs(3), reached).await;
        up_to(STEPS, &mut dice).await;
        let (fate, also) = fate(&mut dice, master, target);
        let stage = journal(&store).await.map(|journal| journal.stage);
        let dies = also || matches!(fate, Fate::OperatorDies);
        let survivor = Some(at_work).filter(|_| !dies);
        befall(fate, &mut servers, &mut dice).await;
        let refs = servers.each_ref();
        let next = operator(&format!("op-{round}"), &store, &refs, Duration::from_millis(500));
        eventually("what was begun is ended", async || journal(&store).await.unwrap().is_over()).await;
        master = settled(&servers).await;
        eprintln!("{round}: {fate:?} at {stage:?}, operator dies: {dies}; {master} is master");
        drop(survivor);
        at_work = next;
    }
    writers.progress().await;
    let (told, worst) = writers.stop_with_gap().await;
    let tally = told.against(&servers[master].ask(&["LRANGE", "log", "0", "-1"]).await);
    report(&format!("{count} deaths"), worst, &tally);
    assert!(!judge.found.load(Ordering::Relaxed), "two masters at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_agent_cost_no_acknowledged_write() {
    let (mut dice, servers) = (dice(), started());
    let mut agent = agent(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    let ports = servers.each_ref().map(|server| server.port);
    let (judge, count) = (Judge::start(ports), rounds(2, 50));
    let writers = Writers::hunting(ports.to_vec(), WRITERS, Duration::from_millis(2));
    let mut master = settled(&servers).await;
    for round in 0..count {
        writers.progress().await;
        let target = (master + 1 + dice.below(2)) % 3;
        // Each stage is written, and told so.
        let stages = |agent: &Agent| agent.log().matches("written").count();
        let from = stages(&agent) + 1 + dice.below(STAGES.len());
        let mut command = wharf();
        command.args(["topology", "switch", "redis-1", "--to", &servers[target].name]);
        command.arg("--http-socket").arg(agent.socket());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut asking = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        while stages(&agent) < from && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        up_to(STEPS, &mut dice).await;
        agent.restart();
        asking.wait().unwrap();
        master = settled(&servers).await;
        eprintln!("{round}: the agent was killed; {master} is master");
    }
    writers.progress().await;
    let (told, worst) = writers.stop_with_gap().await;
    let tally = told.against(&servers[master].ask(&["LRANGE", "log", "0", "-1"]).await);
    report(&format!("{count} kills of the agent"), worst, &tally);
    assert!(!judge.found.load(Ordering::Relaxed), "two masters at once");
}
