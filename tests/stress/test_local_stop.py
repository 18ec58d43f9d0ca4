"""`holdfast emergency stop` on a node whose catalog is away, whose disk is full, and which is started again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import KEYSTORE, ProxyServer
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.server

STOPPED = "InvalidStateException"


def emergency(server: ProxyServer, *arguments: str) -> str:
    """What the command said."""
    line = [sys.executable, "-m", "holdfast", "emergency", *arguments, "--config", str(server.config)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    place = tmp_path / "small"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def fill(place: Path) -> None:
    """Until not a byte more can be written."""
    try:
        with (place / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 512)
    except OSError as full:
        if full.errno != errno.ENOSPC:
            raise


def test_a_stop_holds_without_catalog_and_disk_space_after_a_restart_until_a_person_lifts_it(
    tmp_path: Path, tokens: Path, small_disk: Path
) -> None:
    server = ProxyServer(tmp_path / "server", tokens, workers=2, tls=False, autostart=False)
    server.settings["catalog"]["state"] = str(small_disk / "seen")
    server.write_config()
    catalog_file = server.directory / "catalog.db"
    away = catalog_file.with_name("away.db")
    with server:
        server.start()
        with server.caller() as caller:
            sealed = caller.encrypt(b"before")
            assert sealed.status == 200
            catalog_file.rename(away)
            fill(small_disk)
            said = emergency(server, "stop", "--all", "--reason", "drill")
            assert "In force in " in said
            assert "Stopped every keystore on this node." in said
            # It was said of the effect: from here on nothing is served.
            assert {caller.decrypt(sealed).error, caller.encrypt(b"").error} == {STOPPED}
        server.eventually(lambda: not server.is_ready(), within=2, what="/ready is 503")
        server.eventually(lambda: server.metric("holdfast_emergency_stop") == 1, within=5, what="the metric says it")
        server.eventually(lambda: "ALARM: EMERGENCY STOP" in server.stderr(), within=2, what="it is said")
        server.stop()
        away.rename(catalog_file)
        server.start(wait=False)
        server.eventually(lambda: blocked(server), within=20, what="the stop is recorded in the catalog")
        with server.caller() as caller:
            server.eventually(lambda: caller.decrypt(sealed).error == STOPPED, within=20, what="it refuses again")
            with closing(server.catalog()) as catalog:
                catalog.set_blocked(KEYSTORE, blocked=False)
            server.eventually(lambda: looked_since(server), within=10, what="the node serves the newest version")
            assert caller.decrypt(sealed).error == STOPPED  # the catalog allows it, and the node does not
            emergency(server, "lift", "--all", "--yes")
            server.eventually(lambda: caller.decrypt(sealed).status == 200, within=5, what="it is served again")


def blocked(server: ProxyServer) -> bool:
    """Whether the catalog blocks the keystore."""
    with closing(server.catalog()) as catalog:
        return all(row.blocked for row in catalog.keystores())


def looked_since(server: ProxyServer) -> bool:
    """Whether the node has confirmed the catalog's version."""
    with closing(server.catalog()) as catalog:
        return [node.version for node in catalog.nodes()] == [catalog.version()]
