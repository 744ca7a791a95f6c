//! `wharf-render.service`: files that follow the cluster, under the unit as it is shipped.

use crate::lab::{alone, memcached};
use crate::machine::{Machine, UNPACKED, soon};

const TABLES: &str = "
[[render]]
name = 'caches'
template = '/etc/wharf/caches.j2'
destination = '/etc/reader/caches.conf'
mode = '0644'
check = ['test', '-s', '{{ candidate }}']
reload = ['systemctl', 'reload', 'reader']
wait = '50ms:1s'
";
/// What reads the file: it says what it has loaded.
const READER: &str = "[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecReload=/bin/cp /etc/reader/caches.conf /run/loaded
";

#[test]
fn the_unit_writes_loads_and_takes_up_again_what_a_kill_left() {
    let lab = alone();
    let host = lab.host(1);
    let machine = Machine::boot(host);
    machine.run(&["systemctl", "start", "docker.service"]);
    machine.install_with_etcd();
    machine.put("/etc/systemd/system/reader.service", READER);
    machine.put(
        "/etc/wharf/caches.j2",
        "{% for e in service('memcached').endpoints %}\n{{ e | hostport }}\n{% endfor %}\n",
    );
    machine.shell("mkdir -p /etc/reader && systemctl daemon-reload && systemctl start reader");
    let settings = machine.get("/etc/wharf.toml");
    machine.put("/etc/wharf.toml", &format!("{settings}\n{TABLES}"));
    if machine.try_run(&["systemctl", "cat", "wharf-render.service"]).is_err() {
        machine.shell(&format!(
            "cp {UNPACKED}/systemd/wharf-render.service /etc/systemd/system/ && systemctl daemon-reload"
        ));
    }
    let first = host.run(memcached().name("core-01").publish(11211));
    machine.run(&["systemctl", "start", "wharf-render.service"]);
    let is_loaded = |machine: &Machine<'_>, text: &str| {
        let said = machine.try_run(&["cat", "/run/loaded"])?;
        if said == text { Ok(()) } else { Err(format!("{said}\n{}", log(machine))) }
    };
    let one = format!("{}\n", host.at(11211));
    soon("the file is written and loaded", || is_loaded(&machine, &one));
    assert_eq!(machine.shell("stat -c %a /etc/reader/caches.conf").trim(), "644");
    soon("the agent shows it", || {
        let shown = machine.try_run(&["/opt/bin/wharf", "render"])?;
        if shown.contains("caches") && shown.contains("current") { Ok(()) } else { Err(shown) }
    });

    // Killed, it comes back by itself, and what it has missed is in the file.
    let pid = machine.shell("systemctl show -p MainPID --value wharf-render.service");
    machine.run(&["kill", "-KILL", pid.trim()]);
    let second = host.run(memcached().name("core-02").publish_as(11212, 11211));
    let two = format!("{one}{}\n", host.at(11212));
    soon("the file is written and loaded again", || is_loaded(&machine, &two));
    assert_eq!(machine.shell("ls -A /etc/reader").trim(), "caches.conf", "nothing is left beside it");

    // Its tables are read again by a reload of the unit, and it ends when it is told to.
    let now =
        machine.get("/etc/wharf.toml").replace("mode = '0644'", "mode = '0600'").replace("caches.j2'", "again.j2'");
    machine.put("/etc/wharf/again.j2", "# {{ services | length }} services\n");
    machine.put("/etc/wharf.toml", &now);
    machine.run(&["systemctl", "reload", "wharf-render.service"]);
    soon("the other template is used", || is_loaded(&machine, "# 1 services\n"));
    assert_eq!(machine.shell("stat -c %a /etc/reader/caches.conf").trim(), "600");
    machine.run(&["systemctl", "stop", "wharf-render.service"]);
    let result = machine.shell("systemctl show -p Result --value wharf-render.service");
    assert_eq!(result.trim(), "success", "{}", log(&machine));
    drop((first, second));
}

fn log(machine: &Machine<'_>) -> String {
    machine.shell("journalctl --no-pager --unit wharf-render.service | tail -n 30")
}
