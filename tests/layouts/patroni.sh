#!/bin/sh
# Brings Patroni with its client of etcd's v3 API into a virtual environment of the tests' own: patroni.sh FOLDER
# It is for a user who is not root, as PostgreSQL is: Debian's own Python, which everybody may read.
set -eu
folder=$1
mark=$folder/patroni-4.1.5
[ -e "$mark" ] && exit 0
mkdir -p "$folder"
exec 9>"$folder.lock"
flock 9
[ -e "$mark" ] && exit 0
python3 -m pip --python /usr/bin/python3 --quiet --disable-pip-version-check install --no-input --target "$folder/site" \
  'patroni[etcd3]==4.1.5' psycopg2-binary==2.9.13
touch "$mark"
