#!/bin/sh
# For python-etcd's own suite, which starts members by the name of `etcd`: an agent in a member's place, with the client
# address that it was to have. WHARF is the program, ENDPOINTS the real etcd behind, LOG where it logs.
set -eu
while [ $# -gt 0 ]; do
    case $1 in
        -listen-client-urls) at=${2#*://} ;;
        -data-dir) directory=$2 ;;
        -name) name=$2 ;;
    esac
    shift
done
exec "$WHARF" agent --node "$name" --advertise 127.0.0.1 --http 127.0.0.1:0 --dns 127.0.0.1:0 \
    --docker unix:///nowhere/docker.sock --state-dir "$directory" --etcd-endpoints "$ENDPOINTS" --lease-ttl 5s \
    --etcd-v2 "$at" --etcd-v2-prefix / 2>>"$LOG"
