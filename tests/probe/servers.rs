//! Real servers on ports of their own, ended by their process id when the test is over.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// A process and what it wrote.
pub struct Server {
    child: Child,
    pub target: SocketAddr,
    pub directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that nothing listens on now.
pub fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A directory that the user servers run as may write to.
pub fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    if let Some((user, group)) = unprivileged() {
        std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).unwrap();
    }
    directory
}

/// Servers that refuse to run as root run as nobody.
fn unprivileged() -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then_some((65_534, 65_534))
}

/// A command that runs as nobody when this test is root.
pub fn command(program: impl AsRef<Path>) -> Command {
    let program = program.as_ref();
    let mut command = Command::new(program);
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

impl Server {
    /// Starts `command`, whose words may hold the port; its output goes to `log`.
    pub fn start(mut command: Command, target: SocketAddr, directory: TempDir) -> Self {
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let program = command.get_program().to_owned();
        let child = command.spawn().unwrap_or_else(|error| panic!("{program:?} must be installed: {error}"));
        Self { child, target, directory }
    }

    pub fn signal(&self, signal: Signal) {
        // It may be gone already.
        kill_process(self.pid(), signal).ok();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits for it to end by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

pub fn memcached_at(target: SocketAddr, extra: &[&str]) -> Server {
    let (mut command, directory) = (command("memcached"), directory());
    // SASL starts only with a mechanism that is installed.
    std::fs::write(directory.path().join("memcached.conf"), "mech_list: plain\n").unwrap();
    command.env("SASL_CONF_PATH", directory.path());
    command.args(["-U", "0", "-l", "127.0.0.1", "-p", &target.port().to_string(), "-t", "1", "-m", "8"]).args(extra);
    Server::start(command, target, directory)
}

pub fn memcached(extra: &[&str]) -> Server {
    memcached_at(free_port(), extra)
}

pub fn redis(extra: &[&str]) -> Server {
    redis_in(directory(), free_port(), extra)
}

pub fn redis_in(directory: TempDir, target: SocketAddr, extra: &[&str]) -> Server {
    let mut command = command("redis-server");
    let port = target.port().to_string();
    let usual = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    command.args(["--port", &port, "--dir"]).arg(directory.path()).args(usual).args(extra);
    Server::start(command, target, directory)
}

/// Runs redis-cli against `server`.
pub fn redis_cli(server: &Server, words: &[&str]) -> String {
    let port = server.target.port().to_string();
    let output = Command::new("redis-cli").args(["--no-auth-warning", "-p", &port]).args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A fresh cluster to copy: making one takes seconds, so it is made once and kept beside what is built.
fn template(auth: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _gate = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-15-{auth}"));
    if kept.is_dir() {
        return kept;
    }
    let directory = directory();
    let password = directory.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let data = directory.path().join("data");
    let mut initdb = command(Path::new(POSTGRES).join("initdb"));
    initdb.args(["--no-sync", "-U", "postgres", "-A", auth, "-D"]).arg(&data);
    initdb.arg(format!("--pwfile={}", password.display()));
    let output = initdb.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Under its name only when it is whole. Another program may have been faster, with one as good.
    let half = kept.with_extension(std::process::id().to_string());
    copy(&data, &half);
    if std::fs::rename(&half, &kept).is_err() {
        std::fs::remove_dir_all(&half).unwrap();
    }
    kept
}

/// Copies a folder with its owners and rights.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "{} cannot be copied to {}", from.display(), to.display());
}

/// A PostgreSQL cluster, not started yet.
pub struct Cluster {
    pub directory: TempDir,
    pub target: SocketAddr,
}

impl Cluster {
    /// A new one whose superuser `postgres` has the password `secret`, wanted in the way of `auth` from everyone.
    pub fn new(auth: &str) -> Self {
        let directory = directory();
        copy(&template(auth), &directory.path().join("data"));
        let cluster = Self { directory, target: free_port() };
        cluster.configure("fsync=off\nlog_min_messages=info\nshared_buffers=4MB\nunix_socket_directories=''\n");
        cluster
    }

    /// A standby of `primary`, which must be running.
    pub fn standby_of(primary: &Server) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        let mut backup = command(Path::new(POSTGRES).join("pg_basebackup"));
        backup.env("PGPASSWORD", "secret").args(["--no-sync", "-c", "fast", "-X", "stream", "-R", "-D"]).arg(&data);
        backup.args(["-U", "postgres", "-h", "127.0.0.1", "-p", &primary.target.port().to_string()]);
        let output = backup.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { directory, target: free_port() }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn configure(&self, lines: &str) {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf"));
        write!(file.unwrap(), "{lines}").unwrap();
    }

    pub fn start(self) -> Server {
        let mut postgres = command(Path::new(POSTGRES).join("postgres"));
        postgres.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.target.port().to_string()]);
        Server::start(postgres, self.target, self.directory)
    }
}

/// Runs a query as the superuser, and keeps running as long as it takes.
pub fn psql(server: &Server, query: &str) -> Child {
    Command::new(Path::new(POSTGRES).join("psql"))
        .env("PGPASSWORD", "secret")
        .args(["-U", "postgres", "-h", "127.0.0.1", "-p", &server.target.port().to_string(), "-Atc", query, "postgres"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A key and a certificate for 127.0.0.1 that nobody vouches for, as files.
pub fn certificate(directory: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    for file in [&cert, &key] {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if let Some((user, group)) = unprivileged() {
            std::os::unix::fs::chown(file, Some(user), Some(group)).unwrap();
        }
    }
    (cert, key)
}

/// A PgBouncer that takes clients over TLS only, in this `client_tls_sslmode`; its own server is not there.
pub fn pgbouncer(tls: &str) -> Server {
    let (directory, target) = (directory(), free_port());
    let (cert, key) = certificate(directory.path());
    let users = directory.path().join("users");
    std::fs::write(&users, "\"app\" \"secret\"\n").unwrap();
    let (port, users, cert, key) = (target.port(), users.display(), cert.display(), key.display());
    let config = format!(
        "[databases]\napp = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\nclient_tls_sslmode = {tls}\n\
         client_tls_ca_file = {cert}\nclient_tls_cert_file = {cert}\nclient_tls_key_file = {key}\n"
    );
    let file = directory.path().join("pgbouncer.ini");
    std::fs::write(&file, config).unwrap();
    let mut pgbouncer = command("/usr/sbin/pgbouncer");
    pgbouncer.arg(file);
    Server::start(pgbouncer, target, directory)
}

/// A ZooKeeper that knows of `peers` other servers which are not there.
pub fn zookeeper(peers: usize) -> Server {
    let (directory, target) = (directory(), free_port());
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    if let Some((user, group)) = unprivileged() {
        std::os::unix::fs::chown(&data, Some(user), Some(group)).unwrap();
    }
    std::fs::write(data.join("myid"), "1").unwrap();
    let mut config = format!(
        "tickTime=500\ninitLimit=5\nsyncLimit=2\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
         admin.enableServer=false\n",
        data.display(),
        target.port()
    );
    for server in 1..=peers + usize::from(peers > 0) {
        let (one, other) = (free_port().port(), free_port().port());
        config.push_str(&format!("server.{server}=127.0.0.1:{one}:{other}\n"));
    }
    let file = directory.path().join("zoo.cfg");
    std::fs::write(&file, config).unwrap();
    let mut java = command("java");
    // It reads the control groups it is in, and some containers show it none that it understands.
    java.args(["-Xmx64m", "-XX:-UseContainerSupport", "-cp", "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar"]);
    java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(file);
    Server::start(java, target, directory)
}

/// A MariaDB with one user, `probe`, who has the password `secret`.
pub fn mariadb() -> Server {
    const SQL: &str = "/usr/share/mysql";
    let (directory, target) = (directory(), free_port());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let mut tables = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_owned();
    for file in ["mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"] {
        tables.push_str(&std::fs::read_to_string(Path::new(SQL).join(file)).unwrap());
    }
    std::fs::write(at("tables.sql"), tables).unwrap();
    std::fs::write(at("init.sql"), "CREATE USER probe@'%' IDENTIFIED BY 'secret';\n").unwrap();
    let program = || {
        let mut mariadbd = command("/usr/sbin/mariadbd");
        mariadbd.arg("--no-defaults").arg(format!("--datadir={}", directory.path().display()));
        mariadbd.args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--skip-name-resolve"]);
        mariadbd
    };
    let mut bootstrap = program();
    bootstrap.arg("--bootstrap").stdin(std::fs::File::open(at("tables.sql")).unwrap());
    let output = bootstrap.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut server = program();
    server.args(["--bind-address=127.0.0.1".to_owned(), format!("--port={}", target.port())]);
    server.args([format!("--socket={}", at("s")), format!("--pid-file={}", at("pid"))]);
    server.arg(format!("--init-file={}", at("init.sql")));
    Server::start(server, target, directory)
}
