"""Two nodes on one PostgreSQL: a block is confirmed by both, or the one that is cut off stops by itself in time."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from tests.administered import Catalog
from tests.server.proxy_server import ACCESS_KEY_ID, KEYSTORE, PREFIX, SECRET_ACCESS_KEY, ProxyServer
from tests.waiting import PATIENCE

from holdfast.cli.exit_codes import ExitCode
from holdfast.xks.types import ExternalKeyId, UriPathPrefix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.store.postgresql import Cluster

pytestmark = pytest.mark.server

LEASE = 2.0


class Relay:
    """A TCP port before a Unix socket, that can be cut: what is on the way is lost, and nothing more gets through."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._is_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """As a firewall that drops everything: nobody is told."""
        self._is_cut.set()

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._is_cut.is_set():
                    sink.sendall(data)


@contextmanager
def relayed(target: str) -> Iterator[Relay]:
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()


def node(directory: Path, tokens: Path, url: str, *, name: str, secrets: Path) -> ProxyServer:
    """A node, not started."""
    server = ProxyServer(directory, tokens, workers=2, tls=False, autostart=False)
    server.settings["catalog"] = {"url": url, "secrets_directory": str(secrets), "stale_limit_s": LEASE}
    server.settings["catalog"]["state"] = str(directory / "seen")
    server.settings["node"] = {"name": name, "site": name.partition("-")[0]}
    server.write_config()
    return server


def holdfast(server: ProxyServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with the configuration of a node."""
    line = [sys.executable, "-m", "holdfast", *arguments, "--config", str(server.config)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_a_block_is_in_force_on_all_nodes_or_says_which_is_silent_and_that_one_stops_within_its_lease(
    tmp_path: Path, tokens: Path, postgresql: Cluster
) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(postgresql.lent())
        secrets = tmp_path / "secrets"
        secrets.mkdir(mode=0o700)
        catalog = Catalog.create_or_upgrade(url, secrets, now=lambda: datetime.now(UTC))
        stack.callback(catalog.close)
        catalog.create_keystore(KEYSTORE, UriPathPrefix.parse(PREFIX))
        catalog.issue_credential(KEYSTORE, (ACCESS_KEY_ID, SECRET_ACCESS_KEY))
        catalog.register_key(KEYSTORE, ExternalKeyId.parse("key-1"), hsm="main", label="key-1")
        parts = urlsplit(url)  # postgresql://holdfast@/NAME?host=FOLDER
        relay = stack.enter_context(relayed(f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"))
        far_url = f"postgresql://holdfast@127.0.0.1:{relay.port}{parts.path}"
        near = node(tmp_path / "near", tokens, url, name="madrid-1", secrets=secrets)
        far = node(tmp_path / "far", tokens, far_url, name="paris-1", secrets=secrets)
        for server in (near, far):
            stack.enter_context(server)
            server.start()
        near.eventually(
            lambda: [one.version for one in catalog.nodes()] == [catalog.version()] * 2,
            within=20,
            what="both nodes report",
        )
        done = holdfast(near, "keystore", "block", "--all", "--yes")
        assert done.returncode == 0, done.stderr
        assert "In force on 2 of 2 nodes after " in done.stderr
        for server in (near, far):
            with server.caller() as caller:
                assert caller.encrypt(b"").error == "InvalidStateException"
        assert holdfast(near, "keystore", "unblock", "--all", "--yes").returncode == 0
        shown = msgspec.json.decode(holdfast(near, "node", "list", "--json").stdout)
        assert [(one["name"], one["site"], one["state"], one["hsms"]) for one in shown] == [
            ("madrid-1", "madrid", "runs", {"main": "ACTIVE"}),
            ("paris-1", "paris", "runs", {"main": "ACTIVE"}),
        ]
        with near.caller() as here, far.caller() as there:
            sealed = there.encrypt(b"before")
            assert (sealed.status, here.decrypt(sealed).status) == (200, 200)
            relay.cut()
            catalog.set_blocked(KEYSTORE, blocked=True)
            blocked_at = time.monotonic()
            near.eventually(
                lambda: here.decrypt(sealed).error == "InvalidStateException", within=10, what="the near node blocks"
            )
            while True:
                asked_at = time.monotonic()
                answer = there.decrypt(sealed)
                if answer.error == "InvalidStateException":
                    break
                assert answer.status in (200, 503)
                assert asked_at < blocked_at + LEASE, "served after its lease has ended"
        done = holdfast(near, "keystore", "set", KEYSTORE, "--region", "us-east-2", "--yes")
        assert done.returncode == ExitCode.NOT_IN_FORCE, done.stderr
        assert "NOT IN FORCE EVERYWHERE: confirmed on 1 of 2 nodes" in done.stderr
        assert "paris-1 is silent" in done.stderr
        assert "it blocks everything by itself at" in done.stderr
        relay.close()  # what hangs in the database fails now, so that the node can end
