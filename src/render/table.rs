//! One table as it is worked on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::render::{Builtin, Source, Wait, argument, check};

/// The longest template.
const LONGEST: u64 = 4 * 1024 * 1024;

/// One `[[render]]` table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: String,
    /// What it is made from.
    pub(crate) from: Origin,
    /// What the template is given.
    pub(crate) with: Arc<toml::Table>,
    /// The file.
    pub(crate) destination: PathBuf,
    /// Its mode, if one is given.
    pub(crate) mode: Option<u32>,
    /// Its owner, if one is given.
    pub(crate) owner: Option<String>,
    /// Its group, if one is given.
    pub(crate) group: Option<String>,
    /// What it must pass; empty is nothing.
    pub(crate) check: Vec<String>,
    /// What has it loaded; empty is nothing.
    pub(crate) reload: Vec<String>,
    /// How long changes are waited for.
    pub(crate) wait: Wait,
    /// With fewer endpoints of a service the last good file stays.
    pub(crate) min: BTreeMap<String, usize>,
    /// From one reload to the next.
    pub(crate) min_interval: Duration,
    /// How long a command may take.
    pub(crate) timeout: Duration,
    /// It is written in place.
    pub(crate) inplace: bool,
    /// It is checked where it belongs.
    pub(crate) check_in_place: bool,
    /// The old file comes back when a reload fails.
    pub(crate) rollback: bool,
}

/// What a file is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A template's file.
    File(PathBuf),
    /// A template that comes with the program.
    Builtin(Builtin),
}

impl Table {
    /// The template as it is now, or why it is of no use.
    pub(crate) fn source(&self) -> Result<Source, String> {
        let source = match &self.from {
            Origin::Builtin(builtin) => builtin.source(&self.with),
            Origin::File(path) => {
                let text = text(path).map_err(|error| format!("template {}: {error}", path.display()))?;
                Source { name: path.display().to_string(), text: text.into(), with: Arc::clone(&self.with) }
            }
        };
        check(&source).map(|()| source)
    }

    /// What it is made from, in words.
    pub(super) fn made_from(&self) -> String {
        match &self.from {
            Origin::File(path) => path.display().to_string(),
            Origin::Builtin(builtin) => builtin.name().to_owned(),
        }
    }

    /// The arguments of its check for this candidate.
    pub(super) fn check_of(&self, candidate: &Path) -> Result<Vec<String>, String> {
        let (candidate, destination) = (candidate.to_string_lossy(), self.destination.to_string_lossy());
        let values = [("candidate", &*candidate), ("destination", &*destination)];
        self.check.iter().map(|part| argument(part, &values)).collect()
    }
}

fn text(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LONGEST { Err(std::io::Error::other(format!("longer than {LONGEST} bytes"))) } else { Ok(text) }
}
