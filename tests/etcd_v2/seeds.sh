#!/bin/sh
# In a network of its own: an agent where the etcd of such a host was, and what its units and scripts ran, by the very
# lines that they had. WHARF is the program; seeds.sh FOLDER. With WHARF_SCRIPTS, a folder that has those units and scripts
# as they were written, it is their own files that run.
set -eu
cd "$1"
ip link set lo up
ip address add 172.17.8.101/24 dev lo

"$WHARF" agent --node core-01 --advertise 172.17.8.101 --docker unix:///nowhere/docker.sock --state-dir state \
    --http-socket http.sock --etcd-v2 0.0.0.0:4001 --etcd-v2-allow 127.0.0.0/8,172.17.8.0/24 2>log &
agent=$!
sidekick=
trap 'kill $agent $sidekick 2>/dev/null || true' EXIT

eventually() { # COMMAND...: within a minute it succeeds
    count=0
    while ! "$@" >/dev/null 2>&1; do
        count=$((count + 1))
        [ $count -lt 600 ] || { echo "never: $*" >&2; exit 1; }
        sleep 0.1
    done
}
eventually curl -sf http://127.0.0.1:4001/health

# A topology is defined, and asked to be applied.
cat > topology.json <<JSON
{
  "master": {
    "address": "core-01.redis-1.docker"
  }
}
JSON
if [ -n "${WHARF_SCRIPTS:-}" ]; then
    sh "$WHARF_SCRIPTS/define-topology.sh"
    sh "$WHARF_SCRIPTS/apply-topology.sh"
else
    curl -L http://172.17.8.101:4001/v2/keys/config/redis-1/topology -XPUT --data-urlencode value@topology.json
    curl -L http://172.17.8.101:4001/v2/keys/config/redis-1/topology-trigger -XPUT -d value=1
fi
curl -s http://127.0.0.1:4001/v2/keys/config/redis-1/topology | grep -q '"value":"{\\n  \\"master\\"'
curl -s http://127.0.0.1:4001/v2/keys/config/redis-1/topology-trigger | grep -q '"value":"1"'

# A sidekick announces its memcached, and takes it back.
export ETCDCTL_API=2
host=172.17.8.101
command="/bin/sh -c \"while true; do /usr/bin/etcdctl set /services/memcached/memcached-1 '{ \\\"host\\\": \\\"$host\\\", \\\"port\\\": 11211 }' --ttl 60;sleep 45;done\""
stop='/usr/bin/etcdctl rm /services/memcached/memcached-1'
if [ -n "${WHARF_SCRIPTS:-}" ]; then
    # What systemd makes of the unit's lines on the host core-01, for instance 1.
    host=core-01
    line() { sed -n "s/^$1=//p" "$WHARF_SCRIPTS/memcached-discovery@.service" | sed "s/%i/1/g; s/%H/$host/g"; }
    command=$(line ExecStart)
    stop=$(line ExecStop)
fi
eval "exec_sidekick() { exec $command; }"
(exec_sidekick) >/dev/null 2>&1 &
sidekick=$!
found() { [ "$("$WHARF" services memcached -o hostport --http-socket http.sock)" = $host:11211 ]; }
eventually found
curl -s http://127.0.0.1:4001/v2/keys/services/memcached/memcached-1 | grep -q '"ttl":\(60\|5[0-9]\)'
kill $sidekick
$stop
lost() { ! found; }
eventually lost
