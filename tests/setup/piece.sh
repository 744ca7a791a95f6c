#!/bin/bash
# Runs a script of the project for make, or says plainly that this piece is not there yet. For a folder it only looks.
set -euo pipefail
piece=$1
shift
if [ ! -e "$piece" ]; then
  echo "make: $piece does not exist yet, so there is nothing to run" >&2
  exit 1
fi
[ -d "$piece" ] || exec bash "$piece" "$@"
