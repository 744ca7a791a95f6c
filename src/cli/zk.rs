//! `wharf zk-list-nodes` and `wharf zk-barrier`, also by links of these names: the ensemble's members, and a wait until
//! they can be relied on.
//!
//! The list is what the hosts tell. The barrier asks the members themselves, also those that their hosts call not
//! ready: such a word may be some seconds old.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use tokio::net::lookup_host;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::client::ClientError;
use super::exit::Exit;
use super::source::{Source, SourceArgs};
use super::terminal::Terminal;
use crate::catalog::facade::api::Services;
use crate::catalog::facade::zookeeper::barrier::{Answers, Barrier, Next, Said, place};
use crate::catalog::facade::zookeeper::cell::{Cell, Member, list};
use crate::model::words::node::NodeRecord;
use crate::model::words::ordinal::RoleName;
use crate::model::words::record::Text;
use crate::wire::zookeeper::{Mode, Reply, session, srvr};
use crate::wire::{Connection, WireError};

/// How long a member may take to say what it is.
const ASKING: Duration = Duration::from_millis(500);
/// And to grant a session: a quorum has to agree.
const GRANTING: Duration = Duration::from_secs(1);
/// Members are asked so often, and after a while half as often: each writes a line into its log.
const OFTEN: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_millis(500);
const A_WHILE: Duration = Duration::from_secs(60);
/// Hosts are asked so often for those that they call not ready.
const NODES: Duration = Duration::from_secs(1);
/// Barriers of a whole cell open at one moment: their sessions are spread over this.
const JITTER: Duration = Duration::from_millis(100);

/// Which ensemble is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct CellArgs {
    /// Service whose instances are the members
    #[arg(long, value_name = "NAME", default_value = "zookeeper")]
    pub service: String,

    /// Role in whose order members are listed, by the numbers of their hosts [default: the only one that these have,
    /// else by the names of their hosts]
    #[arg(long, value_name = "ROLE", value_parser = RoleName::parse)]
    pub ordinal: Option<RoleName>,

    /// How many members are enough
    #[arg(long, value_name = "N", env = "num_servers", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub min: u32,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub source: SourceArgs,
}

/// Print the members of the ZooKeeper ensemble that serve, as h1:2181,h2:2181
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  printed\n  1  fewer than --min serve\n  2  wrong use\n  3  no agent answers, nor the store"
)]
pub struct ListArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cell: CellArgs,
}

/// Wait until the ZooKeeper ensemble serves and each member grants a session, then print them
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "EXIT CODES:
  0    it serves: the members that granted a session are printed, or the program's own code
  1    it did not at the deadline
  2    wrong use
  3    at the deadline no agent answered, nor the store
  126  the program cannot be executed")]
pub struct BarrierArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cell: CellArgs,

    /// How long the members must have been the same, where they refuse to say what they are
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub stable: Duration,

    /// How long to wait at most [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,

    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,

    /// Program to become then, with the members in ZK_NODES
    #[arg(last = true)]
    pub command: Vec<String>,
}

impl CellArgs {
    fn cell(&self, services: &Services, nodes: &[NodeRecord]) -> Cell {
        Cell::of(&self.service, services.services.first(), nodes, self.ordinal.as_ref())
    }
}

/// Runs `wharf zk-list-nodes`.
pub async fn list_nodes(args: ListArgs, terminal: &mut Terminal) -> Exit {
    let source = match args.cell.source.source(terminal) {
        Ok(source) => source,
        Err(exit) => return exit,
    };
    match known(&source, &args.cell).await {
        Err(error) => {
            error.report(terminal);
            Exit::Unreachable
        }
        Ok((cell, is_stale)) => {
            if is_stale {
                terminal.note("stale: the store is away or not read yet; this is what was known last");
            }
            let ready: Vec<&Member> = cell.ready().collect();
            if ready.len() < args.cell.min as usize {
                let todo = "`wharf nodes` for what is down where, or --min for a smaller cell";
                terminal.fail(&not_enough(ready.len(), &args.cell), todo);
                return Exit::NotMet;
            }
            terminal.print(&format!("{}\n", list(ready)));
            Exit::Done
        }
    }
}

fn not_enough(found: usize, args: &CellArgs) -> String {
    format!("not enough servers found ({found} out of {})", args.min)
}

/// The cell, and whether that is what was known last.
async fn known(source: &Source, args: &CellArgs) -> Result<(Cell, bool), ClientError> {
    let services = match source.services(Some(&args.service)).await {
        // A service that nobody has has no members; some may be on their way.
        Err(ClientError::Refused { status: 404, .. }) => Services::default(),
        told => told?,
    };
    Ok((args.cell(&services, &source.nodes().await?.nodes), services.stale))
}

/// Runs `wharf zk-barrier`, and tells the exit code.
pub async fn barrier(args: BarrierArgs, terminal: &mut Terminal) -> u8 {
    let source = match args.cell.source.source(terminal) {
        Ok(source) => source,
        Err(exit) => return exit as u8,
    };
    let members = match open(source, &args, terminal).await {
        Ok(members) => list(&members),
        Err(exit) => return exit as u8,
    };
    let Some((program, arguments)) = args.command.split_first() else {
        terminal.print(&format!("{members}\n"));
        return Exit::Done as u8;
    };
    let error = std::process::Command::new(program).args(arguments).env("ZK_NODES", members).exec();
    terminal.fail(&format!("{program}: {error}"), "a program that can be found and executed");
    if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Where the waiting stands.
struct Waiting<'a> {
    args: &'a BarrierArgs,
    barrier: Barrier,
    begun: Instant,
    services: Option<Services>,
    nodes: Vec<NodeRecord>,
    /// Why nobody can be asked.
    trouble: Option<ClientError>,
    said: String,
}

/// The members that granted a session, once enough of them did.
async fn open(source: Source, args: &BarrierArgs, terminal: &mut Terminal) -> Result<Vec<Member>, Exit> {
    let deadline = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut follow = source.clone().follow(Some(args.cell.service.clone()));
    let (mut hosts, mut asking) = (interval(NODES), interval(OFTEN));
    hosts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Waiting::new(args);
    loop {
        let was_long = waiting.begun.elapsed() > A_WHILE;
        tokio::select! {
            told = follow.next() => waiting.told(told),
            _ = hosts.tick() => waiting.hosts(&source).await,
            _ = asking.tick() => {
                if let Some(members) = within(deadline, waiting.ask(terminal)).await.flatten() {
                    return Ok(members);
                }
                if was_long && asking.period() == OFTEN {
                    asking = interval(SELDOM);
                    asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    asking.reset();
                }
            }
            () = at(deadline) => return Err(waiting.give_up(terminal)),
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// What comes of it until then.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = at(deadline) => None,
    }
}

impl<'a> Waiting<'a> {
    fn new(args: &'a BarrierArgs) -> Self {
        let barrier = Barrier::new(args.cell.min as usize, args.stable);
        let (services, nodes, trouble) = (None, Vec::new(), None);
        Self { args, barrier, begun: Instant::now(), services, nodes, trouble, said: String::new() }
    }

    fn told(&mut self, told: Result<Services, ClientError>) {
        match told {
            Ok(services) => (self.services, self.trouble) = (Some(services), None),
            Err(error) => self.trouble = Some(error),
        }
    }

    async fn hosts(&mut self, source: &Source) {
        if let Ok(Ok(told)) = timeout(NODES, source.nodes()).await {
            self.nodes = told.nodes;
        }
    }

    /// Asks every member what it is, and those that are enough for sessions; the members when each grants one.
    async fn ask(&mut self, terminal: &mut Terminal) -> Option<Vec<Member>> {
        let Some(services) = &self.services else {
            if let Some(trouble) = self.trouble.as_ref().map(ToString::to_string) {
                self.say(&trouble, terminal);
            }
            return None;
        };
        let cell = self.args.cell.cell(services, &self.nodes);
        let answers: Answers = join_all(cell.members().iter().map(asked)).await.into_iter().collect();
        let members = match self.barrier.look(self.begun.elapsed(), &cell, &answers) {
            Next::Sessions(members) => members,
            Next::Wait(text) => {
                self.say(&text, terminal);
                return None;
            }
        };
        let share: f64 = rand::rng().random();
        sleep(JITTER.mul_f64(share)).await;
        let granted = join_all(members.iter().map(granted)).await;
        let refused: Vec<&Member> =
            members.iter().zip(&granted).filter(|(_, granted)| !**granted).map(|(member, _)| member).collect();
        if refused.is_empty() {
            return Some(members);
        }
        self.say(&format!("no session is granted by {}", list(refused)), terminal);
        None
    }

    /// Says how far it is, when that has changed.
    fn say(&mut self, text: &str, terminal: &mut Terminal) {
        let text = format!("waiting for {}: {text}", self.args.cell.service);
        if !self.args.quiet && text != self.said {
            terminal.note(&text);
        }
        self.said = text;
    }

    fn give_up(&self, terminal: &mut Terminal) -> Exit {
        if let (None, Some(error)) = (&self.services, &self.trouble) {
            error.report(terminal);
            return Exit::Unreachable;
        }
        let waited = humantime::format_duration(self.args.timeout.unwrap_or_default());
        terminal.fail(&format!("{} (gave up after {waited})", self.said), "`wharf nodes` for what is down where");
        Exit::NotMet
    }
}

/// What a member says of itself.
async fn asked(member: &Member) -> ((Text, u16), Said) {
    let said = timeout(ASKING, async { srvr(&mut connect(member).await?).await }).await;
    let said = match said {
        Ok(Ok(Reply::Serves(Mode::Leader))) => Said::Leader,
        Ok(Ok(Reply::Serves(Mode::Follower | Mode::Observer))) => Said::Follower,
        Ok(Ok(Reply::Serves(Mode::Standalone))) => Said::Standalone,
        Ok(Ok(Reply::NotServing)) => Said::NotServing,
        Ok(Ok(Reply::NotAllowed)) => Said::NotAllowed,
        Ok(Err(_)) | Err(_) => Said::Nothing,
    };
    (place(member), said)
}

/// Whether it grants a session.
async fn granted(member: &Member) -> bool {
    let granted = timeout(GRANTING, async { session(&mut connect(member).await?).await }).await;
    matches!(granted, Ok(Ok(true)))
}

/// The first of its addresses that takes a connection.
async fn connect(member: &Member) -> Result<Connection, WireError> {
    let addresses = lookup_host((&*member.host, member.port)).await.map_err(WireError::Connect)?;
    let mut failed = WireError::Closed;
    for address in addresses.take(4) {
        let address: SocketAddr = address;
        match Connection::open(address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
