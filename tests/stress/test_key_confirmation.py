"""The HSM's keys change under a running server: nothing is encrypted under another key, nothing is called corrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import HSM, KEYSTORE
from tests.server.token import LIBRARY, PIN, TOKEN, softhsm_environment
from tests.stress.conftest import generation_of, shim_of, until_confirmed
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.server.proxy_server import ProxyServer
    from tests.stress.conftest import Serve

pytestmark = pytest.mark.server

INTERNAL = (500, "InternalException")
TIMEOUT = (503, "DependencyTimeoutException")

_SCRIPT = """
import sys
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.xks.secret import Secret

library, token, pin, action, label = sys.argv[1:]
settings = HsmSettings("other", "softhsm2", library, TokenSelector(label=token), "h", pin=Secret.of_text(pin))
attributes = {0: 4, 1: True, 2: True, 3: label.encode(), 0x161: 32, 0x103: action != "extractable",
              0x162: action == "extractable", 0x104: True, 0x105: True}
with Inspector(settings) as inspector:
    if action != "twin":
        inspector.destroy_key(*inspector.find_keys(label))
    if action != "delete":
        if action == "twin":
            attributes[0x102] = b"\\xf1"
        inspector._cryptoki.generate_key(inspector._open(), 0x1080, attributes)
"""


def hsm_operator(server: ProxyServer, action: str, label: str = "key-1") -> None:
    """Somebody with the token's PIN, in a process of their own: swap, extractable, delete or twin."""
    subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(LIBRARY), TOKEN, PIN, action, label],
        check=True,
        timeout=PATIENCE,
        env={**os.environ, **softhsm_environment(server.directory)},
    )


@pytest.mark.parametrize("action", ["swap", "extractable"])
def test_a_key_swapped_under_its_label_stops_and_its_data_are_not_called_corrupt(serve: Serve, action: str) -> None:
    server = serve(tls=False, workers=2)
    with server.caller() as caller:
        sealed = caller.encrypt(b"of the first key")
        other = caller.encrypt(b"of another key", key="key-2")
        until_confirmed(server)
        assert "canaries were made for keys that were registered without one" in server.stderr()
        hsm_operator(server, action)
        server.hangup()
        for _ in range(20):
            assert (caller.encrypt(b"refused").status, caller.encrypt(b"refused").error) == INTERNAL
            opened = caller.decrypt(sealed)
            assert (opened.status, opened.error) == INTERNAL
        assert (caller.metadata().status, caller.metadata().error) == INTERNAL
        assert caller.decrypt(other, key="key-2").status == 200
    server.eventually(lambda: "ALARM: HSM main: " in server.stderr(), within=5, what="an alarm")
    server.eventually(
        lambda: server.metric("holdfast_hsm_untrusted_keys", hsm=HSM) == 1, within=5, what="the key is counted"
    )


def test_the_probe_finds_a_swapped_key_without_a_request(serve: Serve) -> None:
    server = serve(tls=False, hsm={"probe_interval_s": 1})
    with server.caller() as caller:
        assert caller.encrypt(b"seen").status == 200
        until_confirmed(server)
    hsm_operator(server, "swap")
    server.eventually(
        lambda: server.metric("holdfast_hsm_untrusted_keys", hsm=HSM) == 1, within=15, what="the key is counted"
    )
    assert "is not the key that was registered" in server.stderr()


def test_an_extractable_key_is_served_where_the_configuration_allows_it(serve: Serve) -> None:
    server = serve(tls=False, autostart=False, hsm={"allow_extractable": True})
    hsm_operator(server, "extractable")
    server.start()
    server.round_trip()


def test_a_deleted_key_is_a_timeout_first_and_missing_after_a_probe(serve: Serve) -> None:
    server = serve(tls=False)
    with server.caller(patient=False) as caller:
        assert caller.encrypt(b"seen").status == 200
        hsm_operator(server, "delete")
        first = caller.encrypt(b"gone")
        assert (first.status, first.error) == TIMEOUT
        server.eventually(
            lambda: caller.encrypt(b"gone").error == "KeyNotFoundException", within=5, what="the key is missing"
        )
        assert caller.encrypt(b"another", key="key-2").status == 200


def test_a_module_that_shows_no_objects_is_a_timeout_and_never_a_missing_key(serve: Serve) -> None:
    server = serve("plain", tls=False)
    with server.caller() as caller:
        sealed = caller.encrypt(b"before")
        shim_of(server).find_nothing(True)
        shim_of(server).close_sessions()
        for _ in range(20):
            for key in ("key-1", "key-2"):
                assert caller.encrypt(b"gone?", key=key).error in (TIMEOUT[1], INTERNAL[1])
            assert caller.decrypt(sealed).error in (TIMEOUT[1], INTERNAL[1])
        shim_of(server).find_nothing(False)
        server.eventually(lambda: caller.decrypt(sealed).status == 200, within=5, what="a Decrypt is answered")


def unsafe_ivs(server: ProxyServer) -> int:
    """Requests so far that were refused for an IV of zeros."""
    return sum("the IV is all zero" in event.get("detail", "") for event in server.events())


def test_an_unsafe_iv_stops_the_key_in_the_catalog_until_a_person_releases_it(serve: Serve) -> None:
    server = serve("nshield", tls=False, workers=2, hsm={"sessions": 1})
    with server.caller() as caller:
        before = caller.encrypt(b"before")
        shim_of(server).zero_iv(True)
        assert caller.encrypt(b"refused").error == "InternalException"
        shim_of(server).zero_iv(False)
        server.eventually(lambda: generation_of(server).stopped is not None, within=10, what="the stop is recorded")
    server.stop()
    server.start()
    with server.caller() as caller:
        refused = unsafe_ivs(server)
        assert caller.encrypt(b"still stopped").error == "InternalException"
        server.eventually(lambda: unsafe_ivs(server) > refused, within=5, what="the event says why")
        assert caller.decrypt(before).status == 200
        server.eventually(
            lambda: server.metric("holdfast_hsm_unsafe_keys", hsm=HSM) == 1, within=5, what="the key is counted"
        )
        release = [sys.executable, "-m", "holdfast", "key", "release", KEYSTORE, "key-1", "--yes"]
        subprocess.run([*release, "--config", str(server.config)], check=True, timeout=PATIENCE, capture_output=True)
        server.eventually(lambda: caller.encrypt(b"released").status == 200, within=5, what="an Encrypt is answered")
    server.eventually(lambda: server.metric("holdfast_hsm_unsafe_keys", hsm=HSM) == 0, within=5, what="none counted")


def test_a_stop_made_by_another_proxy_is_taken_over(serve: Serve) -> None:
    server = serve(tls=False)
    catalog = server.catalog()
    catalog.stop_generation(generation_of(server).id, "another proxy saw an IV twice")
    catalog.close()
    with server.caller() as caller:
        server.eventually(
            lambda: caller.encrypt(b"stopped").error == "InternalException", within=5, what="the stop is in force"
        )
        assert caller.encrypt(b"another", key="key-2").status == 200
    server.eventually(lambda: "no worker encrypts with the key 'key-1'" in server.stderr(), within=5, what="an alarm")


def test_a_canary_that_another_worker_recorded_first_is_opened_by_all(serve: Serve) -> None:
    server = serve(tls=False, workers=2)
    for _ in range(8):
        with server.caller() as caller:
            assert caller.encrypt(b"first sight").status == 200
    until_confirmed(server)
    for _ in range(8):
        with server.caller() as caller:
            assert caller.encrypt(b"confirmed").status == 200
    assert server.metric("holdfast_hsm_untrusted_keys", hsm=HSM) == 0


def test_a_login_that_a_running_worker_gave_up_is_said_with_its_remedy(serve: Serve) -> None:
    server = serve("plain", tls=False)
    shim_of(server).refuse_login(0xA4)
    shim_of(server).close_sessions()
    with server.caller() as caller:
        server.eventually(lambda: caller.encrypt(b"refused").status == 500, within=5, what="InternalException")
    server.eventually(lambda: "ALARM: HSM main: no key works" in server.stderr(), within=5, what="an alarm")
    line = next(line for line in server.stderr().splitlines() if "no key works" in line)
    assert "CKR_PIN_LOCKED" in line
    assert "security officer must unlock" in line
    assert "restarted" in line


def test_nothing_is_lost_when_the_worker_that_made_a_canary_dies(serve: Serve) -> None:
    server = serve(tls=False)
    with server.caller() as caller:
        assert caller.encrypt(b"first sight").status == 200
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    server.wait_ready()
    server.round_trip()
    until_confirmed(server)


@pytest.mark.parametrize("function", ["C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue", "C_OpenSession"])
@pytest.mark.parametrize("ckr", [0x54, 0x63, 0x68, 0x70, 0x203])
def test_a_search_that_fails_blames_neither_key_nor_request(plain: ProxyServer, function: str, ckr: int) -> None:
    with plain.caller() as caller:
        sealed = caller.encrypt(b"before")
        shim_of(plain).fail(function, ckr, times=8)
        shim_of(plain).close_sessions()
        for reply in (caller.decrypt(sealed), caller.encrypt(b"good"), caller.metadata()):
            assert reply.error in ("", INTERNAL[1], TIMEOUT[1]), reply.body
