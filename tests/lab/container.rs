//! Containers as a story tells them: `lab.host(1).run(memcached().name("core-01").publish(11211))`. A container is
//! removed with its handle.

use super::host::Host;
use super::image::Image;

/// What to run.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    pub(crate) image: Image,
    pub(crate) name: Option<String>,
    pub(crate) options: Vec<String>,
    pub(crate) arguments: Vec<String>,
}

/// A memcached container.
pub fn memcached() -> ContainerSpec {
    ContainerSpec::new(Image::Memcached)
}

/// A redis container.
pub fn redis() -> ContainerSpec {
    ContainerSpec::new(Image::Redis)
}

/// A PostgreSQL container; `.env("POSTGRES_PASSWORD", …)` sets the password.
pub fn postgres() -> ContainerSpec {
    ContainerSpec::new(Image::Postgres)
}

/// A container that runs a busybox command (`busybox(&["sleep", "1000"])`).
pub fn busybox(command: &[&str]) -> ContainerSpec {
    ContainerSpec::new(Image::Busybox).arguments(command)
}

impl ContainerSpec {
    fn new(image: Image) -> Self {
        Self { image, name: None, options: vec![], arguments: vec![] }
    }

    /// Its name; without one Docker makes one up.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Publishes a port under its own number on the host's address.
    pub fn publish(self, port: u16) -> Self {
        self.publish_as(port, port)
    }

    /// Publishes a port under another number.
    pub fn publish_as(self, on_host: u16, port: u16) -> Self {
        self.option("-p").option(&format!("{on_host}:{port}"))
    }

    /// Publishes a port under a free number: for tests that share the hosts.
    pub fn publish_anywhere(self, port: u16) -> Self {
        self.option("-p").option(&port.to_string())
    }

    /// An environment variable (`SERVICE_NAME=…`).
    pub fn env(self, key: &str, value: &str) -> Self {
        self.option("-e").option(&format!("{key}={value}"))
    }

    /// A label.
    pub fn label(self, key: &str, value: &str) -> Self {
        self.option("--label").option(&format!("{key}={value}"))
    }

    /// Any option of `docker run`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Arguments for the program in the container.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }
}

/// A container that was started.
#[derive(Debug)]
pub struct Container<'lab> {
    host: &'lab Host,
    id: String,
    name: String,
}

impl<'lab> Container<'lab> {
    pub(crate) fn new(host: &'lab Host, id: String) -> Self {
        let name = host.docker(&["inspect", "-f", "{{.Name}}", &id]).trim().trim_start_matches('/').to_owned();
        Self { host, id, name }
    }

    /// The host that it runs on.
    pub fn host(&self) -> &'lab Host {
        self.host
    }

    /// Its full id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that a port is published under on the host.
    pub fn published(&self, port: u16) -> u16 {
        let ports = self.docker("port", &[&port.to_string()]);
        let first = ports.lines().next().unwrap_or_default();
        first.rsplit(':').next().and_then(|number| number.parse().ok()).expect("the port is published")
    }

    /// Kills its program (SIGKILL, as `docker kill` does).
    pub fn kill(&self) {
        self.docker("kill", &[]);
    }

    /// Sends it a signal by `docker kill`.
    pub fn signal(&self, signal: &str) {
        self.docker("kill", &["--signal", signal]);
    }

    /// Stops it as an operator does.
    pub fn stop(&self) {
        self.docker("stop", &["-t", "5"]);
    }

    /// Starts it again.
    pub fn start(&self) {
        self.docker("start", &[]);
    }

    /// Restarts it.
    pub fn restart(&self) {
        self.docker("restart", &["-t", "5"]);
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.docker("pause", &[]);
    }

    /// Thaws it.
    pub fn unpause(&self) {
        self.docker("unpause", &[]);
    }

    /// Runs a command in it.
    pub fn exec(&self, command: &[&str]) -> String {
        let mut argv = vec!["exec", &self.id];
        argv.extend(command);
        self.host.docker(&argv)
    }

    /// What it wrote.
    pub fn logs(&self) -> String {
        self.host.try_docker(&["logs", "--tail", "20", &self.id]).unwrap_or_else(|error| error)
    }

    fn docker(&self, command: &str, options: &[&str]) -> String {
        let mut argv = vec![command];
        // `docker port` takes the container first, the others take it last.
        if command == "port" {
            argv.push(&self.id);
            argv.extend(options);
        } else {
            argv.extend(options);
            argv.push(&self.id);
        }
        self.host.docker(&argv)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}: container {} wrote:\n{}", self.host.name(), self.name, self.logs());
        }
        let _ = self.host.try_docker(&["rm", "-f", "-v", &self.id]);
    }
}
