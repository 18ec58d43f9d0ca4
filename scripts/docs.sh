#!/usr/bin/env bash
# Writes the reference pages that are generated from the code, then builds the documentation's site in site/.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python -m tools.docs docs/reference
if ! cmp -s requirements/docs.txt .venv-docs/installed; then
  echo "docs: installing mkdocs into .venv-docs" >&2
  .venv/bin/python -m venv --clear .venv-docs
  .venv-docs/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/docs.txt
  cp requirements/docs.txt .venv-docs/installed
fi
# A broken link or a page that is in no menu ends this with an error (mkdocs.yml: strict).
NO_MKDOCS_2_WARNING=1 PYTHONPATH=. .venv-docs/bin/mkdocs build --clean
echo "docs: open site/index.html; to search as well, python3 -m http.server --directory site" >&2
