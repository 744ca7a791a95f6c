//! `docs/install.md` from top to bottom: its blocks are taken from the page itself and run as they stand there, but for
//! the addresses, which are the lab's.

use std::fs;

use crate::lab::alone;
use crate::machine::{Machine, UNPACKED, soon};
use crate::provision::{EXAMPLE_ETCD, bring_memcached, filled_in, finds_memcached};

/// The blocks of the page, in its order.
pub struct Page {
    /// What it all ends with: the question, and the answer.
    answer: String,
    unpack_and_install: String,
    install_for_a_cluster: String,
    without_networkd: String,
    /// `/etc/docker/daemon.json`
    pub daemon: String,
    service: String,
}

impl Page {
    pub fn read() -> Self {
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/install.md")).unwrap();
        let blocks: Vec<&str> = text.split("\n```").skip(1).step_by(2).collect();
        let blocks: Vec<String> =
            blocks.iter().map(|block| block.split_once('\n').unwrap().1.to_owned() + "\n").collect();
        let [answer, unpack_and_install, install_for_a_cluster, without_networkd, daemon, service] = blocks.as_slice()
        else {
            panic!("the page has {} blocks: say here what becomes of each", blocks.len());
        };
        assert!(daemon.starts_with('{') && service.contains("memcached@1"), "another order: {blocks:?}");
        Self {
            answer: answer.clone(),
            unpack_and_install: unpack_and_install.clone(),
            install_for_a_cluster: install_for_a_cluster.clone(),
            without_networkd: without_networkd.clone(),
            daemon: daemon.clone(),
            service: service.clone(),
        }
    }

    /// The block about a service without its last line, which is the question.
    fn service(&self) -> &str {
        let (before, question) = self.service.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(question, "dig SRV memcached.services.internal");
        before
    }
}

/// What `make dist` leaves, copied to the host's user.
fn copy_the_tarball(machine: &Machine<'_>) {
    machine.shell(&format!(
        "mkdir -p /home/core && cd /home/core && cp -r {UNPACKED} wharf-0.1.0-x86_64-linux
         tar -czf wharf-0.1.0-x86_64-linux.tar.gz wharf-0.1.0-x86_64-linux && rm -r wharf-0.1.0-x86_64-linux
         sha256sum wharf-0.1.0-x86_64-linux.tar.gz >SHA256SUMS && echo '{}  wharf' >>SHA256SUMS",
        "0".repeat(64)
    ));
}

#[test]
fn the_page_leads_a_host_on_its_own_to_an_answer() {
    let (lab, page) = (alone(), Page::read());
    let host = lab.host(1);
    bring_memcached(host);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    copy_the_tarball(&machine);
    machine.shell(&format!("cd /home/core\n{}{}", page.unpack_and_install, page.service()));
    finds_memcached(&machine);

    // And away again: what is left is said on the page.
    machine.shell("cd /home/core/wharf-*-x86_64-linux && sudo ./install.sh uninstall");
    let left = machine.shell("ls /etc/systemd/system /etc/systemd/network /etc/systemd/logind.conf.d /etc /opt/bin");
    let left: Vec<&str> = left.lines().filter(|name| name.contains("wharf")).collect();
    assert_eq!(left, ["wharf.toml"]);
    machine.shell("test -d /var/lib/wharf && ! systemctl is-active wharf.socket wharf-private.socket");
}

#[test]
fn the_page_leads_a_host_of_a_cluster_to_the_answer_that_it_shows() {
    let (lab, page) = (alone(), Page::read());
    let host = lab.host(1);
    bring_memcached(host);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    copy_the_tarball(&machine);
    let [one, two, three] = [1, 2, 3].map(|n| lab.host(n).etcd_endpoint());
    let install = filled_in(page.install_for_a_cluster.clone(), &[(EXAMPLE_ETCD, &format!("{one},{two},{three}"))]);
    let unpack = page.unpack_and_install.replace("sudo ./install.sh\n", "");
    machine.shell(&format!("cd /home/core\n{unpack}{install}{}", page.service()));
    finds_memcached(&machine);
    let (question, answer) = page.answer.split_once('\n').unwrap();
    let said = machine.shell(question.trim_start_matches("$ "));
    assert_eq!(said, answer, "the page shows another answer");
    assert_eq!(lab.etcd().keys("/services/memcached/").len(), 1);

    // The same host without networkd. Its interface is there, since no kernel of a test is sure to have dummies.
    machine.shell("systemctl stop systemd-networkd.service systemd-networkd.socket && ip addr flush dev wharf0");
    machine.shell("ip link set wharf0 down && resolvectl revert wharf0 && systemctl restart systemd-resolved.service");
    assert!(machine.try_run(&["sh", "-c", question.trim_start_matches("$ ")]).is_ok_and(|said| said != answer));
    machine.shell(&filled_in(page.without_networkd.clone(), &[("ip link add wharf0 type dummy && ", "")]));
    soon("the host resolves again", || {
        let said = machine.shell(question.trim_start_matches("$ "));
        if said == answer { Ok(()) } else { Err(said) }
    });
}
