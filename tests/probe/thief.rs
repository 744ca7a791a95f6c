//! Containers and processes that try to be told a password. Each learns nothing, says so nowhere, and is no reason not
//! to offer what serves.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wharf::model::health::standing::{Standing, State};
use wharf::model::offer::instance::{CheckKind, Confidant, FirstProcess, Instance};
use wharf::model::words::record::Role;

use crate::harness::{Host, instance, quick, with_login};
use crate::servers::{Server, directory, free_port, redis, redis_in};

const PASSWORD: &str = "s3cret-of-all";

/// A listener that answers every packet with the same words, and keeps what it heard.
struct Thief {
    target: std::net::SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Thief {
    async fn at(target: &str, answers: &'static [u8]) -> Self {
        let listener = TcpListener::bind(target).await.unwrap();
        let (target, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (mut tasks, notes) = (JoinSet::new(), Arc::clone(&heard));
        tasks.spawn(async move {
            let mut victims = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                victims.spawn(listen(stream, answers, Arc::clone(&notes)));
            }
        });
        Self { target, heard, _tasks: tasks }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().escape_ascii().to_string()
    }

    fn knows_nothing(&self) {
        let heard = self.heard();
        assert!(!heard.is_empty(), "it was asked");
        assert!(!heard.contains(PASSWORD) && !heard.contains("AUTH"), "{heard}");
    }
}

async fn listen(mut stream: TcpStream, answers: &'static [u8], notes: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        notes.lock().unwrap().extend_from_slice(&buffer[..read]);
        if stream.write_all(answers).await.is_err() {
            return;
        }
    }
}

/// What a redis says that wants a password, to as many commands as a probe sends.
const NO_AUTH: &[u8] = b"-NOAUTH Authentication required.\r\n-NOAUTH x\r\n-NOAUTH x\r\n";

/// The control group of a container, in a hierarchy that this machine has or that is mounted for it.
struct Group {
    folder: PathBuf,
    id: String,
    mounted: Option<tempfile::TempDir>,
}

impl Group {
    fn older() -> Self {
        let id = format!("{:016x}", rand::random::<u64>()).repeat(4);
        let folder = Path::new("/sys/fs/cgroup/pids").join(&id);
        // Where there is only the unified hierarchy, that one does.
        if !folder.parent().unwrap().is_dir() {
            return Self::unified();
        }
        std::fs::create_dir(&folder).unwrap();
        Self { folder, id, mounted: None }
    }

    fn unified() -> Self {
        let id = format!("{:016x}", rand::random::<u64>()).repeat(4);
        let at = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(at.path()).status().unwrap();
        assert!(mounted.success(), "the unified hierarchy cannot be mounted: this test needs root");
        let folder = at.path().join(&id);
        std::fs::create_dir(&folder).unwrap();
        Self { folder, id, mounted: Some(at) }
    }

    /// A shell that goes into the group and becomes the program.
    fn within(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        command.arg(program).args(arguments).stdin(Stdio::null());
        command
    }

    #[allow(clippy::disallowed_methods)] // the group is entered by another process; nothing else runs on this thread
    fn sleeper(&self) -> Sleeper {
        let sleeper = Sleeper(self.within("sleep", &["1000"]).spawn().unwrap());
        let began = std::time::Instant::now();
        let groups = || std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper.0.id())).unwrap();
        while !groups().contains(&self.id) {
            assert!(began.elapsed() < crate::harness::PATIENCE, "{}", groups());
            std::thread::sleep(Duration::from_millis(10));
        }
        sleeper
    }

    fn process(&self, pid: u32) -> FirstProcess {
        FirstProcess { container: self.id.as_str().into(), pid: pid.cast_signed() }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.folder).ok();
        if let Some(at) = &self.mounted {
            Command::new("umount").arg("-l").arg(at.path()).status().ok();
        }
    }
}

struct Sleeper(Child);

impl Sleeper {
    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// A redis of a container, with a password.
fn of_container(target: std::net::SocketAddr, confidant: Confidant) -> Instance {
    let mut asked = with_login(instance(CheckKind::Redis, target), None, PASSWORD);
    asked.check.confidant = confidant;
    asked
}

fn says(words: &'static str) -> impl Fn(&Standing) -> bool {
    move |standing| standing.error.as_deref().is_some_and(|error| error.contains(words))
}

#[tokio::test]
async fn whoever_holds_the_port_on_the_hosts_network_is_told_nothing() {
    let (host, group) = (Host::new(quick()), Group::unified());
    let sleeper = group.sleeper();
    let thief = Thief::at("127.0.0.1:0", NO_AUTH).await;
    let key = host.put(of_container(thief.target, Confidant::OnHost(group.process(sleeper.0.id()))));
    let standing = host.until(&key, says("another process holds its port")).await.0;
    assert_eq!((standing.state, standing.role), (State::Ready, None));
    host.stays(&key, State::Ready, quick().interval * 5).await;
    thief.knows_nothing();
}

#[tokio::test]
async fn the_containers_own_process_on_the_hosts_network_is_told() {
    let (host, group, target) = (Host::new(quick()), Group::unified(), free_port());
    let folder = directory();
    let port = target.port().to_string();
    // As deep as a service manager within a container would put it.
    let within = Group { folder: group.folder.join("init.scope"), id: group.id.clone(), mounted: None };
    std::fs::create_dir(&within.folder).unwrap();
    let command = within
        .within("redis-server", &["--port", &port, "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD]);
    let server = Server::start(command, target, folder);
    let pid = server.pid().as_raw_nonzero().get().cast_unsigned();
    let key = host.put(of_container(target, Confidant::OnHost(group.process(pid))));
    assert_eq!(host.until_role(&key, Some(Role::Primary)).await.error, None, "{}", server.log());
    drop((server, within));
}

#[tokio::test]
async fn on_the_hosts_network_without_unified_groups_nobody_logs_in() {
    let (host, group) = (Host::new(quick()), Group::older());
    let sleeper = group.sleeper();
    let thief = Thief::at("127.0.0.1:0", NO_AUTH).await;
    let key = host.put(of_container(thief.target, Confidant::OnHost(group.process(sleeper.0.id()))));
    let standing = host.until(&key, says("nobody logs in")).await.0;
    assert_eq!((standing.state, standing.role), (State::Ready, None));
    thief.knows_nothing();
}

#[tokio::test]
async fn whoever_takes_the_freed_port_while_the_engine_is_away_is_told_nothing() {
    let (host, group) = (Host::new(quick()), Group::older());
    let sleeper = group.sleeper();
    let server = redis(&["--requirepass", PASSWORD]);
    let target = server.target;
    let key = host.put(of_container(target, Confidant::Own(target, group.process(sleeper.0.id()))));
    host.until_role(&key, Some(Role::Primary)).await;
    host.offer(|offer| offer.engine = false);
    let away = host.until(&key, says("Docker does not answer, so nobody logs in: role as told at 20")).await.0;
    assert_eq!((away.state, away.role), (State::Ready, Some(Role::Primary)));
    drop(server);
    host.until_state(&key, State::Down).await;
    let thief = Thief::at(&target.to_string(), NO_AUTH).await;
    host.until_state(&key, State::Ready).await;
    host.stays(&key, State::Ready, quick().interval * 5).await;
    thief.knows_nothing();
    // It is back, and the process that was the container's still lives: now it may be told again.
    drop(thief);
    let _server = redis_in(directory(), target, &["--requirepass", PASSWORD]);
    host.offer(|offer| offer.engine = true);
    host.until(&key, |standing| standing.role == Some(Role::Primary) && standing.error.is_none()).await;
}

#[tokio::test]
async fn whoever_has_the_address_of_a_container_that_has_ended_is_told_nothing() {
    let (host, group) = (Host::new(quick()), Group::older());
    let mut sleeper = group.sleeper();
    let thief = Thief::at("127.0.0.1:0", NO_AUTH).await;
    let process = group.process(sleeper.0.id());
    sleeper.end();
    let key = host.put(of_container(thief.target, Confidant::Own(thief.target, process)));
    host.until(&key, says("its process is not to be seen from here: role unknown")).await;
    // Nor is another process that has its number by now.
    let process = group.process(std::process::id());
    let other = Thief::at("127.0.0.1:0", NO_AUTH).await;
    let key = host.put(of_container(other.target, Confidant::Own(other.target, process)));
    host.until(&key, says("its process is not to be seen from here: role unknown")).await;
    thief.knows_nothing();
    other.knows_nothing();
}

#[tokio::test]
async fn the_password_goes_to_the_containers_own_address_and_the_published_one_is_only_knocked_at() {
    let (host, group) = (Host::new(quick()), Group::older());
    let sleeper = group.sleeper();
    let server = redis(&["--requirepass", PASSWORD]);
    let published = Thief::at("127.0.0.1:0", NO_AUTH).await;
    let own = Confidant::Own(server.target, group.process(sleeper.0.id()));
    let key = host.put(of_container(published.target, own));
    host.until_role(&key, Some(Role::Primary)).await;
    published.knows_nothing();
}

#[tokio::test]
async fn clear_text_is_told_to_nobody_who_asks_for_it() {
    let host = Host::new(quick());
    let clear_text = b"R\0\0\0\x08\0\0\0\x03";
    let tls_refused = b"N";
    for answers in [&clear_text[..], tls_refused] {
        let thief = Thief::at("127.0.0.1:0", answers).await;
        let asked = with_login(instance(CheckKind::Postgres, thief.target), Some("postgres"), PASSWORD);
        let key = host.put(asked);
        host.until(&key, |standing| standing.error.is_some()).await;
        tokio::time::sleep(quick().interval * 5).await;
        assert!(!thief.heard().contains(PASSWORD), "{}", thief.heard());
    }
}

#[tokio::test]
async fn an_echo_of_the_password_is_shown_nowhere() {
    let host = Host::new(quick());
    let echoes: [&'static [u8]; 3] = [
        b"-NOAUTH x\r\n-s3cret-of-all x\r\n-s3cret-of-all\r\n-s3cret-of-all\r\n",
        b"-NOAUTH x\r\n-NOAUTH x\r\n+s3cret-of-all\r\n+s3cret-of-all\r\n",
        b"-NOAUTH x\r\n-NOAUTH x\r\n$12\r\ns3cret-of-al\r\n*1\r\n",
    ];
    for echo in echoes {
        let thief = Thief::at("127.0.0.1:0", echo).await;
        let key = host.put(with_login(instance(CheckKind::Redis, thief.target), None, PASSWORD));
        host.until(&key, |standing| standing.error.is_some()).await;
        let began = std::time::Instant::now();
        while began.elapsed() < quick().interval * 5 {
            let shown = format!("{:?}", host.standing(&key));
            assert!(!shown.contains("s3cret"), "{shown}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn no_probe_goes_to_another_machine() {
    let host = Host::new(quick());
    // Documentation addresses: whoever has them, it is not this host.
    for (kind, target) in [(CheckKind::Tcp, "203.0.113.77:80"), (CheckKind::Redis, "203.0.113.77:6379")] {
        let key = host.put(instance(kind, target.parse().unwrap()));
        let standing = host.until(&key, |standing| standing.error.is_some()).await.0;
        assert_eq!(standing.error.as_deref(), Some("203.0.113.77 is not on this host: not asked there"));
        let mut own = instance(kind, target.parse().unwrap());
        own.key.port += 1;
        own.check.own = own.check.target;
        let key = host.put(own);
        host.until(&key, says("is not on this host: not asked there")).await;
    }
}
