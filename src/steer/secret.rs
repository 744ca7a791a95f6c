//! The password of a topology: a plain file of a bare name within `--check-secrets`, read at each operation.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

/// The longest file.
const LONGEST: u64 = 4096;

/// Reads it aside, since a disk may be slow.
pub(super) async fn read(directory: Option<&Path>, name: &str) -> Result<String, String> {
    let directory = directory.ok_or("password-file is refused without --check-secrets")?.to_owned();
    let name = name.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&directory, &name)).await;
    read.unwrap_or_else(|_| Err("the password file cannot be read".to_owned()))
}

fn read_now(directory: &Path, name: &str) -> Result<String, String> {
    let name = bare(name).ok_or("password-file is a bare name within --check-secrets")?;
    // No link leads out of the directory, and no pipe keeps an operation waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(directory.join(name), flags, Mode::empty());
    let file = File::from(file.map_err(|error| format!("the password file cannot be opened: {error}"))?);
    if !file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() <= LONGEST) {
        return Err("the password file is no plain file of at most 4 KiB".to_owned());
    }
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| format!("the password file cannot be read: {error}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The name, when it is nothing but one.
pub(crate) fn bare(name: &str) -> Option<PathBuf> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Some(name.into()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bare_name_of_a_plain_file_is_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("redis-1.pw"), "s3cret\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
        let at = Some(directory.path());
        assert_eq!(read(at, "redis-1.pw").await.as_deref(), Ok("s3cret"));
        for name in ["link", "../x", "/etc/passwd", "", ".."] {
            assert!(read(at, name).await.is_err(), "{name}");
        }
        assert!(read(None, "redis-1.pw").await.is_err());
    }
}
