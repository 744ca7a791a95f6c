//! Which machine this is, and which boot of it: what tells a restart from a reboot and a host from its clone.

use std::fs;

use crate::model::words::record::Text;

/// The machine's identity, as systemd gives every installation one.
pub fn machine_id() -> Option<Text> {
    read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"))
}

/// This boot's identity.
pub fn boot_id() -> Option<Text> {
    read("/proc/sys/kernel/random/boot_id")
}

fn read(path: &str) -> Option<Text> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty() && text != "uninitialized").then(|| text.into())
}
