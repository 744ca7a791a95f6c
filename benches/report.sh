#!/bin/bash
# Puts docs/benchmarks.md together from what the benches have left in target/bench: `make bench`, then this.
set -euo pipefail
cd "$(dirname "$0")/.."
from=${CARGO_TARGET_DIR:-target}/bench

about() { # NAME -> what a bench is about, in one line
  case $1 in
    dns) echo 'Answers: `cargo bench --bench dns`, beside Knot DNS with the same records as a static zone' ;;
    journey) echo 'The whole way, on three hosts with real Docker and etcd: `cargo bench --bench journey`' ;;
    agent) echo 'The agent as a process: `cargo bench --bench agent`' ;;
    probe) echo 'Probes of real servers: `cargo bench --bench probe`' ;;
    offer) echo 'From the engine to the offer: `cargo bench --bench offer`' ;;
    publish) echo 'From the offer to etcd: `cargo bench --bench publish`' ;;
    http) echo 'HTTP with 100,000 endpoints: `cargo bench --bench http`' ;;
    proxy) echo 'Ambassadors beside HAProxy and a plain copy, one thread each: `cargo bench --bench proxy`' ;;
    switch) echo 'A master that moves, beside who else moves one: `cargo bench --bench switch`' ;;
    curves) echo 'What grows with the catalog: `cargo bench --bench curves`' ;;
    drill) echo 'Answers under faults, against what really served: `make drill DRILLS=200 EACH=1 SOAK=1h` (see drills.md)' ;;
    scale) echo 'What a large cluster costs: `cargo bench --bench scale` (see scale.md)' ;;
  esac
}

remark() { # NAME -> what is known of a row that was missed
  case $1 in
    dns) echo 'Where "the slowest of them" is missed: once after the catalog has been read, a change waits for some 11 ms while
the C library (`malloc_consolidate`, by `perf`) puts together what reading has let go of. Of 3,000 changes in a row that
was one; their median was 156 µs, their p99 286 µs, and none of the others took more than 1.1 ms of CPU.' ;;
  esac
}

{
  echo '# Benchmarks'
  echo
  echo 'Every budget with the figure that was measured for it. `make bench` measures all of it anew, and'
  echo '`benches/report.sh` writes this page from the figures. A row without a budget is a reference or a part of another.'
  echo
  echo "- measured: $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD)"
  echo "- machine: $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
    "$(awk '/MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo), Linux $(uname -r), $(rustc --version)"
  for name in dns journey agent probe offer publish http proxy switch curves scale drill; do
    [ -s "$from/$name.md" ] || continue
    printf '\n## %s\n\n%s\n\n' "$name" "$(about "$name")"
    echo '| what | figure | budget | | compared with |'
    echo '|---|--:|--:|---|---|'
    cat "$from/$name.md"
    [ ! -e "$from/$name.load" ] || printf '\nLoad average: %s; taken %s.\n' "$(cat "$from/$name.load")" \
      "$(date -u -r "$from/$name.md" '+%Y-%m-%d %H:%M UTC')"
    ! grep -q 'slowest of them.*missed' "$from/$name.md" || printf '\n%s\n' "$(remark "$name")"
    [ ! -e docs/curves.svg ] || [ "$name" != curves ] || printf '\n![cost by instances](curves.svg)\n'
  done
} >docs/benchmarks.md
