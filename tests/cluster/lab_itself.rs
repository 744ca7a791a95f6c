//! The lab keeps its own promises: hosts reach each other's containers, etcd is a cluster, faults are real and end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::lab::{self, busybox, eventually, host::Host, memcached, postgres, redis, throughout, within};

/// What a memcached answers to `version`, asked from another host.
fn version_seen_from(host: &Host, at: &str) -> Result<String, String> {
    let (address, port) = at.split_once(':').unwrap();
    let ask = format!(
        "exec 3<>/dev/tcp/{address}/{port} && printf 'version\\r\\n' >&3 && read -t 2 -r line <&3 && echo \"$line\""
    );
    host.try_exec(&["timeout", "3", "bash", "-c", &ask])
}

#[test]
fn a_container_of_one_host_answers_the_others() {
    let lab = lab::alone();
    let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
    assert_eq!(cache.name(), "core-01");
    assert_eq!(cache.published(11211), 11211);
    for host in lab.hosts() {
        let at = lab.host(1).at(11211);
        let version = eventually("memcached answers", || version_seen_from(host, &at));
        assert!(version.starts_with("VERSION "), "{version}");
    }
}

#[test]
fn every_image_serves() {
    let lab = lab::alone();
    let (one, two) = (lab.host(1), lab.host(2));
    let primary = one.run(redis().name("primary").publish(6379));
    let replica =
        two.run(redis().name("replica").publish(6379).arguments(&["--replicaof", &one.address().to_string(), "6379"]));
    eventually("the replica is in step", || {
        let info = replica.exec(&["/usr/bin/redis-cli", "info", "replication"]);
        if info.contains("master_link_status:up") { Ok(()) } else { Err(info) }
    });
    assert!(primary.exec(&["/usr/bin/redis-cli", "role"]).starts_with("master"));
    let web = two.run(busybox(&["httpd", "-f", "-p", "8080", "-h", "/etc"]).publish_as(80, 8080));
    let file = format!("http://{}/passwd", two.address());
    eventually("busybox serves files", || two.try_docker(&["exec", web.id(), "/bin/busybox", "wget", "-qO-", &file]));
    let database = lab.host(3).run(postgres().env("POSTGRES_PASSWORD", "secret").publish(5432));
    // It makes its database first, which takes a busy machine a while.
    within(LONG, "postgres answers", || {
        lab.host(3).try_docker(&["exec", database.id(), "psql", "-h", "/tmp", "-U", "postgres", "-c", "select 1"])
    });
    let mut stream = TcpStream::connect(lab.host(3).at(5432)).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap(); // asks for TLS
    let mut reply = [0];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply, *b"N", "postgres serves without TLS here");
}

#[test]
fn etcd_is_one_cluster_of_three() {
    let lab = lab::alone();
    let etcd = lab.etcd();
    assert_eq!(etcd.ctl(&["member", "list"]).lines().count(), 3);
    let watch = etcd.watch(lab.ground().dir(), "/t/");
    etcd.put("/t/a", "1");
    etcd.delete("/t/a");
    eventually("the watch has seen both", || watch.events().len() == 2);
    assert_eq!(watch.deleted(), ["/t/a"]);
    assert_eq!(etcd.keys("/t/"), Vec::<String>::new());
}

#[test]
fn a_host_that_is_cut_off_is_unreachable_until_healed() {
    let lab = lab::alone();
    let _cache = lab.host(1).run(memcached().publish(11211));
    let at = lab.host(1).at(11211);
    eventually("memcached answers", || version_seen_from(lab.host(2), &at));
    lab.host(1).cut();
    throughout(Duration::from_secs(2), "host 2 cannot reach it", || version_seen_from(lab.host(2), &at).is_err());
    version_seen_from(lab.host(1), &at).expect("its own host still does");
    lab.host(1).heal();
    eventually("it is back", || version_seen_from(lab.host(2), &at));
}

#[test]
fn two_of_three_etcd_members_go_on_without_the_third() {
    let lab = lab::alone();
    lab.host(3).etcd().kill();
    let rest = lab::etcd::Etcd::at(vec![lab.host(1).etcd_endpoint(), lab.host(2).etcd_endpoint()]);
    eventually("a write goes through", || rest.try_ctl(&["put", "/t/b", "2"]));
    lab.host(2).etcd().hang();
    let one = lab::etcd::Etcd::at(vec![lab.host(1).etcd_endpoint()]);
    assert!(one.try_ctl(&["put", "/t/b", "3"]).is_err(), "one of three is no quorum");
}

#[test]
fn an_engine_restarts_and_forgets_no_container() {
    let lab = lab::alone();
    let _cache = lab.host(2).run(memcached().name("stays").option("--restart=always").publish(11211));
    lab.host(2).restart_engine();
    eventually("its container runs again", || version_seen_from(lab.host(1), &lab.host(2).at(11211)));
    lab.host(2).engine().kill();
    assert!(lab.host(2).try_docker(&["version"]).is_err());
    lab.host(2).start_engine();
    eventually("and again", || version_seen_from(lab.host(1), &lab.host(2).at(11211)));
}

#[test]
fn loss_and_throttling_come_and_go() {
    let lab = lab::alone();
    let _cache = lab.host(1).run(memcached().publish(11211));
    let at = lab.host(1).at(11211);
    eventually("memcached answers", || version_seen_from(lab.host(2), &at));
    lab.host(2).lose(100);
    assert!(version_seen_from(lab.host(2), &at).is_err());
    lab.host(2).calm();
    eventually("nothing is lost any more", || version_seen_from(lab.host(2), &at));
    lab.host(2).throttle("64kbit");
    assert!(lab.host(2).exec(&["tc", "qdisc", "show", "dev", "eth0"]).contains("tbf"));
    lab.host(2).calm();
    assert!(!lab.host(2).exec(&["tc", "qdisc", "show", "dev", "eth0"]).contains("tbf"));
}

/// A lab of another process that ends badly: this very test, started once more, is its victim.
fn doomed_lab() -> (Child, u32, u32) {
    let own = std::env::current_exe().unwrap();
    let mut child = Command::new(own)
        .args(["--exact", "lab_itself::a_lab_that_is_killed_leaves_nothing", "--nocapture"])
        .env(VICTIM, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("lab up:")).expect("the other lab comes up");
    let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (child, numbers[0], numbers[1])
}

/// What takes a busy machine a while: ending a lab's processes, mounts and files, a database that is made.
const LONG: Duration = Duration::from_secs(90);
const VICTIM: &str = "WHARF_LAB_VICTIM";

fn play_victim() -> ! {
    let lab = lab::Lab::start();
    // A paused one too: what is frozen cannot be killed before it thaws.
    let _cache = lab.host(1).run(memcached().publish(11211));
    let frozen = lab.host(2).run(memcached().publish(11212));
    frozen.pause();
    println!("\nlab up: {} {}", lab.ground().number(), lab.ground().sweeper());
    std::thread::park();
    unreachable!("nobody wakes it")
}

/// What of a lab is still there.
fn remains(lab: u32) -> Result<(), String> {
    let look = format!(
        "ls -d /var/tmp/wharf-lab/run-{lab} /run/netns/wharf-lab-{lab}-* /sys/class/net/wharflab{lab} 2>/dev/null; \
         find /sys/fs/cgroup -name 'wharf-lab-{lab}'; grep /wharf-lab/run-{lab}/ /proc/mounts; \
         pgrep -af '/wharf-lab/run-{lab}/' | grep -v sweep; true"
    );
    let left = lab::process::run(&["sh", "-c", &look]);
    let left: Vec<&str> = left.lines().filter(|line| !line.contains("pgrep")).collect();
    if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
}

#[test]
fn a_lab_that_is_killed_leaves_nothing() {
    if std::env::var_os(VICTIM).is_some() {
        play_victim();
    }
    let (mut owner, number, _) = doomed_lab();
    assert!(remains(number).is_err(), "it was there");
    owner.kill().unwrap();
    owner.wait().unwrap();
    within(LONG, "nothing of it is left", || remains(number));
}

#[test]
fn what_a_lab_and_its_sweeper_left_is_removed_by_the_next_sweep() {
    let (mut owner, number, sweeper) = doomed_lab();
    let sweeper = rustix::process::Pid::from_raw(i32::try_from(sweeper).unwrap()).unwrap();
    rustix::process::kill_process(sweeper, rustix::process::Signal::KILL).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(remains(number).is_err(), "nobody removed it");
    lab::ground::sweep();
    // Where another lab begins at this moment, it is the one that sweeps.
    within(LONG, "nothing of it is left", || remains(number));
}
