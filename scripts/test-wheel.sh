#!/usr/bin/env bash
# Builds the sdist and from that the wheel, installs it where nothing of this checkout is in reach, and serves one
# Encrypt and Decrypt with it.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || { kill -TERM "$server" 2> /dev/null || true; wait "$server" || true; }
  rm -rf "$work"
}
trap finish EXIT

.venv/bin/python -m build --no-isolation --outdir "$work/dist" > "$work/build.log" || { cat "$work/build.log"; exit 1; }
for file in packaging/holdfast.service packaging/Containerfile examples/nshield-module.toml requirements/runtime.txt Makefile; do
  tar --list --gzip --file "$work"/dist/*.tar.gz --wildcards "*/$file" > /dev/null || { echo "wheel: the sdist lacks $file" >&2; exit 1; }
done
# The locked dependencies are already in .venv; only the package comes from the wheel.
.venv/bin/python -m venv --without-pip "$work/venv"
site=$("$work/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
.venv/bin/python -m pip --python "$work/venv/bin/python" --disable-pip-version-check install --quiet --no-deps "$work"/dist/*.whl
.venv/bin/python -c 'import site; print(site.getsitepackages()[0])' > "$site/locked-dependencies.pth"
holdfast=("$work/venv/bin/python" -P -m holdfast)

cd "$work"
where=$("$work/venv/bin/python" -P -c 'import holdfast; print(holdfast.__file__)')
[[ $where == "$site"/* ]] || { echo "wheel: tested $where instead of the wheel" >&2; exit 1; }
port=$("$work/venv/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${holdfast[@]}" init --directory demo --port "$port" > init.log || { cat init.log; exit 1; }
"${holdfast[@]}" serve --config demo/holdfast.toml 2> serve.log &
server=$!
"${holdfast[@]}" prove demo demo-key --config demo/holdfast.toml --ca demo/tls/ca.pem --wait 120 ||
  { cat serve.log; exit 1; }
"${holdfast[@]}" docs production > /dev/null || { echo "wheel: it lacks the documentation" >&2; exit 1; }
echo "wheel: $(basename dist/*.whl) installs, initialises, serves and decrypts what it encrypted"
