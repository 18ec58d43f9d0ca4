#!/usr/bin/env bash
# The whole suite, then the built wheel by itself. Options go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests that load or starve a server run alone afterwards: side by side they would measure each other.
.venv/bin/python -m pytest --numprocesses 2 --dist loadfile --quiet --ignore tests/stress "$@"
.venv/bin/python -m pytest --quiet tests/stress "$@"
scripts/test-wheel.sh
