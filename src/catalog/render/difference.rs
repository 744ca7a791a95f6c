//! What differs between two texts, as `diff -u` shows it.

use similar::TextDiff;

/// Lines around each difference.
const AROUND: usize = 3;

/// The difference between the file as it is and as it would be; empty when there is none.
pub(crate) fn difference(name: &str, before: &str, after: &str) -> String {
    let difference = TextDiff::from_lines(before, after);
    difference.unified_diff().context_radius(AROUND).header(name, name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_file_and_shows_the_lines() {
        let shown = difference("/etc/x", "a\nb\nc\n", "a\nB\nc\n");
        assert_eq!(shown, "--- /etc/x\n+++ /etc/x\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n");
        assert_eq!(difference("/etc/x", "a\n", "a\n"), "");
    }
}
