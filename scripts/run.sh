#!/usr/bin/env bash
# `make run`: a complete Holdfast on SoftHSM, proven over the wire, until Ctrl-C. State is kept in var/demo.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=${HOLDFAST_DEMO:-var/demo}
holdfast=.venv/bin/holdfast

scripts/bootstrap.sh run
next_steps=$("$holdfast" init --directory "$directory")

# Another program on the port, such as a second `make run`, would answer the proof in this proxy's place.
if [[ $next_steps =~ //\[?([^]/]+)\]?:([0-9]+)/ ]] &&
  (: < "/dev/tcp/${BASH_REMATCH[1]}/${BASH_REMATCH[2]}") 2> /dev/null; then
  echo "run: Holdfast did not come up: something listens on port ${BASH_REMATCH[2]} already, perhaps another" \
    "\`make run\`. Stop it, or change \`listen\` in $directory/holdfast.toml." >&2
  exit 1
fi

proof=
"$holdfast" serve --config "$directory/holdfast.toml" &
server=$!
stop() {
  trap '' INT TERM
  kill -TERM "$server" $proof 2> /dev/null || true
  wait
}
trap stop EXIT
# Ctrl-C is how a person ends this, so it is a success, and `make` reports no error.
trap 'stop; trap - EXIT; echo; echo "Holdfast has stopped. Its keys are kept in $directory."; exit 0' INT
trap 'exit 143' TERM

"$holdfast" prove demo demo-key --config "$directory/holdfast.toml" --ca "$directory/tls/ca.pem" --wait 120 &
proof=$!
# Whichever ends first: a server that could not start must not leave us waiting for it.
wait -n "$server" "$proof" || { echo "run: Holdfast did not come up; the lines above say why." >&2; exit 1; }
if ! kill -0 "$server" 2> /dev/null; then
  echo "run: the proxy stopped at once; the lines above say why." >&2
  exit 1
fi

printf '\n%s\n\nHoldfast is running; Ctrl-C stops it. Its keys are kept for the next time.\n' "$next_steps"
wait "$server"
