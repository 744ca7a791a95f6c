//! What is handed out, in a real engine: the image of `make image` and its HEALTHCHECK, `docker build`, both compose
//! files, and the tarball. The program is the one of `make dist`, which `make drill` makes anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::everyday::SERVICE;
use crate::lab::alone;
use crate::lab::dns;
use crate::lab::host::Host;
use crate::lab::image::Image;
use crate::lab::process::run;
use crate::lab::within;
use crate::machine::soon;

/// Three probes of ten seconds that each wait for five, and room for a loaded machine.
const FROZEN: Duration = Duration::from_secs(180);
/// A release build on a small machine.
const BUILDING: &str = "1800";
const LIMIT: u64 = 25_000_000;

/// Runs a script or a program of the project's folder with its own time limit.
#[track_caller]
fn long(argv: &[&str], env: &[(&str, &str)]) -> String {
    let ran = Command::new("timeout")
        .args(["-k", "5", BUILDING])
        .args(argv)
        .envs(env.iter().copied())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}: {}: {said}", argv.join(" "), ran.status);
    said
}

/// The folder that `make dist` leaves; made here when nobody has.
fn dist() -> &'static Path {
    static DIST: OnceLock<PathBuf> = OnceLock::new();
    DIST.get_or_init(|| {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
        if !dist.join("SHA256SUMS").exists() {
            long(&["docker/dist.sh"], &[]);
        }
        dist
    })
}

/// Loads the image into the engine of a host, as `make image` does.
fn load(host: &Host) {
    dist();
    let uri = host.docker_uri();
    let said = long(&["docker/image.sh", "--no-dist"], &[("DOCKER_HOST", &uri)]);
    assert!(said.contains("Loaded image: wharf:latest"), "{said}");
}

/// Whether the engine calls a container this by its HEALTHCHECK.
fn health(host: &Host, container: &str, wanted: &str) -> Result<(), String> {
    let state = host.try_docker(&["inspect", "-f", "{{json .State.Health}}", container])?;
    if state.contains(&format!("\"Status\":\"{wanted}\"")) { Ok(()) } else { Err(state) }
}

/// What an agent finds out by itself on a real host, whose uplink is no end of a pair as a host's of the lab is.
fn its_place(host: &Host) -> (String, String) {
    (format!("WHARF_NODE={}", host.name()), format!("WHARF_ADVERTISE={}", host.address()))
}

/// Runs an image as the docs say, freezes the agent and thaws it.
fn healthy_frozen_healthy(host: &Host, image: &str) {
    let (node, address) = its_place(host);
    let mut argv =
        vec!["run", "-d", "--name", "wharf", "--network", "host", "--pid", "host", "-e", &node, "-e", &address];
    let socket = socket(host);
    argv.extend(["-v", &socket, image]);
    host.docker(&argv);
    soon("the image is healthy", || health(host, "wharf", "healthy"));
    host.docker(&["kill", "--signal", "STOP", "wharf"]);
    within(FROZEN, "a frozen agent is unhealthy", || health(host, "wharf", "unhealthy"));
    host.docker(&["kill", "--signal", "CONT", "wharf"]);
    soon("it is healthy again", || health(host, "wharf", "healthy"));
    host.docker(&["rm", "-f", "-v", "wharf"]);
}

#[test]
fn the_image_is_small_and_its_healthcheck_tells_a_frozen_agent() {
    let lab = alone();
    let host = lab.host(1);
    load(host);
    let size = fs::metadata(dist().join("wharf-image.tar")).unwrap().len();
    assert!(size < LIMIT, "{size} bytes");
    let program = run(&[&dist().join("wharf").display().to_string(), "--version"]);
    assert_eq!(host.docker(&["run", "--rm", "wharf:latest", "--version"]), program);
    healthy_frozen_healthy(host, "wharf:latest");
}

#[test]
fn docker_build_makes_the_same_of_the_dockerfile() {
    let lab = alone();
    let host = lab.host(1);
    load(host);
    // A context of the program alone: the folder has the image of before in it.
    let context = host.dir().join("context");
    let _ = fs::remove_dir_all(&context);
    fs::create_dir_all(&context).unwrap();
    fs::copy(dist().join("wharf"), context.join("wharf")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/Dockerfile");
    let uri = host.docker_uri();
    let argv =
        ["docker", "build", "-f", &file.display().to_string(), "-t", "wharf:built", &context.display().to_string()];
    // The engine's own builder: buildx is a plugin that not every client has.
    long(&argv, &[("DOCKER_HOST", &uri), ("DOCKER_BUILDKIT", "0")]);
    // What differs is how the two came to be; what they do is the same.
    for part in ["Entrypoint", "Cmd", "Healthcheck", "Volumes"] {
        let of = |image: &str| host.docker(&["image", "inspect", "-f", &format!("{{{{json .Config.{part}}}}}"), image]);
        assert_eq!(of("wharf:built"), of("wharf:latest"), "{part}");
    }
    healthy_frozen_healthy(host, "wharf:built");
}

/// A compose file that is up on a host; down again with its handle.
struct Stack<'lab> {
    host: &'lab Host,
    argv: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl<'lab> Stack<'lab> {
    /// Brings it up. `changes` lays over it what is another on the hosts of the lab: they share one file system.
    fn up(host: &'lab Host, file: &str, changes: &str, env: Vec<(&'static str, String)>) -> Self {
        let over = host.dir().join("compose.yaml");
        fs::write(&over, changes).unwrap();
        let over = over.display().to_string();
        let argv = ["docker-compose", "-p", "wharf", "-f", file, "-f", &over].map(str::to_owned).to_vec();
        let stack = Self { host, argv, env };
        stack.compose(&["up", "-d"]);
        stack
    }

    fn compose(&self, command: &[&str]) -> String {
        let uri = self.host.docker_uri();
        let argv: Vec<&str> = self.argv.iter().map(String::as_str).chain(command.iter().copied()).collect();
        let mut env = vec![("DOCKER_HOST", uri.as_str())];
        env.extend(self.env.iter().map(|(key, value)| (*key, value.as_str())));
        long(&argv, &env)
    }

    /// The container of a service.
    fn container(&self, service: &str) -> String {
        self.compose(&["ps", "-q", service]).trim().to_owned()
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nothing here may fail, or what failed before goes untold.
            let all = self.host.try_docker(&["ps", "-aq"]).unwrap_or_default();
            for id in all.split_whitespace() {
                let logs = self.host.try_docker(&["logs", "--tail", "20", id]).unwrap_or_else(|error| error);
                let _ = fs::write(self.host.dir().join(format!("compose-{id}.log")), logs); // the lab tells it
                let _ = self.host.try_docker(&["rm", "-f", "-v", id]);
            }
            return;
        }
        self.compose(&["down", "--volumes", "--timeout", "5"]);
    }
}

/// Gives an image of the lab the name that a compose file has for it.
fn name_image(host: &Host, image: Image, name: &str) {
    host.bring(image);
    host.docker(&["tag", image.reference(), name]);
}

fn socket(host: &Host) -> String {
    format!("{}:/var/run/docker.sock:ro", host.docker_uri().trim_start_matches("unix://"))
}

#[test]
fn the_compose_file_of_one_host_serves_three_services() {
    let lab = alone();
    let host = lab.host(1);
    load(host);
    name_image(host, Image::Memcached, "memcached:1.6");
    name_image(host, Image::Redis, "redis:7");
    name_image(host, Image::Postgres, "postgres:16");
    let (node, address) = its_place(host);
    let changes = format!(
        "services:\n  wharf:\n    environment: [\"{node}\", \"{address}\"]\n    volumes: [\"{}\"]\n",
        socket(host)
    );
    let stack = Stack::up(host, "docker/compose.yaml", &changes, vec![]);
    for (name, port) in [("memcached", 11211), ("redis", 6379), ("postgres", 5432)] {
        soon(&format!("{name} is found"), || {
            let name = format!("{name}.services.internal");
            dns::dig(host, [127, 0, 0, 1].into(), &["-p", "5300", &name, "SRV"]).is(&[host.at(port)])
        });
    }
    soon("wharf is healthy", || health(host, &stack.container("wharf"), "healthy"));
}

#[test]
fn the_compose_file_of_three_hosts_makes_one_cluster() {
    let lab = alone();
    for host in lab.hosts() {
        host.etcd().kill(); // the file brings its own, on the same ports
        load(host);
        name_image(host, Image::Memcached, "memcached:1.6");
        name_image(host, Image::Etcd, "gcr.io/etcd-development/etcd:v3.5.16");
    }
    let all = |entry: &dyn Fn(&Host) -> String| lab.hosts().iter().map(entry).collect::<Vec<_>>();
    let cluster = all(&|host| format!("{}=http://{}:2380", host.name(), host.address())).join(",");
    let endpoints = all(&|host| host.etcd_endpoint()).join(",");
    let stacks: Vec<Stack<'_>> = lab.hosts().iter().map(|host| three(host, &cluster, &endpoints)).collect();
    let wanted = all(&|host| host.at(11211));
    for (host, stack) in lab.hosts().iter().zip(&stacks) {
        for address in [host.address(), [127, 0, 0, 1].into()] {
            soon("every host answers with all three", || dns::dig(host, address, &[SERVICE, "SRV"]).is(&wanted));
        }
        soon("wharf is healthy", || health(host, &stack.container("wharf"), "healthy"));
    }
    // The state outlives `down`: the node that comes back is the same one.
    let kept = fs::read_dir(state(lab.host(1))).unwrap().count();
    assert!(kept > 0, "the state directory is empty");
}

fn state(host: &Host) -> PathBuf {
    host.dir().join("compose/wharf")
}

/// The file on one of the three hosts, each with folders of its own.
fn three<'lab>(host: &'lab Host, cluster: &str, endpoints: &str) -> Stack<'lab> {
    let folder = host.dir().join("compose");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let id = folder.join("machine-id");
    fs::write(&id, format!("{:0>32x}\n", u32::from(host.address()))).unwrap();
    let changes = format!(
        "services:\n  etcd:\n    volumes: [\"{folder}/etcd:/var/lib/etcd\"]\n  wharf:\n    volumes:\n      - {socket}\n      \
         - {state}:/var/lib/wharf\n      - {id}:/etc/machine-id:ro\n      - {folder}/resolve:/run/systemd/resolve:ro\n",
        folder = folder.display(),
        socket = socket(host),
        state = state(host).display(),
        id = id.display(),
    );
    let env = vec![
        ("NAME", host.name().to_owned()),
        ("ADDRESS", host.address().to_string()),
        ("CLUSTER", cluster.to_owned()),
        ("ENDPOINTS", endpoints.to_owned()),
    ];
    Stack::up(host, "docker/compose.cluster.yaml", &changes, env)
}

/// The same commit in two folders, with nothing built before but what makes the pages.
#[test]
fn two_folders_make_the_same_files() {
    let folders = tempfile::tempdir().unwrap();
    let here = env!("CARGO_MANIFEST_DIR");
    let made = ["one", "another/and-deeper"].map(|name| {
        let folder = folders.path().join(name);
        run(&["git", "clone", "--quiet", here, &folder.display().to_string()]);
        let target = Path::new(here).join("target").display().to_string();
        let script = folder.join("docker/dist.sh").display().to_string();
        long(&[&script], &[("CARGO_TARGET_DIR", &target)]);
        fs::read_to_string(folder.join("dist/SHA256SUMS")).unwrap()
    });
    assert_eq!(made[0].lines().count(), 3, "program, tarball, bill of materials: {}", made[0]);
    assert_eq!(made[0], made[1]);
}

#[test]
fn what_is_handed_out_is_static_whole_and_matches_its_checksums() {
    let dist = dist().display().to_string();
    run(&["sh", "-c", &format!("cd '{dist}' && sha256sum --check --strict SHA256SUMS")]);
    let parts = run(&["readelf", "--wide", "--program-headers", "--dynamic", &format!("{dist}/wharf")]);
    assert!(!parts.contains("INTERP") && !parts.contains("(NEEDED)"), "{parts}");
    let version = run(&[&format!("{dist}/wharf"), "--version"]);
    assert!(version.contains('('), "{version} names no commit");
    let name = format!("wharf-{}-x86_64-linux", version.split_whitespace().nth(1).unwrap());
    let listed = run(&["tar", "-tzf", &format!("{dist}/{name}.tar.gz")]);
    for piece in [
        "wharf",
        "install.sh",
        "systemd/wharf.service",
        "systemd/wharf.socket",
        "systemd/fleet/wharf.service",
        "systemd/flatcar/wharf.bu",
        "docker/compose.cluster.yaml",
        "docker/units/memcached@.service",
        "docs/install.md",
        "man/man1/wharf.1",
        "man/man1/wharf-agent.1",
    ] {
        assert!(listed.lines().any(|line| line == format!("{name}/{piece}")), "{piece} is missing:\n{listed}");
    }
    for shell in ["wharf.bash", "_wharf", "wharf.fish"] {
        let end = format!("/{shell}");
        assert!(
            listed.lines().any(|line| line.contains("/completions/") && line.ends_with(&end)),
            "{shell}:\n{listed}"
        );
    }
    let same = format!("tar -xOzf '{dist}/{name}.tar.gz' {name}/wharf | cmp - '{dist}/wharf'");
    run(&["sh", "-c", &same]);
}
