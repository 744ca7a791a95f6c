//! What one question costs, counted in steps: about what looking at one record in a row takes.
//!
//! Everything whose length others choose takes steps: records passed over, names looked for and built, texts compared.
//! What a question's own labels ask for has to do with [`ASKED`]; what is then found may be told until [`TOLD`], and
//! the targets of that until [`MOST`]. So what comes first never starves what comes after it.

use std::cell::Cell;

/// For finding what a question takes: two whole windows passed over, and what else its labels want tried.
pub(crate) const ASKED: usize = 10_000;
/// For that and for telling what was found.
pub(crate) const TOLD: usize = 18_000;
/// For that and for where it leads: all that a question may cost, a millisecond or so.
pub const MOST: usize = 22_000;

/// The least that looking for one name below one prefix takes.
const LOOKUP: usize = 12;
/// The least that making a record takes.
const RECORD: usize = 8;
/// What each label of its name takes.
const LABEL: usize = 2;
/// What reading a label of the question's own name takes: it is copied, put into paths and read in more than one way.
const READ: usize = 4;
/// So many labels are passed in one step when one more of them is read in another way.
const PASSED: usize = 16;
/// What making one takes whose name is one label before a known name.
pub(crate) const NEIGHBOUR: usize = 8;
/// Bytes of a name that are compared by their hash in one step.
const HASHED: usize = 8;
/// Bytes of a path that are put together and looked for in one step: each prefix and each reading of a name does it
/// again.
const SOUGHT: usize = 4;

/// Steps taken, and where they have to end.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    taken: Cell<usize>,
    end: Cell<usize>,
}

impl Steps {
    pub(crate) fn new(end: usize) -> Self {
        Self { taken: Cell::new(0), end: Cell::new(end) }
    }

    /// Takes so many if there are so many left; says whether it did.
    pub(crate) fn may(&self, steps: usize) -> bool {
        let fits = steps <= self.left();
        if fits {
            self.take(steps);
        }
        fits
    }

    /// Takes what is done anyway.
    pub(crate) fn take(&self, steps: usize) {
        self.taken.set(self.taken.get() + steps);
    }

    pub(crate) fn left(&self) -> usize {
        self.end.get().saturating_sub(self.taken.get())
    }

    /// What is left of all, whoever has a share of it now.
    pub(crate) fn spare(&self) -> usize {
        MOST.saturating_sub(self.taken.get())
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Moves the end; gives where it was.
    pub(crate) fn until(&self, end: usize) -> usize {
        self.end.replace(end)
    }
}

/// What it takes to read a question's name of so many labels: each way to read it passes those before it once more.
pub(crate) fn read(labels: usize) -> usize {
    READ * labels + labels * labels / PASSED
}

/// What it takes to look for a path.
pub(crate) fn lookup(path: &str) -> usize {
    LOOKUP + path.len() / SOUGHT
}

/// What it takes to make a name of the labels of a text.
pub(crate) fn name_of(text: &str, between: u8) -> usize {
    RECORD + LABEL * (1 + text.bytes().take(256).filter(|byte| *byte == between).count())
}

/// What it takes to look for a name of this text among others.
pub(crate) fn compared(text: &str) -> usize {
    2 + text.len().min(256) / HASHED
}
