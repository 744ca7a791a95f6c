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
