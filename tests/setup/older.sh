#!/bin/bash
# Builds this program as it was earlier and prints where it is: the other build for the tests of two builds, which take
# it from WHARF_OLDER. Around it lies what the tarball of that time held, install.sh and units among it.
#
#   older.sh            the newest release (a tag v…) whose sources are other than now; where there is none yet, as they
#                       were 20 changes ago
#   older.sh COMMIT     that commit
#
# It is kept under the target directory: a second call finds it there.
set -euo pipefail
cd "$(dirname "$0")/../.."
changes=20 # enough of them to be another program, few enough to be one that hosts still run

fail() { echo "older.sh: $*" >&2; exit 1; }

other_sources() { ! git diff --quiet "$1" HEAD -- src Cargo.lock; }

earlier() { # -> the commit to build
  local tag
  for tag in $(git tag --merged HEAD --sort=-version:refname 'v[0-9]*'); do
    if other_sources "$tag"; then echo "$tag"; return; fi
  done
  git rev-list --first-parent HEAD -- src | sed -n "${changes}p"
}

git rev-parse --git-dir >/dev/null 2>&1 || fail 'this is no git clone: without history there is no older build; WHARF_OLDER=PROGRAM names one'
commit=${1:-$(earlier)}
how='WHARF_OLDER=PROGRAM names another build'
[ "$(git rev-parse --is-shallow-repository)" = false ] || how="this clone is shallow: git fetch --unshallow --tags; or $how"
[ -n "$commit" ] || fail "fewer than $changes changes of the sources and no release in this clone's history; $how"
full=$(git rev-parse --verify --quiet "$commit^{commit}") || fail "commit $commit is not in this clone; $how"
other_sources "$full" || fail "the sources of $commit are those of now; $how"

older=${CARGO_TARGET_DIR:-target}/older
case $older in /*) ;; *) older=$PWD/$older ;; esac
home=$older/$full
if [ ! -x "$home/wharf" ]; then
  rm -rf "$older/source" "$home.new"
  mkdir -p "$older/source"
  git archive "$full" | tar -x -C "$older/source"
  # A target of its own: in ours it would take the place of the program under test. It serves every older build, so that
  # the dependencies are built once.
  (cd "$older/source" && CARGO_TARGET_DIR=$older/build CARGO_INCREMENTAL=0 WHARF_COMMIT=${full:0:12} \
    "${CARGO:-cargo}" build --locked --bin wharf >&2)
  [ -e "$older/source/docker/stage.sh" ] || cp docker/stage.sh "$older/source/docker/" # older than that
  "$older/source/docker/stage.sh" "$older/build/debug/wharf" "$home.new"
  mv "$home.new" "$home"
  rm -rf "$older/source"
fi
echo "$home/wharf"
