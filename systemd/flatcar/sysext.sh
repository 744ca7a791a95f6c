#!/bin/bash
# Lays wharf out as a system extension for Flatcar (systemd-sysext): the program and its units appear under the
# read-only /usr, and go again with one file.
#
#   systemd/flatcar/sysext.sh [DIR]      from the unpacked tarball; DIR is ./sysext unless given
#
#   DIR/wharf/usr/bin/wharf
#   DIR/wharf/usr/lib/systemd/system/wharf.service …, started by multi-user.target.d/10-wharf.conf
#   DIR/wharf/usr/lib/systemd/logind.conf.d/wharf.conf, network/05-wharf.*
#   DIR/wharf/usr/lib/tmpfiles.d/wharf.conf   /etc/wharf.toml, if there is none; /etc/resolv.conf to the stub
#   DIR/wharf/usr/lib/extension-release.d/extension-release.wharf
#   DIR/wharf.raw                        the same as one file, when mksquashfs is there
#
# On the host: copy DIR/wharf (or wharf.raw) to /var/lib/extensions/, write /etc/wharf.toml (a cluster's etcd), reboot.
# An extension carries no /opt, so the units are adapted here.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-sysext}
program=${WHARF_PROGRAM:-$here/wharf}
tree=$out/wharf
rm -rf "$tree"
units=$tree/usr/lib/systemd/system
lib=$tree/usr/lib
mkdir -p "$tree/usr/bin" "$units" "$lib"/{extension-release.d,tmpfiles.d,systemd/{network,logind.conf.d}} \
  "$tree"/usr/share/{wharf,doc/wharf}
install -m 755 "$program" "$tree/usr/bin/wharf"
install -m 755 "$here/systemd/wharf-address" "$tree/usr/bin/wharf-address"
for unit in wharf.service wharf.socket wharf-address.service; do
  sed 's|/opt/bin/|/usr/bin/|g; s|/opt/share/|/usr/share/|g' "$here/systemd/$unit" >"$units/$unit"
done
install -m 644 "$here"/systemd/network/05-wharf.* "$lib/systemd/network/"
install -m 644 "$here/systemd/logind.conf" "$lib/systemd/logind.conf.d/wharf.conf"
install -m 644 "$here/systemd/wharf.toml" "$tree/usr/share/wharf/wharf.toml"
install -m 644 "$here"/docs/*.md "$tree/usr/share/doc/wharf/"
cat >"$lib/tmpfiles.d/wharf.conf" <<'END'
C /etc/wharf.toml 0644 root root - /usr/share/wharf/wharf.toml
L+ /etc/resolv.conf - - - - /run/systemd/resolve/stub-resolv.conf
END
# [Install] does nothing for a unit that comes with an extension: the target asks for it.
mkdir -p "$units/multi-user.target.d"
printf '[Unit]\nUpholds=wharf.service\n' >"$units/multi-user.target.d/10-wharf.conf"
# A static program needs nothing of the system's libraries, so it fits every one of them.
printf 'ID=_any\nARCHITECTURE=x86-64\n' >"$lib/extension-release.d/extension-release.wharf"
if command -v mksquashfs >/dev/null; then
  rm -f "$out/wharf.raw"
  mksquashfs "$tree" "$out/wharf.raw" -all-root -noappend -quiet
fi
find "$out" -type f
