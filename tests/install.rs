//! `systemd/install.sh` and `systemd/wharf-address` on hosts that are not as they should be, in a mount namespace of
//! the test's own: its `/etc` and `/opt` are the test's, and what would speak to systemd is a stand-in. Needs root.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// A host whose `/etc` and `/opt` lie in a directory.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        for directory in ["etc/systemd/system", "opt/bin", "stand-ins"] {
            fs::create_dir_all(host.0.path().join(directory)).unwrap();
        }
        for name in ["systemctl", "networkctl"] {
            host.program(&format!("stand-ins/{name}"), "exit 0");
        }
        host
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    fn program(&self, file: &str, script: &str) {
        self.write(file, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(self.path(file), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    /// The names in a directory.
    fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn install(&self, arguments: &[&str]) -> Output {
        let root = self.0.path().display();
        let enter = format!(
            "mount --bind {root}/etc /etc && mount --bind {root}/opt /opt && export PATH={root}/stand-ins:$PATH && exec \"$@\""
        );
        let program = env!("CARGO_BIN_EXE_wharf");
        let script = format!("{SOURCE}/systemd/install.sh");
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &enter, "sh", "bash", &script])
            .args(arguments)
            .env("WHARF_PROGRAM", program)
            .output()
            .unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_resolv_conf_that_somebody_wrote_is_kept_beside() {
    let host = Host::new();
    host.write("etc/resolv.conf", "nameserver 10.0.0.2 # ours\n");
    let output = host.install(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(host.read("etc/resolv.conf.before-wharf"), "nameserver 10.0.0.2 # ours\n");
    assert!(said(&output).contains("resolv.conf.before-wharf"), "{}", said(&output));
    let link = fs::read_link(host.path("etc/resolv.conf")).unwrap();
    assert_eq!(link, Path::new("/run/systemd/resolve/stub-resolv.conf"));
    // Run again it keeps the first copy.
    fs::remove_file(host.path("etc/resolv.conf")).unwrap();
    host.write("etc/resolv.conf", "nameserver 10.0.0.3\n");
    assert!(host.install(&[]).status.success());
    assert!(host.read("etc/resolv.conf.before-wharf").contains("ours"));
}

#[test]
fn settings_with_problems_leave_the_program_that_runs() {
    let host = Host::new();
    host.program("opt/bin/wharf", "echo the old one");
    host.write("etc/wharf.toml", "lease-ttl = \"no time\"\n");
    let output = host.install(&["--no-resolver"]);
    assert!(!output.status.success());
    assert!(said(&output).contains("lease-ttl") && said(&output).contains("nothing was changed"), "{}", said(&output));
    assert!(host.read("opt/bin/wharf").contains("the old one"));
    assert_eq!(host.names("opt/bin"), ["wharf"]);
    assert!(host.names("etc/systemd/system").is_empty());
    assert_eq!(host.read("etc/wharf.toml"), "lease-ttl = \"no time\"\n");
    host.write("etc/wharf.toml", "lease-ttl = \"20s\"\n");
    assert!(host.install(&["--no-resolver"]).status.success());
    assert!(!host.read("opt/bin/wharf").contains("the old one"));
}

#[test]
fn names_and_addresses_are_written_as_they_are_given() {
    for node in ["x&y", "a|b", r"a\nb", "a\"b", "$(reboot)", "*"] {
        let host = Host::new();
        let output =
            host.install(&["--no-resolver", "--node", node, "--etcd", "http://10.0.0.1:2379,http://10.0.0.2:2379"]);
        // A name that cannot be a node's is refused as it was given, and leaves nothing behind.
        if output.status.success() {
            let written: toml::Table = host.read("etc/wharf.toml").parse().unwrap();
            assert_eq!(written["node"].as_str(), Some(node));
            assert_eq!(written["etcd-endpoints"].as_array().unwrap().len(), 2);
        } else {
            assert!(said(&output).contains("node"), "{}", said(&output));
            assert_eq!((host.names("opt/bin"), host.read("etc/wharf.toml")), (vec![], String::new()));
        }
    }
    let host = Host::new();
    let output = host.install(&["--no-resolver", "--node"]);
    assert!(!output.status.success() && said(&output).contains("--node wants a value"), "{}", said(&output));
    let output = host.install(&["--no-resolver", "--advertise", "10.0.0.5 %h"]);
    assert!(!output.status.success() && host.names("opt/bin").is_empty(), "{}", said(&output));
}

/// A unit of the host's that is ordered after wharf, as docs/service.md says that any may be, makes a circle with a
/// unit of ours that is ordered after it.
#[test]
fn no_unit_of_ours_waits_for_one_that_may_wait_for_it() {
    for unit in [
        "wharf.service",
        "fleet/wharf.service",
        "wharf.socket",
        "wharf-address.service",
        "wharf-proxy.service",
        "wharf-render.service",
    ] {
        let text = fs::read_to_string(format!("{SOURCE}/systemd/{unit}")).unwrap();
        let after: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("After=")).collect();
        for other in ["docker", "containerd", "podman", "etcd"] {
            assert!(!after.iter().any(|line| line.contains(other)), "{unit}: After={after:?}");
        }
    }
}

/// Runs `wharf-address` in a network namespace of its own, with no route and these addresses on its loopback interface.
fn address(root: &Path, addresses: &[&str], given: &[&str]) -> Output {
    let add: String = addresses.iter().map(|one| format!("ip addr add {one}/32 dev lo; ")).collect();
    let script = format!("ip link set lo up; {add}exec \"$@\"");
    Command::new("unshare")
        .args(["--net", "sh", "-c", &script, "sh", &format!("{SOURCE}/systemd/wharf-address")])
        .args(given)
        .env("WHARF_ROOT", root)
        .output()
        .unwrap()
}

#[test]
fn an_address_that_is_none_is_refused_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    assert!(address(root.path(), &[], &["10.0.0.5"]).status.success());
    let told = || fs::read_to_string(root.path().join("etc/wharf.env")).unwrap();
    let before = told();
    for bad in ["10.0.0.999", "256.0.0.1", "10.0.0", "10.0.0.5.6", "eth0", "10.0.0.-1", "224.0.0.1", "127.0.0.1"] {
        let output = address(root.path(), &[], &[bad]);
        assert!(!output.status.success() && said(&output).contains(bad), "{bad}: {}", said(&output));
        assert_eq!(told(), before);
    }
}

#[test]
fn without_a_route_the_address_of_before_stays_while_the_host_has_it() {
    let root = tempfile::tempdir().unwrap();
    let none = address(root.path(), &[], &[]);
    assert!(!none.status.success() && said(&none).contains("no private address found"), "{}", said(&none));
    assert!(address(root.path(), &[], &["10.0.0.5"]).status.success());
    let output = address(root.path(), &["10.0.0.5"], &[]);
    assert!(output.status.success() && said(&output).contains("10.0.0.5"), "{}", said(&output));
    let gone = address(root.path(), &["10.0.0.6"], &[]);
    assert!(!gone.status.success() && said(&gone).contains("nothing is changed"), "{}", said(&gone));
}

/// The unit hides `/run/user`, where the engine of a user has its socket: the drop-in shows that one directory.
#[test]
fn the_drop_in_for_a_users_engine_shows_the_directory_that_the_unit_hides() {
    let read = |name: &str| std::fs::read_to_string(format!("{}/systemd/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let said = |text: &str, key: &str| text.lines().rev().find_map(|line| Some(line.strip_prefix(key)?.to_owned()));
    assert_eq!(said(&read("wharf.service"), "ProtectHome=").as_deref(), Some("yes"));
    let drop_in = read("rootless.conf");
    assert_eq!(said(&drop_in, "ProtectHome=").as_deref(), Some("tmpfs"), "what is bound over it is seen");
    let shown = said(&drop_in, "BindReadOnlyPaths=").unwrap();
    let socket = drop_in.split("unix://").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(socket.starts_with(&format!("{shown}/")), "{socket} is in {shown}");
    let number = shown.strip_prefix("/run/user/").unwrap();
    assert_eq!(
        said(&drop_in, "After="),
        Some(format!("user@{number}.service")),
        "it is there once the user's services run"
    );
}
