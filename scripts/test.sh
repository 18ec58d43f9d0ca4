#!/usr/bin/env bash
# The whole suite and the built wheel, or with `quick` what needs neither a running server nor other programs. Other
# arguments go to pytest; TEST_PYTHON names another environment's interpreter than .venv's.
set -euo pipefail
cd "$(dirname "$0")/.."

# Each process takes modules from the front of its half and, once idle, from the end of another's: a module's server is
# started once or twice, and no process waits for the longest module.
pytest=("${TEST_PYTHON:-.venv/bin/python}" -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal --quiet)

if [[ ${1:-} == quick ]]; then
  shift
  exec "${pytest[@]}" -m "not server and not programs" "$@"
fi

"${pytest[@]}" "$@"
scripts/test-wheel.sh
