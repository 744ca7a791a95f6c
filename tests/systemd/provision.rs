//! Hosts that come up with wharf by other ways than `install.sh` by hand: Ignition, cloud user data, fleet, a
//! system extension. Each ends with the same question, asked on the host.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::butane;
use crate::lab::host::Host;
use crate::lab::image::Image;
use crate::lab::{Alone, alone};
use crate::machine::{Machine, UNPACKED, WHARF, soon};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wharf");
/// What the examples have in place of the reader's own etcd.
pub const EXAMPLE_ETCD: &str = "http://10.0.0.11:2379,http://10.0.0.12:2379,http://10.0.0.13:2379";

/// The file of the project, as it is shipped.
fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Puts what the reader is to fill in into its place; each place must be there.
pub fn filled_in(mut text: String, blanks: &[(&str, &str)]) -> String {
    for (blank, value) in blanks {
        assert!(text.contains(blank), "{blank} is not in\n{text}");
        text = text.replace(blank, value);
    }
    text
}

/// The engine has the image that the example unit asks for, though no registry is at hand.
pub fn bring_memcached(host: &Host) {
    host.bring(Image::Memcached);
    host.docker(&["tag", Image::Memcached.reference(), "memcached:1.6"]);
}

/// The end of every way: `dig SRV memcached.services.internal` on that host, and by every address.
pub fn finds_memcached(machine: &Machine<'_>) {
    let host = machine.host();
    soon("the host finds memcached by its own resolver", || {
        let said = machine.try_run(&["dig", "+short", "SRV", "memcached.services.internal"])?;
        if said.contains(" 11211 ") { Ok(()) } else { Err(format!("{said}\n{}", machine.journal())) }
    });
    for address in [WHARF.to_owned(), "127.0.0.1".into(), host.address().to_string()] {
        machine.finds_at(&address, "memcached.services.internal", &[host.at(11211)]).unwrap();
    }
}

/// wharf's sockets are systemd's, on every address, and the agent has been given all of them.
fn sockets_are_passed(machine: &Machine<'_>) {
    let journal = machine.shell("journalctl --no-pager --unit wharf.service | grep serving | tail -n 1");
    for address in [WHARF, "127.0.0.1", "172.17.0.1", &machine.host().address().to_string()] {
        assert!(journal.contains(&format!("{address}:53")), "{address} is not served: {journal}");
    }
    machine.run(&["systemctl", "is-active", "wharf.socket"]);
}

fn etcd_of(lab: &Alone) -> String {
    lab.host(1).etcd_endpoints().join(",")
}

#[test]
fn the_first_boot_by_ignition_ends_with_every_socket_open() {
    let lab = alone();
    let host = lab.host(1);
    bring_memcached(host);
    let machine = Machine::create(host);
    let [one, two, three] = [1, 2, 3].map(|n| lab.host(n).etcd_endpoint());
    let text = filled_in(
        shipped("systemd/flatcar/wharf.bu"),
        &[("http://10.0.0.11:2379", &one), ("http://10.0.0.12:2379", &two), ("http://10.0.0.13:2379", &three)],
    );
    let links = butane::ignite(&machine, &text, &host.dir().join("distribution"), Path::new(PROGRAM));
    machine.has_its_interface();
    // In a container networkd may not set an interface up, so it never tells that the network, up already, is.
    machine.link("/etc/systemd/system/systemd-networkd-wait-online.service", "/dev/null");
    machine.start();
    machine.shell(&links);
    finds_memcached(&machine);
    sockets_are_passed(&machine);
    assert_eq!(lab.etcd().keys("/services/memcached/").len(), 1);
}

#[test]
fn a_system_extension_brings_wharf_under_a_read_only_usr() {
    let lab = alone();
    let host = lab.host(1);
    bring_memcached(host);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.has_its_interface();
    machine.shell(&format!("cd {UNPACKED} && systemd/flatcar/sysext.sh /root/sysext"));
    machine.shell("mkdir -p /var/lib/extensions && cp -r /root/sysext/wharf /var/lib/extensions/");
    // As systemd does on a host, and not in a container; networkd has taken its own view before.
    machine.shell("mount --make-rshared / && systemctl restart systemd-networkd.service");
    machine.shell("systemd-sysext refresh && systemctl daemon-reload && systemd-tmpfiles --create");
    let merged = machine.shell("systemd-sysext status --no-pager");
    assert!(merged.contains("wharf"), "{merged}");
    machine.shell("networkctl reload && systemctl restart systemd-logind");
    // What the extension's own drop-in of the target asks for is started with it, as at a boot.
    machine.shell("systemctl start multi-user.target");
    let delay = "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \
                 InhibitDelayMaxUSec";
    assert_eq!(machine.shell(delay).trim(), "t 15000000", "a shutdown does not wait long enough");
    machine.shell(&format!("cp '{UNPACKED}/docker/units/memcached@.service' /etc/systemd/system/"));
    machine.run(&["systemctl", "enable", "--now", "memcached@1"]);
    finds_memcached(&machine);
    assert!(machine.try_run(&["touch", "/usr/bin/wharf"]).is_err(), "/usr is read-only");

    // One file less, and it is gone.
    machine.shell("systemctl stop wharf.socket wharf-private.socket wharf.service wharf-address.service");
    machine.shell("rm -r /var/lib/extensions/wharf && systemd-sysext refresh && systemctl daemon-reload");
    assert!(machine.try_run(&["test", "-e", "/usr/bin/wharf"]).is_err());
}

#[test]
fn the_fleet_unit_installs_itself_on_a_read_only_usr() {
    let lab = alone();
    let host = lab.host(1);
    bring_memcached(host);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.shell(&format!("tar -C /root -czf /root/wharf.tar.gz {}", UNPACKED.trim_start_matches("/root/")));
    machine.shell("mount -o bind,ro /usr /usr");
    let sum = machine.shell("sha256sum /root/wharf.tar.gz | cut -d' ' -f1");
    let unit = filled_in(
        shipped("systemd/fleet/wharf.service"),
        &[
            ("SOURCE=http://files.example.net/wharf-0.1.0-x86_64-linux.tar.gz", "SOURCE=file:///root/wharf.tar.gz"),
            (&"0".repeat(64), sum.trim()),
        ],
    );
    assert!(unit.contains("[X-Fleet]\nGlobal=true"), "{unit}");
    machine.put("/etc/systemd/system/wharf.service", &unit);
    machine.put("/etc/environment", &format!("COREOS_PRIVATE_IPV4={}\n", host.address()));
    // It writes its own settings, with an etcd on this very host.
    assert!(machine.try_run(&["test", "-e", "/etc/wharf.toml"]).is_err());
    machine.run(&["hostname", "core-01"]);
    machine.run(&["systemctl", "daemon-reload"]);
    machine.run(&["systemctl", "start", "wharf.service"]);
    machine.shell(&format!("cp '{UNPACKED}/docker/units/memcached@.service' /etc/systemd/system/"));
    machine.run(&["systemctl", "start", "memcached@1"]);
    for address in ["127.0.0.1".to_owned(), host.address().to_string()] {
        soon("it answers", || machine.finds_at(&address, "memcached.services.internal", &[host.at(11211)]));
    }
    let keys = lab.etcd().keys("/services/memcached/");
    assert_eq!(keys, ["/services/memcached/core-01-memcached-1-11211"]);
    assert_eq!(machine.shell("cat /opt/bin/.wharf-sha256"), sum);
    // A second start finds it installed.
    machine.shell("rm /root/wharf.tar.gz && systemctl restart wharf.service");
}

#[test]
fn ec2_user_data_installs_from_a_tmp_that_runs_nothing() {
    let lab = alone();
    let host = lab.host(1);
    bring_memcached(host);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    assert!(machine.shell("findmnt --noheadings --output OPTIONS /tmp").contains("noexec"));
    machine.shell(&format!("tar -C /root -czf /root/wharf.tar.gz {}", UNPACKED.trim_start_matches("/root/")));
    let sum = machine.shell("sha256sum /root/wharf.tar.gz | cut -d' ' -f1");
    // This machine has no coreos-metadata.service, so the script itself asks for the private address.
    let metadata = Metadata::serve(&lab, host);
    let data = filled_in(
        shipped("systemd/examples/ec2/user-data.sh"),
        &[
            ("SOURCE=https://files.example.net/wharf-0.1.0-x86_64-linux.tar.gz", "SOURCE=file:///root/wharf.tar.gz"),
            (&"0".repeat(64), sum.trim()),
            (EXAMPLE_ETCD, &etcd_of(&lab)),
        ],
    );
    machine.put_as("/var/lib/user-data", data.as_bytes(), 0o755);
    machine.run(&["/var/lib/user-data"]);
    assert_eq!(machine.shell("cat /etc/wharf.env | tail -n 1").trim(), format!("WHARF_ADVERTISE={}", host.address()));
    machine.shell(&format!("cp '{UNPACKED}/docker/units/memcached@.service' /etc/systemd/system/"));
    machine.run(&["systemctl", "enable", "--now", "memcached@1"]);
    finds_memcached(&machine);
    sockets_are_passed(&machine);
    drop(metadata);
}

/// EC2's metadata (IMDSv2) as one host sees it: a token for a PUT, the private address for the token.
struct Metadata<'lab> {
    host: &'lab Host,
    rule: Vec<String>,
}

impl<'lab> Metadata<'lab> {
    fn serve(lab: &Alone, host: &'lab Host) -> Self {
        let ours: Ipv4Addr = lab.ground().address(254);
        let listener = TcpListener::bind((ours, 0)).unwrap();
        let to = format!("{ours}:{}", listener.local_addr().unwrap().port());
        let private = host.address();
        // Ends with the process: nobody asks any more once the rule is gone.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let head: Vec<String> = BufReader::new(&stream)
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .map(|line| line.to_lowercase())
                    .collect();
                let has = |text: &str| head.iter().any(|line| line.starts_with(text));
                let (status, body) = if has("put /latest/api/token ") && has("x-aws-ec2-metadata-token-ttl-seconds: ") {
                    ("200 OK", "a-token".to_owned())
                } else if has("get /latest/meta-data/local-ipv4 ") && has("x-aws-ec2-metadata-token: a-token") {
                    ("200 OK", private.to_string())
                } else {
                    ("401 Unauthorized", String::new())
                };
                let length = body.len();
                let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            }
        });
        let rule = "OUTPUT -t nat -d 169.254.169.254 -p tcp --dport 80 -j DNAT --to-destination";
        let rule: Vec<String> = rule.split(' ').map(str::to_owned).chain([to]).collect();
        let metadata = Self { host, rule };
        metadata.iptables("-A").unwrap();
        metadata
    }

    fn iptables(&self, verb: &str) -> Result<String, String> {
        let words: Vec<&str> = ["iptables", verb].into_iter().chain(self.rule.iter().map(String::as_str)).collect();
        self.host.try_exec(&words)
    }
}

impl Drop for Metadata<'_> {
    fn drop(&mut self) {
        let _ = self.iptables("-D");
    }
}
