"""An HSM whose calls do not return: all of them, or one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.stress.conftest import SESSIONS, encrypts, shim_of
from tests.stress.load import KMS_PATIENCE, EventsSince, at_once, told, totals

from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from tests.server.client import Caller
    from tests.server.proxy_server import ProxyServer
    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

TIMEOUT = (503, "DependencyTimeoutException")
CALLERS = 6
PROBERS = 3
OWN_SESSIONS = 1 + PROBERS
"""The anchor, and a session for each thread that probes."""


def hang_until_the_breaker_opens(server: ProxyServer, caller: Caller) -> None:
    """Every call of the HSM hangs from now on, and the server knows."""
    shim_of(server).hang()
    for _ in range(SESSIONS):
        assert caller.encrypt(b"hangs").status == 503
    server.eventually(
        lambda: server.metric("holdfast_hsm_breaker_open", hsm="main") == 1, within=5, what="the breaker is open"
    )


def fleet_status(server: ProxyServer) -> str:
    """What KMS is told of the HSM."""
    with server.caller() as caller:
        return str(caller.health().json["ekmFleetDetails"][0]["healthStatus"])


def test_every_request_to_a_hung_hsm_is_a_timeout_before_kms_gives_up(nshield: ProxyServer) -> None:
    callers = [nshield.caller() for _ in range(CALLERS)]
    sealed = callers[0].encrypt(b"before")
    events = EventsSince(nshield)
    shim_of(nshield).hang()
    replies = at_once(callers, lambda caller: caller.encrypt(b"hangs"))
    replies += at_once(callers, lambda caller: caller.decrypt(sealed))
    assert Counter((reply.status, reply.error) for reply in replies) == {TIMEOUT: 2 * CALLERS}
    assert max(totals(events.wait_for(2 * CALLERS))) < KMS_PATIENCE


def test_once_every_session_is_stuck_the_breaker_answers_without_asking_the_hsm(nshield: ProxyServer) -> None:
    with nshield.caller() as caller:
        hang_until_the_breaker_opens(nshield, caller)
        events = EventsSince(nshield)
        assert all(caller.encrypt(b"at once").status == 503 for _ in range(10))
    for event in events.wait_for(10):
        assert (event["milliseconds"]["queue"], event["milliseconds"]["hsm"]) == (0, 0)
        assert event["errorName"] == "DependencyTimeoutException"


def test_a_hung_hsm_is_told_by_ready_and_by_get_health_status(nshield: ProxyServer) -> None:
    with nshield.caller() as caller:
        hang_until_the_breaker_opens(nshield, caller)
    nshield.eventually(lambda: not nshield.is_ready(), within=3, what="/ready says 503")
    nshield.eventually(lambda: fleet_status(nshield) == "UNAVAILABLE", within=3, what="UNAVAILABLE")


def test_key_metadata_of_a_hung_hsm_is_answered_or_a_timeout(nshield: ProxyServer) -> None:
    with nshield.caller() as caller:
        hang_until_the_breaker_opens(nshield, caller)
        reply = caller.metadata()
    assert (reply.status, reply.error) in ((200, ""), TIMEOUT)


def test_service_resumes_within_a_second_of_the_return_and_nothing_late_is_delivered(nshield: ProxyServer) -> None:
    pids = nshield.worker_pids()
    callers = [nshield.caller() for _ in range(CALLERS)]
    for caller in callers:
        caller.health()
    shim_of(nshield).hang()
    assert {reply.status for reply in at_once(callers, lambda caller: caller.encrypt(b"too late"))} == {503}
    shim_of(nshield).release()
    nshield.eventually(lambda: encrypts(nshield), within=1, what="an Encrypt is answered")
    # Each connection is still in step: the next answer is the one to the next request.
    assert {reply.status for reply in at_once(callers, lambda caller: caller.metadata())} == {200}
    assert all("keySpec" in reply.json for reply in at_once(callers, lambda caller: caller.metadata()))
    late = [event for event in nshield.events() if event["status"] == 200 and event["milliseconds"]["total"] > 250]
    assert late == []
    assert nshield.worker_pids() == pids


def test_hanging_again_and_again_leaks_no_session(nshield: ProxyServer) -> None:
    shim = shim_of(nshield)
    callers = [nshield.caller() for _ in range(CALLERS)]
    for _ in range(4):
        shim.hang()
        at_once(callers, lambda caller: caller.encrypt(b"stuck"))
        shim.release()
        nshield.eventually(lambda: encrypts(nshield), within=5, what="an Encrypt is answered")
    nshield.eventually(lambda: shim.sessions <= SESSIONS + OWN_SESSIONS, within=5, what="spare sessions are closed")
    nshield.eventually(
        lambda: (
            (
                nshield.metric("holdfast_hsm_sessions", hsm="main"),
                nshield.metric("holdfast_hsm_quarantined", hsm="main"),
            )
            == (SESSIONS, 0)
        ),
        within=5,
        what="as many sessions as configured",
    )


def test_calls_that_never_return_cost_a_worker_its_place_and_the_hsm_is_served_again(serve: Serve) -> None:
    server = serve("nshield", tls=False, hsm={"sessions": 1})
    shim = shim_of(server)
    (before,) = server.worker_pids()
    shim.strand()
    with server.caller() as caller:
        assert told(caller.encrypt(b"hangs")) == TIMEOUT
        server.eventually(lambda: shim.inside >= 1 + PROBERS, within=30, what="no thread is left that could try")
        shim.release()
        assert told(caller.encrypt(b"nobody can")) == TIMEOUT
        assert server.worker_pids() == [before]
        server.eventually(lambda: encrypts(server), within=60, what="another worker serves")
    server.eventually(lambda: before not in server.worker_pids(), within=60, what="the stranded worker is gone")
    assert server.stop() == 0


def test_one_stuck_call_is_quarantined_and_the_others_do_not_notice(plain: ProxyServer) -> None:
    server = plain
    shim = shim_of(server)
    with server.caller() as unlucky, server.caller() as lucky:
        sealed = unlucky.encrypt(b"to be stuck")
        shim.hang("C_Decrypt")
        reply = unlucky.decrypt(sealed)
        assert (reply.status, reply.error) == TIMEOUT
        events = EventsSince(server)
        assert {lucky.encrypt(b"unharmed").status for _ in range(50)} == {200}
        assert max(totals(events.wait_for(50))) < KMS_PATIENCE
        server.eventually(
            lambda: server.metric("holdfast_hsm_quarantined", hsm="main") == 1, within=3, what="one in quarantine"
        )
        assert server.metric("holdfast_hsm_sessions", hsm="main") == SESSIONS
        shim.release()
        server.eventually(lambda: unlucky.decrypt(sealed).status == 200, within=1, what="a Decrypt is answered")
    server.eventually(
        lambda: server.metric("holdfast_hsm_quarantined", hsm="main") == 0, within=3, what="none in quarantine"
    )
    assert server.metric("holdfast_hsm_sessions", hsm="main") == SESSIONS


def test_an_hsm_that_hangs_at_the_start_of_a_request_only_still_answers_health(nshield: ProxyServer) -> None:
    shim_of(nshield).hang("C_EncryptInit")
    with nshield.caller() as caller:
        assert caller.encrypt(b"hangs").status == 503
        assert caller.call(Operation.GET_HEALTH_STATUS).status == 200
