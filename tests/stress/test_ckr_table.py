"""The table of return values, row by row, as a caller meets it: the errorName, and whether the session is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import ProxyServer
from tests.stress.conftest import encrypts, shim_of, until_confirmed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server.client import Caller, Reply

pytestmark = pytest.mark.server

QUIET = {"sessions": 1, "probe_interval_s": 60}
INTERNAL = "InternalException"
INVALID_CIPHERTEXT = "InvalidCiphertextException"
INVALID_KEY_USAGE = "InvalidKeyUsageException"
UNSUPPORTED = "UnsupportedOperationException"
THROTTLING = "ThrottlingException"
TIMEOUT = "DependencyTimeoutException"
VENDOR = 0x81000071

# docs/hsm-notes.md, section 3: the code of C_Encrypt or C_Decrypt, and what Encrypt and Decrypt say.
KEPT = {
    **dict.fromkeys((0x71, 0x07), (INTERNAL, INTERNAL)),
    **dict.fromkeys((0x68, 0x63, 0x62), (INVALID_KEY_USAGE, INVALID_KEY_USAGE)),
    **dict.fromkeys((0x70, 0x54), (UNSUPPORTED, UNSUPPORTED)),
    **dict.fromkeys((0xB1, 0x02, 0x31, 0x201), (THROTTLING, THROTTLING)),
    0x203: ("InvalidStateException", "InvalidStateException"),
}
"""The session goes on; the health is not in doubt."""
BAD_CIPHERTEXT = (0x40, 0x41, 0x42, 0x20, 0x21, 0xC0)
"""Of C_Decrypt; what C_Encrypt means with them is a refusal."""
GONE = {
    # The key is found each time: no key is missing, the HSM does not work.
    **dict.fromkeys((0x60, 0x82), TIMEOUT),
    **dict.fromkeys((0xB3, 0xB0, 0x90, 0x101), INTERNAL),
}
"""Tried again once: what happens once is no error."""
LOST = {
    # Ambiguous on this profile: the health key does not decrypt either, so no ciphertext is to blame.
    **dict.fromkeys((0x06, 0x05), INTERNAL),
    # The issue, section 4: a lost HSM gives 503.
    **dict.fromkeys((0x30, 0x32, 0xE0, 0xE1, 0x190, VENDOR), TIMEOUT),
    **dict.fromkeys((0xA0, 0xA3, 0xA4), INTERNAL),
}


Quiet = Callable[[str], ProxyServer]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, tokens: Path, shim_library: Path) -> Iterator[Quiet]:
    """Servers by name, which nobody but a test disturbs."""
    with ExitStack() as stack:

        @cache
        def server(name: str) -> ProxyServer:
            directory = tmp_path_factory.mktemp(name) / "server"
            made = stack.enter_context(
                ProxyServer(directory, tokens, personality="nshield", library=shim_library, tls=False, hsm=QUIET)
            )
            until_confirmed(made)  # making a canary calls C_Decrypt too
            return made

        yield server


@pytest.fixture
def kept(quiet: Quiet) -> ProxyServer:
    """Never suspected of anything: nothing opens a session but a request."""
    return quiet("kept")


@pytest.fixture
def replaced(quiet: Quiet) -> ProxyServer:
    """Each fault happens once: its breaker is never open."""
    return quiet("replaced")


@pytest.fixture
def doubted(quiet: Quiet) -> Iterator[ProxyServer]:
    """Well before the test and well after it."""
    server = quiet("doubted")
    yield server
    shim_of(server).clear_faults()
    server.eventually(lambda: encrypts(server), within=5, what="the server is well again")


def sealed_by(server: ProxyServer, caller: Caller) -> Reply:
    """A ciphertext; a probe that met the last test's fault may have opened the breaker for a moment."""
    replies: list[Reply] = []

    def answered() -> bool:
        replies.append(caller.encrypt(b"before"))
        return replies[-1].status == 200

    server.eventually(answered, within=2, what="an Encrypt is answered")
    return replies[-1]


def failing(server: ProxyServer, caller: Caller, sealed: Reply, function: str, ckr: int) -> Reply:
    """The answer while each call of `function` fails with `ckr`."""
    shim = shim_of(server)
    shim.fail(function, ckr)
    try:
        return caller.encrypt(b"") if function.startswith("C_Encrypt") else caller.decrypt(sealed)
    finally:
        shim.succeed(function)


@pytest.mark.parametrize("ckr", KEPT, ids=hex)
def test_a_refused_call_is_told_and_keeps_its_session(kept: ProxyServer, ckr: int) -> None:
    with kept.caller() as caller:
        sealed = caller.encrypt(b"before")
        sessions = shim_of(kept).calls()["C_OpenSession"]
        told = [failing(kept, caller, sealed, function, ckr).error for function in ("C_Encrypt", "C_Decrypt")]
        assert tuple(told) == KEPT[ckr]
        assert (caller.encrypt(b"after").status, caller.decrypt(sealed).status) == (200, 200)
        assert shim_of(kept).calls()["C_OpenSession"] == sessions


@pytest.mark.parametrize("ckr", BAD_CIPHERTEXT, ids=hex)
def test_a_good_ciphertext_is_called_bad_only_if_everything_else_still_opens(doubted: ProxyServer, ckr: int) -> None:
    with doubted.caller() as caller:
        sealed = sealed_by(doubted, caller)
        shim_of(doubted).fail("C_Decrypt", ckr, times=1)
        assert caller.decrypt(sealed).status == 200
        assert failing(doubted, caller, sealed, "C_Decrypt", ckr).error in (INTERNAL, TIMEOUT)
        doubted.eventually(lambda: caller.decrypt(sealed).status == 200, within=2, what="a Decrypt is answered")


@pytest.mark.parametrize("ckr", BAD_CIPHERTEXT, ids=hex)
def test_a_ciphertext_is_called_bad_if_it_alone_does_not_open_twice(kept: ProxyServer, ckr: int) -> None:
    with kept.caller() as caller:
        sealed = caller.encrypt(b"before")
        sessions = shim_of(kept).calls()["C_OpenSession"]
        shim_of(kept).fail("C_Decrypt", ckr, times=2)
        assert caller.decrypt(sealed).error == INVALID_CIPHERTEXT
        assert caller.decrypt(sealed).status == 200
        assert shim_of(kept).calls()["C_OpenSession"] == sessions


@pytest.mark.parametrize("ckr", BAD_CIPHERTEXT, ids=hex)
def test_a_refusal_of_c_encrypt_keeps_its_session(kept: ProxyServer, ckr: int) -> None:
    with kept.caller() as caller:
        sealed = caller.encrypt(b"before")
        sessions = shim_of(kept).calls()["C_OpenSession"]
        # Spec, "Encrypt": a size that the key manager does not support.
        expected = UNSUPPORTED if ckr == 0x21 else INTERNAL
        assert failing(kept, caller, sealed, "C_Encrypt", ckr).error == expected
        assert caller.encrypt(b"after").status == 200
        assert shim_of(kept).calls()["C_OpenSession"] == sessions


@pytest.mark.parametrize("ckr", [0x05, 0x06, 0x62, 0x63, 0x68, 0x54, 0x70, 0x203], ids=hex)
@pytest.mark.parametrize("function", ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"])
def test_what_happens_once_is_no_error(replaced: ProxyServer, function: str, ckr: int) -> None:
    with replaced.caller() as caller:
        sealed = caller.encrypt(b"before")
        shim_of(replaced).fail(function, ckr, times=1)
        reply = caller.encrypt(b"again") if function.startswith("C_Encrypt") else caller.decrypt(sealed)
        assert reply.status == 200
        assert shim_of(replaced).failures_left(function) == 0


def test_a_module_that_shows_nothing_does_not_make_keys_missing(doubted: ProxyServer) -> None:
    with doubted.caller() as caller:
        sealed = sealed_by(doubted, caller)
        shim_of(doubted).find_nothing(True)
        shim_of(doubted).close_sessions()
        for reply in (caller.decrypt(sealed), caller.encrypt(b"seen"), caller.encrypt(b"never seen", key="key-2")):
            assert reply.error in (TIMEOUT, INTERNAL)
        shim_of(doubted).find_nothing(False)
        doubted.eventually(lambda: caller.decrypt(sealed).status == 200, within=5, what="a Decrypt is answered")


@pytest.mark.parametrize("ckr", BAD_CIPHERTEXT, ids=hex)
def test_before_the_ciphertext_was_looked_at_it_is_not_to_blame(kept: ProxyServer, ckr: int) -> None:
    with kept.caller() as caller:
        sealed = caller.encrypt(b"before")
        assert failing(kept, caller, sealed, "C_DecryptInit", ckr).error == INTERNAL
        assert caller.decrypt(sealed).status == 200


@pytest.mark.parametrize("function", ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"])
@pytest.mark.parametrize("ckr", GONE, ids=hex)
def test_a_session_or_handle_that_is_gone_is_replaced_and_costs_no_answer(
    replaced: ProxyServer, function: str, ckr: int
) -> None:
    with replaced.caller() as caller:
        sealed = caller.encrypt(b"before")
        shim_of(replaced).fail(function, ckr, times=1)
        reply = caller.encrypt(b"again") if function.startswith("C_Encrypt") else caller.decrypt(sealed)
        assert reply.status == 200
        assert shim_of(replaced).failures_left(function) == 0


@pytest.mark.parametrize("function", ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"])
@pytest.mark.parametrize("ckr", GONE, ids=hex)
def test_it_is_replaced_once(doubted: ProxyServer, function: str, ckr: int) -> None:
    with doubted.caller() as caller:
        sealed = sealed_by(doubted, caller)
        # Once the probe has met it too, the breaker answers.
        assert failing(doubted, caller, sealed, function, ckr).error in (GONE[ckr], TIMEOUT)
        doubted.eventually(lambda: caller.decrypt(sealed).status == 200, within=2, what="a Decrypt is answered")


@pytest.mark.parametrize("function", ["C_Encrypt", "C_Decrypt"])
@pytest.mark.parametrize("ckr", LOST, ids=hex)
def test_a_lost_device_is_told_and_its_sessions_are_opened_anew(
    doubted: ProxyServer, function: str, ckr: int
) -> None:
    with doubted.caller() as caller:
        sealed = sealed_by(doubted, caller)
        sessions = shim_of(doubted).calls()["C_OpenSession"]
        assert failing(doubted, caller, sealed, function, ckr).error in (LOST[ckr], TIMEOUT)
        doubted.eventually(lambda: caller.decrypt(sealed).status == 200, within=1, what="a Decrypt is answered")
        if LOST[ckr] == TIMEOUT:
            assert shim_of(doubted).calls()["C_OpenSession"] > sessions
