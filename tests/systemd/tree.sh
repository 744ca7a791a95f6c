#!/bin/bash
# Makes the file tree of a small machine with a real systemd, of this machine's own Debian release (so that a program
# built here runs there), and keeps it: tree.sh FILE.tar. Takes about a minute, once.
set -euo pipefail
out=$1
export PATH="$PATH:/usr/sbin:/sbin"
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=${WHARF_DEBIAN_MIRROR:-http://deb.debian.org/debian}
packages=systemd,systemd-sysv,systemd-resolved,dbus,procps,iproute2,curl,bind9-dnsutils
work=$(mktemp -d -p "$(dirname "$out")")
trap 'rm -rf --one-file-system "$work"' EXIT
debootstrap --variant=minbase --include="$packages" "$suite" "$work/tree" "$mirror" >"$out.log" 2>&1 ||
  { tail -n 20 "$out.log" >&2; exit 1; }
ln -sf /lib/systemd/system/systemd-networkd.service "$work/tree/etc/systemd/system/multi-user.target.wants/"
# Its user is root already; what a page tells a user to type works as it stands.
printf '#!/bin/sh\nexec "$@"\n' >"$work/tree/usr/local/bin/sudo"
chmod 755 "$work/tree/usr/local/bin/sudo"
rm -rf "$work"/tree/var/cache/apt/archives/*.deb "$work"/tree/var/lib/apt/lists/* "$work"/tree/usr/share/{doc,man,locale}
tar -C "$work/tree" -cf "$out.new" .
mv "$out.new" "$out"
