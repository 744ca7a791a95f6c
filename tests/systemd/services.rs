//! The examples of `systemd/examples/ec2/services` on the stack's own hosts, booted as instances are: PostgreSQL on the
//! data hosts, and the cell.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::cell::{Cell, boot, told};
use crate::lab::host::Host;
use crate::lab::wait::Outcome;
use crate::lab::within;
use crate::lab::{Alone, alone};
use crate::machine::Machine;
use crate::stock;

/// A cluster of databases comes up behind a cluster of machines, all of them on one.
const PATIENCE: Duration = Duration::from_secs(300);
const POSTGRES: &str = "postgres.services.internal";
const MASTER: &str = "/services/postgres/master";
#[track_caller]
fn soon<O: Outcome>(what: &str, holds: impl FnMut() -> O) -> O::Value {
    within(PATIENCE, what, holds)
}

/// Runs a statement on a host, at the port of its own ambassador.
fn sql(host: &Host, statement: &str) -> Result<String, String> {
    let how = ["env", "PGPASSWORD=s3cret", "PGCONNECT_TIMEOUT=5", "psql", "-X", "-A", "-t", "-w", "-U", "postgres"];
    host.try_exec(&[&how[..], &["-h", "127.0.0.1", "-c", statement]].concat()).map(|said| said.trim().to_owned())
}

fn container(host: &Host, name: &str, field: &str) -> Result<String, String> {
    host.try_docker(&["inspect", "-f", &format!("{{{{json {field}}}}}"), name])
}

/// What a container of a machine said, behind what its units said.
fn seen(machine: &Machine<'_>, name: &str) -> String {
    let unit = ["journalctl", "--no-pager", "--lines", "40", "--unit", name];
    let journal = machine.try_run(&unit).unwrap_or_else(|error| error);
    format!("{journal}\n{}", told(machine))
}

#[test]
fn postgres_serves_on_the_data_host_that_has_the_data_and_is_reached_at_every_other_hosts_own_port() {
    let lab = alone();
    let (fourth, fifth) = (lab.guest(4), lab.guest(5));
    let cell = Cell::with(&lab, &[("Services", "memcached,postgres"), ("DataHosts", "2")]);
    cell.cloud.done().parameters.insert("/cellar/services/postgres.env".into(), "POSTGRES_PASSWORD=s3cret".into());
    stock::bring_postgres(&fourth);
    stock::bring_postgres(&fifth);
    let mains = cell.mains();
    let (one, two) = (cell.data(&fourth, "i-0d4"), cell.data(&fifth, "i-0d5"));
    boot(&[&one, &two]);
    let owner = soon("one of the data hosts serves", || {
        let name = cell.etcd(&[1], &["get", MASTER, "--print-value-only"])?;
        let name = name.trim().to_owned();
        let host =
            [&fourth, &fifth].into_iter().find(|host| name == format!("data-0d{}", host.name().replace('h', "")));
        let host =
            host.ok_or_else(|| format!("{name:?} has it\n{}\n{}", seen(&one, "postgres"), seen(&two, "postgres")))?;
        mains[0].finds_at(&lab.host(1).address().to_string(), POSTGRES, &[host.at(5432)]).map(|()| host).map_err(
            |why| {
                let machine = if std::ptr::eq(host, &raw const fourth) { &one } else { &two };
                format!("{why}\n{}", seen(machine, "postgres"))
            },
        )
    });
    let (first, other) = if std::ptr::eq(owner, &raw const fourth) { (&one, &two) } else { (&two, &one) };
    assert_eq!(first.shell("stat -c %a /etc/postgres.env").trim(), "600");
    // Every data host is told to be one, and none is asked for a main's keys.
    soon("every data host has said that it serves", || {
        let signalled: BTreeSet<String> = cell.cloud.done().signalled.iter().cloned().collect();
        let both = ["i-0d4", "i-0d5"].iter().all(|id| signalled.contains(*id));
        if both { Ok(()) } else { Err(format!("{signalled:?}\n{}", told(other))) }
    });
    assert!(cell.cloud.done().refused.is_empty(), "{:?}", cell.cloud.done().refused);

    // Written through one main's own port and read through another's.
    soon("a statement goes through", || {
        sql(lab.host(1), "create table kept as select 7 as seven").map_err(|why| why + &mains[0].journal())
    });
    assert_eq!(sql(lab.host(3), "select seven from kept").unwrap(), "7");

    the_one_without_data_gives_the_lock_back(&lab, &cell, first, other);
}

/// The host with the data goes down: an empty server never stands for it. It comes back, with what it had.
fn the_one_without_data_gives_the_lock_back(lab: &Alone, cell: &Cell<'_>, first: &Machine<'_>, other: &Machine<'_>) {
    let name = first.shell("cat /etc/hostname").trim().to_owned();
    first.shut_down();
    let waits = format!("the data is on {name}; this host waits");
    soon("the other one wins, and waits", || {
        let said = seen(other, "postgres");
        if said.contains(&waits) { Ok(()) } else { Err(said) }
    });
    assert!(sql(lab.host(2), "select seven from kept").is_err(), "a server without the data answers");
    first.has_its_interface();
    first.start();
    soon("it serves again, with what it had", || {
        let read = sql(lab.host(2), "select seven from kept").map_err(|why| why + &seen(first, "postgres"))?;
        if read == "7" { Ok(()) } else { Err(read) }
    });
    assert_eq!(cell.etcd(&[1], &["get", MASTER, "--print-value-only"]).unwrap().trim(), name);
}

/// Leader or follower, as a member of ZooKeeper says of itself.
fn mode(host: &Host) -> Result<String, String> {
    let ask = || {
        let mut stream = TcpStream::connect(host.at(2181))?;
        stream.write_all(b"srvr")?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    };
    let said = ask().map_err(|error| error.to_string())?;
    let mode = said.lines().find_map(|line| line.strip_prefix("Mode: "));
    mode.map(str::to_owned).ok_or(said)
}

/// The addresses that the numbers' names lead to, asked of one.
fn numbers(asked: &Machine<'_>) -> Result<Vec<String>, String> {
    let server = asked.host().address().to_string();
    let of = |n: u8| {
        let found = asked.dig(&server, &[&format!("{n}.nucleus.services.internal"), "A"]);
        found.data().first().cloned().ok_or_else(|| format!("number {n} leads nowhere: {found:?}"))
    };
    (1..=3).map(of).collect()
}

#[test]
fn the_body_of_the_cell_begins_when_the_nucleus_is_whole_and_a_replaced_member_keeps_its_number() {
    let lab = alone();
    let fourth = lab.guest(4);
    let cell = Cell::with(&lab, &[("Services", "memcached,cell")]);
    lab.hosts().iter().for_each(stock::bring_zookeeper);
    stock::bring_solr(&fourth);
    let (one, two) = (cell.main(1, "i-01"), cell.main(2, "i-02"));
    let worker = cell.worker(&fourth, "i-04");
    boot(&[&one, &two, &worker]);

    // Two of three form a quorum and serve; the body waits for the third.
    let two_of = [lab.host(1).at(2181), lab.host(2).at(2181)];
    let address = lab.host(1).address().to_string();
    soon("two members serve", || {
        one.finds_at(&address, "zookeeper.services.internal", &two_of).map_err(|why| why + &seen(&one, "zookeeper"))
    });
    assert!(container(&fourth, "body", ".State.Status").is_err(), "the body did not wait for three");

    let three = cell.main(3, "i-03");
    boot(&[&three]);
    let env = soon("the body begins", || {
        container(&fourth, "body", ".Config.Env").map_err(|why| why + &seen(&worker, "body"))
    });
    let listed =
        env.split('"').find_map(|word| word.strip_prefix("ZK_HOST=")).unwrap_or_else(|| panic!("{env}")).to_owned();
    let listed: BTreeSet<&str> = listed.split(',').collect();
    let all: Vec<String> = lab.hosts().iter().map(|host| host.at(2181)).collect();
    assert_eq!(listed, all.iter().map(String::as_str).collect());
    let modes = || lab.hosts().iter().map(mode).collect::<Result<Vec<_>, _>>();
    let whole = || {
        let mut modes = modes()?;
        modes.sort();
        if modes == ["follower", "follower", "leader"] { Ok(()) } else { Err(format!("{modes:?}")) }
    };
    soon("one leads and two follow", whole);
    let before = numbers(&one).unwrap();
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3, "{before:?}");

    // What it had went with its machine; its number is its own again, and the others give it the rest.
    drop(two);
    lab.host(2).remove_containers();
    lab.host(2).docker(&["volume", "rm", "zookeeper-data", "zookeeper-log"]);
    let new = cell.main(2, "i-02b");
    boot(&[&new]);
    soon("the new member serves with the others", || whole().map_err(|why| why + &seen(&new, "zookeeper")));
    assert_eq!(numbers(&one).unwrap(), before);
    soon("it is found again", || new.finds_at(&address, "zookeeper.services.internal", &all));
    let id = new.shell("docker exec zookeeper /bin/bash -c 'read id </data/myid; echo $id'");
    let second = lab.host(2).address().to_string();
    assert_eq!(before[id.trim().parse::<usize>().unwrap() - 1], second);
}
