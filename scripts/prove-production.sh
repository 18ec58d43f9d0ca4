#!/usr/bin/env bash
# Runs every shell block of docs/how-to/production.md, then of backup-and-restore.md, in order, in a fresh Debian, and
# fails with the first that does.
# systemd does not run in a chroot: a small `systemctl` starts what the installed unit names, as its user and with its
# capability; the unit's sandbox is not applied. A block after an HTML comment `<!-- not run: reason -->` is left out.
#
# Usage: scripts/prove-production.sh [SUITE]     (default: trixie; also bookworm)
# Needs root, debootstrap, the network and port 443; takes about three minutes. Not part of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${1:-trixie}
[[ $EUID == 0 ]] || { echo "prove-production: run it as root" >&2; exit 2; }
command -v debootstrap > /dev/null || apt-get install --yes --no-install-recommends debootstrap
if (: < /dev/tcp/127.0.0.1/443) 2> /dev/null; then echo "prove-production: port 443 is taken" >&2; exit 2; fi

root=$(mktemp -d "${TMPDIR:-/tmp}/prove-production.XXXXXX")
chmod 755 "$root"
run() { chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
finish() {
  [[ ! -e $root/usr/bin/pg_lsclusters ]] ||
    run sh -c 'pg_lsclusters --no-header | while read -r version name rest; do pg_ctlcluster "$version" "$name" stop; done' || true
  if [[ -e $root/run/holdfast.pid ]]; then kill -TERM "$(cat "$root/run/holdfast.pid")" 2> /dev/null && sleep 2; fi
  for mounted in dev/shm dev proc; do umount --lazy "$root/$mounted" 2> /dev/null || true; done
  rm -rf --one-file-system "$root"
}
trap finish EXIT

# ---- a fresh Debian, with this machine's settings for its package registries ----------------------------------

# Debian's own archive among this machine's sources; without one, debootstrap's default.
mirror=$(grep -rhE '^(deb|URIs:) ' /etc/apt/sources.list* | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 || true)
debootstrap --variant=minbase --include=ca-certificates,sudo,systemd "$suite" "$root" ${mirror:+"$mirror"} > "$root.log" 2>&1 ||
  { tail -20 "$root.log"; exit 1; }
rm "$root.log"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
cp /etc/resolv.conf "$root/etc/"
echo "127.0.0.1 localhost $(hostname)" > "$root/etc/hosts"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for setting in /etc/pip.conf /etc/apt/auth.conf.d /etc/apt/apt.conf.d/99*; do
  [[ ! -e $setting ]] || cp -r "$setting" "$root$setting"
done
install -d "$root/root/holdfast"
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - | tar --extract --directory "$root/root/holdfast"

# ---- instead of systemd ----------------------------------------------------------------------------------------

install -m 755 /dev/stdin "$root/usr/local/bin/systemctl" << 'END'
#!/bin/bash
# start, stop, restart, reload and enable --now of holdfast.service, by what the installed unit says.
set -euo pipefail
unit=/etc/systemd/system/holdfast.service
setting() { sed -n "s/^$1=//p" "$unit" | tail -1; }
start() {
  local user=$(setting User)
  install -d -m "$(setting StateDirectoryMode)" -o "$user" -g "$user" "/var/lib/$(setting StateDirectory)"
  install -d -o "$user" -g "$user" "/var/log/$(setting LogsDirectory)"
  cd "$(setting WorkingDirectory)"
  umask "$(setting UMask)"
  setpriv --reuid "$user" --regid "$user" --init-groups --no-new-privs --inh-caps=-all,+net_bind_service \
    --ambient-caps=-all,+net_bind_service --bounding-set=-all,+net_bind_service \
    $(setting ExecStart) < /dev/null >> /run/holdfast.log 2>&1 &
  (umask 022; echo $! > /run/holdfast.pid)
}
stop() {
  kill -TERM "$(cat /run/holdfast.pid)"
  while kill -0 "$(cat /run/holdfast.pid)" 2> /dev/null; do sleep 0.1; done
}
case "$*" in
  daemon-reload) ;;
  "start holdfast" | "enable --now holdfast") start ;;
  "stop holdfast") stop ;;
  "restart holdfast") stop; start ;;
  "reload holdfast") kill -HUP "$(cat /run/holdfast.pid)" ;;
  *) echo "systemctl: $* is not known here" >&2; exit 1 ;;
esac
END

# ---- a page ----------------------------------------------------------------------------------------------------

blocks() {
  python3 - "$1" << 'END'
import re
import shlex
import sys

page = sys.argv[1]
print("set -euo pipefail\ncd /root/holdfast\nexport DEBIAN_FRONTEND=noninteractive")
skipped, section, inside = False, "", False
for number, line in enumerate(open(page).read().splitlines(), 1):
    if inside:
        inside = line != "```"
        if inside and not skipped:
            print(line)
        continue
    if line.startswith("#"):
        section = line.lstrip("# ")
        if section == "Upgrade":  # From another version's source: this one's, with another number.
            print("""sed -i -E 's/^(__version__ = ".*)"/\\1.post1"/' src/holdfast/_version.py""")
    if line == "```sh":
        inside = True
        if not skipped:
            print(f"printf '\\n==> {shlex.quote(page)}:{number} %s\\n' {shlex.quote(section)}")
    elif line.strip():
        skipped = bool(re.fullmatch(r"<!-- not run: .* -->", line))
END
}

run_page() {
  blocks "$1" > "$root/root/blocks.sh"
  run bash /root/blocks.sh && return
  echo "prove-production: the last block above failed; the service said:" >&2
  tail -30 "$root/run/holdfast.log" >&2 || true
  exit 1
}

run apt-get update --quiet --quiet

# ---- production.md, and what it promises besides -----------------------------------------------------------------

run_page docs/how-to/production.md
run logrotate --force /etc/logrotate.d/holdfast
run sudo -u holdfast holdfast prove prod prod-1 --ca /etc/holdfast/tls/certificate.pem --wait 30
run bash -c 'for try in {1..50}; do [[ -s /var/log/holdfast/events.jsonl ]] && exit; sleep 0.1; done; exit 1' ||
  { echo "prove-production: no event in the new log after logrotate" >&2; exit 1; }
run sudo -u holdfast holdfast docs production > /dev/null
# Root's command must leave nothing that the service cannot read.
run holdfast credential issue prod
foreign=$(run find /var/lib/holdfast -not -user holdfast)
[[ -z $foreign ]] || { echo "prove-production: not the service's: $foreign" >&2; exit 1; }

# ---- backup-and-restore.md, on what that page has set up ---------------------------------------------------------

run_page docs/how-to/backup-and-restore.md
echo "prove-production: every block of production.md and backup-and-restore.md works on $suite"
