#!/bin/bash
# Builds this program as it was at an earlier commit and prints where it is: the other build for the drill of two builds
# in one cluster. Usage: older.sh [COMMIT]. It is kept under the target directory; a second call finds it there.
set -euo pipefail
cd "$(dirname "$0")/../.."
commit=${1:-a622074}
if ! full=$(git rev-parse --verify --quiet "$commit^{commit}"); then
  echo "older.sh: commit $commit is not in this clone (a shallow one? git fetch --unshallow)" >&2
  exit 1
fi
home=${CARGO_TARGET_DIR:-target}/older/$full
case $home in /*) ;; *) home=$PWD/$home ;; esac
if [ ! -x "$home/wharf" ]; then
  rm -rf "$home/source"
  mkdir -p "$home/source"
  git archive "$full" | tar -x -C "$home/source"
  # A target of its own: in ours it would take the place of the program under test.
  (cd "$home/source" && env -u CARGO_TARGET_DIR "${CARGO:-cargo}" build --locked --bin wharf >&2)
  cp "$home/source/target/debug/wharf" "$home/wharf"
  rm -rf "$home/source"
fi
echo "$home/wharf"
