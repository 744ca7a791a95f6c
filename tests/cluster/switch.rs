//! A redis master that moves from host to host, over the real etcd and under a counter that must not lose a number.

use crate::lab::counter::Counter;
use crate::lab::steered::{MASTER, SERVICE, make_master};
use crate::lab::{self, eventually};

#[test]
fn a_counter_loses_nothing_while_its_master_goes_round_the_hosts() {
    let lab = lab::alone();
    let agents = lab.wharves_told(&lab.steering());
    let _servers = lab.frozen_servers();
    make_master(&agents[0], lab.host(1).name());
    let counter = Counter::start(lab.host(3).address(), MASTER);
    counter.counts_on(20);
    for (asked, to) in [(0, 2), (1, 3), (2, 1)] {
        let failed = counter.failed();
        make_master(&agents[asked], lab.host(to).name());
        let at = [lab.host(to).at(6380)];
        eventually("every host names the new master", || {
            lab.hosts().iter().try_for_each(|of| of.dig(MASTER, "SRV").is(&at))
        });
        counter.counts_on(20);
        // The one that the old master held, and let go unexecuted: whoever asks for the new one is kept until it is
        // named.
        assert!(counter.failed() <= failed + 1, "{} failed while {to} became master", counter.failed() - failed);
    }

    // One of three members hangs: the others decide, whoever is asked.
    let failed = counter.failed();
    lab.host(2).etcd().hang();
    make_master(&agents[2], lab.host(3).name());
    counter.counts_on(20);
    lab.host(2).etcd().thaw();
    let tally = counter.stop();
    // How many fail hangs on how soon the word of the switch comes by the members that are left.
    println!("{tally:?}, {} of the failed while a member hung", tally.failed - failed);
    assert!(tally.acknowledged >= 100, "{tally:?}");
    assert_eq!((tally.missing, tally.phantom), (0, 0), "{tally:?}");
    // An agent that was at the member that hung knows it once it has found another one.
    let named = format!("master {}-{SERVICE}", lab.host(3).name());
    eventually("the first agent names the new master", || {
        let told = agents[0].command(&["topology", SERVICE])?;
        if told.contains(&named) { Ok(()) } else { Err(told) }
    });
}
