//! An index of v2: the revision of the store, and the place within its commit. Whoever goes on at one more than an
//! index that was told misses nothing.

/// How many places a commit has; what lies behind them shares the last.
const PLACES: u64 = 4_096;

/// The index of a change: its revision, and how many of the same commit came before it.
pub fn of(revision: i64, place: usize) -> u64 {
    let place = u64::try_from(place).unwrap_or(PLACES).min(PLACES - 1);
    u64::try_from(revision).unwrap_or(0).saturating_mul(PLACES).saturating_add(place)
}

/// The last index that a revision has: whoever goes on after it begins with the next revision.
pub fn last_of(revision: i64) -> u64 {
    of(revision, usize::MAX)
}

/// The revision of an index, and the place in its commit.
pub fn parts(index: u64) -> (i64, usize) {
    let revision = i64::try_from(index / PLACES).unwrap_or(i64::MAX);
    (revision, usize::try_from(index % PLACES).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_its_revision_and_its_place() {
        for (revision, place) in [(0, 0), (1, 0), (7, 3), (1 << 40, 4_095)] {
            assert_eq!(parts(of(revision, place)), (revision, place));
        }
        assert_eq!(parts(last_of(7) + 1), (8, 0));
        assert_eq!(parts(of(7, 100_000)), (7, 4_095));
        assert_eq!(parts(u64::MAX).1, 4_095);
    }
}
