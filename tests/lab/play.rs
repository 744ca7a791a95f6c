//! The lab as a program, for people: `make lab` brings the three hosts up, `make demo` services on them, too. Both stay
//! until Ctrl-C and leave nothing behind. `--once` shows what there is to show and ends.
#![allow(clippy::print_stdout, clippy::print_stderr)] // it is there to print

#[path = "mod.rs"]
mod lab;

use std::process::ExitCode;

use lab::container::Container;
use lab::counter::{Counter, Tally};
use lab::steered::{MASTER, SERVICE, make_master};
use lab::wharf::Wharf;
use lab::{Lab, eventually, memcached, postgres, redis};

const USAGE: &str = "usage: lab demo|up [--once]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let once = words.iter().any(|word| word == "--once");
    let commands: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--once").collect();
    let (show, title): (fn(&Lab, &[Wharf<'_>]), _) = match commands[..] {
        ["demo"] => (show_services, "three hosts, each with a Docker engine, an etcd member, wharf and services"),
        ["up"] => (|_, _| {}, "three hosts, each with a Docker engine, an etcd member and wharf"),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = lab::ground::machine_can() {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    println!("bringing up {title} …");
    let lab = Lab::start();
    let demo = commands == ["demo"];
    let agents = lab.wharves_told(&if demo { lab.steering() } else { String::new() });
    let containers = if demo { start_services(&lab) } else { vec![] };
    show(&lab, &agents);
    show_ways_in(&lab);
    if !once {
        println!("\nCtrl-C ends it all.");
        wait_for_signal();
    }
    println!("\nclearing up …");
    drop(containers);
    drop(agents);
    drop(lab);
    ExitCode::SUCCESS
}

/// The services of the demo: a cache on two hosts, a redis with its replica, a database.
fn start_services(lab: &Lab) -> Vec<Container<'_>> {
    let [one, two, three] = [lab.host(1), lab.host(2), lab.host(3)];
    let primary = one.address().to_string();
    vec![
        one.run(memcached().name("core-01").publish(11211)),
        three.run(memcached().name("core-03").publish(11211)),
        one.run(redis().name("sessions-1").publish(6379)),
        two.run(redis().name("sessions-2").publish(6379).arguments(&["--replicaof", &primary, "6379"])),
        two.run(postgres().name("orders").env("POSTGRES_PASSWORD", "demo").publish(5432)),
    ]
    .into_iter()
    .chain(lab.frozen_servers())
    .collect()
}

fn show_services(lab: &Lab, agents: &[Wharf<'_>]) {
    for (service, count) in [("memcached", 2), ("redis", 2), ("postgres", 1)] {
        for host in lab.hosts() {
            let name = format!("{service}.services.internal");
            eventually(&format!("{} answers {name} with {count} targets", host.name()), || {
                let answer = host.dig(&name, "SRV");
                if answer.targets().len() == count { Ok(()) } else { Err(format!("{answer:?}")) }
            });
        }
    }
    for host in lab.hosts() {
        for service in ["memcached", "redis", "postgres"] {
            let question = format!("dig +short -p 5300 @{} {service}.services.internal SRV", host.address());
            println!("\n{}$ {question}", host.name());
            print!("{}", host.exec(&question.split(' ').collect::<Vec<_>>()));
        }
    }
    println!("\n{}$ wharf services", lab.host(1).name());
    match agents[0].command(&["services"]) {
        Ok(table) => print!("{table}"),
        Err(error) => println!("{error}"),
    }
    show_switches(lab, &agents[0]);
}

/// The master of a redis service moves under a counter that writes to it.
fn show_switches(lab: &Lab, agent: &Wharf<'_>) {
    make_master(agent, lab.host(1).name());
    let counter = Counter::start(lab.host(1).address(), MASTER);
    counter.counts_on(50);
    println!();
    for to in [2, 3, 1] {
        let to = lab.host(to).name();
        let told = make_master(agent, to);
        print!("{}$ wharf topology switch {SERVICE} --to {to}\n{told}", lab.host(1).name());
        counter.counts_on(50);
    }
    let Tally { acknowledged, missing, failed, phantom } = counter.stop();
    println!(
        "a counter at {MASTER}: {acknowledged} acknowledged ({missing} missing), {failed} failed ({phantom} phantom)"
    );
}

fn show_ways_in(lab: &Lab) {
    println!("\nThe hosts, as root:");
    for host in lab.hosts() {
        println!(
            "  {}  {}  nsenter --net=/run/netns/{} bash",
            host.name(),
            host.address(),
            lab.ground().namespace(host.name())
        );
        println!("      docker -H {} ps", host.docker_uri());
        println!(
            "      target/debug/wharf services --http-socket {}/wharf/http.sock\n      less {}/*.log",
            host.dir().display(),
            host.dir().display()
        );
    }
    println!("From this machine:");
    println!("  dig -p 5300 @{} memcached.services.internal SRV", lab.host(1).address());
    println!("  ETCDCTL_API=3 etcdctl --endpoints={} get --prefix /services", lab.host(1).etcd_endpoint());
}

/// Until Ctrl-C, or whatever else asks for the end.
fn wait_for_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be had");
        let mut hang_up = signal(SignalKind::hangup()).expect("signals can be had");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    });
}
