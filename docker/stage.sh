#!/bin/bash
# Lays out the folder that a distribution is the tarball of: stage.sh PROGRAM DIR. dist.sh packs it, and the tests of
# whole machines install from it.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$1
stage=$2
mkdir -p "$stage"
install -m 755 "$program" "$stage/wharf"
install -m 755 systemd/install.sh "$stage/install.sh"
for piece in README.md CHANGELOG.md ARCHITECTURE.md LICENSE-MIT LICENSE-APACHE docs systemd docker/units docker/Dockerfile docker/*.yaml; do
  mkdir -p "$stage/$(dirname "$piece")"
  cp -r "$piece" "$stage/$(dirname "$piece")/"
done
find "$stage" -type d -exec chmod 755 {} +
find "$stage" -type f -perm -u+x -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
