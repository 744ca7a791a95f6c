#!/bin/sh
# Brings kazoo, and Patroni for its client of Exhibitor, into a virtual environment of the tests' own: kazoo.sh FOLDER
set -eu
folder=$1
mark=$folder/kazoo-2.11.0-patroni-4.1.5
[ -e "$mark" ] && exit 0
mkdir -p "$folder"
exec 9>"$folder.lock"
flock 9
[ -e "$mark" ] && exit 0
python3 -m venv "$folder"
"$folder/bin/pip" --quiet --disable-pip-version-check install kazoo==2.11.0 patroni==4.1.5 psycopg2-binary==2.9.13
touch "$mark"
