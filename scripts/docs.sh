#!/usr/bin/env bash
# Writes the reference pages that are generated from the code; git does not hold them. Usage: scripts/docs.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python -m tools.docs "${1:-docs/reference}"
