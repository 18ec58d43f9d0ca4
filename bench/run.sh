#!/usr/bin/env bash
# Prints the seven figures. Options go to `python -m bench`.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in wrk h2load softhsm2-util; do
  command -v "$tool" > /dev/null || { echo "bench: $tool is missing: apt-get install wrk nghttp2-client softhsm2" >&2; exit 1; }
done
exec .venv/bin/python -m bench "$@"
