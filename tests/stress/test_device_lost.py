"""A device that is lost and comes back, in each way that the shim can play."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import NotReady
from tests.stress.conftest import encrypts, shim_of
from tests.stress.load import KMS_PATIENCE, EventsSince, told, totals

if TYPE_CHECKING:
    from tests.server.client import Caller
    from tests.server.proxy_server import ProxyServer
    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

TIMEOUT = (503, "DependencyTimeoutException")
INTERNAL = (500, "InternalException")
PIN_LOCKED = 0xA4
LOGIN_REFUSED = 12
"""The exit code (docs/reference/cli.md)."""
SESSION_COUNT = "CKR_SESSION_COUNT (0xB1)"

LOST = {
    "CKR_DEVICE_ERROR": (0x30, TIMEOUT),
    "CKR_DEVICE_REMOVED": (0x32, TIMEOUT),
    "CKR_TOKEN_NOT_PRESENT": (0xE0, TIMEOUT),
    # These two may mean anything: the request that meets them is told so, and those after the probe get a timeout.
    "CKR_FUNCTION_FAILED": (0x06, INTERNAL),
    "CKR_GENERAL_ERROR": (0x05, INTERNAL),
}


def until_refused_at_once(server: ProxyServer, caller: Caller) -> None:
    """The probe has found the device lost, too."""
    server.eventually(lambda: told(caller.encrypt(b"lost")) == TIMEOUT, within=5, what="a timeout")
    server.eventually(lambda: not server.is_ready(), within=5, what="/ready says 503")


def back_within_a_second(server: ProxyServer) -> None:
    """The time that the issue sets."""
    server.eventually(lambda: encrypts(server), within=1, what="an Encrypt is answered")
    server.eventually(server.is_ready, within=1, what="/ready says 200")


@pytest.mark.parametrize(("ckr", "first"), LOST.values(), ids=LOST)
def test_a_lost_device_is_an_error_in_time_and_serves_again_within_a_second(
    nshield: ProxyServer, ckr: int, first: tuple[int, str]
) -> None:
    pids = nshield.worker_pids()
    with nshield.caller() as caller:
        sealed = caller.encrypt(b"before", b"aad")
        events = EventsSince(nshield)
        shim_of(nshield).device_lost(ckr)
        assert told(caller.encrypt(b"lost")) in (first, TIMEOUT)
        # A good ciphertext is never called a bad one, whatever the code means elsewhere.
        assert told(caller.decrypt(sealed, b"aad")) in (first, TIMEOUT)
        until_refused_at_once(nshield, caller)
        assert max(totals(events.wait_for(2))) < KMS_PATIENCE
        shim_of(nshield).device_back()
        back_within_a_second(nshield)
        opened = caller.decrypt(sealed, b"aad")
        assert (opened.status, caller.plaintext(opened)) == (200, b"before")
    assert nshield.worker_pids() == pids


def test_a_library_that_is_dead_until_it_is_initialized_again_serves_again(nshield: ProxyServer) -> None:
    shim = shim_of(nshield)
    with nshield.caller() as caller:
        shim.device_lost(needs_reinit=True)
        until_refused_at_once(nshield, caller)
        initialized = shim.calls()["C_Initialize"]
        shim.device_back()
        back_within_a_second(nshield)
    assert shim.calls()["C_Initialize"] > initialized
    assert shim.finalized_while_inside == 0


def test_an_initialisation_that_fails_a_few_times_is_tried_until_it_succeeds(nshield: ProxyServer) -> None:
    shim = shim_of(nshield)
    with nshield.caller() as caller:
        shim.device_lost(needs_reinit=True)
        until_refused_at_once(nshield, caller)
        shim.fail_initialize(3)
        shim.device_back()
        nshield.eventually(lambda: shim.failures_left("C_Initialize") == 0, within=5, what="three failures")
        back_within_a_second(nshield)


def test_an_error_of_c_finalize_does_not_keep_the_module_from_coming_back(nshield: ProxyServer) -> None:
    shim = shim_of(nshield)
    shim.fail_finalize()
    with nshield.caller() as caller:
        shim.device_lost(needs_reinit=True)
        until_refused_at_once(nshield, caller)
        shim.device_back()
        back_within_a_second(nshield)


def test_sessions_that_are_closed_by_a_pulled_card_cost_no_answer(nshield: ProxyServer) -> None:
    with nshield.caller() as caller:
        sealed = caller.encrypt(b"before")
        for _ in range(5):
            shim_of(nshield).close_sessions()
            assert (caller.encrypt(b"after").status, caller.decrypt(sealed).status) == (200, 200)


def test_a_token_out_of_sessions_throttles_until_it_has_some(nshield: ProxyServer) -> None:
    shim = shim_of(nshield)
    with nshield.caller() as caller:
        events = EventsSince(nshield)
        shim.session_limit(0)
        shim.close_sessions()
        assert told(caller.encrypt(b"no session")) == (429, "ThrottlingException")
        assert events.wait_for(1)[0]["ckr"] == SESSION_COUNT
        shim.session_limit(None)
        back_within_a_second(nshield)


def test_a_login_race_is_won_by_whoever_was_faster(plain: ProxyServer) -> None:
    shim = shim_of(plain)
    shim.lose_login_race()
    with plain.caller() as caller:
        for _ in range(3):
            shim.close_sessions()
            assert caller.encrypt(b"logged in").status == 200


def test_a_locked_pin_is_tried_once_by_a_running_worker(serve: Serve) -> None:
    server = serve("plain", tls=False, hsm={"probe_interval_s": 1})
    shim = shim_of(server)
    before = shim.calls()["C_Login"]
    shim.refuse_login(PIN_LOCKED)
    shim.close_sessions()
    with server.caller() as caller:
        server.eventually(lambda: told(caller.encrypt(b"refused")) == INTERNAL, within=5, what="InternalException")
        server.eventually(lambda: not server.is_ready(), within=5, what="/ready says 503")
        # The probes go on all the while, every quarter of a second.
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert told(caller.encrypt(b"refused")) == INTERNAL
    assert shim.calls()["C_Login"] == before + 1


def test_a_refused_pin_is_not_tried_again_by_worker_after_worker_until_the_operator_says_so(serve: Serve) -> None:
    server = serve("plain", tls=False)
    shim = shim_of(server)
    before = shim.calls()["C_Login"]
    server.eventually(lambda: server.metric("holdfast_workers_ready") == 1, within=10, what="a worker")
    shim.refuse_login()
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    server.eventually(lambda: "the token refused the login" in server.stderr(), within=10, what="a refusal")
    # Another worker would be there in half this time: its try, and the next one's, would lock the token.
    with pytest.raises(NotReady, match="not within"):
        server.eventually(lambda: shim.calls()["C_Login"] > before + 1, within=3, what="a second try")
    shim.succeed("C_Login")
    server.hangup()
    server.wait_ready()
    server.round_trip()


def test_a_wrong_pin_costs_one_login_however_many_workers_are_to_start(serve: Serve) -> None:
    server = serve("plain", tls=False, workers=3, wait=False, autostart=False)
    shim = shim_of(server)
    shim.refuse_login()
    server.start()
    assert server.wait_end(within=20) == LOGIN_REFUSED
    assert shim.calls()["C_Login"] == 1
