//! The unit itself: what it does on reload, what systemd's own analysis says of it and its kin.

use crate::lab::alone;
use crate::machine::{Machine, UNPACKED, soon};

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
    // What is installed (wharf-private.socket was written here, for this host's address) and all that is handed out.
    let found = machine.shell(&format!(
        "ls /etc/systemd/system/wharf*.service /etc/systemd/system/wharf*.socket; \
         find {UNPACKED} -name '*.service' -o -name '*.socket'"
    ));
    let units: Vec<&str> = found.lines().collect();
    for unit in ["system/wharf-private.socket", "fleet/wharf.service", "units/memcached@.service"] {
        assert!(units.iter().any(|path| path.ends_with(unit)), "{unit} is missing: {found}");
    }
    for unit in &units {
        // One at a time: the fleet unit has the name of the other.
        let complaints = machine.shell(&format!("systemd-analyze verify '{unit}' 2>&1 || echo \"failed: $?\""));
        assert_eq!(complaints.trim(), "", "{unit}");
    }

    let said = machine.run(&["systemd-analyze", "security", "--no-pager", "wharf.service"]);
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).expect("a last line");
    let figure = overall.split_whitespace().find_map(|word| word.parse::<f32>().ok()).expect("a figure");
    assert!(figure <= EXPOSURE_LIMIT, "{overall}");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/service.md")).unwrap();
    assert!(page.contains(&format!("**{figure:.1}**")), "docs/service.md does not name {figure:.1}");
}
