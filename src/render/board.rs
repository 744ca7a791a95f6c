//! What is known of one table from outside.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::table::Table;
use crate::catalog::render::Need;
use crate::catalog::render::told::Render;

/// What a table calls, as far as it is named; a template may call a service for each of a thousand names.
const NAMED: usize = 64;
/// The longest reason that is shown.
const LONGEST: usize = 2048;

/// The board of one table.
#[derive(Debug)]
pub(super) struct Board(Mutex<Render>);

impl Board {
    pub(super) fn new(table: &Table) -> Arc<Self> {
        let board = Arc::new(Self(Mutex::new(Render { state: "starting".into(), ..Render::default() })));
        board.is_of(table);
        board
    }

    /// Shows another table's names.
    pub(super) fn is_of(&self, table: &Table) {
        self.change(|told| {
            told.name = table.name.as_str().into();
            told.destination = table.destination.display().to_string().into();
            told.template = table.made_from().into();
        });
    }

    /// Shows how it stands; whether that is another state than before.
    pub(super) fn stands(&self, state: &str, reason: Option<&str>) -> bool {
        self.change(|told| {
            let reason = reason.map(|reason| reason[..reason.floor_char_boundary(LONGEST)].into());
            let is_new = *told.state != *state || told.reason != reason;
            (told.state, told.reason) = (state.into(), reason);
            is_new
        })
    }

    /// Whether it stands so.
    pub(super) fn is(&self, state: &str) -> bool {
        self.change(|told| *told.state == *state)
    }

    /// Shows what it depends on.
    pub(super) fn calls<'n>(&self, needs: impl Iterator<Item = &'n Need>) {
        let needs = needs.take(NAMED).map(|need| need.to_string().into()).collect();
        self.change(|told| told.needs = needs);
    }

    /// It was last written then; by somebody before this process, if that is all that is known.
    pub(super) fn is_of_time(&self, time: SystemTime) {
        let time = humantime::format_rfc3339_seconds(time).to_string();
        self.change(|told| told.changed = Some(time.into()));
    }

    /// It was written now.
    pub(super) fn written(&self) {
        self.is_of_time(SystemTime::now());
        self.change(|told| told.writes += 1);
    }

    /// Its check failed.
    pub(super) fn refused(&self) {
        self.change(|told| told.refusals += 1);
    }

    /// Its reload is owed, or not any more.
    pub(super) fn owes(&self, is_owed: bool) {
        self.change(|told| told.reload_owed = is_owed);
    }

    /// A reload has ended.
    pub(super) fn reloaded(&self, is_well: bool) {
        self.change(|told| if is_well { told.reloads += 1 } else { told.failures += 1 });
    }

    /// All of it.
    pub(super) fn told(&self) -> Render {
        self.change(|told| told.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Render) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
