#!/bin/sh
# Brings what docs/clients.md has its readers install, from PyPI, into a folder of its own: tools.sh FOLDER. What is there
# already stays.
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
