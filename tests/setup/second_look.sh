#!/bin/bash
# Runs tests and looks a second time at those that fail: second_look.sh FLAKY SECONDS CARGO-TEST-ARGUMENTS...
#
# Tests of whole machines share two cores with everything that they start, so one may fail for the load and not for the
# change. What fails is run again, by itself. Failing twice fails the run; passing the second time is no pass in silence:
# its name goes into the file FLAKY, which is printed at the very end, and wants mending like any other bug. A run of no
# test at all fails too.
set -uo pipefail
flaky=$1 seconds=$2
shift 2
cargo=${CARGO:-cargo}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

failed() { # LOG -> "TARGET TEST" for each test that failed; "TARGET -" for a program that ended without saying which
  awk '
    function close_target() { if (open && !said) print target, "-"; open = 0 }
    $1 == "Running" { close_target(); target = $2; sub(/^tests\//, "", target); sub(/(\/main)?\.rs$/, "", target); said = 0; open = 1; names = "" }
    /^failures:$/ { names = ""; next } # the first such list holds what the tests printed, the last one their names
    /^test result: ok/ { said = 1 }
    /^test result: FAILED/ { said = 1; printf "%s", names }
    /^    [^ ]+$/ { names = names target " " $1 "\n" }
    END { close_target() }
  ' "$1" | sort -u
}

timeout --foreground "$seconds" "$cargo" test --locked --no-fail-fast "$@" 2>&1 | tee "$log"
rc=${PIPESTATUS[0]}
if [ "$rc" = 0 ]; then
  # A filter that names a module which has another name now would pass without a test for ever.
  ! grep -q '^running 0 tests$' "$log" || { echo "second look: nothing was tested: $*" >&2; exit 1; }
  exit 0
fi
if [ "$rc" = 124 ]; then
  echo "second look: not over after $seconds s, given up" >&2
  exit 1
fi
mapfile -t again < <(failed "$log")
# Nothing failed in a test: it did not build, or cargo itself failed.
[ ${#again[@]} -gt 0 ] || exit "$rc"
# Many failures are no accident.
[ ${#again[@]} -le 4 ] || { echo "second look: ${#again[@]} failed, too many for one" >&2; exit "$rc"; }
profile=()
[[ " $* " != *' --release '* ]] || profile=(--release)
for one in "${again[@]}"; do
  read -r target name <<<"$one"
  only=(--exact "$name")
  [ "$name" != - ] || only=()
  echo "==> second look: $target $name"
  timeout --foreground "$seconds" "$cargo" test --locked "${profile[@]}" --test "$target" -- "${only[@]}" --test-threads=1 || exit 1
  echo "$target $name" >>"$flaky"
done
