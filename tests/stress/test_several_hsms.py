"""Several [hsm.NAME] tables in one proxy: what befalls one HSM is felt by its own keys alone."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from tests.server.proxy_server import HSM, KEYSTORE, ProxyServer
from tests.server.token import LIBRARY
from tests.shim.control import environment
from tests.stress.conftest import shim_of
from tests.stress.flood import Flood, encrypt_request
from tests.stress.load import told

from holdfast.xks.types import ExternalKeyId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.server

OTHER = "other"
OTHER_KEY = "other-key"
FIRST_SLOT, SECOND_SLOT = 492971157, 492971159
"""The accelerators of two modules without load-sharing (docs/hsm-notes.md, 1.2)."""
TIMEOUT = (503, "DependencyTimeoutException")


def with_other_hsm(server: ProxyServer, **changes: Any) -> ProxyServer:
    """The server, not started, with a second table, and a key in that HSM."""
    table = {**server.settings["hsm"][HSM], **changes}
    server.settings["hsm"][OTHER] = table
    server.write_config()
    catalog = server.catalog()
    catalog.register_key(KEYSTORE, ExternalKeyId.parse(OTHER_KEY), hsm=OTHER, label="key-2")
    catalog.close()
    return server


@pytest.fixture(scope="module")
def shared_one_library(
    tmp_path_factory: pytest.TempPathFactory, tokens: Path, shim_library: Path
) -> Iterator[ProxyServer]:
    """Two tokens of one module: the accelerators of two nShields without load-sharing. `main` is the second."""
    server = ProxyServer(
        tmp_path_factory.mktemp("one-library") / "server",
        tokens,
        personality="nshield",
        library=shim_library,
        shim={"load_sharing": False},
        tls=False,
        hsm={"token": {"slot": SECOND_SLOT}, "probe_interval_s": 1},
    )
    with with_other_hsm(server, token={"slot": FIRST_SLOT}):
        yield server


@pytest.fixture(scope="module")
def shared_two_libraries(
    tmp_path_factory: pytest.TempPathFactory, tokens: Path, shim_library: Path
) -> Iterator[ProxyServer]:
    """Two modules: the shim as nShield is `main`, and SoftHSM itself is the other."""
    directory = tmp_path_factory.mktemp("two-libraries") / "server"
    server = ProxyServer(directory, tokens, personality="nshield", library=shim_library, tls=False)
    # Another file is another library to the loader: the shim's SoftHSM is not this one.
    alone = shutil.copy(LIBRARY, directory / "libsofthsm2-alone.so")
    table = server.settings["hsm"][HSM]
    pin = {"file": str(directory / "pin")}
    with_other_hsm(server, profile="softhsm2", library=str(alone), token={"label": "holdfast"}, pin=pin)
    table["environment"] |= environment(
        "nshield", control=server.shim, token_pin="1234", token="holdfast", load_sharing=True
    )
    server.write_config()
    with server:
        yield server


@pytest.fixture
def one_library(shared_one_library: ProxyServer) -> Iterator[ProxyServer]:
    """As above."""
    yield from _well(shared_one_library)


@pytest.fixture
def two_libraries(shared_two_libraries: ProxyServer) -> Iterator[ProxyServer]:
    """As above."""
    yield from _well(shared_two_libraries)


@pytest.fixture(params=["one_library", "two_libraries"])
def server(request: pytest.FixtureRequest) -> ProxyServer:
    """Each in turn."""
    server: ProxyServer = request.getfixturevalue(request.param)
    return server


def _well(server: ProxyServer) -> Iterator[ProxyServer]:
    """Well before the test and well after it."""
    yield server
    shim_of(server).clear_faults()
    server.eventually(lambda: both_serve(server), within=5, what="both HSMs serve")


def lose_main(server: ProxyServer, **how: Any) -> None:
    """Lose the device behind `main` alone."""
    slot = server.settings["hsm"][HSM]["token"].get("slot")
    shim_of(server).device_lost(slot=slot, keep_sessions=True, **how)


def both_serve(server: ProxyServer) -> bool:
    """Whether a key of each HSM encrypts now."""
    with server.caller() as caller:
        return (caller.encrypt(b"").status, caller.encrypt(b"", key=OTHER_KEY).status) == (200, 200)


def fleet(server: ProxyServer) -> list[str]:
    """The healthStatus of each entry that KMS is told, sorted."""
    with server.caller() as caller:
        return sorted(entry["healthStatus"] for entry in caller.health().json["ekmFleetDetails"])


def test_keys_of_either_hsm_are_served_and_health_has_an_entry_for_each(server: ProxyServer) -> None:
    with server.caller() as caller:
        for key in ("key-1", OTHER_KEY):
            sealed = caller.encrypt(b"secret", b"aad", key=key)
            assert caller.plaintext(caller.decrypt(sealed, b"aad", key=key)) == b"secret"
            assert caller.metadata(key=key).json["keySpec"] == "AES_256"
        entries = caller.health().json["ekmFleetDetails"]
    assert len({entry["id"] for entry in entries}) == 2
    server.eventually(
        lambda: [server.metric("holdfast_hsm_sessions", hsm=hsm) for hsm in (HSM, OTHER)] == [2, 2],
        within=5,
        what="sessions of both",
    )


def test_a_lost_hsm_fails_its_own_keys_and_the_other_serves_all_the_while(server: ProxyServer) -> None:
    with server.caller() as caller:
        lose_main(server)
        served = []

        def noticed() -> bool:
            served.append(caller.encrypt(b"other", key=OTHER_KEY).status)
            return told(caller.encrypt(b"lost")) == TIMEOUT and "UNAVAILABLE" in fleet(server)

        server.eventually(noticed, within=5, what="the loss is told")
        tried = shim_of(server).calls()["C_OpenSession"]

        def tried_in_vain() -> bool:
            served.append(caller.encrypt(b"other", key=OTHER_KEY).status)
            return shim_of(server).calls()["C_OpenSession"] > tried + 8

        server.eventually(tried_in_vain, within=10, what="attempts to recover")
        assert set(served) == {200}
        assert fleet(server)[-1] == "UNAVAILABLE"
        assert server.is_ready()
        shim_of(server).device_back()
        server.eventually(lambda: caller.encrypt(b"back").status == 200, within=1, what="its keys serve again")


def test_a_hung_hsm_leaves_the_other_serving(two_libraries: ProxyServer) -> None:
    server = two_libraries
    with server.caller() as stuck, server.caller() as caller:
        shim_of(server).hang()
        for _ in range(3):
            assert told(stuck.encrypt(b"hangs")) == TIMEOUT
            assert {caller.encrypt(b"other", key=OTHER_KEY).status for _ in range(20)} == {200}
        server.eventually(lambda: "UNAVAILABLE" in fleet(server), within=5, what="the hang is told")
        shim_of(server).release()
        server.eventually(lambda: stuck.encrypt(b"back").status == 200, within=1, what="its keys serve again")
    server.eventually(lambda: "UNAVAILABLE" not in fleet(server), within=5, what="both are well")


def test_an_hsm_with_four_times_its_load_leaves_the_other_serving(two_libraries: ProxyServer) -> None:
    """Its queue refuses at once what it cannot serve in time: what waited there would count against both."""
    server = two_libraries
    shim_of(server).delay(40, ["C_Encrypt"])  # two sessions: 50 in a second
    served = []
    with server.caller() as one, server.caller() as caller, ThreadPoolExecutor(1) as thread:
        flood = Flood(server.port, [encrypt_request(one)], count=600, interval=1 / 200, connections=64)
        flooding = thread.submit(flood.run)
        while not flooding.done():
            served.append(caller.encrypt(b"other", key=OTHER_KEY).status == 200)
            Event().wait(0.01)
    assert len(flooding.result()) == 600
    assert sum(served) > 0.75 * len(served)  # half of them without that look, and nearly all with it


def test_a_lost_hsm_does_not_cost_the_other_its_sessions_again_and_again(one_library: ProxyServer) -> None:
    server, shim = one_library, shim_of(one_library)
    before = shim.calls()["C_Initialize"]
    lose_main(server)
    with server.caller() as caller:
        server.eventually(lambda: told(caller.encrypt(b"lost")) == TIMEOUT, within=5, what="a timeout")
        tried = shim.calls()["C_OpenSession"]
        server.eventually(lambda: shim.calls()["C_OpenSession"] > tried + 12, within=10, what="attempts to recover")
        assert shim.calls()["C_Initialize"] - before <= 3
        shim.device_back()
        server.eventually(lambda: both_serve(server), within=2, what="both serve")


def test_a_worker_that_is_replaced_while_an_hsm_is_lost_serves_the_other_and_then_both(server: ProxyServer) -> None:
    lose_main(server)
    (before,) = server.worker_pids()
    os.kill(before, signal.SIGKILL)
    with server.caller() as caller:

        def replaced() -> bool:
            try:
                return server.worker_pids() not in ([], [before]) and caller.encrypt(b"", key=OTHER_KEY).status == 200
            except OSError:
                return False

        server.eventually(replaced, within=20, what="a new worker serves the other HSM")
        assert told(caller.encrypt(b"lost")) == TIMEOUT
        assert fleet(server) in (["ACTIVE", "UNAVAILABLE"], ["DEGRADED", "UNAVAILABLE"])
        assert "the HSM main is lost, and its keys fail until it is back" in server.stderr()
        shim_of(server).device_back()
        server.eventually(lambda: caller.encrypt(b"back").status == 200, within=1, what="its keys serve again")
