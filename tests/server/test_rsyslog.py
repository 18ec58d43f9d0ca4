"""Outlets against a syslog receiver that others wrote: rsyslog, as it reads RFC 5424 over TCP and UDP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.ports import free_ports
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer

pytestmark = [pytest.mark.server, pytest.mark.programs]
_UNPACKED = Path(sys.prefix) / "rsyslog"
"""Where `make develop` unpacks it, without installing or starting a service."""


def _program() -> tuple[Path, Path | None]:
    """rsyslogd, and the libraries beside it."""
    libraries = next(_UNPACKED.glob("usr/lib/*/rsyslog"), None)
    if libraries is not None:
        return _UNPACKED / "usr/sbin/rsyslogd", libraries
    found = shutil.which("rsyslogd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("rsyslog is not here: `make develop` unpacks it from Debian's packages")
    return Path(found), None


@contextmanager
def rsyslog(directory: Path, inputs: str) -> Iterator[Path]:
    """Rsyslogd with these inputs; it writes each message that it understood as a JSON object to the file."""
    program, libraries = _program()
    file = directory / "received.jsonl"
    settings = directory / "rsyslog.conf"
    settings.write_text(
        f"""{inputs}
template(name="all" type="list") {{ property(name="jsonmesg") constant(value="\\n") }}
action(type="omfile" file="{file}" template="all")
"""
    )
    command = [str(program), "-n", "-i", str(directory / "pid"), "-f", str(settings)]
    environment = dict(os.environ)
    if libraries is not None:
        command += ["-M", str(libraries)]
        environment["LD_LIBRARY_PATH"] = str(libraries.parent)
    log = (directory / "rsyslog.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        eventually((directory / "pid").exists, within=60, what="rsyslog to run")
        yield file
    finally:
        process.terminate()
        process.wait(PATIENCE)
        log.close()


def received(file: Path) -> list[dict[str, Any]]:
    """What rsyslog understood, whole lines only."""
    whole, _, _ = (file.read_bytes() if file.exists() else b"").rpartition(b"\n")
    return [msgspec.json.decode(line) for line in whole.splitlines()]


def check(server: ProxyServer, file: Path) -> None:
    """A request and a change arrive, with every part of the header where RFC 5424 has it."""
    server.eventually(
        lambda: server.metric("holdfast_outlet_connected", outlet="siem") == 1, within=60, what="a connection"
    )
    server.eventually((server.directory / "catalog.db.outlets").exists, within=60, what="a place")
    server.round_trip()
    command = ("keystore", "block", "test", "--reason", "drill", "--config", str(server.config), "--yes", "--no-wait")
    subprocess.run([sys.executable, "-m", "holdfast", *command], check=True, capture_output=True, timeout=PATIENCE)

    def kinds() -> list[str]:
        return [message["msgid"] for message in received(file)]

    server.eventually(
        lambda: kinds().count("request") == 2 and "change" in kinds(), within=60, what="rsyslog to have all"
    )
    assert server.stop() == 0
    for message in received(file):
        assert (message["app-name"], message["syslogfacility"], message["protocol-version"]) == (
            "holdfast",
            "10",
            "1",
        )
        assert message["structured-data"].startswith("[meta sequenceId=")
        fields = msgspec.json.decode(message["msg"].lstrip())
        assert fields["kind"] == message["msgid"]
        assert message["syslogseverity"] == {"request": "6", "change": "5"}[message["msgid"]]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_rsyslog_takes_messages_over_tcp_and_udp(serve: Serve, tmp_path: Path, kind: str) -> None:
    (port,) = free_ports(1)
    inputs = f"""
global(workDirectory="{tmp_path}")
module(load="im{kind}")
input(type="im{kind}" port="{port}" address="127.0.0.1")
"""
    with rsyslog(tmp_path, inputs) as file:
        check(serve(outlets={"siem": {"to": f"{kind}://127.0.0.1:{port}"}}), file)
