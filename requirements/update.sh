#!/usr/bin/env bash
# Locks the dependencies anew, with hashes, taking no release younger than a week.
set -euo pipefail
cd "$(dirname "$0")/.."
cooled=$(date --utc --date='7 days ago' +%Y-%m-%dT00:00:00Z)
lock() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --exclude-newer "$cooled" "$@"; }
lock pyproject.toml --extra postgresql -o requirements/runtime.txt
lock pyproject.toml requirements/dev.in --all-extras -o requirements/dev.txt
lock requirements/build.in -c requirements/dev.txt -o requirements/build.txt
lock pyproject.toml requirements/fuzz.in -c requirements/dev.txt -o requirements/fuzz.txt
lock requirements/docs.in -o requirements/docs.txt
