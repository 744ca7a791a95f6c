#!/bin/sh
# Brings the clients that tests/autodiscovery asks with, from PyPI and npm, into a folder of their own: clients.sh FOLDER.
# What is there already stays. PyPI's pyelasticache-client is not among them: it installs itself over pymemcache.
set -eu

folder=$1
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

if [ ! -e "$folder/python/there" ]; then
    rm -rf "$folder/python"
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check \
        elasticache-auto-discovery==1.0.0 elasticache-pyclient==2.1.2 django-elastipymemcache==3.0.0 setuptools==65.5.0
    touch "$folder/python/there"
fi
# It was written for Django before 4.
if [ ! -e "$folder/django-3/there" ]; then
    rm -rf "$folder/django-3"
    python3 -m venv "$folder/django-3"
    "$folder/django-3/bin/pip" install --quiet --disable-pip-version-check \
        django-elasticache==1.0.3 'django==3.2.25' pylibmc==1.6.3 setuptools==65.5.0
    touch "$folder/django-3/there"
fi
if [ ! -e "$folder/node/there" ]; then
    rm -rf "$folder/node"
    mkdir "$folder/node"
    echo '{"private":true}' > "$folder/node/package.json"
    (cd "$folder/node" && npm install --silent --no-audit --no-fund --ignore-scripts ecad@0.2.0 memcached-elasticache@1.1.1)
    touch "$folder/node/there"
fi
