#!/bin/sh
# Brings python-etcd, with which tests/etcd_v2 asks, from PyPI into a folder of its own: clients.sh FOLDER. What is there
# already stays.
set -eu

folder=$1
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

if [ ! -e "$folder/python/there" ]; then
    rm -rf "$folder/python"
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check \
        python-etcd==0.4.5 urllib3==1.26.20 setuptools==65.5.0 mock==5.1.0 pyOpenSSL==24.0.0
    touch "$folder/python/there"
fi
