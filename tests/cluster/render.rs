//! Files that follow the cluster on three hosts: an application beside a memcached and mcrouter's file on each, and a
//! file that is bind-mounted alone into a container.
//!
//! mcrouter cannot be installed here. The application's part of it is played by the model of its routes, with real
//! commands to the servers that a file names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::lab::container::Container;
use crate::lab::host::Host;
use crate::lab::image::Image;
use crate::lab::process::Process;
use crate::lab::{self, busybox, eventually, memcached, within};
use crate::mcrouter::{Config, read};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wharf");
/// Where the memcached beside the application is, as mcrouter has the usual port.
const BESIDE: u16 = 11212;
/// A join and a drain are in every host's file within that.
const SOON: Duration = Duration::from_secs(5);
const LEAVE_AFTER: Duration = Duration::from_secs(3);

/// One host's `wharf render`, and its file.
struct Follower<'lab> {
    host: &'lab Host,
    file: PathBuf,
    log: PathBuf,
    _process: Process,
}

/// Settings of the agent whose files these are.
fn settings(host: &Host, tables: &str) -> String {
    format!(
        "node = '{}'\netcd-endpoints = ['{}']\nhttp-socket = '{}'\n{tables}",
        host.name(),
        host.etcd_endpoints().join("','"),
        host.dir().join("wharf/http.sock").display()
    )
}

impl<'lab> Follower<'lab> {
    /// mcrouter's file, with these central servers.
    fn start(host: &'lab Host, central: &str) -> Self {
        let file = host.dir().join("mcrouter.json");
        let _ = fs::remove_file(&file);
        let tables = format!(
            "[[render]]\nbuiltin = 'mcrouter'\ndestination = '{}'\n\
             [render.with]\nservice = 'memcached'\nlocal = '{}'\ncentral = {central}\n",
            file.display(),
            host.at(BESIDE)
        );
        let config = host.dir().join("render.toml");
        fs::write(&config, settings(host, &tables)).unwrap();
        let argv = [PROGRAM, "render", "--follow", "--config", config.to_str().unwrap()];
        let process = host.spawn("render", &argv, &[]);
        Self { host, file, log: host.dir().join("render.log"), _process: process }
    }

    /// The file, as mcrouter would read it.
    fn config(&self) -> Result<Config, String> {
        let said = || fs::read_to_string(&self.log).unwrap_or_default();
        let text =
            fs::read_to_string(&self.file).map_err(|error| format!("{}: {error}\n{}", self.file.display(), said()))?;
        read(&text)
    }

    /// Whether it names the memcacheds of just these hosts as peers, in the order of their ids.
    fn names(&self, hosts: &[&Host]) -> Result<(), String> {
        let config = self.config()?;
        let peers = config.pools.get("peers").cloned().unwrap_or_default();
        let expected: Vec<String> = hosts.iter().map(|host| host.at(BESIDE)).collect();
        if peers == expected { Ok(()) } else { Err(format!("{} names {peers:?}, not {expected:?}", self.host.name())) }
    }
}

#[track_caller]
fn all_name(followers: &[&Follower<'_>], hosts: &[&Host], what: &str) -> Duration {
    let begun = Instant::now();
    within(SOON, &format!("every file {what}"), || followers.iter().try_for_each(|follower| follower.names(hosts)));
    begun.elapsed()
}

/// One command to a memcached, and the first line of its answer.
fn memcached_says(server: &str, command: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// What the application writes and deletes by one host's file goes to every server that the routes reach.
fn sends(follower: &Follower<'_>, operation: &str, key: &str, dead: &BTreeSet<&str>) -> BTreeSet<String> {
    let sent = follower.config().unwrap().send(operation, key, dead);
    assert!(!sent.failed, "{operation} {key} by the file of {}", follower.host.name());
    for (server, exptime) in &sent.reached {
        let (command, answers): (String, &[&str]) = match operation {
            "set" => (format!("set {key} 0 {} 1\r\nx\r\n", exptime.unwrap_or(0)), &["STORED"]),
            _ => (format!("delete {key}\r\n"), &["DELETED", "NOT_FOUND"]),
        };
        let said = memcached_says(server, &command);
        assert!(answers.contains(&said.as_str()), "{operation} {key} at {server}: {said}");
    }
    sent.reached.into_keys().collect()
}

fn has(server: &str, key: &str) -> bool {
    memcached_says(server, &format!("get {key}\r\n")).starts_with("VALUE")
}

/// What one host's application writes is in every copy, and what another one's deletes in none.
fn copies_agree(writer: &Follower<'_>, deleter: &Follower<'_>, lost: &[&Host], key: &str) {
    let lost: Vec<String> = lost.iter().map(|host| host.at(BESIDE)).collect();
    let dead: BTreeSet<&str> = lost.iter().map(String::as_str).collect();
    let reached = sends(writer, "set", key, &dead);
    let copies: BTreeSet<String> =
        writer.config().unwrap().copies(key).into_iter().filter(|copy| !dead.contains(copy.as_str())).collect();
    assert_eq!(reached, copies);
    assert!(copies.iter().all(|copy| has(copy, key)), "{key} is in {copies:?}");
    assert_eq!(sends(deleter, "delete", key, &dead), copies, "by the other file, too");
    assert!(!copies.iter().any(|copy| has(copy, key)), "{key} is still in one of {copies:?}");
}

fn beside(host: &Host) -> Container<'_> {
    host.run(memcached().name("beside").env("SERVICE_NAME", "memcached").publish_as(BESIDE, 11211))
}

#[test]
fn each_hosts_pools_follow_a_join_a_drain_and_a_loss_and_a_delete_reaches_every_copy() {
    let lab = lab::alone();
    // What serves `central` stands for ElastiCache: its endpoint is read as any client reads it.
    let agents = lab.wharves_told(&format!(
        "[[autodiscovery]]\nservice = 'memcached'\nlisten = '0.0.0.0:11311'\nleave-after = '{}s'\n\
         [[autodiscovery]]\nservice = 'central'\nlisten = '0.0.0.0:11312'\nleave-after = '60s'\n",
        LEAVE_AFTER.as_secs()
    ));
    let [one, two, three] = [lab.host(1), lab.host(2), lab.host(3)];
    let central = |host: &'static str| memcached().name(host).env("SERVICE_NAME", "central").publish_as(11213, 11211);
    let _central = [one.run(central("central-1")), two.run(central("central-2"))];
    let _first = [beside(one), beside(two)];
    let endpoint = format!("'discovery://{}'", one.at(11312));
    let list = format!("['{}', '{}']", one.at(11213), two.at(11213));
    let followers = [Follower::start(one, &endpoint), Follower::start(two, &list), Follower::start(three, &endpoint)];
    let [first, second, third] = &followers;
    eventually("every file names both that are there", || followers.iter().try_for_each(|of| of.names(&[one, two])));
    for follower in &followers {
        eventually("central is as it is told", || {
            let central = follower.config()?.pools["central"].clone();
            let expected = [one.at(11213), two.at(11213)];
            if central == expected { Ok(()) } else { Err(format!("{}: {central:?}", follower.host.name())) }
        });
    }
    copies_agree(first, second, &[], "user:1");

    let _third = beside(three);
    let joined = all_name(&[first, second, third], &[one, two, three], "names the one that joined");
    copies_agree(third, first, &[], "user:2");
    agents[1].command(&["drain"]).unwrap();
    let drained = all_name(&[first, second, third], &[one, three], "does not name the one that is drained");
    agents[1].command(&["undrain"]).unwrap();
    all_name(&[first, second, third], &[one, two, three], "names it again, in its place");
    copies_agree(second, third, &[], "user:3");

    // A host that is cut off is lost to the others; what its own file names stays, and is said to be old.
    let lost = Instant::now();
    three.cut();
    copies_agree(first, second, &[three], "user:4");
    eventually("the lost one is named no longer", || [first, second].iter().try_for_each(|of| of.names(&[one, two])));
    assert!(lost.elapsed() >= LEAVE_AFTER, "it stays for a while: {:?}", lost.elapsed());
    println!("a join was in every file after {joined:?}, a drain after {drained:?}, a loss after {:?}", lost.elapsed());
    third.names(&[one, two, three]).unwrap();
    three.heal();
    eventually("every file names all again", || followers.iter().try_for_each(|of| of.names(&[one, two, three])));
    copies_agree(third, first, &[], "user:5");
}

/// Renders once in a container whose one file is `file` of the host; what was said.
fn in_container(host: &Host, file: &str, table: &str) -> Result<String, String> {
    let config = host.dir().join("inside.toml");
    fs::write(
        &config,
        format!(
            "node = '{}'\nadvertise = ['{}']\nhttp-socket = '/agent/http.sock'\n{table}",
            host.name(),
            host.address()
        ),
    )
    .unwrap();
    host.bring(Image::Busybox);
    // The program that was just built, with the libraries that it was built against.
    let mounts = [
        format!("{PROGRAM}:/wharf:ro"),
        "/usr/lib:/lib:ro".into(),
        "/usr/lib64:/lib64:ro".into(),
        format!("{}:/agent", host.dir().join("wharf").display()),
        format!("{}:/inside.toml:ro", config.display()),
        format!("{file}:/etc/servers.conf"),
    ];
    let mut argv = vec!["run", "--rm", "--entrypoint", "/wharf"];
    argv.extend(mounts.iter().flat_map(|mount| ["-v", mount]));
    argv.extend([Image::Busybox.reference(), "render", "--once", "--config", "/inside.toml"]);
    host.try_docker(&argv)
}

#[test]
fn a_file_that_is_mounted_alone_is_written_in_place_and_only_so() {
    let lab = lab::share();
    let host = lab.host(1);
    let cache = host.run(memcached().name("alone-01").env("SERVICE_NAME", "mounted").publish_anywhere(11211));
    let at = host.at(cache.published(11211));
    eventually("it is found", || host.dig("mounted.services.internal", "SRV").is(std::slice::from_ref(&at)));
    let file = host.dir().join("servers.conf");
    fs::write(&file, "nobody yet, and much longer than what comes after it, so that an end of it would be seen\n")
        .unwrap();
    let path = file.display().to_string();
    let reader =
        host.run(busybox(&["sleep", "1000"]).name("reader").option("-v").option(&format!("{path}:/servers.conf:ro")));
    let template = "[[render]]\nname = 'servers'\ntemplate = 'TEMPLATE'\ndestination = 'FILE'\nmin = { mounted = 1 }\n";
    let text = "{% for e in service('mounted').endpoints %}\n{{ e | hostport }}\n{% endfor %}\n";
    let source = host.dir().join("wharf/servers.j2");
    fs::write(&source, text).unwrap();

    // From outside: a rename would leave the container with the old file.
    let outside = template.replace("TEMPLATE", &source.display().to_string()).replace("FILE", &path);
    let config = host.dir().join("outside.toml");
    fs::write(&config, settings(host, &format!("{outside}inplace = true\n"))).unwrap();
    host.exec(&[PROGRAM, "render", "--once", "--config", config.to_str().unwrap()]);
    assert_eq!(reader.exec(&["/bin/busybox", "cat", "/servers.conf"]), format!("{at}\n"));

    // From inside: nothing can be renamed over what is mounted, and what helps is said.
    fs::write(&file, "old\n").unwrap();
    let inside = template.replace("TEMPLATE", "/agent/servers.j2").replace("FILE", "/etc/servers.conf");
    let refused = in_container(host, &path, &inside).unwrap_err();
    assert!(refused.contains("is mounted alone") && refused.contains("inplace = true"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old\n");
    in_container(host, &path, &format!("{inside}inplace = true\n")).unwrap();
    assert_eq!(reader.exec(&["/bin/busybox", "cat", "/servers.conf"]), format!("{at}\n"));
}
