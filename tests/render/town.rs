//! An agent over a real etcd into which the test writes records, and a folder with tables, templates and files.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wharf::store::etcd::Etcd;
use wharf::store::{Store, StoreError, Write};

use crate::etcd::Cluster;
use crate::program::{Agent, Options, told, wharf};

/// How long anything may take on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Town {
    pub etcd: Cluster,
    pub agent: Agent,
    pub dir: tempfile::TempDir,
    store: Etcd,
    runtime: tokio::runtime::Runtime,
}

/// Waits until it is so.
pub fn until(what: &str, mut holds: impl FnMut() -> bool, why: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}\n{}", why());
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Town {
    /// One whose tables are these; `DIR` in them is the folder.
    pub fn new(tables: &str) -> Self {
        let etcd = Cluster::start(1);
        etcd.wait_healthy();
        let endpoints = etcd.endpoints().join(",");
        let flags = vec!["--etcd-endpoints".to_owned(), endpoints.clone()];
        let agent = Agent::start_with(&Options { flags, ..Options::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = runtime.block_on(async { etcd.store(Duration::from_secs(30)) });
        let town = Self { etcd, agent, dir: tempfile::tempdir().unwrap(), store, runtime };
        fs::create_dir(town.path("out")).unwrap();
        town.tables(tables);
        town
    }

    /// Writes other tables.
    pub fn tables(&self, tables: &str) {
        let head = format!(
            "node = 'core-01'\netcd-endpoints = ['{}']\nhttp-socket = '{}'\n",
            self.etcd.endpoints().join("','"),
            self.agent.socket().display()
        );
        self.write("wharf.toml", &(head + tables));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the folder; `DIR` in it is the folder.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text.replace("DIR", &self.dir.path().display().to_string())).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What lies in the folder of the files, dot-files too.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn put(&self, key: &str, value: &str) {
        self.commit(&[Write::Put { key: key.to_owned(), value: value.to_owned().into(), lease: 0 }]);
    }

    /// Writes, again where a busy machine lets etcd wait for its turn: it may be done twice, and is the same then.
    fn commit(&self, writes: &[Write]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.runtime.block_on(self.store.commit(&[], writes)) {
                Err(StoreError::Away { .. }) if Instant::now() < deadline => {}
                done => {
                    done.unwrap();
                    return;
                }
            }
        }
    }

    /// Many at once, as far as one commit takes them.
    pub fn put_all(&self, all: &[(String, String)]) {
        for some in all.chunks(wharf::store::MAX_WRITES) {
            let write = |(key, value): &(String, String)| Write::Put {
                key: key.clone(),
                value: value.clone().into(),
                lease: 0,
            };
            self.commit(&some.iter().map(write).collect::<Vec<_>>());
        }
    }

    pub fn delete(&self, key: &str) {
        self.commit(&[Write::Delete(key.to_owned())]);
    }

    /// An endpoint of `web`, as an agent would write it.
    pub fn web(&self, name: &str, port: u16) {
        let value = format!(r#"{{"host":"127.0.0.1","port":{port},"node":"n-{name}","owner":"o-{name}"}}"#);
        self.put(&format!("/services/web/{name}"), &value);
    }

    /// Waits until the agent shows so many endpoints of a service.
    pub fn shows(&self, service: &str, count: usize) {
        self.agent.until(&format!("{count} of {service}"), |agent| {
            let (_, printed, _) = told(&agent.wharf(&format!("services {service} -o hostport")));
            printed.lines().count() == count
        });
    }

    /// `wharf render --once` with these words; `DIR` is the folder.
    pub fn once(&self, line: &str) -> (Option<i32>, String, String) {
        told(&self.command(line).output().unwrap())
    }

    fn command(&self, line: &str) -> Command {
        self.command_with(line, "wharf.toml")
    }

    fn command_with(&self, line: &str, settings: &str) -> Command {
        let mut command = wharf();
        let words = line.replace("DIR", &self.dir.path().display().to_string());
        command.arg("render").args(words.split_whitespace()).arg("--config").arg(self.path(settings));
        command
    }

    /// Starts `wharf render --follow`.
    pub fn follow(&self) -> Follow {
        self.follow_with("wharf.toml")
    }

    /// The same with another file of settings.
    pub fn follow_with(&self, settings: &str) -> Follow {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = self.command_with("--follow", settings).stderr(log).stdout(Stdio::null()).spawn().unwrap();
        Follow { child, log: self.path("log") }
    }

    /// Waits until a file of the folder is so.
    pub fn until_file(&self, name: &str, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let why = || format!("{name}: {}\n{}", self.read(name), self.read("log"));
        until(&format!("{name} is {what}"), || holds(&self.read(name)), why);
        self.read(name)
    }

    /// How a table stands, as the agent shows it.
    pub fn stands(&self, name: &str) -> serde_json::Value {
        let told: serde_json::Value =
            serde_json::from_str(&told(&self.agent.wharf("render -o json")).1).unwrap_or_default();
        let renders = told["renders"].as_array().cloned().unwrap_or_default();
        renders.into_iter().find(|render| render["name"] == name).unwrap_or_default()
    }

    pub fn until_stands(&self, name: &str, what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
        let why = || format!("{}\n{}", self.stands(name), self.read("log"));
        until(&format!("{name} {what}"), || holds(&self.stands(name)), why);
    }
}

/// `wharf render --follow`, ended with the test.
pub struct Follow {
    child: Child,
    log: PathBuf,
}

impl Follow {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it at once, wherever it is.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9), "{}", fs::read_to_string(&self.log).unwrap());
    }

    /// Asks it to end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often a file was changed, by the numbers of its inodes: a rename makes another one.
pub fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map(|facts| facts.ino()).unwrap_or_default()
}
