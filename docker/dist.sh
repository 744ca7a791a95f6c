#!/bin/bash
# make dist: one static program and all that ships with it.
#
#   dist/wharf                                 the program, which names its commit in its version
#   dist/wharf-VERSION-x86_64-linux.tar.gz     the same with units, docs, examples, man pages and completions
#   dist/SHA256SUMS
#
# The same commit gives the same tarball. WHARF_DIST_PROFILE=dev builds fast and unoptimised, for trying the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
target=x86_64-unknown-linux-gnu
profile=${WHARF_DIST_PROFILE:-release}
# Other flags than everyday builds have: a folder of its own keeps both caches warm.
build=${WHARF_DIST_TARGET:-target/dist}
out=dist

commit() { # what the version names; a tree with changes says so
  git rev-parse --short=12 HEAD 2>/dev/null || return 0
  git diff --quiet HEAD -- 2>/dev/null || echo -dirty
}

static() { # FILE -> true when no loader and no library is asked for
  ! readelf --program-headers --dynamic "$1" | grep -qE 'INTERP|\(NEEDED\)'
}

WHARF_COMMIT=$(commit | tr -d '\n')
export WHARF_COMMIT
echo "==> program ($profile, ${WHARF_COMMIT:-no commit})"
RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$build \
  "$cargo" build --locked --profile "$profile" --target $target --bin wharf
folder=$profile
[ "$folder" = dev ] && folder=debug
program=$build/$target/$folder/wharf
static "$program" || { echo "dist: $program asks for dynamic libraries" >&2; exit 1; }
said=$("$program" --version)
version=$(echo "$said" | cut -d' ' -f2)
[[ -z $WHARF_COMMIT || $said == *"$WHARF_COMMIT"* ]] || { echo "dist: $said does not name $WHARF_COMMIT" >&2; exit 1; }

name=wharf-$version-x86_64-linux
stage=$build/stage/$name
rm -rf "$build/stage"
mkdir -p "$out"
docker/stage.sh "$program" "$stage"

echo '==> man pages and completions'
"$cargo" run --quiet --locked --example pages -- "$stage"

echo '==> tarball'
moment=$(git log -1 --format=%ct 2>/dev/null || echo 0)
find "$stage/man" "$stage/completions" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$moment" -C "$build/stage" -c "$name" | gzip -9n >"$out/$name.tar.gz"
install -m 755 "$program" "$out/wharf"
(cd "$out" && sha256sum wharf "$name.tar.gz" >SHA256SUMS)

echo "==> $said"
(cd "$out" && ls -l wharf "$name.tar.gz" && cat SHA256SUMS)
