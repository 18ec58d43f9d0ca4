#!/usr/bin/env bash
# Builds packaging/Containerfile with buildah, on a base that debootstrap makes (no image registry is needed), and
# serves one Encrypt and Decrypt from it: docs/how-to/containers.md, with `buildah run` in place of podman.
#
# Usage: scripts/prove-container.sh [SUITE]     (default: trixie)
# Needs root, debootstrap, buildah and the network; takes some minutes. Not part of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${1:-trixie}
[[ $EUID == 0 ]] || { echo "prove-container: run it as root" >&2; exit 2; }
for tool in debootstrap buildah; do
  command -v "$tool" > /dev/null || apt-get install --yes --no-install-recommends "$tool"
done
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
work=$(mktemp -d "${TMPDIR:-/tmp}/prove-container.XXXXXX")
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }
finish() {
  buildah rm --all > /dev/null 2>&1 || true
  buildah rmi --all --force > /dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

# ---- a base: Debian with Python, and with this machine's settings for its package registries ------------------

base=$(buildah from scratch)
root=$(buildah mount "$base")
mirror=$(grep -rhE '^(deb|URIs:) ' /etc/apt/sources.list* | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 || true)
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" ${mirror:+"$mirror"} \
  > "$work/debootstrap.log" 2>&1 || { tail -20 "$work/debootstrap.log"; exit 1; }
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for setting in /etc/pip.conf /etc/apt/auth.conf.d /etc/apt/apt.conf.d/99*; do
  [[ ! -e $setting ]] || cp -r "$setting" "$root$setting"
done
buildah umount "$base" > /dev/null
buildah commit --quiet "$base" localhost/base > /dev/null

# ---- the image ------------------------------------------------------------------------------------------------

buildah build --quiet --format docker --build-arg BASE=localhost/base -f packaging/Containerfile -t localhost/holdfast . \
  > "$work/build.log" 2>&1 || { tail -30 "$work/build.log"; exit 1; }

# ---- one container, as the image's own user -------------------------------------------------------------------

container=$(buildah from --pull-never localhost/holdfast)
port=$((20000 + RANDOM % 10000))
run() { buildah run "$container" -- "$@"; }
[[ $(run id -u) == 10001 ]] || { echo "prove-container: runs as $(run id -u)" >&2; exit 1; }
run holdfast init --directory /var/lib/holdfast/trial --port "$port" > /dev/null
run sh -c "
  holdfast serve --config /var/lib/holdfast/trial/holdfast.toml > /dev/null & server=\$!
  holdfast prove demo demo-key --config /var/lib/holdfast/trial/holdfast.toml \\
    --ca /var/lib/holdfast/trial/tls/ca.pem --wait 60
  result=\$?
  kill \$server; wait \$server
  exit \$result"
echo "prove-container: the image builds on $suite, and encrypts and decrypts"
