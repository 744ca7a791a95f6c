#!/bin/bash
# Every fuzz target in turn, a minute each unless libFuzzer's own options (-runs=N, -max_total_time=S) say otherwise.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- -max_total_time=60
for target in $(cargo +nightly fuzz list); do
  echo "==> $target"
  cargo +nightly fuzz run "$target" -- "$@"
done
