#!/bin/bash
# make image: the static program alone in an image, FROM scratch, put together by hand and loaded into the engine.
# No registry is asked, and no builder: an image is a tar of one layer, its description, and a list of both.
#
#   dist/wharf-image.tar     for `docker load` elsewhere; loaded here as wharf:VERSION and wharf:latest when an engine is
set -euo pipefail
cd "$(dirname "$0")/.."
limit=$((25 * 1000 * 1000))
[ "${1:-}" = --no-dist ] || docker/dist.sh
program=dist/wharf
[ -x "$program" ] || { echo "image: $program is not there: make dist" >&2; exit 1; }

said=$("$program" --version)
version=$(echo "$said" | cut -d' ' -f2)
commit=$(echo "$said" | sed -n 's/.*(\(.*\)).*/\1/p')
moment=$(git log -1 --format=%ct 2>/dev/null || echo 0)
created=$(date -u -d "@$moment" +%Y-%m-%dT%H:%M:%SZ)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/var/lib/wharf" "$work/root/run/wharf" "$work/root/tmp" "$work/image"
install -m 755 "$program" "$work/root/wharf"
chmod 700 "$work/root/var/lib/wharf"
chmod 1777 "$work/root/tmp"
plain=(--sort=name --owner=0 --group=0 --numeric-owner --mtime="@$moment")
tar "${plain[@]}" -C "$work/root" -cf "$work/image/layer.tar" .
layer=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)

second=000000000 # Docker writes times in nanoseconds
cat >"$work/image/config.json" <<END
{
  "architecture": "amd64",
  "os": "linux",
  "created": "$created",
  "config": {
    "Entrypoint": ["/wharf"],
    "Cmd": ["agent"],
    "WorkingDir": "/",
    "Volumes": {"/var/lib/wharf": {}},
    "StopSignal": "SIGTERM",
    "Healthcheck": {
      "Test": ["CMD", "/wharf", "healthcheck"],
      "Interval": 10$second, "Timeout": 5$second, "StartPeriod": 5$second, "Retries": 3
    },
    "Labels": {
      "org.opencontainers.image.title": "wharf",
      "org.opencontainers.image.version": "$version",
      "org.opencontainers.image.revision": "$commit"
    }
  },
  "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]},
  "history": [{"created": "$created", "created_by": "docker/image.sh"}]
}
END
config=$(sha256sum "$work/image/config.json" | cut -d' ' -f1)
mv "$work/image/config.json" "$work/image/$config.json"
echo "[{\"Config\": \"$config.json\", \"RepoTags\": [\"wharf:$version\", \"wharf:latest\"], \"Layers\": [\"layer.tar\"]}]" \
  >"$work/image/manifest.json"
tar "${plain[@]}" -C "$work/image" -cf dist/wharf-image.tar .

size=$(stat -c %s dist/wharf-image.tar)
echo "==> dist/wharf-image.tar: $size bytes"
[ "$size" -lt $limit ] || { echo "image: larger than $limit bytes" >&2; exit 1; }
if docker version >/dev/null 2>&1; then
  docker load -i dist/wharf-image.tar
  docker image inspect -f '{{.RepoTags}} {{.Size}} bytes, health: {{.Config.Healthcheck.Test}}' wharf:latest
else
  echo 'no Docker engine answers here; elsewhere: docker load -i dist/wharf-image.tar'
fi
