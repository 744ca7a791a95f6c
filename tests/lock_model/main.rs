//! The lock under a model: pauses anywhere, crashes at each step, late and lost words, clocks that go 1 % apart, leases
//! revoked, keys deleted, stores that hang, change leaders, are emptied or restored.
//!
//! A history is a seed. Programs, guards and store are models; what is tried are the rules of `model::steer::lock`.
//! `WHARF_SEED=n cargo test --test lock_model` begins at that seed, `WHARF_HISTORIES=n` lives so many, `WHARF_TRACE=1`
//! tells all that happens in the first of them. The promise: no two programs of a lock ever run at once.
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, unreachable_pub)]

#[path = "../steer/dice.rs"]
mod dice;
mod program;
mod store;
mod world;

use world::{Outcome, live};

const HISTORIES: u64 = 10_000;
/// Histories in which a planted bug must show.
const SEARCHED: u64 = 20_000;

/// A bug that is planted, so that the model shows that it would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// The hold counts from when the acknowledgement came, however late.
    CountsFromAcknowledgement,
    /// Whoever is next starts though a certificate is there.
    IgnoresCertificate,
    /// An end of a lease is taken for one that was due, whatever was left.
    EveryEndIsDue,
    /// A renewal counts though the key is gone, and no watch tells.
    RenewsWithoutItsKey,
    /// A store that was emptied is believed.
    BelievesEmptyStore,
    /// Nothing kills the program when guardian and `wharf lock` stand still.
    NoKernelTimer,
    /// The certificate is deleted before the program is known to be dead.
    CertifiesEarly,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn first_broken(from: u64, most: u64, mischief: Option<Mischief>) -> (Option<(u64, String)>, Outcome) {
    let mut all = Outcome::default();
    for seed in from..from + most {
        let outcome = live(seed, mischief, false);
        all.add(&outcome);
        if let Some(what) = outcome.broken {
            return (Some((seed, what)), all);
        }
    }
    (None, all)
}

#[test]
fn no_history_has_two_that_run() {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let from = number("WHARF_SEED").unwrap_or(nanos as u64 >> 20);
    let most = number("WHARF_HISTORIES").unwrap_or(HISTORIES);
    eprintln!("histories of the lock: {most} from WHARF_SEED={from}");
    if number("WHARF_TRACE").is_some() {
        live(from, None, true);
    }
    let (broken, all) = first_broken(from, most, None);
    if let Some((seed, what)) = broken {
        live(seed, None, true);
        panic!("WHARF_SEED={seed} WHARF_HISTORIES=1: {what}");
    }
    eprintln!("{} programs ran, {} of them started by time", all.started, all.by_time);
    // A model in which hardly anybody runs shows nothing.
    assert!(all.started > most && (most < 1_000 || all.by_time > most / 20), "{all:?}");
}

#[track_caller]
fn is_found(mischief: Mischief) {
    let (broken, _) = first_broken(0, SEARCHED, Some(mischief));
    let (seed, what) = broken.unwrap_or_else(|| panic!("{mischief:?} does not show"));
    eprintln!("{mischief:?}: seed {seed}, {what}");
}

#[test]
fn counting_from_the_acknowledgement_is_found() {
    is_found(Mischief::CountsFromAcknowledgement);
}

#[test]
fn ignoring_the_certificate_is_found() {
    is_found(Mischief::IgnoresCertificate);
}

#[test]
fn taking_every_end_for_due_is_found() {
    is_found(Mischief::EveryEndIsDue);
}

#[test]
fn a_renewal_without_its_key_is_found() {
    is_found(Mischief::RenewsWithoutItsKey);
}

#[test]
fn believing_an_empty_store_is_found() {
    is_found(Mischief::BelievesEmptyStore);
}

#[test]
fn guards_that_stand_still_without_a_kernel_timer_are_found() {
    is_found(Mischief::NoKernelTimer);
}

#[test]
fn a_certificate_deleted_early_is_found() {
    is_found(Mischief::CertifiesEarly);
}
