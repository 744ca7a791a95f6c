//! An Ignition configuration (3.3.0) as far as ours goes: whatever is not in this stops the test.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The whole of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignition {
    ignition: Version,
    pub storage: Storage,
    pub systemd: Systemd,
    /// Users of the Vagrant example, whom the plugin adds.
    #[serde(default)]
    passwd: Passwd,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Passwd {
    users: [(); 0],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: String,
    #[serde(default = "readable")]
    pub mode: u32,
    contents: Contents,
}

/// What Ignition gives a file that says nothing of it.
fn readable() -> u32 {
    0o644
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    source: String,
    verification: Option<Verification>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    hash: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Systemd {
    pub units: Vec<Unit>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    pub name: String,
    pub enabled: Option<bool>,
    #[serde(default)]
    pub mask: bool,
}

/// Where the bytes of a file come from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source<'i> {
    /// They are written in the configuration.
    Written(Vec<u8>),
    /// They are fetched, and have this hash (`sha512-…`).
    Fetched { url: &'i str, hash: &'i str },
}

impl Ignition {
    pub fn read(user_data: &str) -> Self {
        let read: Self = serde_json::from_str(user_data).unwrap_or_else(|error| panic!("{error} in\n{user_data}"));
        assert_eq!(read.ignition.version, "3.3.0");
        read
    }

    /// A file of it that is written in the configuration, as text.
    pub fn written(&self, path: &str) -> String {
        let file = self.storage.files.iter().find(|file| file.path == path);
        let file = file.unwrap_or_else(|| panic!("it has no {path}"));
        match file.source() {
            Source::Written(bytes) => String::from_utf8(bytes).unwrap(),
            Source::Fetched { url, .. } => panic!("{path} comes from {url}"),
        }
    }
}

impl File {
    pub fn source(&self) -> Source<'_> {
        if let Some(text) = self.contents.source.strip_prefix("data:;base64,") {
            return Source::Written(STANDARD.decode(text).unwrap());
        }
        let url = self.contents.source.as_str();
        let verification = self.contents.verification.as_ref();
        let hash = verification.unwrap_or_else(|| panic!("{url} has no hash")).hash.as_str();
        assert!(url.starts_with("https://"), "{url} is not fetched by https");
        Source::Fetched { url, hash }
    }
}
