//! The cluster of `systemd/examples/ec2`: that it forms from the template's own user data, and what becomes of it when
//! hosts are replaced, scaled in or lost.

use std::fs;
use std::time::Duration;

use crate::cell::{Cell, boot, told};
use crate::connects::Client;
use crate::everyday::SERVICE;
use crate::ignition::Ignition;
use crate::lab::host::Host;
use crate::lab::process::try_run;
use crate::lab::{alone, memcached, within};
use crate::machine::{Machine, soon};
use crate::vagrant;

/// Every unit that comes with the cluster is one to systemd, a template under a number.
const VERIFY: &str = "mkdir /run/verify && cd /opt/wharf/systemd/examples/ec2 && \
    for unit in host/*.service services/*/*/*.service; do \
      name=${unit##*/}; name=${name/@./@1.}; cp \"$unit\" \"/run/verify/$name\"; \
      said=$(systemd-analyze verify --man=no \"/run/verify/$name\" 2>&1) && [ -z \"$said\" ] || { echo \"$unit: $said\" >&2; exit 1; }; \
    done";
/// The lease of an agent that says nothing else, and what the contract adds.
const GONE: Duration = Duration::from_secs(32);

#[test]
fn three_mains_form_a_cluster_and_answer_for_each_other() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let mains = cell.mains();
    let mains = mains.each_ref();
    assert_eq!(cell.members().unwrap().into_keys().collect::<Vec<_>>(), ["main-1", "main-2", "main-3"]);
    // The service that the stack's parameter names runs on every host, and each answers for all.
    let hosts: Vec<&Host> = lab.hosts().iter().collect();
    cell.found_on(&mains, 11211, &hosts);
    // Started on one by hand, it is answered on all.
    let other = lab.host(1).run(memcached().name("by-hand").publish_as(11311, 11211));
    for machine in mains {
        let mut targets: Vec<String> = hosts.iter().map(|host| host.at(11211)).collect();
        targets.push(lab.host(1).at(11311));
        let address = machine.host().address().to_string();
        soon("it is answered", || machine.finds_at(&address, SERVICE, &targets));
    }
    drop(other);
    // Nobody without a certificate of the authority is let in.
    let plain = format!("--endpoints=https://{}", lab.host(1).at(2379));
    let ca = format!("--cacert={}", cell.dir.join("ca/ca.crt").display());
    assert!(try_run(&["env", "ETCDCTL_API=3", "etcdctl", &plain, &ca, "--command-timeout=5s", "get", "x"]).is_err());
    let nodes = mains[0].shell("/opt/bin/wharf nodes");
    for (n, zone) in [(1, "eu-west-1/eu-west-1a"), (2, "eu-west-1/eu-west-1b"), (3, "eu-west-1/eu-west-1c")] {
        let row = nodes.lines().find(|line| line.starts_with(&format!("main-{n} ")));
        assert!(row.is_some_and(|row| row.contains(zone)), "{nodes}");
    }
    soon("every host has said that it serves", || {
        let mut signalled = cell.cloud.done().signalled.clone();
        signalled.sort();
        if signalled == ["i-01", "i-02", "i-03"] { Ok(()) } else { Err(format!("{signalled:?}\n{}", told(mains[0]))) }
    });
    mains[0].shell(VERIFY);
    let refused = cell.cloud.done().refused.clone();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn mains_that_were_all_off_are_the_cluster_that_they_were() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let mains = cell.mains();
    let mains = mains.each_ref();
    let before = cell.members().unwrap();
    cell.etcd(&[1], &["put", "kept", "as it was"]).unwrap();
    std::thread::scope(|scope| {
        for machine in mains {
            scope.spawn(|| machine.shut_down());
        }
    });
    assert!(cell.members().is_err());
    for machine in mains {
        machine.has_its_interface();
    }
    boot(&mains);
    cell.etcd_is_whole(mains);
    assert_eq!(cell.members().unwrap(), before);
    assert_eq!(cell.etcd(&[3], &["get", "kept", "--print-value-only"]).unwrap().trim(), "as it was");
    cell.found_on(&mains, 11211, &lab.hosts().iter().collect::<Vec<_>>());
    add_a_service(&cell, mains[0]);
}

/// As the page has it for those who do not want to replace hosts.
fn add_a_service(cell: &Cell<'_>, machine: &Machine<'_>) {
    let host = machine.host();
    let unit = "[Unit]\nAfter=docker.service\n[Service]\nEnvironmentFile=/etc/second.env\n\
        ExecStart=/usr/bin/docker run --rm --name second -p 11411:11211 -e SERVICE_NAME=${NAME} memcached:1.6\n\
        [Install]\nWantedBy=multi-user.target\n";
    machine.put("/opt/services/second/main/second.service", unit);
    machine.put("/opt/services/second/main/secrets", "# as the page has it\nsecond.env /etc/second.env\n");
    let table = format!("[[service]]\nname = \"etcd\"\nport = 2379\nid = \"etcd-{}\"\ncheck = \"tcp\"\n", host.name());
    machine.put("/opt/services/second/all/wharf.toml", &table);
    cell.cloud.done().parameters.insert("/cellar/services/second.env".into(), "NAME=second".into());
    machine.shell(
        "sed -i 's/^SERVICES=.*/SERVICES=memcached,second/' /etc/wharf-ec2.env && systemctl restart wharf-ec2-boot",
    );
    let address = host.address().to_string();
    for (name, port) in [("second", 11411), ("etcd", 2379)] {
        let name = format!("{name}.services.internal");
        soon(&name, || machine.finds_at(&address, &name, &[host.at(port)]).map_err(|seen| seen + &told(machine)));
    }
    assert_eq!(machine.shell("stat -c %a /etc/second.env").trim(), "600");
}

#[test]
fn a_main_that_is_replaced_is_the_same_member_and_one_without_its_data_is_another() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let [one, two, three] = cell.mains();
    let before = cell.members().unwrap();
    cell.etcd(&[1], &["put", "kept", "as it was"]).unwrap();

    drop(two);
    let new = cell.main(2, "i-02b");
    boot(&[&new]);
    cell.etcd_is_whole([&one, &new, &three]);
    assert_eq!(cell.members().unwrap(), before);
    let read = cell.etcd(&[2], &["get", "kept", "--consistency=s", "--print-value-only"]).unwrap();
    assert_eq!(read.trim(), "as it was");
    let hosts: Vec<&Host> = lab.hosts().iter().collect();
    cell.found_on(&[&one, &new, &three], 11211, &hosts);

    drop(three);
    cell.lose_volume(3);
    let empty = cell.main(3, "i-03b");
    boot(&[&empty]);
    cell.etcd_is_whole([&one, &new, &empty]);
    let after = cell.members().unwrap();
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!((&after["main-1"], &after["main-2"]), (&before["main-1"], &before["main-2"]));
    assert_ne!(after["main-3"], before["main-3"], "it came back under the id of the one that had the data");
    soon("it has what the others have", || {
        let read = cell.etcd(&[3], &["get", "kept", "--consistency=s", "--print-value-only"])?;
        if read.trim() == "as it was" { Ok(()) } else { Err(read) }
    });
}

#[test]
fn a_quorum_that_is_lost_for_good_is_made_anew_from_what_one_main_has() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let [one, two, three] = cell.mains();
    cell.etcd(&[2], &["put", "kept", "as it was"]).unwrap();
    let tool = "/opt/wharf/systemd/examples/ec2/host/wharf-ec2";
    drop((two, three));
    cell.lose_volume(2);
    let refused = one.try_run(&[tool, "anew"]).unwrap_err();
    assert!(refused.contains("nothing was thrown away"), "{refused}");
    one.shell(&format!("{tool} alone"));
    assert_eq!(cell.etcd(&[1], &["get", "kept", "--print-value-only"]).unwrap().trim(), "as it was");

    // One finds an empty disk and joins by itself; the other has what it had, and is told to.
    let empty = cell.main(2, "i-02b");
    boot(&[&empty]);
    soon("the second joins", || {
        cell.etcd(&[1, 2], &["endpoint", "health"]).map_err(|seen| format!("{seen}\n{}", told(&empty)))
    });
    let old = cell.main(3, "i-03b");
    boot(&[&old]);
    soon("the third has booted", || old.try_run(&["test", "-d", "/var/lib/etcd/data/member"]));
    old.shell(&format!("{tool} anew"));
    cell.etcd_is_whole([&one, &empty, &old]);
    assert_eq!(cell.members().unwrap().into_keys().collect::<Vec<_>>(), ["main-1", "main-2", "main-3"]);
    let hosts: Vec<&Host> = lab.hosts().iter().collect();
    cell.found_on(&[&one, &empty, &old], 11211, &hosts);
}

#[test]
fn a_copy_brings_back_what_etcd_had_by_the_lines_of_the_page() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let [one, two, three] = cell.mains();
    cell.etcd(&[1], &["put", "kept", "as it was"]).unwrap();
    let copy = cell.dir.join("copy.db");
    cell.etcd(&[1], &["snapshot", "save", copy.to_str().unwrap()]).unwrap();
    drop((two, three));
    cell.lose_volume(2);
    cell.lose_volume(3);
    one.put_as("/root/copy.db", &fs::read(&copy).unwrap(), 0o600);
    let page = include_str!("../../docs/provision.md");
    let lines = page.split("```").find(|block| block.contains("snapshot restore copy.db")).unwrap();
    let address = lab.host(1).address().to_string();
    one.shell(&format!("cd /root{}", lines.replace("10.20.0.11", &address)));
    soon("what it had is there", || {
        cell.etcd(&[1], &["get", "kept", "--print-value-only"]).map(|read| assert_eq!(read.trim(), "as it was"))
    });
    let [two, three] = [2, 3].map(|n| {
        let empty = cell.main(n, &format!("i-0{n}b"));
        boot(&[&empty]);
        soon("it joins", || cell.etcd(&[1, n], &["endpoint", "health"]).map_err(|seen| seen + &told(&empty)));
        empty
    });
    cell.found_on(&[&one, &two, &three], 11211, &lab.hosts().iter().collect::<Vec<_>>());
}

#[test]
fn a_worker_scaled_in_costs_no_connect_and_a_lost_one_is_gone_with_its_lease() {
    let lab = alone();
    let (fourth, fifth) = (lab.guest(4), lab.guest(5));
    let cell = Cell::new(&lab);
    let mains = cell.mains();
    let (leaving, lost) = (cell.worker(&fourth, "i-04"), cell.worker(&fifth, "i-05"));
    boot(&[&leaving, &lost]);
    let own: Vec<&Host> = lab.hosts().iter().collect();
    let all: Vec<&Host> = own.iter().copied().chain([&fourth, &fifth]).collect();
    let machines: Vec<&Machine<'_>> = mains.iter().chain([&leaving, &lost]).collect();
    cell.found_on(&machines, 11211, &all);

    let client = Client::start(lab.host(1).address());
    soon("the client uses the worker", || client.made(&fourth.at(11211)) > 0);
    cell.cloud.end(&fourth);
    let group = ("cellar-worker".to_owned(), "i-04".to_owned());
    soon("the group may go on", || {
        if cell.cloud.done().completed.contains(&group) { Ok(()) } else { Err(told(&leaving)) }
    });
    // AWS ends the instance, and all that runs on it.
    drop(leaving);
    fourth.remove_containers();
    let others = client.made(&lab.host(1).at(11211));
    soon("the client goes on", || client.made(&lab.host(1).at(11211)) > others + 10);
    let failed = client.finish();
    assert!(failed.is_empty(), "{} failed, first {:?}", failed.len(), failed.first());
    let rest: Vec<&Host> = own.iter().copied().chain([&fifth]).collect();
    cell.found_on(&[&mains[0], &mains[1], &mains[2], &lost], 11211, &rest);

    fifth.cut();
    let targets: Vec<String> = own.iter().map(|host| host.at(11211)).collect();
    let address = lab.host(1).address().to_string();
    within(GONE, "the lost worker is gone", || mains[0].finds_at(&address, SERVICE, &targets));
    fifth.heal();
}

/// The Vagrant example: the template's mains by other names, with keys from their Ignition and data on their own disks.
#[test]
fn vagrants_three_form_the_same_cluster_without_aws_and_are_it_again_after_they_were_off() {
    let lab = alone();
    let cell = Cell::new(&lab);
    let hosts: Vec<&Host> = lab.hosts().iter().collect();
    let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
    let made = vagrant::machines(&addresses, cell.hashes.each_ref().map(String::as_str));
    let told: Vec<Ignition> = made.iter().map(|(_, text)| Ignition::read(text)).collect();
    for (name, file) in [("ca.crt", "ca.crt"), ("main/member.crt", "member.crt"), ("main/member.key", "member.key")] {
        fs::write(cell.dir.join("ca").join(file), told[0].written(&format!("/opt/keys/{name}"))).unwrap();
    }
    let machines: Vec<Machine<'_>> =
        hosts.iter().zip(&told).map(|(host, told)| cell.laid_out(host, told, &[])).collect();
    let machines = [&machines[0], &machines[1], &machines[2]];
    boot(&machines);
    cell.etcd_is_whole(machines);
    let before = cell.members().unwrap();
    assert_eq!(before.keys().collect::<Vec<_>>(), ["core-01", "core-02", "core-03"]);
    cell.found_on(&machines, 11211, &hosts);
    cell.etcd(&[1], &["put", "kept", "as it was"]).unwrap();
    std::thread::scope(|scope| {
        for machine in machines {
            scope.spawn(|| machine.shut_down());
        }
    });
    for machine in machines {
        machine.has_its_interface();
    }
    boot(&machines);
    cell.etcd_is_whole(machines);
    assert_eq!(cell.members().unwrap(), before);
    assert_eq!(cell.etcd(&[3], &["get", "kept", "--print-value-only"]).unwrap().trim(), "as it was");
    cell.found_on(&machines, 11211, &hosts);
}
