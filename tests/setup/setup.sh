#!/bin/bash
# Sees to it that what a make target needs is there, and installs only what is not.
#
#   setup.sh TARGET...          check; on Debian as root install what is missing, else say what is and how to get it
#   setup.sh --engine           for `make run`: also see to it that a Docker engine runs; never fails for want of one
#
# Gentle by construction: nothing is removed or upgraded, nothing recommended is pulled in, no server that gets
# installed is started, and an engine that is there already is never replaced. Exit 1: something is missing still.
set -euo pipefail
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
here=$(cd "$(dirname "$0")" && pwd)
root=${WHARF_SETUP_ROOT:-}           # only for the test of this script: where it looks for the system's files
policy=$root/usr/sbin/policy-rc.d
mark='# put here for the length of an installation by wharf'

say() { printf 'setup: %s\n' "$*" >&2; }

# --- what is missing ----------------------------------------------------------------------------------------------

present() { # a command's name, or a pattern for a file
  case $1 in
    /*) compgen -G "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

missing_packages() { # TARGET... -> package names, one a line
  local targets package sign target
  while read -r targets package sign; do
    case $targets in '' | '#'*) continue ;; esac
    for target in "$@"; do
      case ",$targets," in
        *",$target,"*) present "$sign" || echo "$package"; break ;;
      esac
    done
  done <"$here/packages.txt"
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | cut -c1-2)" = ii ]; }

# Any engine at all, running or not. The lab needs dockerd itself; `make run` is content with whatever answers.
engine() {
  if [ -n "${DOCKER_HOST:-}" ]; then echo "DOCKER_HOST=$DOCKER_HOST"; return; fi
  local name
  for name in dockerd podman; do
    if command -v "$name" >/dev/null 2>&1; then echo "$name"; return; fi
  done
  for name in docker.io docker-ce moby-engine podman; do
    if installed "$name"; then echo "$name"; return; fi
  done
  if [ -S /var/run/docker.sock ] && answers unix:///var/run/docker.sock; then echo "/var/run/docker.sock"; fi
}

wants() { # is one of the words $2... equal to $1?
  local word=$1 other
  shift
  for other in "$@"; do [ "$word" = "$other" ] && return 0; done
  return 1
}

# --- Rust ---------------------------------------------------------------------------------------------------------

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

rust_missing() { # TARGET... -> one line for each thing that rustup must bring
  local need have
  need=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")
  if ! command -v cargo >/dev/null 2>&1; then
    echo "Rust $need or newer (Debian's is too old): https://rustup.rs, then make again"
    return
  fi
  have=$(cargo --version | cut -d' ' -f2)
  at_least "$need" "${have%%-*}" || echo "Rust $need or newer, this is $have: rustup update stable"
  if wants test "$@" || wants lint "$@"; then
    cargo fmt --version >/dev/null 2>&1 || echo "rustfmt: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || echo "clippy: rustup component add clippy"
  fi
  if wants deny "$@"; then
    cargo deny --version >/dev/null 2>&1 || echo "cargo-deny: cargo install --locked cargo-deny"
  fi
  if wants fuzz "$@"; then
    cargo fuzz --version >/dev/null 2>&1 || echo "cargo-fuzz: cargo install cargo-fuzz"
    cargo +nightly --version >/dev/null 2>&1 || echo "a nightly toolchain: rustup toolchain install nightly"
  fi
}

add_rust_parts() { # TARGET... the toolchain's own parts, and what checks dependencies
  if wants deny "$@" && command -v cargo >/dev/null 2>&1 && ! cargo deny --version >/dev/null 2>&1; then
    say "building cargo-deny, once"
    # It runs for a second: that it is fast matters less than that it is there soon.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug cargo-deny >&2 || true
  fi
  command -v rustup >/dev/null 2>&1 || return 0
  local part
  for part in rustfmt clippy; do
    cargo "${part/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$part" >&2 || true
  done
}

# --- installing ---------------------------------------------------------------------------------------------------

can_install() { # Debian, and root
  [ "$(id -u)" = 0 ] && [ "$(. "$root/etc/os-release" 2>/dev/null && echo "${ID:-}")" = debian ] &&
    command -v apt-get >/dev/null 2>&1
}

policy_back() { # after a crash of an earlier run too: the mark tells our file from any other
  if [ -f "$policy" ] && grep -qF "$mark" "$policy"; then
    rm -f "$policy"
    if [ -e "$policy.wharf-saved" ]; then mv "$policy.wharf-saved" "$policy"; fi
  fi
}

policy_on() {
  policy_back
  if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$policy.wharf-saved"; fi
  printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
  chmod 755 "$policy"
}

apt_install() { # PACKAGE...
  local options=(-y --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold)
  export DEBIAN_FRONTEND=noninteractive
  say "installing $*"
  trap policy_back EXIT
  trap 'exit 130' INT TERM HUP
  policy_on
  # The lists may be absent (a fresh image) or old (packages gone from the mirror): bring them in both cases.
  if ! apt-get install -s "${options[@]}" "$@" >/dev/null 2>&1 || ! apt-get install "${options[@]}" "$@" </dev/null >&2; then
    apt-get update -o DPkg::Lock::Timeout=300 </dev/null >&2
    apt-get install "${options[@]}" "$@" </dev/null >&2
  fi
  policy_back
  trap - EXIT INT TERM HUP
  keep_from_booting "$@"
}

# A server that came only for the tests is not to come up at the next boot either.
keep_from_booting() {
  command -v systemctl >/dev/null 2>&1 || return 0
  local package unit
  for package in "$@"; do
    case $package in
      etcd-server) unit=etcd ;;
      memcached | redis-server | postgresql | knot | prometheus | zookeeper | haproxy | nginx) unit=$package ;;
      *) continue ;;
    esac
    systemctl disable "$unit.service" >/dev/null 2>&1 || true
  done
}

# --- the engine ---------------------------------------------------------------------------------------------------

answers() { # URI -> does an engine answer there? No client need be installed.
  case $1 in
    unix://*) [ -S "${1#unix://}" ] && pings "${1#unix://}" ;;
    *) return 0 ;; # somebody else's engine: not ours to judge
  esac
}

pings() { # SOCKET; bash has no unix sockets: whichever of these is there asks
  if command -v curl >/dev/null 2>&1; then
    curl -sf -m 3 --unix-socket "$1" http://localhost/_ping >/dev/null
  elif command -v docker >/dev/null 2>&1; then
    timeout 5 docker -H "unix://$1" version >/dev/null 2>&1
  else
    ss -xlH 2>/dev/null | grep -qF " $1 " # somebody listens there
  fi
}

await() { # SECONDS COMMAND... -> true as soon as the command is
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}

start_engine() { # ENGINE, as named by engine(): started if it stands still
  local socket=unix:///var/run/docker.sock
  case $1 in
    DOCKER_HOST=*) return ;;
    podman) socket=unix:///run/podman/podman.sock ;;
  esac
  if answers "$socket"; then return; fi
  if [ "$(id -u)" != 0 ]; then
    say "the engine ($1) is not running or not open to this user: start it as root (systemctl start docker), or set DOCKER_HOST"
    return
  fi
  if [ -d /run/systemd/system ]; then
    say "starting the engine that is installed ($1)"
    if [ "$1" = podman ]; then systemctl start podman.socket; else systemctl start docker; fi || true
  elif [ "$1" = podman ]; then
    mkdir -p /run/podman
    setsid podman system service --time=0 "$socket" </dev/null >/var/log/podman-service.log 2>&1 &
    say "started podman's service by hand, pid $!"
  else
    setsid dockerd </dev/null >/var/log/dockerd.log 2>&1 &
    say "started dockerd by hand, pid $! (no init system here); its log is /var/log/dockerd.log"
  fi
  await 30 answers "$socket" || say "the engine ($1) does not answer at $socket yet; wharf keeps looking"
}

# --- the two ways in ----------------------------------------------------------------------------------------------

tell_missing() { # RUST PACKAGES NOTE
  say "missing here, and nothing was changed:"
  [ -z "$1" ] || sed 's/^/  /' <<<"$1" >&2
  if [ -n "$2" ]; then
    # shellcheck disable=SC2086
    printf '  %s\n' $2 >&2
    say "on Debian, as root: apt-get install --no-install-recommends" $2
    say "elsewhere: the programs of those packages, from your system's own"
  fi
  [ -z "$3" ] || say "$3"
}

main() {
  local with_engine=no targets=() arg
  for arg in "$@"; do
    if [ "$arg" = --engine ]; then with_engine=yes; else targets+=("$arg"); fi
  done
  wants build "${targets[@]}" || targets=(build "${targets[@]}")

  local rust packages note='' found
  rust=$(rust_missing "${targets[@]}")
  packages=$(missing_packages "${targets[@]}" | sort -u)

  # The lab runs engines of its own and so needs the program itself; for anything else an engine is welcome.
  local lab=no
  for arg in test lab demo bench; do wants "$arg" "${targets[@]}" && lab=yes; done
  found=$(engine)
  if [ "$lab" = yes ] && ! command -v dockerd >/dev/null 2>&1; then
    if [ -n "$found" ]; then
      note="the lab needs dockerd; there is another engine here ($found), which is not replaced: install docker.io yourself if both may live side by side"
    else
      packages=$(printf '%s\ndocker.io\niptables\n' "$packages" | sort -u | sed '/^$/d')
    fi
  elif [ "$with_engine" = yes ] && [ -z "$found" ]; then
    if can_install || [ -n "$packages" ]; then
      packages=$(printf '%s\ndocker.io\niptables\n' "$packages" | sort -u | sed '/^$/d')
    else
      say "no Docker engine here: apt-get install --no-install-recommends docker.io (as root), or set DOCKER_HOST; wharf runs without and keeps looking"
    fi
  fi

  if can_install; then
    # shellcheck disable=SC2086
    [ -z "$packages" ] || apt_install $packages
    if [ -n "$rust" ]; then add_rust_parts "${targets[@]}"; fi
    rust=$(rust_missing "${targets[@]}")
    packages=$(missing_packages "${targets[@]}" | sort -u)
    if [ "$lab" = yes ] && [ -z "$note" ] && ! command -v dockerd >/dev/null 2>&1; then packages="$packages docker.io"; fi
  fi
  if [ "$lab" = yes ] && [ "$(id -u)" != 0 ]; then
    note="${note:+$note; }the lab makes network namespaces and runs engines: that needs root"
  fi
  if [ -n "$rust$packages$note" ]; then
    tell_missing "$rust" "$packages" "$note"
    exit 1
  fi
  if [ "$with_engine" = yes ]; then
    found=$(engine)
    [ -z "$found" ] || start_engine "$found"
  fi
}

main "$@"
