//! The daily life of the hosts' containers: they die, stop, freeze, are renamed and replaced, each for a while, and
//! serve again. Whatever a fault does to the engine meanwhile, a container serves again before its turn is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use crate::field::{Field, Slot, hold};
use crate::lab::host::{Host, lock};
use crate::lab::wait::poll_for;
use crate::truth::{Deed, Span};

/// What may happen to a container.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Kill,
    Stop,
    Pause,
    Freeze,
    Rename,
    Replace,
}

const TURNS: [Turn; 6] = [Turn::Kill, Turn::Stop, Turn::Pause, Turn::Freeze, Turn::Rename, Turn::Replace];

/// Takes turns with a host's containers until told to stop; all of them serve then.
pub fn live(field: &Field<'_>, host: usize, seed: u64, stop: &AtomicBool) {
    let mut dice = StdRng::seed_from_u64(seed ^ (host as u64 + 1).wrapping_mul(0x9e37_79b9));
    while !stop.load(Ordering::SeqCst) {
        let slots: Vec<usize> = field.slots_of(host).map(|(n, _)| n).collect();
        let slot = slots[dice.random_range(0..slots.len())];
        let turn = TURNS[dice.random_range(0..TURNS.len())];
        let length = Duration::from_millis(dice.random_range(300..4000));
        if let Some(_hands) = hold(&field.slots[slot]) {
            take(field, slot, turn, length, stop);
        }
        rest(Duration::from_millis(dice.random_range(500..2500)), stop);
    }
}

fn take(field: &Field<'_>, slot: usize, turn: Turn, length: Duration, stop: &AtomicBool) {
    let from = field.now();
    let done = match turn {
        Turn::Kill => {
            let killed = field.act(slot, Deed::Ended, |slot, host| slot.docker(host, &["kill"]));
            rest(length, stop);
            killed.and(field.act(slot, Deed::Started, |slot, host| slot.docker(host, &["start"])))
        }
        Turn::Stop => {
            let stopped = field.act(slot, Deed::Ended, |slot, host| slot.docker(host, &["stop", "-t", "2"]));
            rest(length, stop);
            stopped.and(field.act(slot, Deed::Started, |slot, host| slot.docker(host, &["start"])))
        }
        Turn::Pause => {
            let paused = field.act(slot, Deed::Ended, |slot, host| slot.docker(host, &["pause"]));
            rest(length, stop);
            paused.and(field.act(slot, Deed::Thawed, |slot, host| slot.docker(host, &["unpause"])))
        }
        Turn::Freeze => freeze(field, slot, length * 3, stop),
        Turn::Rename => field.act(slot, Deed::Renamed, rename),
        Turn::Replace => {
            let removed = field.act(slot, Deed::Ended, |slot, host| slot.docker(host, &["rm", "-f"]));
            rest(length, stop);
            removed.and(field.act(slot, Deed::Started, Slot::run)).map(|()| String::new())
        }
    };
    if done.is_err() {
        repair(field, slot, from);
    }
}

/// Freezes a server behind Docker's back for a while.
pub fn freeze(field: &Field<'_>, slot: usize, length: Duration, stop: &AtomicBool) -> Result<String, String> {
    let pid = field.slots[slot].docker(field.host(field.slots[slot].host), &["inspect", "-f", "{{.State.Pid}}"])?;
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| format!("{pid}: no process"))?;
    let signal = |what| kill_process(pid, what).map(|()| String::new()).map_err(|error| error.to_string());
    field.act(slot, Deed::Froze, |_, _| signal(Signal::STOP))?;
    rest(length, stop);
    // It may have ended meanwhile, with its engine.
    field.act(slot, Deed::Thawed, |_, _| signal(Signal::CONT).or(Ok(String::new())))
}

fn rename(slot: &Slot, host: &Host) -> Result<String, String> {
    let old = lock(&slot.name).clone();
    let new = other_name(&old);
    let done = host.try_docker(&["rename", &old, &new])?;
    *lock(&slot.name) = new;
    Ok(done)
}

/// The engine was not there for it: the container is made anew as soon as it is, and nothing is certain until then.
fn repair(field: &Field<'_>, number: usize, from: Duration) {
    let slot = &field.slots[number];
    let host = field.host(slot.host);
    let anew = || {
        let name = lock(&slot.name).clone();
        for name in [other_name(&name), name] {
            let _ = host.try_docker(&["rm", "-f", &name]);
        }
        slot.run(host).is_ok()
    };
    let well = poll_for(Duration::from_secs(60), anew);
    slot.note(Deed::Started, Span { from, to: field.now() });
    assert!(well, "{}: {} cannot be run again: {:?}", host.name(), lock(&slot.name), slot.run(host));
}

/// A rename whose answer was lost may have happened all the same.
fn other_name(name: &str) -> String {
    name.strip_suffix("-new").map_or_else(|| format!("{name}-new"), str::to_owned)
}

fn rest(length: Duration, stop: &AtomicBool) {
    let _ = poll_for(length, || stop.load(Ordering::SeqCst));
}
