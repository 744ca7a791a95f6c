//! The runbook of `docs/migrating-from-registrator.md`, step by step, while a client that knows all three resolvers
//! keeps asking for an old name. registrator's part is played by its keys, as its SkyDNS adapter writes them.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::lab::container::Container;
use crate::lab::host::Host;
use crate::lab::{self, Lab, eventually, memcached};

const OLD_NAME: &str = "cache.cluster.local";
const OLD: &str = "cluster.local=/skydns/local/cluster";
const NEW: &str = "cluster.local=/services";

fn old_key(host: &Host) -> String {
    format!("/skydns/local/cluster/cache/{name}:cache-{name}:11211", name = host.name())
}

/// What a client with three resolvers gets: the first answer that comes.
fn ask(lab: &Lab) -> Result<BTreeSet<String>, String> {
    let answers = lab.hosts().iter().map(|host| lab.host(1).dig_at(host.address(), OLD_NAME, "SRV"));
    let answer = answers.into_iter().find(|answer| answer.status != "TIMEOUT").ok_or("no resolver answers")?;
    let targets = answer.targets();
    let all: BTreeSet<String> = targets.iter().cloned().collect();
    if all.len() == targets.len() { Ok(all) } else { Err(format!("an endpoint is answered twice: {targets:?}")) }
}

/// A client that asks and asks.
#[derive(Default)]
struct Client {
    asked: AtomicUsize,
    done: AtomicBool,
    wrong: Mutex<Option<String>>,
}

impl Client {
    /// Asks until it is told that all is done, or an answer is not whole.
    fn ask_on(&self, lab: &Lab, all: &BTreeSet<String>) {
        while !self.done.load(Ordering::SeqCst) {
            match ask(lab) {
                Ok(seen) if seen == *all => _ = self.asked.fetch_add(1, Ordering::SeqCst),
                other => return *self.wrong.lock().unwrap() = Some(format!("{other:?}")),
            }
        }
    }

    /// Until it has asked some times more, and been content.
    #[track_caller]
    fn goes_on(&self, step: &str) {
        let before = self.asked.load(Ordering::SeqCst);
        eventually("the client goes on asking", || {
            if let Some(wrong) = &*self.wrong.lock().unwrap() {
                self.done.store(true, Ordering::SeqCst);
                panic!("{step}: an answer was not whole: {wrong}");
            }
            let more = self.asked.load(Ordering::SeqCst) - before;
            if more >= 5 { Ok(()) } else { Err(format!("asked {more} times")) }
        });
    }
}

/// Ends the client, however the test ends.
struct End<'a>(&'a Client);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_runbook_leaves_no_name_without_an_answer() {
    let lab = lab::alone();
    let spec = |host: &Host| {
        let name = format!("cache-{}", host.name());
        memcached().name(&name).env("SERVICE_NAME", "cache").publish_anywhere(11211)
    };
    let running: Vec<Container<'_>> = lab.hosts().iter().map(|host| host.run(spec(host))).collect();
    let endpoints: Vec<String> =
        lab.hosts().iter().zip(&running).map(|(host, container)| host.at(container.published(11211))).collect();
    let all: BTreeSet<String> = endpoints.iter().cloned().collect();
    for (host, endpoint) in lab.hosts().iter().zip(&endpoints) {
        let (address, port) = endpoint.split_once(':').unwrap();
        lab.etcd().put(&old_key(host), &format!(r#"{{"host":"{address}","port":{port}}}"#));
    }
    // Steps 1 and 2 on the first host: the others are still known by registrator alone.
    let mut agents = vec![lab.host(1).wharf().flag("--zone", OLD).flag("--zone", NEW).start()];
    eventually("all of the old name is answered", || match ask(&lab) {
        Ok(seen) if seen == all => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (client, hosts): (Client, &Lab) = (Client::default(), &lab);
    std::thread::scope(|scope| {
        // Step 3: from here on clients ask wharf.
        scope.spawn(|| client.ask_on(hosts, &all));
        let _end = End(&client);
        client.goes_on("one agent");
        for host in &hosts.hosts()[1..] {
            agents.push(host.wharf().flag("--zone", OLD).flag("--zone", NEW).start());
            client.goes_on("another agent");
        }
        eventually("every host has published", || {
            let keys = hosts.etcd().keys("/services/cache/");
            if keys.len() == 3 { Ok(()) } else { Err(format!("{keys:?}")) }
        });
        // Step 4: registrator is stopped and its keys are deleted, host by host.
        for host in hosts.hosts() {
            hosts.etcd().delete(&old_key(host));
            client.goes_on("the old keys of a host deleted");
        }
        // Step 5: the old tree is forgotten, one agent after another.
        for host in hosts.hosts() {
            drop(agents.remove(0));
            agents.push(host.wharf().flag("--zone", NEW).start());
            client.goes_on("an agent without the old tree");
        }
    });
    assert_eq!(lab.etcd().keys("/skydns/"), Vec::<String>::new());
    for host in lab.hosts() {
        eventually("every resolver answers the old name", || host.dig(OLD_NAME, "SRV").is(&endpoints));
    }
}
