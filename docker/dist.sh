#!/bin/bash
# make dist: one static program and all that ships with it.
#
#   dist/wharf                                 the program, which names its commit in its version
#   dist/wharf-VERSION-x86_64-linux.tar.gz     the same with units, docs, examples, man pages and completions
#   dist/wharf-VERSION-x86_64-linux.cdx.json   what it is made of: a bill of materials (CycloneDX)
#   dist/SHA256SUMS                            and, with WHARF_SIGN_KEY=FILE (an SSH key), SHA256SUMS.sig
#
# The same commit gives the same files, in whatever folder. WHARF_DIST_PROFILE=dev builds fast and unoptimised, for trying
# the rest.
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

# Sources and libraries are named in a program by where they lay when it was built. Given other names they are the same
# everywhere. The last that fits counts, so the folder that is within another one comes after it.
plain_paths() { # OPTION -> OPTION=FROM=TO for each of our folders
  printf -- "$1=%s " "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$(rustc --print sysroot)=/rust" "$PWD=/wharf" "$(realpath -m "$build")=/target"
}

static() { # FILE -> true when no loader and no library is asked for
  ! readelf --program-headers --dynamic "$1" | grep -qE 'INTERP|\(NEEDED\)'
}

WHARF_COMMIT=$(commit | tr -d '\n')
export WHARF_COMMIT
echo "==> program ($profile, ${WHARF_COMMIT:-no commit})"
RUSTFLAGS="-C target-feature=+crt-static $(plain_paths --remap-path-prefix)" CFLAGS="$(plain_paths -ffile-prefix-map)" \
  CARGO_TARGET_DIR=$build \
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

echo '==> man pages, completions, bill of materials'
"$cargo" run --quiet --locked --example pages -- "$stage"

moment=$(git log -1 --format=%ct 2>/dev/null || echo 0)
"$cargo" run --quiet --locked --example sbom -- $target "$(date -u -d "@$moment" +%FT%TZ)" >"$out/$name.cdx.json"
echo '==> tarball'
find "$stage/man" "$stage/completions" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$moment" -C "$build/stage" -c "$name" | gzip -9n >"$out/$name.tar.gz"
install -m 755 "$program" "$out/wharf"
(cd "$out" && sha256sum wharf "$name.tar.gz" "$name.cdx.json" >SHA256SUMS && rm -f SHA256SUMS.sig)
if [ -n "${WHARF_SIGN_KEY:-}" ]; then
  echo '==> signature'
  ssh-keygen -Y sign -f "$WHARF_SIGN_KEY" -n wharf-release "$out/SHA256SUMS"
fi

echo "==> $said"
(cd "$out" && ls -l wharf "$name".* && cat SHA256SUMS)
