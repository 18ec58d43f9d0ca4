#!/usr/bin/env bash
# Runs every fuzz target for SECONDS each, from the seeds in corpus/; ends at the first broken invariant.
# usage: fuzz/run.sh SECONDS [TARGET ...]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET ...]}
shift
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  targets=(path authorization encrypt decrypt get_key_metadata get_health_status configuration policies note proof bundle)
fi

if ! cmp -s requirements/fuzz.txt .venv-fuzz/installed; then
  echo "installing Atheris into .venv-fuzz"
  "${PYTHON:-.venv/bin/python}" -m venv --clear .venv-fuzz
  .venv-fuzz/bin/pip install --quiet --require-hashes -r requirements/fuzz.txt
  cp requirements/fuzz.txt .venv-fuzz/installed
fi

for target in "${targets[@]}"; do
  work="fuzz/.work/$target"
  mkdir -p "$work/found"
  echo "== $target, $seconds s: $(sed -n '1s/"""//gp' "fuzz/$target.py")"
  if ! PYTHONPATH=src .venv-fuzz/bin/python "fuzz/$target.py" -max_total_time="$seconds" -max_len=8192 -timeout=5 \
    -rss_limit_mb=1024 -artifact_prefix="$work/" -print_final_stats=1 "$work/found" "fuzz/corpus/$target" \
    >"$work/log" 2>&1; then
    tail -40 "$work/log" >&2
    echo "fuzz: $target broke its invariant; the input is in $work" >&2
    exit 1
  fi
  grep -E "stat::number_of_executed_units|stat::average_exec_per_sec" "$work/log" | sed 's/^/   /'
done
echo "no invariant was broken"
