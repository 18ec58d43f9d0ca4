"""Installations to look at: the servers of tests/server, started or not."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.server.conftest import serve, shim_library, tokens
from tests.server.proxy_server import ProxyServer
from tests.shim.control import Personality
from tests.waiting import PATIENCE

__all__ = ["serve", "shim_library", "tokens"]

Findings = list[dict[str, str]]
Install = Callable[..., ProxyServer]


@pytest.fixture
def install(tmp_path: Path, tokens: Path, shim_library: Path) -> Iterator[Install]:
    """A server's files, without the server."""
    with ExitStack() as servers:

        def make(personality: Personality | None = None, **options: Any) -> ProxyServer:
            library = None if personality is None else shim_library
            server = ProxyServer(tmp_path / "server", tokens, personality=personality, library=library, **options)
            servers.callback(server.__exit__)
            return server

        yield make


def doctor(server: ProxyServer) -> Findings:
    """What `holdfast doctor` finds, in a process of its own as an operator starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "doctor", "--json", "--config", str(server.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode in {0, 10, 11}, done.stderr
    report = msgspec.json.decode(done.stdout)
    severities = {finding["severity"] for finding in report["findings"]}
    worst = max(severities, key=["ok", "note", "warning", "error"].index)
    assert (report["worst"], done.returncode) == (worst, {"ok": 0, "note": 0, "warning": 10, "error": 11}[worst])
    findings: Findings = report["findings"]
    return findings


def named(findings: Findings, code: str) -> list[dict[str, str]]:
    """The findings with this code."""
    return [finding for finding in findings if finding["code"] == code]
