#!/usr/bin/env bash
# Makes .venv with the locked dependencies and this package, and installs the Debian packages that are missing.
# Quick when nothing has changed. Usage: scripts/bootstrap.sh [run|develop]
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-run}
case $kind in run | develop) ;; *) echo "usage: $0 [run|develop]" >&2; exit 2 ;; esac

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# ---- what is there already --------------------------------------------------------------------------------

# develop holds everything that run holds, at the same versions.
declare -A locked=([run]=requirements/runtime.txt [develop]=requirements/dev.txt)
stamp_of() { cat "${locked[$1]}" requirements/build.txt pyproject.toml <(pwd) | sha256sum; }
is_current() { [[ -x .venv/bin/holdfast && -f .venv/.bootstrap-$1 && $(stamp_of "$1") == $(cat ".venv/.bootstrap-$1") ]]; }
current=no
if is_current "$kind" || { [[ $kind == run ]] && is_current develop; }; then current=yes; fi

# ---- Debian packages --------------------------------------------------------------------------------------

# The first interpreter of 3.11 or later; an explicit PYTHON wins.
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" > /dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      echo "$candidate"
      return
    fi
  done
}

has_softhsm() {
  local library
  for library in /usr/lib/softhsm /usr/lib/*/softhsm /usr/local/lib/softhsm /usr/lib64/softhsm /usr/lib64/pkcs11; do
    [[ -e $library/libsofthsm2.so ]] && return
  done
  return 1
}

missing_packages() {
  local python
  # An environment that is current has its interpreter; starting one to look would only take time.
  if [[ $current == no ]]; then python=$(find_python); else python=.venv/bin/python; fi
  if [[ -z $python ]]; then
    # Where `python3` is older (Ubuntu 22.04), the distribution carries a newer one beside it.
    if command -v python3 > /dev/null; then echo python3.11 python3.11-venv; else echo python3 python3-venv; fi
  elif [[ $current == no ]] && ! "$python" -c 'import venv, ensurepip' 2> /dev/null; then
    if [[ $python == python3 ]]; then echo python3-venv; else echo "$python-venv"; fi
  fi
  has_softhsm || echo softhsm2
  # `make run` prints a curl line that must work as printed.
  command -v curl > /dev/null || echo curl
  [[ $kind == run ]] || missing_tools
  # Only CI insists on promtool: its package also starts a Prometheus, which nobody wants on a machine of their own.
  [[ $kind == run || -z ${CI:-} ]] || command -v promtool > /dev/null || echo prometheus
}

# What the tests and benchmarks call: a file or command, and the package that has it.
missing_tools() {
  local tool package
  while read -r tool package; do
    compgen -G "$tool" > /dev/null || command -v "$tool" > /dev/null || echo "$package"
  done << 'END'
gcc gcc
/usr/include/stdio.h libc6-dev
git git
jq jq
openssl openssl
pkcs11-tool opensc
softhsm2-util softhsm2
wrk wrk
h2load nghttp2-client
/usr/lib/*/libsoftokn3.so libnss3
certutil libnss3-tools
/usr/lib/postgresql/*/bin/initdb postgresql
END
}

install_packages() {
  local as_root=()
  if ! command -v apt-get > /dev/null; then
    say "this system has no apt-get. Install what these Debian packages hold, then run this again: $*"
    exit 1
  fi
  if [[ $(id -u) != 0 ]]; then
    if ! command -v sudo > /dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2> /dev/null; }; then
      say "these packages are missing, and this is neither root nor able to use sudo. As root run:"
      say "  apt-get install $*"
      exit 1
    fi
    as_root=(sudo)
  fi
  say "installing $*"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" > /dev/null
}

mapfile -t packages < <(missing_packages | tr ' ' '\n' | sort -u)
[[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
[[ $current == no ]] || exit 0

python=$(find_python)
if [[ -z $python ]]; then
  say "no Python of 3.11 or later was found. Install one, or name it: PYTHON=/path/to/python3 $0"
  exit 1
fi

# ---- the virtual environment ------------------------------------------------------------------------------

if [[ ! -x .venv/bin/python ]] || ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))'; then
  say "making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
fi
say "installing the locked dependencies ($kind)"
pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --require-hashes -r "${locked[$kind]}"
"${pip[@]}" install --require-hashes -r requirements/build.txt
# The build tools are installed, with hashes, so nothing unlocked is fetched to build the package.
"${pip[@]}" install --no-deps --no-build-isolation --editable .
stamp_of "$kind" > ".venv/.bootstrap-$kind"
