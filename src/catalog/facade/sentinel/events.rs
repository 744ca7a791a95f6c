//! What a Sentinel would publish, read off two snapshots.

use super::masters::{Masters, SeenMaster, SeenServer};
use crate::model::words::record::Text;

/// Events of one change: a flood of them would tell a client no more than to ask anew.
const MOST: usize = 1_024;

/// One event, as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelEvent {
    /// Where.
    pub channel: &'static str,
    /// What.
    pub payload: Text,
}

impl SentinelEvent {
    fn new(channel: &'static str, payload: String) -> Self {
        Self { channel, payload: payload.into() }
    }
}

/// What happened between two snapshots, of which the second came [`Masters::after`] the first. New masters come first:
/// should there be more than are told, what is left out can be asked for.
pub fn difference(before: &Masters, now: &Masters) -> Vec<SentinelEvent> {
    let mut events: Vec<SentinelEvent> = now.all().filter_map(|master| switched(before, master)).collect();
    events.extend(before.all().flat_map(|master| lost(master, now)).take(MOST));
    for master in now.all() {
        if events.len() >= MOST {
            break;
        }
        returned(before, master, &mut events);
        replicas(before, master, &mut events);
        sentinels(before, now, master, &mut events);
    }
    events.truncate(MOST);
    events
}

/// A master that is somewhere else than it was last.
fn switched(before: &Masters, master: &SeenMaster) -> Option<SentinelEvent> {
    let (old, new) = (before.last.get(&master.name)?, master.settled()?);
    let payload = || format!("{} {} {} {} {}", master.name, old.host, old.port, new.host, new.port);
    (!old.is_at(new)).then(|| SentinelEvent::new("+switch-master", payload()))
}

/// A master that is gone.
fn lost(master: &SeenMaster, now: &Masters) -> Vec<SentinelEvent> {
    let Some(server) = master.server.as_ref().filter(|_| now.get(master.name.as_bytes()).is_none()) else {
        return Vec::new();
    };
    let which = of_master(master, server);
    let agreed = format!("{which} #quorum 1/1");
    vec![SentinelEvent::new("+sdown", which), SentinelEvent::new("+odown", agreed)]
}

/// A master that was gone and is there again, where it was.
fn returned(before: &Masters, master: &SeenMaster, events: &mut Vec<SentinelEvent>) {
    let Some(server) = master.settled().filter(|_| before.get(master.name.as_bytes()).is_none()) else { return };
    match before.last.get(&master.name) {
        None => events.push(SentinelEvent::new("+monitor", format!("{} quorum 1", of_master(master, server)))),
        Some(old) if old.is_at(server) => {
            let which = of_master(master, server);
            events.push(SentinelEvent::new("-sdown", which.clone()));
            events.push(SentinelEvent::new("-odown", which));
        }
        Some(_) => {}
    }
}

fn of_master(master: &SeenMaster, server: &SeenServer) -> String {
    format!("master {} {} {}", master.name, server.host, server.port)
}

/// Replicas that came, went, or follow another master now.
fn replicas(before: &Masters, master: &SeenMaster, events: &mut Vec<SentinelEvent>) {
    let Some(server) = master.settled() else { return };
    let known = before.get(master.name.as_bytes());
    let of = |replica: &SeenServer| {
        format!("slave {replica} {} {} @ {} {} {}", replica.host, replica.port, master.name, server.host, server.port)
    };
    let old = known.map(|master| master.replicas.as_slice()).unwrap_or_default();
    let has_moved = before.last.get(&master.name).is_some_and(|old| !old.is_at(server));
    for replica in &master.replicas {
        match old.iter().any(|old| old.is_at(replica)) {
            false => events.push(SentinelEvent::new("+slave", of(replica))),
            true if has_moved => events.push(SentinelEvent::new("+slave-reconf-done", of(replica))),
            true => {}
        }
    }
    let is_gone = |old: &&SeenServer| !old.is_at(server) && !master.replicas.iter().any(|new| new.is_at(old));
    events.extend(old.iter().filter(is_gone).map(|old| SentinelEvent::new("+sdown", of(old))));
}

/// Other Sentinels that came.
fn sentinels(before: &Masters, now: &Masters, master: &SeenMaster, events: &mut Vec<SentinelEvent>) {
    let Some(server) = master.settled() else { return };
    for other in now.sentinels.iter().filter(|other| !before.sentinels.contains(other)) {
        let (ip, port) = (other.at.ip(), other.at.port());
        let payload = format!("sentinel {} {ip} {port} @ {} {} {}", other.id, master.name, server.host, server.port);
        events.push(SentinelEvent::new("+sentinel", payload));
    }
}
