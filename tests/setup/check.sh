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

tests() { tests/setup/second_look.sh "$flaky" "$@"; }

server_tests() { # all but those that are run optimized, and those that want the machine for themselves, which come last and alone
  local file rc=0 odd=() even=()
  for file in tests/*.rs tests/*/main.rs; do
    [ -e "$file" ] || continue
    case $file in
      tests/simulation/main.rs | tests/steer/main.rs | tests/*_model/main.rs | tests/hostile/main.rs | tests/law_of_*/main.rs) continue ;;
      tests/cluster/main.rs | tests/systemd/main.rs | tests/drill/main.rs) continue ;;
    esac
    file=${file%/main.rs}
    if [ ${#odd[@]} -gt ${#even[@]} ]; then even+=(--test "$(basename "$file" .rs)"); else odd+=(--test "$(basename "$file" .rs)"); fi
  done
  # They wait for servers more than they work, and one program runs after the other: two rows keep two cores busy.
  tests 1200 "${even[@]}" -- --test-threads=3 >"$beside" 2>&1 &
  tests 1200 "${odd[@]}" -- --test-threads=3 || rc=$?
  wait $! || rc=$?
  cat "$beside"
  return $rc
}

optimized() { # Thousands of histories, and how long others are kept waiting: worth building the library once more for.
  CARGO_PROFILE_DEV_OPT_LEVEL=1 tests 1200 "$@"
}

lab_tests() { # TARGET ARGUMENTS...
  local rc=0
  tests 1200 --test "$@" || rc=$?
  tests/lab/sweep.sh # the lab clears up behind itself: this waits until it has
  return $rc
}

dependencies() { # who may come in; known holes as well, where there is a copy of the list (`cargo deny fetch db` brings it)
  local what=(bans licenses sources)
  if [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ]; then what+=(advisories); fi
  "$cargo" deny --locked --offline check --hide-inclusion-graph "${what[@]}"
}

# With the examples each time: then every step wants the same of the dependencies, and what one built the next one uses.
all=(--lib --bins --examples)
took=()
flaky=$(mktemp) beside=$(mktemp)
trap 'rm -f "$flaky" "$beside"' EXIT
step 'format' "$cargo" fmt --all --check
step 'clippy' "$cargo" clippy --locked --all-targets -- -D warnings
step 'rustdoc' env RUSTDOCFLAGS='-D warnings' "$cargo" doc --locked --no-deps --document-private-items "${all[@]}"
if [ "${1:-test}" = lint ]; then
  step 'licences and sources' dependencies
  step 'what commits say' tests/setup/commits.sh
fi
if [ "${1:-test}" = test ]; then
  step 'build' "$cargo" test --locked --no-run
  step 'unit and property tests' "$cargo" test --locked "${all[@]}"
  step 'doctests' "$cargo" test --locked --doc
  step 'tests against real servers' server_tests
  step 'histories of the switch, the lock and the numbers' optimized --test steer --test lock_model --test ordinal_model
  step 'search for the costliest question and record' optimized --test law_of_work --test law_of_memory
  step 'hostile tests' optimized --test hostile
  step 'histories of the simulation' optimized --test simulation
  step 'lab tests' lab_tests cluster
  # One machine after the other; `make drill` runs the rest of them.
  step 'machines under systemd' lab_tests systemd -- --test-threads=1 everyday::
  # A few drills of fixed seeds; `make drill` runs as many as asked for.
  step 'drills' lab_tests drill
fi
echo '==> all passed'
printf '%s\n' "${took[@]}"
if [ -s "$flaky" ]; then
  echo '==> passed only at a second look, by themselves; each of them wants mending:'
  sed 's/^/  /' "$flaky"
fi
