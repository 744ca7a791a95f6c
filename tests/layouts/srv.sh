#!/bin/bash
# In a network and a file system of its own: a wharf that serves example.com's etcd records on port 53, and one that
# finds etcd by them: srv.sh WHARF ETCD FOLDER. Says on standard output what came true; ends what it has started.
set -eu
wharf=$1 etcd=$2 folder=$3
trap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null' EXIT
ip link set lo up
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >"$folder/resolv.conf"
mount --bind "$folder/resolv.conf" /etc/resolv.conf

until_so() { # WHAT COMMAND...
  local what=$1 left=600
  shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "never: $what"; tail -n 20 "$folder"/*.log; exit 1; }
    sleep 0.1
  done
  echo "$what"
}

member() { # NAME PORT
  "$etcd" --name "$1" --data-dir "$folder/$1" --listen-client-urls "http://127.0.0.1:$2" \
    --advertise-client-urls "http://127.0.0.1:$2" --listen-peer-urls "http://127.0.0.1:$(($2 + 1))" \
    --initial-advertise-peer-urls "http://127.0.0.1:$(($2 + 1))" --initial-cluster "$1=http://127.0.0.1:$(($2 + 1))" \
    >"$folder/$1.log" 2>&1 &
}

names() { # PORT: etcd's clients are at this port
  printf "[[service]]\nname = 'etcd-client'\nport = %s\ncheck = 'none'\n" "$1" >"$folder/names.toml"
}

member one 2379
first=$!
names 2379
"$wharf" agent --node dns --store embedded --advertise 127.0.0.1 --domain example.com --dns 127.0.0.1:53 --http 127.0.0.1:5381 \
  --docker none --state-dir "$folder/dns" --http-socket "$folder/dns.sock" --config "$folder/names.toml" >"$folder/dns.log" 2>&1 &
names=$!
until_so "DNS names the member" sh -c 'dig +short @127.0.0.1 _etcd-client._tcp.example.com SRV | grep -q 2379'

cat >"$folder/wharf.toml" <<'TOML'
[[proxy]]
name = "etcd"
listen = "127.0.0.1:2380"
upstream = "etcd"
TOML
sed -i 's/2380/4379/' "$folder/wharf.toml"
"$wharf" agent --node core-01 --advertise 127.0.0.1 --etcd-endpoints srv://example.com --lease-ttl 3s --dns 127.0.0.1:5300 \
  --http 127.0.0.1:5380 --docker none --state-dir "$folder/agent" --http-socket "$folder/agent.sock" \
  --config "$folder/wharf.toml" >"$folder/agent.log" 2>&1 &
until_so "the agent finds etcd by SRV" curl -sf http://127.0.0.1:5380/readyz
until_so "its node is in that etcd" sh -c 'etcdctl --endpoints http://127.0.0.1:2379 get --prefix /wharf/services/nodes/ | grep -q core-01'
until_so "the ambassador leads there" etcdctl --endpoints http://127.0.0.1:4379 endpoint health
until_so "a command finds it, too" "$wharf" kv ensure /config/x one --etcd-endpoints srv://example.com

# The member moves: another port, and DNS says so.
member two 3379
names 3379
kill -HUP $names
until_so "DNS names the other" sh -c 'dig +short @127.0.0.1 _etcd-client._tcp.example.com SRV | grep -q 3379'
kill -9 $first
until_so "the agent follows" sh -c 'etcdctl --endpoints http://127.0.0.1:3379 get --prefix /wharf/services/nodes/ | grep -q core-01'
until_so "the ambassador follows" etcdctl --endpoints http://127.0.0.1:4379 endpoint health
echo done
