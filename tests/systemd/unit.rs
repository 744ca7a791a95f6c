//! The unit itself: what it does on reload, what systemd's own analysis says of it and its kin.

use crate::lab::alone;
use crate::machine::{Machine, soon};

const EXPOSURE_LIMIT: f32 = 3.0;

#[test]
fn a_reload_reads_the_file_and_keeps_the_process() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    machine.install(&[]);
    let pid = machine.property("MainPID");
    machine.run(&["sed", "-i", "1i log = \"debug\"\\nlease-ttl = \"40s\"", "/etc/wharf.toml"]);
    machine.run(&["systemctl", "reload", "wharf"]);
    soon("the reload is told, and what waits for a restart", || {
        let journal = machine.journal();
        let told = journal.contains("settings read again") && journal.contains("lease-ttl");
        if told { Ok(()) } else { Err(journal) }
    });
    machine.active().unwrap();
    assert_eq!(machine.property("MainPID"), pid);
}

#[test]
fn systemd_finds_nothing_to_complain_of() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    machine.install(&[]);
    let units =
        ["wharf.service", "wharf.socket", "wharf-address.service"].map(|unit| format!("/etc/systemd/system/{unit}"));
    let mut argv = vec!["systemd-analyze", "verify"];
    argv.extend(units.iter().map(String::as_str));
    let complaints =
        machine.run(&["sh", "-c", "exec \"$@\" 2>&1", "sh"].iter().chain(&argv).copied().collect::<Vec<_>>());
    assert_eq!(complaints.trim(), "");

    let said = machine.run(&["systemd-analyze", "security", "--no-pager", "wharf.service"]);
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).expect("a last line");
    let figure = overall.split_whitespace().find_map(|word| word.parse::<f32>().ok()).expect("a figure");
    assert!(figure <= EXPOSURE_LIMIT, "{overall}");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/service.md")).unwrap();
    assert!(page.contains(&format!("**{figure:.1}**")), "docs/service.md does not name {figure:.1}");
}

#[test]
fn the_fleet_unit_installs_itself_on_a_read_only_usr() {
    let lab = alone();
    let machine = Machine::boot(lab.host(1));
    let address = lab.host(1).address();
    machine.run(&["sh", "-c", "cd /root && tar -czf wharf.tar.gz wharf && mount -o bind,ro /usr /usr"]);
    let sum = machine.run(&["sha256sum", "/root/wharf.tar.gz"]);
    let sum = sum.split_whitespace().next().unwrap();
    let unit = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/fleet/wharf.service")).unwrap();
    let unit: Vec<String> = unit
        .lines()
        .map(|line| match line {
            line if line.starts_with("Environment=SOURCE=") => {
                "Environment=SOURCE=file:///root/wharf.tar.gz".to_owned()
            }
            line if line.starts_with("Environment=SHA256=") => format!("Environment=SHA256={sum}"),
            line => line.to_owned(),
        })
        .collect();
    machine.put("/etc/systemd/system/wharf.service", &(unit.join("\n") + "\n"));
    machine.put("/etc/environment", &format!("COREOS_PRIVATE_IPV4={address}\n"));
    machine.put("/etc/wharf.toml", "node = \"core-01\"\n");
    machine.run(&["systemctl", "daemon-reload"]);
    machine.run(&["systemctl", "start", "wharf.service"]);
    let answer = machine.dig(&address.to_string(), &["services.internal", "SOA"]);
    assert_eq!(answer.status, "NOERROR", "{answer:?}\n{}", machine.journal());
}
