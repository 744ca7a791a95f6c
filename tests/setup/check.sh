#!/bin/bash
# What `make test` and `make lint` run once everything that they need is there: fast checks first, the lab last.
# Stops at the first step that fails and says how long each one took.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}

step() { # TITLE COMMAND...
  local title=$1 start=$SECONDS
  shift
  echo "==> $title"
  "$@" || { local rc=$?; echo "==> failed: $title (after $((SECONDS - start)) s): $*" >&2; exit "$rc"; }
  took+=("$(printf '%5d s  %s' $((SECONDS - start)) "$title")")
}

server_tests() { # all but the lab's own and those of whole machines, which come last and alone
  local file tests=()
  for file in tests/*.rs tests/*/main.rs; do
    [ -e "$file" ] || continue
    case $file in tests/cluster/main.rs | tests/systemd/main.rs) continue ;; */main.rs) file=${file%/main.rs} ;; esac
    tests+=(--test "$(basename "$file" .rs)")
  done
  [ ${#tests[@]} = 0 ] || "$cargo" test --locked "${tests[@]}"
}

machine_tests() { # whole machines under systemd, one after the other; `make drill` runs the rest of them
  local rc=0
  "$cargo" test --locked --test systemd -- --test-threads=1 everyday:: || rc=$?
  tests/lab/sweep.sh
  return $rc
}

lab_tests() {
  local rc=0
  "$cargo" test --locked --test cluster || rc=$?
  tests/lab/sweep.sh # the lab clears up behind itself: this waits until it has
  return $rc
}

# With the examples each time: then every step wants the same of the dependencies, and what one built the next one uses.
all=(--lib --bins --examples)
took=()
step 'format' "$cargo" fmt --all --check
step 'clippy' "$cargo" clippy --locked --all-targets -- -D warnings
step 'rustdoc' env RUSTDOCFLAGS='-D warnings' "$cargo" doc --locked --no-deps --document-private-items "${all[@]}"
if [ "${1:-test}" = test ]; then
  step 'build' "$cargo" test --locked --no-run
  step 'unit and property tests' "$cargo" test --locked "${all[@]}"
  step 'doctests' "$cargo" test --locked --doc
  step 'tests against real servers' server_tests
  step 'lab tests' lab_tests
  step 'machines under systemd' machine_tests
fi
echo '==> all passed'
printf '%s\n' "${took[@]}"
