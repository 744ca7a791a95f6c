//! How long the truth may take to become an answer: every bound that the drills judge by, with the sentence of the
//! design that it comes from. The judge adds to them only `ROOM`, and what the machine itself was late by.

use std::time::Duration;

/// The agents' leases in the drills.
pub const TTL: Duration = Duration::from_secs(5);

/// A bound and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub name: &'static str,
    pub length: Duration,
    pub says: &'static str,
}

const fn bound(name: &'static str, ms: u64, says: &'static str) -> Bound {
    Bound { name, length: Duration::from_millis(ms), says }
}

/// What a debug build in a cluster of three on one machine gets on top: the budgets of section 10 are measured by
/// `make bench` on a release build; here it is told whether an answer was right, not how fast.
pub const ROOM: Duration = Duration::from_millis(1000);

/// A server that Docker tells the end of.
pub const ENDED: Bound = bound("ended", 50, "10: container dies → no longer answered, other host p99 ≤ 50 ms");
/// A server that only its probes tell the end of.
pub const FROZEN: Bound = bound(
    "frozen",
    7500,
    "5: every 2 s ±10 % start to start, timeout 500 ms, down after 3 failures: 3 × 2.2 s + 0.5 s, and to be found out",
);
/// A server that came up.
pub const STARTED: Bound = bound("started", 100, "10: memcached accepts → answer by DNS p99 ≤ 100 ms");
/// A server that serves again without Docker's having started it.
pub const THAWED: Bound = bound("thawed", 5000, "5: every 2 s ±10 %, up after 2 successes: 2 × 2.2 s, and to be found");
/// Whatever was kept back by the store.
pub const RETURNED: Bound = bound("returned", 2000, "8: all is published within 2 s of return");
/// This node's own changes while the store is away.
pub const OVERLAID: Bound = bound(
    "overlaid",
    500,
    "8: for any own change unconfirmed after 500 ms, DNS and HTTP overlay it: published records out, ready instances in",
);
/// A node that is gone.
pub const LOST: Bound = bound("lost", 6000, "8: its records are gone from the store ≤ lease TTL + 1 s");
/// The same when etcd changes its leader.
pub const LOST_WITH_LEADER: Bound =
    bound("lost, new leader", 11_000, "8: one TTL more if etcd changes leader meanwhile; for each time that it does");
/// The same soon after the store's return: what vanishes then may have vanished for the outage's sake.
pub const HELD: Bound = bound(
    "held",
    5000,
    "8: vanished together with their lease within 10 s of the store's return: held for one lease TTL",
);
/// The same when another node is lost with it.
pub const TOGETHER: Bound = bound(
    "together",
    2500,
    "8: no name turns NXDOMAIN only because etcd came back: leases of several owners that end together are held for so long, \
     in which an owner that lives has published again",
);
/// How soon after.
pub const RETURN: Bound = bound("return", 10_000, "8: … within 10 s of it");
/// How long a cut or killed node keeps its records for certain: a lease is renewed each third of its TTL.
pub const KEPT: Bound =
    bound("kept", 3000, "8: records stay ≤ lease TTL; a restart within it adopts them without a gap");
/// A store that answers nobody.
pub const AWAY: Bound = bound("away", 500, "8: etcd away: a request unanswered for 500 ms");
/// An agent that starts.
pub const OPEN: Bound = bound("open", 1000, "8: sockets open < 1 s; 7: queries stay in the socket 1 s at most");
/// A watch that hangs with its etcd member.
pub const SILENT: Bound =
    bound("silent", 7000, "8: a watch without progress for 5 s (asked for every 2 s) makes another connection");
/// What a starting agent may not have in its file yet.
pub const FILED: Bound = bound("filed", 12_000, "7: the catalog is kept as a file, at most every 10 s");
/// An engine that came back.
pub const RESYNCED: Bound = bound("resynced", 5000, "4: a full resync after any break; probes tell meanwhile (8)");

/// All of them, for the report.
pub const ALL: &[Bound] = &[
    ENDED,
    FROZEN,
    STARTED,
    THAWED,
    RETURNED,
    OVERLAID,
    LOST,
    LOST_WITH_LEADER,
    HELD,
    TOGETHER,
    RETURN,
    KEPT,
    AWAY,
    OPEN,
    SILENT,
    FILED,
    RESYNCED,
];
