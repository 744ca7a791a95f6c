//! Which machine this is, and which boot of it: what tells a restart from a reboot and a host from its clone.

use std::fs;

use ring::hmac;

use crate::model::words::record::Text;

/// The machine's identity, as systemd gives every installation one.
pub fn machine_id() -> Option<Text> {
    read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"))
}

/// The machine's identity as others may know it: systemd's own is a secret of the host (machine-id(5)), so what is told
/// is derived from it and leads nowhere else.
pub fn derived_machine_id() -> Option<Text> {
    Some(derived(&machine_id()?).into())
}

fn derived(machine: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, machine.as_bytes());
    let digest = hmac::sign(&key, b"wharf: which host has a number");
    digest.as_ref().iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_machine_is_not_its_own_identity() {
        let (one, other) = (derived("6ad1f2f0c5d64f0d9d9d2c7d2f0b9c11"), derived("6ad1f2f0c5d64f0d9d9d2c7d2f0b9c12"));
        assert_eq!((one.len(), one == other), (32, false));
        assert!(!one.contains("6ad1"));
        assert_eq!(one, derived("6ad1f2f0c5d64f0d9d9d2c7d2f0b9c11"));
    }
}
