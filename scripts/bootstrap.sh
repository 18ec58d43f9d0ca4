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
ssh-keygen openssh-client
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
      say "  apt-get install --no-install-recommends $*"
      [[ " $* " != *" postgresql "* ]] ||
        say "postgresql also starts a database server, unless $postgresql_settings says: create_main_cluster = false"
      exit 1
    fi
    as_root=(sudo)
  fi
  say "installing $*"
  local log
  log=$(mktemp)
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive settings="$postgresql_settings" \
    bash -euc "$as_root_install" - "$@" > "$log" 2>&1; then
    cat "$log" >&2
    rm "$log"
    say "these packages could not be installed (the output of apt is above): $*"
    say "They come from the distribution's archive. Check the network; behind a proxy or with a mirror, set up apt for it."
    exit 1
  fi
  rm "$log"
  [[ " $* " != *" postgresql "* ]] ||
    say "PostgreSQL's programs are installed for the tests; no database server was created or started"
}

# Debian's package postgresql creates and starts a database server, also at each boot, unless this file says otherwise. The
# tests need only the programs. Afterwards the file is restored, so that other PostgreSQL packages install as usual.
postgresql_settings=/etc/postgresql-common/createcluster.conf
as_root_install='
  restore() {
    if [[ -e $settings.kept ]]; then mv "$settings.kept" "$settings"
    elif [[ -e $settings.ucf-dist ]]; then mv "$settings.ucf-dist" "$settings"
    else rm -f "$settings"
    fi
  }
  if [[ " $* " == *" postgresql "* ]]; then
    mkdir -p "${settings%/*}"
    trap restore EXIT
    [[ ! -e $settings ]] || cp --preserve "$settings" "$settings.kept"
    echo "create_main_cluster = false" > "$settings"
  fi
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "$@"
'

# The tests of the alert rules need only promtool. Installing its package would start a Prometheus, so it is unpacked.
unpack_promtool() {
  [[ ! -x .venv/bin/promtool ]] && ! command -v promtool > /dev/null && command -v apt-get > /dev/null || return 0
  local folder
  folder=$(mktemp -d)
  chmod 755 "$folder"
  say "unpacking promtool"
  # Until Debian 12 it is in the package prometheus, later in one of its own.
  if (
    cd "$folder"
    apt-get download -qq promtool || apt-get download -qq prometheus
    dpkg-deb --extract ./*.deb .
  ) > "$folder/log" 2>&1 && [[ -x $folder/usr/bin/promtool ]]; then
    install "$folder/usr/bin/promtool" .venv/bin/promtool
  else
    say "promtool cannot be downloaded, so the tests of the alert rules will be skipped: $(tail -n 1 "$folder/log")"
  fi
  rm -r "$folder"
}

# A receiver for the tests of the outlets. Installing its package would start a syslog service, so it is unpacked.
unpack_rsyslog() {
  [[ ! -d .venv/rsyslog ]] && ! command -v rsyslogd > /dev/null && command -v apt-get > /dev/null || return 0
  local folder
  folder=$(mktemp -d)
  chmod 755 "$folder"
  say "unpacking rsyslog"
  if (
    cd "$folder"
    apt-get download -qq rsyslog libestr0 libfastjson4 liblognorm5
    for package in ./*.deb; do dpkg-deb --extract "$package" rsyslog; done
    rsyslog/usr/sbin/rsyslogd -v || LD_LIBRARY_PATH=$(echo "$PWD"/rsyslog/usr/lib/*-linux-*) rsyslog/usr/sbin/rsyslogd -v
  ) > "$folder/log" 2>&1; then
    mv "$folder/rsyslog" .venv/rsyslog
  else
    say "rsyslog cannot be downloaded, so a test of the outlets will be skipped: $(tail -n 1 "$folder/log")"
  fi
  rm -r "$folder"
}

mapfile -t packages < <(missing_packages | tr ' ' '\n' | sort -u)
[[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
if [[ $current == yes ]]; then
  [[ $kind == run ]] || { unpack_promtool; unpack_rsyslog; }
  exit 0
fi

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
if ! { "${pip[@]}" install --require-hashes -r "${locked[$kind]}" &&
  "${pip[@]}" install --require-hashes -r requirements/build.txt; }; then
  say "the locked dependencies could not be installed (the output of pip is above)."
  say "They come from the Python package index. Check the network; behind a proxy set https_proxy, with a mirror"
  say "PIP_INDEX_URL. The lock has wheels for Python 3.11 to 3.14: PYTHON=/path/to/python3.13 $0 chooses one."
  exit 1
fi
# The build tools are installed, with hashes, so nothing unlocked is fetched to build the package.
"${pip[@]}" install --no-deps --no-build-isolation --editable .
[[ $kind == run ]] || { unpack_promtool; unpack_rsyslog; }
stamp_of "$kind" > ".venv/.bootstrap-$kind"
