//! Password files, in the one directory given for that.
//!
//! A file's name may come from a container's label, so it must be a bare name, and what it names a plain file of at
//! most 4 KiB: no link leads out of the directory, and no pipe keeps a reader waiting. What a file holds is in no
//! error.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};

/// The longest file.
const LONGEST: u64 = 4096;

/// Why a password cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("password files are refused without --check-secrets")]
    NoDirectory,
    #[error("a password file is a bare name within --check-secrets")]
    NotBare,
    #[error("the password file cannot be opened")]
    Unopened,
    #[error("the password file is no plain file")]
    NotPlain,
    #[error("the password file is longer than 4 KiB")]
    TooLong,
    #[error("the password file cannot be read")]
    Unread,
}

/// Where password files are.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    directory: Option<PathBuf>,
}

impl Secrets {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    /// What the file holds, read aside, since a disk may be slow.
    pub(crate) async fn read(&self, name: &Path) -> Result<Arc<str>, SecretError> {
        let (secrets, name) = (self.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || secrets.read_now(&name)).await;
        read.unwrap_or(Err(SecretError::Unread))
    }

    /// The same for one who may wait for a disk.
    pub(crate) fn read_now(&self, name: &Path) -> Result<Arc<str>, SecretError> {
        let directory = self.directory.as_ref().ok_or(SecretError::NoDirectory)?;
        // Either the bare name or the directory with it.
        let name = name.strip_prefix(directory).unwrap_or(name);
        let mut parts = name.components();
        let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else {
            return Err(SecretError::NotBare);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(directory.join(name), flags, Mode::empty()).map_err(|_| SecretError::Unopened)?;
        let file = File::from(file);
        if !file.metadata().is_ok_and(|facts| facts.is_file()) {
            return Err(SecretError::NotPlain);
        }
        let mut text = String::new();
        let read = file.take(LONGEST + 1).read_to_string(&mut text).map_err(|_| SecretError::Unread)?;
        if read as u64 > LONGEST {
            return Err(SecretError::TooLong);
        }
        Ok(text.trim_end_matches(['\r', '\n']).into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_of_a_plain_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("redis"), "s3cret \n").unwrap();
        let secrets = Secrets::new(Some(directory.path().to_owned()));
        for name in [Path::new("redis"), &directory.path().join("redis")] {
            assert_eq!(secrets.read_now(name).as_deref(), Ok("s3cret "), "{}", name.display());
        }
    }

    #[test]
    fn nothing_else_is() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("shadow"), "root").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::os::unix::fs::symlink(outside.path().join("shadow"), path.join("link")).unwrap();
        std::fs::create_dir(path.join("folder")).unwrap();
        std::fs::write(path.join("long"), "x".repeat(4097)).unwrap();
        std::fs::write(path.join("binary"), b"\xff\xfe").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path.join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let secrets = Secrets::new(Some(path.to_owned()));
        let cases = [
            ("link", SecretError::Unopened),
            ("missing", SecretError::Unopened),
            ("folder", SecretError::NotPlain),
            ("pipe", SecretError::NotPlain),
            ("long", SecretError::TooLong),
            ("binary", SecretError::Unread),
            ("../shadow", SecretError::NotBare),
            ("folder/x", SecretError::NotBare),
            ("/etc/shadow", SecretError::NotBare),
            ("..", SecretError::NotBare),
            ("", SecretError::NotBare),
        ];
        for (name, expected) in cases {
            assert_eq!(secrets.read_now(Path::new(name)), Err(expected), "{name}");
        }
        for name in [outside.path().join("shadow"), path.join("../shadow"), path.join("folder/x"), path.to_owned()] {
            assert_eq!(secrets.read_now(&name), Err(SecretError::NotBare), "{}", name.display());
        }
        assert_eq!(Secrets::new(None).read_now(Path::new("long")), Err(SecretError::NoDirectory));
    }
}
