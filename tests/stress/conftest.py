"""Servers under stress, and one shared nShield for the faults that pass without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.server.conftest import Serve, serve, shim_library, tokens
from tests.server.proxy_server import KEYSTORE, ProxyServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.shim.control import ShimControl

    from holdfast.keys.model import Generation

__all__ = ["Serve", "serve", "shim_library", "tokens"]

SESSIONS = 2
"""Of the shared server, in its one worker."""


def shim_of(server: ProxyServer) -> ShimControl:
    """The fault control of a server that has one."""
    assert server.shim is not None
    return server.shim


@pytest.fixture(scope="session")
def shared_nshield(
    tmp_path_factory: pytest.TempPathFactory, tokens: Path, shim_library: Path
) -> Iterator[ProxyServer]:
    """One server on the shim as nShield, for every test that leaves it as it was."""
    directory = tmp_path_factory.mktemp("nshield") / "server"
    with ProxyServer(
        directory, tokens, personality="nshield", library=shim_library, tls=False, hsm={"sessions": SESSIONS}
    ) as server:
        until_confirmed(server)  # no test then meets the calls that make a canary
        yield server


@pytest.fixture
def nshield(shared_nshield: ProxyServer) -> Iterator[ProxyServer]:
    """The shared server, well before the test and well after it."""
    yield from _well(shared_nshield)


@pytest.fixture(scope="session")
def shared_plain(tmp_path_factory: pytest.TempPathFactory, tokens: Path, shim_library: Path) -> Iterator[ProxyServer]:
    """The same on a token with a login, whose IVs the proxy makes."""
    directory = tmp_path_factory.mktemp("plain") / "server"
    with ProxyServer(
        directory, tokens, personality="plain", library=shim_library, tls=False, hsm={"sessions": SESSIONS}
    ) as server:
        until_confirmed(server)  # no test then meets the calls that make a canary
        yield server


@pytest.fixture
def plain(shared_plain: ProxyServer) -> Iterator[ProxyServer]:
    """As `nshield`."""
    yield from _well(shared_plain)


def _well(server: ProxyServer) -> Iterator[ProxyServer]:
    yield server
    shim_of(server).clear_faults()
    server.wait_ready()
    server.eventually(lambda: encrypts(server), within=5, what="the server is well again")


def encrypts(server: ProxyServer) -> bool:
    """Whether an Encrypt is answered now."""
    with server.caller() as caller:
        return caller.encrypt(b"well").status == 200


def generation_of(server: ProxyServer, key: str = "key-1") -> Generation:
    """The key's current generation, as the catalog has it now."""
    catalog = server.catalog()
    try:
        (keystore,) = (k for k in catalog.snapshot().keystores.values() if k.name == KEYSTORE)
        return keystore.keys[key].active
    finally:
        catalog.close()


def until_confirmed(server: ProxyServer, key: str = "key-1") -> None:
    """The catalog has the key's canary. It is made by a use after its encryption was counted."""
    with server.caller() as caller:

        def confirmed() -> bool:
            return caller.encrypt(b"use", key=key).status == 200 and generation_of(server, key).canary is not None

        server.eventually(confirmed, within=10, what="a canary is recorded")
