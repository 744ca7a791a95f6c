#!/bin/sh
# Brings cfn-lint, from PyPI, into a folder of its own: tools.sh FOLDER. What is there already stays. (npm's cfn-lint is
# another tool.)
set -eu

folder=$1
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

if [ ! -e "$folder/python/there" ]; then
    rm -rf "$folder/python"
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check cfn-lint==1.58.0
    touch "$folder/python/there"
fi
