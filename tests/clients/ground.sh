#!/bin/bash
# The host of a page, such as docs/clients.md, in a network and mount namespace of its own: ground.sh FOLDER WHARF. Its resolver is wharf on
# port 53, its addresses are 10.0.0.1 and 10.0.0.2. The servers and the agent end with this script.
set -euo pipefail
folder=$1
wharf=$2
cd "$folder"
mount --make-rprivate /
echo 'nameserver 127.0.0.1' >resolv.conf
# Where it is a link, what it leads to is what programs read.
mount --bind resolv.conf "$(readlink -f /etc/resolv.conf)"
mount --bind "$folder" /srv # where pages have files whose whole path is written
ip link set lo up
ip addr add 10.0.0.1/32 dev lo
ip addr add 10.0.0.2/32 dev lo

as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

for n in 1 2; do
  mkdir -p web-$n redis-$n
  echo "I am 10.0.0.$n" >web-$n/name
  python3 -m http.server --bind 10.0.0.$n --directory web-$n 8080 >web-$n.log 2>&1 &
  memcached -u nobody -l 10.0.0.$n >memcached-$n.log 2>&1 &
done
redis-server --bind 10.0.0.1 --protected-mode no --dir redis-1 --save '' >redis-1.log 2>&1 &
redis-server --bind 10.0.0.2 --protected-mode no --dir redis-2 --save '' --replicaof 10.0.0.1 6379 >redis-2.log 2>&1 &
# A second one that nobody made a replica.
mkdir -p redis-3
redis-server --bind 10.0.0.2 --port 6380 --protected-mode no --dir redis-3 --save '' >redis-3.log 2>&1 &

postgres=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
mkdir -p postgres
chown 65534:65534 postgres
as_nobody "$postgres/initdb" -D "$folder/postgres/data" -U postgres -N -A trust >postgres.log 2>&1
echo 'host all all 0.0.0.0/0 trust' >>postgres/data/pg_hba.conf
as_nobody "$postgres/postgres" -D "$folder/postgres/data" -c listen_addresses=10.0.0.1 -c fsync=off \
  -c unix_socket_directories="$folder/postgres" >>postgres.log 2>&1 &

# Where the page's host has an etcd, it is one with both of its stores.
if grep -q '127\.0\.0\.1:2379' wharf.toml; then
  mkdir -p etcd
  mount -t tmpfs tmpfs etcd # a busy disk takes seconds over a sync
  etcd --data-dir etcd --enable-v2 --logger zap --log-level error >etcd.log 2>&1 &
fi

"$wharf" agent --node core-01 --advertise 10.0.0.1 --dns 127.0.0.1:53 --docker unix:///nowhere/docker.sock \
  --config wharf.toml --state-dir state --http-socket "$folder/http.sock" >wharf.log 2>&1 &
# Ends when the test does, however it does.
cat >/dev/null
