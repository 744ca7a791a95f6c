#!/bin/bash
# Every fuzz target in turn, a minute each (DNS packets: ten million of them) unless libFuzzer's own options (-runs=N,
# -max_total_time=S) say otherwise. What it finds interesting is kept in fuzz/corpus, beside the seeds of fuzz/seeds.
#
# Looked for are panics, hangs and memory without bound. The program has no unsafe code, so that no sanitizer is needed
# for these, and without one far more inputs fit into the time; SANITIZER=address watches the dependencies too.
set -euo pipefail
cd "$(dirname "$0")/../.."
# A search of another kind: which records cost the catalog most memory (WHARF_SEARCH=7200 for two hours).
echo "==> memory"
WHARF_SEARCH="${WHARF_SEARCH:-60}" cargo test --locked --release --test law_of_memory no_shape -- --nocapture
for target in $(cargo +nightly fuzz list); do
  echo "==> $target"
  options=("$@")
  if [ $# -eq 0 ]; then
    options=(-max_total_time=60)
    [ "$target" != packet ] || options=(-runs=10000000)
  fi
  corpora=("fuzz/corpus/$target")
  mkdir -p "${corpora[@]}"
  [ ! -d "fuzz/seeds/$target" ] || corpora+=("fuzz/seeds/$target")
  cargo +nightly fuzz run --sanitizer "${SANITIZER:-none}" "$target" "${corpora[@]}" -- "${options[@]}"
done

# The costliest question is searched for by a test of its own: WHARF_SEARCH says for how many seconds.
echo '==> law_of_work'
WHARF_SEARCH=${WHARF_SEARCH:-60} cargo test --locked --release --test law_of_work -- --nocapture
