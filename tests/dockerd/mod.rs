//! A real Docker engine of the test's own: its own network namespace, data, socket and pid file, all in a temporary
//! directory, ended with the test. Its only image is made of this machine's memcached. Needs root and Debian's
//! `docker.io` and `memcached`; a test that lacks them fails and says so.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const IMAGE: &str = "memcached:test";

pub struct Dockerd {
    dir: tempfile::TempDir,
    process: Option<Child>,
}

fn tool(name: &str, package: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]).map(|dir| Path::new(dir).join(name));
    let found = places.into_iter().find(|place| place.is_file());
    found.unwrap_or_else(|| panic!("this test needs {name}: install Debian's {package}"))
}

impl Dockerd {
    /// Starts an engine with its image.
    pub fn start() -> Self {
        let mut engine = Self { dir: tempfile::tempdir().unwrap(), process: None };
        engine.launch();
        engine.import();
        engine
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub fn endpoint(&self) -> wharf::docker::Endpoint {
        wharf::docker::Endpoint::Unix(self.dir.path().join("sock"))
    }

    /// Starts the daemon and waits until it answers.
    #[allow(clippy::disallowed_methods)] // no runtime is held up: each of these tests has threads of its own to spare
    pub fn launch(&mut self) {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let script = "ip link set lo up; ip link add wan type dummy; ip addr add 10.99.0.1/24 dev wan; \
                      ip link set wan up; ip route add default via 10.99.0.254; exec \"$0\" \"$@\"";
        let child = Command::new(tool("unshare", "util-linux"))
            .args(["--net", "sh", "-c", script])
            .arg(tool("dockerd", "docker.io"))
            .args(["--data-root", &self.path("data"), "--exec-root", &self.path("exec"), "-p", &self.path("pid")])
            .args(["-H", &format!("unix://{}", self.path("sock")), "--storage-driver", "vfs", "--live-restore"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.try_docker(&["version"]).0 {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "dockerd does not start (is this root?):\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn import(&self) {
        let memcached = tool("memcached", "memcached");
        let libraries = Command::new("ldd").arg(&memcached).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        let mut files: BTreeSet<String> =
            libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect();
        files.insert(memcached.display().to_string());
        let etc = self.dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        let tar = self.path("image.tar");
        let made =
            Command::new("tar").arg("-chPf").arg(&tar).args(&files).args(["-C", &self.path(""), "etc/passwd"]).status();
        assert!(made.unwrap().success());
        let command = format!("CMD [\"{}\", \"-u\", \"root\"]", memcached.display());
        self.docker(&["import", "-c", "EXPOSE 11211", "-c", &command, &tar, IMAGE]);
    }

    fn try_docker(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(tool("docker", "docker.io"))
            .env("DOCKER_HOST", format!("unix://{}", self.path("sock")))
            .env_remove("DOCKER_CONTEXT")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        (output.status.success(), text.trim().to_owned())
    }

    /// `docker …`, which must succeed; what it prints.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let (fine, text) = self.try_docker(arguments);
        assert!(fine, "docker {arguments:?}: {text}");
        text
    }

    /// `docker run -d --name NAME …` of the image; the id.
    pub fn run(&self, name: &str, options: &[&str]) -> String {
        let mut arguments = vec!["run", "-d", "--name", name];
        arguments.extend_from_slice(options);
        arguments.push(IMAGE);
        self.docker(&arguments)
    }

    /// The host port of the image's port.
    pub fn port(&self, name: &str) -> u16 {
        let text = self.docker(&["port", name, "11211/tcp"]);
        text.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn pid(&self, name: &str) -> i32 {
        self.docker(&["inspect", "-f", "{{.State.Pid}}", name]).parse().unwrap()
    }

    fn signal(&mut self, signal: rustix::process::Signal) {
        let process = self.process.as_ref().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Ends the daemon alone; with `--live-restore` its containers go on.
    pub fn leave(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let _ = self.process.take().unwrap().wait();
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if self.process.is_none() {
            return;
        }
        let (_, all) = self.try_docker(&["ps", "-aq"]);
        let mut arguments = vec!["rm", "-f"];
        arguments.extend(all.split_whitespace());
        if arguments.len() > 2 {
            self.try_docker(&arguments);
        }
        self.leave();
        unmount_below(self.dir.path());
    }
}

/// What a daemon leaves mounted would keep the directory from being removed.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut places: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    places.retain(|place| Path::new(place).starts_with(dir));
    places.sort_unstable_by_key(|place| std::cmp::Reverse(place.len()));
    for place in places {
        let _ = Command::new("umount").arg("-l").arg(place).status();
    }
}
