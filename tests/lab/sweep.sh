#!/bin/bash
# Removes what labs left behind: processes, containers, mounts, cgroups, namespaces, links, files.
#
#   sweep.sh              every lab whose owner is gone (waits for one that is being swept right now)
#   sweep.sh --after DIR  reads standard input until it ends, that is until the lab's owner is gone, however it went;
#                         then sweeps the lab of DIR
#
# A lab is a folder run-N that its owner holds locked. Everything that belongs to it can be told by itself, at the
# moment it is removed: a process by its network namespace or cgroup, the rest by names and paths with N in them.
set -uo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
base=${WHARF_LAB_BASE:-/var/tmp/wharf-lab}

processes() { # N -> pids in the lab's namespaces or cgroups
  local space inode
  for space in /run/netns/wharf-lab-"$1"-*; do
    [ -e "$space" ] || continue
    inode=$(stat -L -c %i "$space")
    find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/net' -lname "net:\[$inode\]" 2>/dev/null | cut -d/ -f3
  done
  find /sys/fs/cgroup -path "*/wharf-lab-$1/*" -name cgroup.procs -exec cat {} + 2>/dev/null
}

thaw() { # N: a paused container's processes cannot even be killed
  local state
  for state in $(find /sys/fs/cgroup -path "*/wharf-lab-$1/*" -name freezer.state 2>/dev/null); do echo THAWED >"$state"; done
  for state in $(find /sys/fs/cgroup -path "*/wharf-lab-$1/*" -name cgroup.freeze 2>/dev/null); do echo 0 >"$state"; done
}

kill_all() { # N
  local pids pass
  for pass in $(seq 50); do
    # A dead process that nobody has reaped yet still counts in its cgroup: only the living are waited for.
    pids=$(processes "$1" | sort -un | while read -r pid; do
      grep -qs '^State:.[^ZX]' "/proc/$pid/status" && echo "$pid"
    done)
    [ -n "$pids" ] || return 0
    thaw "$1" 2>/dev/null
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null
    sleep 0.1
  done
  echo "sweep: lab $1: still alive: $pids" >&2
}

shim_sockets() { # DIR: the containers' minders keep theirs in a common folder, named in their bundles
  find "$1" -path '*/io.containerd.runtime.v2.task/*' -name address -exec cat {} + 2>/dev/null |
    grep -o '/run/containerd/s/[0-9a-f]*' | sort -u | xargs -r rm -f
}

cgroups_gone() { # N: a group of processes that are dead but not reaped yet cannot be removed, so this tries again
  local pass left
  for pass in $(seq 50); do
    left=$(find /sys/fs/cgroup -depth -type d -path "*/wharf-lab-$1*" \( -name "wharf-lab-$1" -o -path "*/wharf-lab-$1/*" \) 2>/dev/null)
    [ -n "$left" ] || return 0
    xargs -r rmdir <<<"$left" 2>/dev/null && return 0
    sleep 0.1
  done
  echo "sweep: lab $1: still there: $left" >&2
}

sweep_one() { # DIR, already locked
  local dir=$1 n=${1##*/run-} space
  touch "$dir/sweeping"
  kill_all "$n"
  shim_sockets "$dir"
  # A mount inside another goes first.
  awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
  losetup -n -O NAME,BACK-FILE 2>/dev/null | awk -v dir="$dir/" 'index($2, dir) == 1 { print $1 }' | xargs -r losetup -d
  for space in /run/netns/wharf-lab-"$n"-*; do
    [ -e "$space" ] && ip netns del "${space##*/}"
  done
  ip link del "wharflab$n" 2>/dev/null
  cgroups_gone "$n"
  rm -rf --one-file-system "$dir"
}

locked_sweep() { # DIR SECONDS: waits so long for the lock
  [ -e "$1/lock" ] || return 0
  (
    flock -w "$2" 9 || exit 0
    [ -e "$1/lock" ] && sweep_one "$1"
  ) 9<"$1/lock"
}

if [ "${1:-}" = --after ]; then
  trap '' INT TERM HUP
  cat >/dev/null
  locked_sweep "$2" 60
  exit 0
fi

for dir in "$base"/run-*; do
  [ -d "$dir" ] || continue
  # Its owner died between making the folder and locking it: nothing else can be there yet.
  [ -e "$dir/lock" ] || { find "$dir" -maxdepth 0 -mmin +1 -exec rmdir {} \; 2>/dev/null; continue; }
  if [ -e "$dir/sweeping" ]; then locked_sweep "$dir" 60; else locked_sweep "$dir" 0; fi
done
exit 0
