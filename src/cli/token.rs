//! The agent's token, where it asks for one.

use std::path::Path;

use super::exit::Exit;
use super::terminal::Terminal;

/// What the file holds; none where none is named. One that cannot be read is told and ends the command.
pub(super) fn read(file: Option<&Path>, terminal: &mut Terminal) -> Result<Option<String>, Exit> {
    let Some(path) = file else { return Ok(None) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) => {
            let what = format!("cannot read the token from {}: {error}", path.display());
            terminal.fail(&what, "give a readable --http-token-file");
            Err(Exit::Usage)
        }
    }
}
