"""Which token is served, how it is logged in to, and what the library is told before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.server.proxy_server import NotReady

if TYPE_CHECKING:
    from tests.server.conftest import Serve
    from tests.server.proxy_server import ProxyServer
    from tests.shim.control import Personality, ShimControl

pytestmark = pytest.mark.server

FIRST, SECOND = 492971157, 492971159
"""Slots of two accelerators without load-sharing; the serials are their ESNs (docs/hsm-notes.md, 1.2)."""
UNSHARED = {"load_sharing": False}
LOGIN_REFUSED = 12


def shim_of(server: ProxyServer) -> ShimControl:
    """The shim's counters."""
    assert server.shim is not None
    return server.shim


@pytest.mark.parametrize(
    ("token", "serial"),
    [
        ({"slot": FIRST}, "6262-799D-D906"),
        ({"slot": SECOND}, "6262-799D-D907"),
        ({"serial": "6262-799D-D907"}, "6262-799D-D907"),
    ],
)
def test_of_tokens_with_one_label_a_slot_or_a_serial_chooses(
    serve: Serve, token: dict[str, Any], serial: str
) -> None:
    server = serve("nshield", tls=False, shim=UNSHARED, hsm={"token": token})
    server.round_trip()
    with server.caller() as caller:
        assert [entry["id"] for entry in caller.health().json["ekmFleetDetails"]] == [serial]


def test_a_label_that_two_tokens_have_is_refused_with_both_of_them(serve: Serve) -> None:
    with pytest.raises(NotReady, match=rf"(?s)ended with 7.*2 tokens have the label.*slot {FIRST}.*slot {SECOND}"):
        serve("nshield", tls=False, shim=UNSHARED, hsm={"token": {"label": "accelerator"}})


@pytest.mark.parametrize(
    ("personality", "login", "logins"),
    [
        ("plain", "user", 1),
        ("plain", "auto", 1),
        ("nshield", "none", 0),
        # The accelerator does not ask for a login, whatever the library would say to one.
        ("nshield", "auto", 0),
    ],
)
def test_a_token_is_logged_in_to_once_if_at_all_and_never_out_of(
    serve: Serve, personality: Personality, login: str, logins: int
) -> None:
    shim = {} if personality == "plain" else UNSHARED
    token = {} if personality == "plain" else {"token": {"slot": FIRST}}
    server = serve(personality, tls=False, shim=shim, hsm={"login": login, "sessions": 4, **token})
    server.round_trip()
    assert shim_of(server).calls().get("C_Login", 0) == logins
    shim_of(server).close_sessions()
    server.round_trip()
    server.stop()
    assert "C_Logout" not in shim_of(server).calls()
    assert shim_of(server).sessions == 0


def with_login(serve: Serve, **shim: Any) -> ProxyServer:
    """An nShield, not started, whose accelerator is to be logged in to."""
    server = serve("nshield", tls=False, shim=shim, autostart=False)
    server.settings["hsm"]["main"] |= {"login": "user", "pin": {"file": str(server.directory / "pin")}}
    server.write_config()
    return server


def test_a_login_that_an_accelerator_does_not_take_is_refused_with_the_remedy(serve: Serve) -> None:
    server = with_login(serve)
    with pytest.raises(NotReady, match=rf'(?s)ended with {LOGIN_REFUSED}.*Set login = "none"'):
        server.start()
    assert shim_of(server).calls()["C_Login"] == 1


def test_an_accelerator_that_pretends_takes_a_login(serve: Serve) -> None:
    server = with_login(serve, fake_login=True)
    server.start()
    server.round_trip()
    assert shim_of(server).calls()["C_Login"] >= 1


def test_without_a_login_private_keys_are_not_found_and_the_start_says_so(serve: Serve) -> None:
    server = serve("plain", tls=False, autostart=False)
    table = server.settings["hsm"]["main"]
    del table["pin"]
    table["login"] = "none"
    server.write_config()
    with pytest.raises(NotReady, match=r"(?s)ended with 7.*a private key needs a login"):
        server.start()


def test_the_environment_of_the_table_is_there_when_the_library_is_loaded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shim reads HOLDFAST_SHIM_CONTROL when it is loaded, and at no other time."""
    # The server inherits what other tests, which load the shim in this process, have set here.
    monkeypatch.delenv("HOLDFAST_SHIM_CONTROL", raising=False)
    server = serve("plain", tls=False)
    assert shim_of(server).calls()["C_Initialize"] == 1


def test_one_session_more_than_the_requests_need_is_held_open(serve: Serve) -> None:
    """The anchor: a token whose last session closes logs out."""
    server = serve("plain", tls=False, hsm={"sessions": 3, "probe_interval_s": 60})
    server.round_trip()
    assert shim_of(server).sessions == 3 + 1
