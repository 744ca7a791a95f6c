#!/bin/bash
# Looks at the commits that are not on the main branch yet: one that changes more than a page says, in paragraphs of its
# body, what the problem was, how it is solved and how that was checked.
set -euo pipefail
cd "$(dirname "$0")/../.."
page=60       # changed lines
paragraphs=3  # problem, solution, checked

base() { # where the main branch stands, as others have it
  local name
  for name in origin/main origin/master main master; do
    git rev-parse --quiet --verify "$name" && return
  done
  return 1
}

changed_lines() { # COMMIT; what was only moved, and what tools write, takes no explanation
  git show --format= --numstat --find-renames "$1" -- . ':!Cargo.lock' ':!*.json' | awk '{ lines += $1 + $2 } END { print lines + 0 }'
}

said() { # COMMIT -> how many paragraphs its body has
  git show --no-patch --format=%b "$1" | awk 'BEGIN { RS = "" } NF { count++ } END { print count + 0 }'
}

git rev-parse --quiet --verify HEAD >/dev/null || exit 0
from=$(base) || exit 0
short=0
for commit in $(git rev-list --no-merges "$from..HEAD"); do
  lines=$(changed_lines "$commit")
  if [ "$lines" -gt $page ] && [ "$(said "$commit")" -lt $paragraphs ]; then
    git show --no-patch --format="%h changes $lines lines and does not say the problem, the solution and how it was checked: %s" "$commit" >&2
    short=1
  fi
done
exit $short
