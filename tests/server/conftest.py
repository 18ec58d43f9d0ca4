"""What every test of a running server starts from.

def test_something(serve: Serve) -> None:
    server = serve(workers=2)                          # SoftHSM, HTTPS, /ready says 200
    assert server.call(Operation.GET_HEALTH_STATUS).status == 200

def test_a_fault(serve: Serve) -> None:
    server = serve("nshield")                          # the shim; server.shim works its faults
    server.shim.hang("C_Encrypt")
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from tests.server.proxy_server import ProxyServer
from tests.shim.control import build
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.shim.control import Personality


class Serve(Protocol):
    """Starts a server that ends with the test."""

    def __call__(self, personality: Personality | None = None, **options: Any) -> ProxyServer:
        """A server that is ready; `options` are those of ProxyServer."""


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SoftHSM token with the keys of tests.server.token.KEYS, copied for each server."""
    directory = tmp_path_factory.mktemp("softhsm")
    subprocess.run([sys.executable, "-m", "tests.server.token", str(directory)], check=True, timeout=PATIENCE)
    return directory


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled once."""
    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def serve(tmp_path: Path, tokens: Path, shim_library: Path) -> Iterator[Serve]:
    """Servers of one test, each in a directory of its own."""
    with ExitStack() as servers:
        count = 0

        def start(personality: Personality | None = None, **options: Any) -> ProxyServer:
            nonlocal count
            count += 1
            library = None if personality is None else shim_library
            server = ProxyServer(
                tmp_path / f"server-{count}", tokens, personality=personality, library=library, **options
            )
            return servers.enter_context(server)

        yield start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[ProxyServer]:
    """One server for the tests of a module that leave it as it was: SoftHSM, HTTPS, one worker."""
    with ProxyServer(tmp_path_factory.mktemp("shared") / "server", tokens) as server:
        yield server
