//! Users and groups by name, as `/etc/passwd` and `/etc/group` have them; a number stands for itself.

use std::io;

use rustix::process::{Gid, Uid};

/// The user of this name.
pub(super) fn user(name: &str) -> io::Result<Uid> {
    number(name, "/etc/passwd").map(Uid::from_raw)
}

/// The group of this name.
pub(super) fn group(name: &str) -> io::Result<Gid> {
    number(name, "/etc/group").map(Gid::from_raw)
}

fn number(name: &str, file: &str) -> io::Result<u32> {
    // The highest number means "leave it as it is" to the kernel.
    if let Ok(number) = name.parse::<u32>() {
        return if number < u32::MAX { Ok(number) } else { Err(io::ErrorKind::InvalidInput.into()) };
    }
    let text = std::fs::read_to_string(file)?;
    let line =
        text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name));
    let found = line.and_then(|fields| fields.get(2)?.parse().ok());
    found.ok_or_else(|| io::Error::other(format!("{file} has no {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_known() {
        assert_eq!(user("root").expect("every host has one").as_raw(), 0);
        assert_eq!(group("7").expect("a number").as_raw(), 7);
        assert!(user("nobody-has-this-name").is_err() && user("4294967295").is_err());
    }
}
