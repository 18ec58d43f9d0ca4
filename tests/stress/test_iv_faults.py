"""IVs that are not safe, and ciphertexts that are not right: nothing of either leaves the server."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from tests.server.proxy_server import NotReady, ProxyServer
from tests.stress.conftest import shim_of, until_confirmed
from tests.stress.load import EventsSince, callers_of_every_worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.client import Caller, Reply
    from tests.shim.control import Personality
    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

INTERNAL = (500, "InternalException")
BULK = 4096 // 12
"""IVs in one C_GenerateRandom."""
FAULTS: dict[str, tuple[Personality, str, str]] = {
    "the module repeats its IV": ("nshield", "repeat_iv", "an IV came back a second time"),
    "the module makes zero IVs": ("nshield", "zero_iv", "the IV is all zero"),
    "the module leaves the IV as it was": ("nshield", "unchanged_iv", "the IV is all zero"),
    "the module appends an IV of a wrong length": ("luna", "short_output", "35 bytes instead of 36"),
    "the module returns a short tag": ("nshield", "short_output", "19 bytes instead of 20"),
    "C_GenerateRandom repeats itself": ("plain", "repeat_random", "an IV came back a second time"),
    "C_GenerateRandom gives zeros": ("plain", "zero_random", "the IV is all zero"),
}


def until_refused(caller: Caller, *, key: str) -> tuple[list[Reply], Reply]:
    """What was encrypted before the first refusal, and the refusal."""
    sealed: list[Reply] = []
    for _ in range(BULK + 3):
        reply = caller.encrypt(b"same", key=key)
        if reply.status != 200:
            return sealed, reply
        sealed.append(reply)
    raise AssertionError("the key goes on encrypting")


@pytest.mark.parametrize(("personality", "fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_an_unsafe_iv_stops_that_key_and_says_why_while_it_still_decrypts(
    serve: Serve, personality: Personality, fault: str, reason: str
) -> None:
    server = serve(personality, tls=False, hsm={"sessions": 1, "probe_interval_s": 60})
    until_confirmed(server)  # the fault must meet the request, not the making of a canary
    switch = getattr(shim_of(server), fault)
    with server.caller() as caller:
        before = caller.encrypt(b"before")
        switch(True)
        sealed, refusal = until_refused(caller, key="key-1")
        assert (refusal.status, refusal.error) == INTERNAL
        ivs = [reply.json["initializationVector"] for reply in (before, *sealed)]
        assert len(set(ivs)) == len(ivs)
        assert "AAAAAAAAAAAAAAAA" not in ivs
        switch(False)
        # The generator is well again, and nobody knows for how long: the key stays stopped.
        events = EventsSince(server)
        assert caller.encrypt(b"never again").error == "InternalException"
        assert reason in events.wait_for(1)[0]["detail"]
        assert caller.plaintext(caller.decrypt(before)) == b"before"
        # Nothing is left of the random bytes that were fetched meanwhile.
        assert caller.encrypt(b"another key", key="key-2").status == 200
    server.eventually(
        lambda: server.metric("holdfast_hsm_unsafe_keys", hsm="main") == 1, within=5, what="a stopped key is counted"
    )


def test_a_key_that_one_worker_has_stopped_is_stopped_in_every_worker_and_in_those_that_replace_them(
    serve: Serve,
) -> None:
    server = serve("nshield", tls=False, workers=2, hsm={"sessions": 1})
    with ExitStack() as stack:
        callers = callers_of_every_worker(server, stack)
        before = callers[0].encrypt(b"before")
        shim_of(server).zero_iv(True)
        assert callers[0].encrypt(b"refused").error == "InternalException"
        shim_of(server).zero_iv(False)

        def stopped() -> bool:
            return {caller.encrypt(b"never again").error for caller in callers} == {"InternalException"}

        server.eventually(stopped, within=5, what="every worker has stopped the key")
        assert {caller.decrypt(before).status for caller in callers} == {200}
        assert {caller.encrypt(b"another key", key="key-2").status for caller in callers} == {200}
    server.eventually(
        lambda: "ALARM: no worker encrypts with the key 'key-1'" in server.stderr(), within=5, what="an alarm"
    )
    server.eventually(
        lambda: server.metric("holdfast_hsm_unsafe_keys", hsm="main") == 1, within=5, what="one key is counted once"
    )
    pids = set(server.worker_pids())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    server.eventually(
        lambda: not pids & set(server.worker_pids()) and server.metric("holdfast_workers_ready") == 2,
        within=20,
        what="two new workers",
    )
    with ExitStack() as stack:
        for caller in callers_of_every_worker(server, stack):
            assert caller.encrypt(b"never again").error == "InternalException"
            assert caller.decrypt(before).status == 200
    # The new workers' first reports are on their way.
    server.eventually(
        lambda: server.metric("holdfast_hsm_unsafe_keys", hsm="main") == 1, within=5, what="one key is counted once"
    )


@pytest.mark.parametrize("personality", ["plain", "nshield"])
def test_with_a_cdiv_a_ciphertext_that_was_damaged_is_never_returned(
    request: pytest.FixtureRequest, personality: Personality
) -> None:
    server: ProxyServer = request.getfixturevalue(personality)
    wanted: dict[str, Any] = {"ciphertextDataIntegrityValueAlgorithm": "SHA_256"}
    with server.caller() as caller:
        assert "ciphertextDataIntegrityValue" in caller.encrypt(b"whole", b"aad", **wanted).json
        shim_of(server).corrupt_output(True)
        for _ in range(3):
            damaged = caller.encrypt(b"damaged", b"aad", **wanted)
            assert (damaged.status, damaged.error) == INTERNAL
            assert set(damaged.json) <= {"errorName", "errorMessage"}
        shim_of(server).corrupt_output(False)
        server.eventually(
            lambda: caller.encrypt(b"whole again", **wanted).status == 200, within=2, what="whole ciphertexts"
        )


def test_a_module_that_ignores_a_missing_iv_is_never_served(tmp_path: Path, tokens: Path, shim_library: Path) -> None:
    nshield = {"profile": "nshield"}
    with (
        pytest.raises(NotReady, match=r"(?s)ended with 7") as caught,
        ProxyServer(tmp_path / "server", tokens, personality="silent-zero", library=shim_library, hsm=nshield),
    ):
        pass
    assert 'iv_mode = "hsm-in-place" is wrong for this module: it did not make an IV' in str(caught.value)
    assert 'set iv_mode = "proxy"' in str(caught.value)
