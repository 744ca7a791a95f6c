//! One pass over one table: render, compare, write, check, put. It blocks, and runs on a thread of its own.

use std::collections::BTreeMap;

use super::accounts;
use super::command;
use super::place::{Access, Next, Place, PlaceError, Work};
use super::table::Table;
use crate::catalog::render::{Fault, Hold, Needs, Sight, Source, hold, render};

/// What came of a pass.
#[derive(Debug)]
pub(crate) struct Pass {
    /// What became of the file.
    pub(crate) end: End,
    /// What the template called.
    pub(crate) needs: Needs,
    /// Why nothing new was made, or why what was made is of what was known before.
    pub(crate) held: Option<Hold>,
    /// The digest of a file that is in place and is still to be loaded.
    pub(crate) owed: Option<String>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is as it should be.
    Same,
    /// It was written.
    Written,
    /// Nothing new now.
    Waits(String),
    /// The template is wrong.
    Wrong(String),
    /// The check failed, the old file stays.
    Refused(String),
    /// It could not be written.
    Failed(String),
}

/// What a template makes now, and why it may not be used.
pub(crate) struct Made {
    pub(crate) text: Result<String, Fault>,
    pub(crate) needs: Needs,
    pub(crate) held: Option<Hold>,
}

/// Renders a table's template.
pub(crate) fn make(table: &Table, source: &Source, sight: &Sight, environment: &BTreeMap<String, String>) -> Made {
    let rendered = render(source, sight, environment);
    let held = hold(&rendered.needs, &table.min, sight);
    Made { text: rendered.text, needs: rendered.needs, held }
}

/// Makes a table's file. A template that is of no use says why.
pub(crate) fn pass(
    table: &Table,
    source: Result<&Source, &str>,
    sight: &Sight,
    environment: &BTreeMap<String, String>,
) -> Pass {
    let (end, needs, held) = match source {
        Ok(source) => {
            let made = make(table, source, sight, environment);
            (decided(table, &made), made.needs, made.held)
        }
        Err(what) => (End::Wrong(what.to_owned()), Needs::default(), None),
    };
    // Whatever became of the new file: the one that is there may not be loaded yet.
    let place = Place::of(&table.destination, table.inplace).ok();
    let owed = place.filter(|_| !table.reload.is_empty()).and_then(|place| place.owed());
    Pass { end, needs, held, owed }
}

fn decided(table: &Table, made: &Made) -> End {
    let place = match Place::of(&table.destination, table.inplace) {
        Ok(place) => place,
        Err(error) => return End::Failed(error.to_string()),
    };
    let is_used = made.held.as_ref().is_none_or(|held| held.has_something() && !place.is_there());
    match (&made.text, &made.held) {
        (_, Some(held)) if !is_used => End::Waits(held.to_string()),
        (Err(Fault::Unread), held) => {
            End::Waits(held.as_ref().map_or_else(|| "what it calls is not read yet".to_owned(), ToString::to_string))
        }
        (Err(Fault::Wrong(what)), _) => End::Wrong(what.clone()),
        (Ok(text), _) => match written(table, &place, text.as_bytes()) {
            Ok(end) => end,
            Err(error) => End::Failed(error.to_string()),
        },
    }
}

/// The file's content, where it is another one.
fn written(table: &Table, place: &Place, content: &[u8]) -> Result<End, PlaceError> {
    if place.content()?.as_deref() == Some(content) && !place.owes_load() {
        return Ok(End::Same);
    }
    let mut work = place.begin()?;
    if place.content()?.as_deref() == Some(content) {
        return same(table, &mut work);
    }
    let access = match access(table) {
        Ok(access) => access,
        Err(what) => return work.give_up().map(|()| End::Failed(what)),
    };
    match replaced(table, place, &mut work, content, access) {
        Ok(end) => Ok(end),
        Err(error) => {
            // What is left beside the file is taken up the next time, if it cannot be cleared up now.
            let _ = work.give_up();
            Err(error)
        }
    }
}

/// Nothing is written; what a crash left owed stays owed.
fn same(table: &Table, work: &mut Work<'_>) -> Result<End, PlaceError> {
    if table.reload.is_empty() || !work.owes() {
        work.end()?;
    }
    Ok(End::Same)
}

fn replaced(
    table: &Table,
    place: &Place,
    work: &mut Work<'_>,
    content: &[u8],
    access: Access,
) -> Result<End, PlaceError> {
    let candidate = work.write(content, access)?;
    if !table.check_in_place
        && let Some(why) = unfit(table, &candidate)
    {
        work.give_up()?;
        return Ok(End::Refused(why));
    }
    if table.check_in_place || table.rollback {
        work.keep_old()?;
    }
    let has_reload = !table.reload.is_empty();
    let had = place.is_there();
    if table.check_in_place {
        work.put(content, Next::Check)?;
        if let Some(why) = unfit(table, place.file()) {
            work.restore(had)?;
            return Ok(End::Refused(why));
        }
        work.good(content, has_reload)?;
    } else {
        work.put(content, if has_reload { Next::Load } else { Next::Nothing })?;
        if !has_reload {
            work.end()?;
        }
    }
    Ok(End::Written)
}

/// Why a file does not pass the table's check.
fn unfit(table: &Table, candidate: &std::path::Path) -> Option<String> {
    if table.check.is_empty() {
        return None;
    }
    let argv = match table.check_of(candidate) {
        Ok(argv) => argv,
        Err(what) => return Some(what),
    };
    let variables = [("WHARF_CANDIDATE", candidate), ("WHARF_DESTINATION", table.destination.as_path())];
    let ran = command::run(&argv, &variables, table.timeout);
    (!ran.is_well).then_some(ran.said)
}

fn access(table: &Table) -> Result<Access, String> {
    let owner = table.owner.as_deref().map(accounts::user).transpose().map_err(|error| format!("owner: {error}"))?;
    let group = table.group.as_deref().map(accounts::group).transpose().map_err(|error| format!("group: {error}"))?;
    Ok(Access { mode: table.mode, owner, group })
}

/// Has what was written loaded, once for all of these tables; each with the digest of what is loaded then.
pub(crate) fn load(argv: &[String], timeout: std::time::Duration, tables: &[(&Table, String)]) -> Result<(), String> {
    let ran = command::run(argv, &[], timeout);
    if ran.is_well {
        for (table, content) in tables {
            // Another process may have written it by now, and has it loaded then.
            let _ = Place::of(&table.destination, table.inplace).and_then(|place| place.begin()?.loaded(content));
        }
        return Ok(());
    }
    let back: Vec<&&Table> = tables.iter().map(|(table, _)| table).filter(|table| table.rollback).collect();
    for table in &back {
        let rolled = Place::of(&table.destination, table.inplace).and_then(|place| place.begin()?.roll_back());
        rolled.map_err(|error| format!("{}; and the old file cannot be put back: {error}", ran.said))?;
    }
    if back.is_empty() { Err(ran.said) } else { Err(format!("{}; the old file is back", ran.said)) }
}

/// What a start does first: what a process left behind that was ended in the middle is taken up.
pub(crate) fn recover(table: &Table) -> Result<(), PlaceError> {
    match Place::of(&table.destination, table.inplace) {
        Ok(place) => place.recover(),
        Err(_) => Ok(()), // the folder may come later; each pass tells of it
    }
}

/// The file as it is, for those who look at the difference.
pub(crate) fn there(table: &Table) -> Result<Option<Vec<u8>>, PlaceError> {
    Place::of(&table.destination, table.inplace)?.content()
}
